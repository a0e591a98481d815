//! The restore test: a whole restore whose target is the content hash of the point.
//!
//! ```text
//!   map ─► segments ─► decode ─► bytes in order ─► digest of each chunk ─► tree of content hashes ─► equal to the manifest's?
//! ```
//!
//! Owns: that target and the comparison. Must not: take a digest from the map: each is made anew from the bytes that a target would get.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::content;
use super::geometry::Geometry;
use super::job::Job;
use super::losses::Losses;
use super::ordered::{self, ByteSink, Part};
use crate::device::buffer::is_zero;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::progress::Progress;
use crate::pipeline::report::{VerifyFinding, VerifyReport};
use crate::repository::ids::{name, to_hex};
use crate::repository::map::ContentTree;
use crate::repository::session::points::{Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::Kind;
use crate::repository::session::resolve::resolve;

/// Restores a point to nowhere. What is lost or differs is in the report's `errors`.
///
/// # Errors
/// `NotFound` for an unknown point, `Interrupted` on request, and what the store answers.
pub fn test(context: &Context, text: &str) -> Result<VerifyReport> {
    let started = Instant::now();
    let point = resolve(&context.repository, text)?;
    let manifest = &point.manifest;
    let geometry = Geometry::new(manifest.size, manifest.chunk_size, None)?;
    let lease = ReaderLease::take(&context.repository, Kind::Verify, &[&point])?;
    let mut warnings: Vec<String> = lease.warning().map(str::to_owned).into_iter().collect();
    if let PointStatus::Damaged(why) = &point.status {
        warnings.push(format!(
            "the point is damaged and was read through its second copy: {why}"
        ));
    }
    context
        .progress
        .total
        .store(manifest.size, Ordering::Relaxed);
    let losses = Losses::new(true, point.id().to_string(), geometry.clone());
    let job = Job::new(context, geometry, losses);
    let mut sink = HashSink::new(&job);
    ordered::run(&job, &mut sink, |parts| {
        let items = &mut |item| parts(Part::Item(item));
        content::walk(&job, &point, 0, items).map(|walked| warnings.extend(walked.warnings))
    });
    job.bad.mark(&context.repository, lease.is_held());
    let (chunks, bytes) = (sink.chunks, sink.bytes);
    let root = sink.tree.finish(manifest.root.depth - 1).unwrap_or([0; 16]);
    let keys = &context.repository.keys;
    let hash = keys.content_hash(manifest.size, manifest.chunk_size, root);
    let mut errors = lost(&job, &point);
    job.failure.into_result()?;
    if bytes != manifest.size {
        let message = format!("put together {} bytes: {bytes} came", manifest.size);
        return Err(Error::new(ErrorKind::Internal, message).object(point.id()));
    }
    if hash != manifest.content_hash && errors.is_empty() {
        errors.push(differs(&point));
    }
    Ok(VerifyReport {
        level: "restore-test".to_owned(),
        points: 1,
        objects: 0,
        chunks,
        read_bytes: Progress::read_of(&context.progress.read),
        restored_bytes: bytes,
        content_hash: Some(to_hex(&hash)),
        errors,
        warnings,
        duration_seconds: started.elapsed().as_secs_f64(),
    })
}

/// One finding for each reason of a loss.
fn lost(job: &Job<'_>, point: &Point) -> Vec<VerifyFinding> {
    let mut findings: Vec<VerifyFinding> = Vec::new();
    for range in job.losses.ranges() {
        let bytes = (range.offset, range.length);
        match findings
            .iter_mut()
            .find(|finding| finding.message.starts_with(&range.why))
        {
            Some(finding) => finding.ranges.push(bytes),
            None => findings.push(VerifyFinding {
                kind: "lost".to_owned(),
                object: object_in(&range.why).unwrap_or_else(|| name::slot(&point.key)),
                message: format!(
                    "{}; the next backup of the volume stores it again, `snaphaul restore --salvage` saves the rest",
                    range.why
                ),
                volume: Some(point.manifest.volume.clone()),
                points: vec![point.id().to_string()],
                ranges: vec![bytes],
            }),
        }
    }
    findings
}

/// The object that a reason names in brackets.
fn object_in(why: &str) -> Option<String> {
    let prefixes = [name::SEG, name::MAP];
    let at = prefixes
        .iter()
        .filter_map(|prefix| why.find(prefix))
        .min()?;
    let rest = &why[at..];
    let end = rest.find([')', '`', ':', '#', ' ']).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

fn differs(point: &Point) -> VerifyFinding {
    VerifyFinding {
        kind: "damaged".to_owned(),
        object: name::slot(&point.key),
        message: "match what a restore gives with the content hash of the manifest: they differ although every chunk is intact; \
                  choose another point, and report this"
            .to_owned(),
        volume: Some(point.manifest.volume.clone()),
        points: vec![point.id().to_string()],
        ranges: Vec::new(),
    }
}

/// Hashes the bytes of a whole point, chunk by chunk.
struct HashSink<'a, 'j> {
    job: &'a Job<'j>,
    tree: ContentTree,
    /// Bytes so far; every call but the last ends at a chunk.
    bytes: u64,
    chunks: u64,
}

impl<'a, 'j> HashSink<'a, 'j> {
    fn new(job: &'a Job<'j>) -> Self {
        Self {
            job,
            tree: ContentTree::new(&job.context.repository.keys),
            bytes: 0,
            chunks: 0,
        }
    }
}

impl ByteSink for HashSink<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let chunk_size = self.job.geometry.chunk_size();
        if !self.bytes.is_multiple_of(chunk_size) || bytes.len() as u64 > chunk_size {
            return Err(Error::new(
                ErrorKind::Internal,
                "hash a chunk that begins inside another",
            ));
        }
        // A chunk of zeros is none in the map, however it came.
        if !is_zero(bytes) {
            let digest = self.job.context.repository.keys.digest(bytes);
            self.tree.chunk(self.bytes / chunk_size, &digest);
        }
        self.chunks += 1;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> Result<()> {
        self.bytes += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::{Bed, Layout, flip, image};

    #[test]
    fn an_intact_point_gives_its_content_hash() {
        let bed = Bed::new();
        for (volume, image) in [
            ("odd", image(300, 77, 1)),
            ("empty", Vec::new()),
            ("zero", vec![0; 700_000]),
            ("deep", image(70, 0, 2)),
        ] {
            bed.point(
                volume,
                &image,
                Layout {
                    spread: 3,
                    ..Layout::default()
                },
            );
            let report = test(&bed.context(), &format!("{volume}@latest")).unwrap();
            assert_eq!(report.errors, [], "{volume}");
            assert_eq!(report.restored_bytes, image.len() as u64);
            let point = resolve(&bed.repository, &format!("{volume}@latest")).unwrap();
            let expected = to_hex(&point.manifest.content_hash);
            assert_eq!(report.content_hash, Some(expected), "{volume}");
        }
    }

    #[test]
    fn damage_is_a_finding_with_its_object_and_ranges() {
        let bed = Bed::new();
        bed.point("disk", &image(60, 0, 3), Layout::default());
        let object = bed.objects("seg/").remove(0);
        let len = std::fs::metadata(bed.object(&object)).unwrap().len();
        flip(&bed.object(&object), len - 5);
        let report = test(&bed.context(), "disk@latest").unwrap();
        assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
        assert_eq!(report.errors[0].object, object);
        assert!(!report.errors[0].ranges.is_empty());
        assert_eq!(bed.objects(name::QUARANTINE).len(), 1, "it is marked");
    }
}
