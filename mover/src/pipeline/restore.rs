//! Restore: a point, or a part of it, becomes a file, a device or a stream.
//!
//! ```text
//!   map ─► windows of 8 GiB ─► segments ─► ranged GETs ─► decrypt, decompress, digest ─► direct writes, out of order
//!                                                  (a stream, or a range that moves against the alignment: in order)
//!   ─► first chunk, flush ─► read samples back ─► name
//! ```
//!
//! Owns: the request, the choice of the way, and the checked end. Must not: refuse targets (`device::target` does) or print.
//!
//! Invariant: the first chunk is written, and a new file gets its name, only after every other byte was accounted for and
//! flushed. A byte that was not checked against its digest is never written.
//!
//! Memory: 128 MiB of fetched bytes, 32 MiB of write buffers (twice with `--delta`), 64 MiB of map and directory caches and
//! the plan of one window (8 MiB), whatever the size of the point.

mod bad;
mod budget;
mod content;
mod decode;
mod delta;
mod direct;
mod failure;
mod fetch;
mod geometry;
mod job;
pub(crate) mod losses;
pub(crate) mod ordered;
mod output;
pub(crate) mod parts;
pub(crate) mod plan;
mod proof;
pub(crate) mod ranges;
mod readback;
mod runs;
pub(crate) mod sample;
mod stream;
mod writer;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::device::queue::{EngineChoice, QueueOptions};
use crate::device::rbd::RbdTarget;
use crate::device::received::ReceivedDevice;
use crate::device::target::{Target, TargetOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::report::RestoreReport;
use crate::repository::ids::random;
use crate::repository::session::points::{Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::Kind;
use crate::repository::session::resolve::resolve;
use crate::repository::store::url::StoreUrl;
use content::Walked;
use direct::Direct;
use geometry::Geometry;
use job::Job;
use losses::Losses;
use ordered::Part;
use output::Output;
pub use proof::test;
use stream::{Blocks, Pipe};

/// Writes in flight: enough for a networked disk, 32 MiB of buffers.
const WRITE_DEPTH: usize = 32;

/// Where a restore goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSpec {
    /// A file, made sparse and exactly as long as what is restored, or a block device.
    Path(PathBuf),
    /// An RBD image that exists, `rbd:POOL[/NAMESPACE]/IMAGE`.
    Rbd(String),
    /// A block device that somebody else opened for it, and what it is called.
    Received(ReceivedDevice, PathBuf),
    /// Standard output, in order, zeros included.
    Stdout,
}

/// A restore of one point to one target.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// Id, unique prefix of one, or `NAME@latest`.
    pub point: String,
    /// Where it goes.
    pub target: TargetSpec,
    /// Whether a target that holds something may be overwritten.
    pub force: bool,
    /// Whether the target is compared first and only what differs is written.
    pub delta: bool,
    /// Offset and length of a part. The target then holds just these bytes, the first of them at its offset 0.
    pub range: Option<(u64, u64)>,
    /// Whether damage is left as zeros and reported, instead of ending the restore.
    pub salvage: bool,
    /// How the target is written.
    pub engine: EngineChoice,
    /// Whether a point that was forgotten, but not collected yet, may be read.
    pub forgotten: bool,
}

/// Restores a point. With `salvage`, the report's `lost` says what could not be: the caller must not call that a success.
///
/// # Errors
/// `InvalidRequest` where the target is refused, the range lies outside, or flags do not fit together; `NotFound` for an unknown
/// point; `Corrupt` with object, point and byte range where stored data is damaged; `Io` or `NoSpace` where the target fails;
/// `Interrupted` on request. After any error the target does not look complete; `--delta` goes on from there.
pub fn run(context: &Context, request: &RestoreRequest) -> Result<RestoreReport> {
    let started = Instant::now();
    check_flags(request)?;
    let point = resolve(&context.repository, &request.point)?;
    let geometry = Geometry::new(
        point.manifest.size,
        point.manifest.chunk_size,
        request.range,
    )?;
    if request.delta && !geometry.is_chunk_aligned() {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "compare a target with a range that begins at {}",
                geometry.range().start
            ),
        )
        .hint(format!(
            "with --delta, give an OFF that is a multiple of {}",
            geometry.chunk_size()
        )));
    }
    let lease = lease(context, request, &point)?;
    let mut warnings: Vec<String> = lease.warning().map(str::to_owned).into_iter().collect();
    if let PointStatus::Damaged(why) = &point.status {
        warnings.push(format!(
            "the point is damaged and was read through its second copy: {why}"
        ));
    }
    if point.status == PointStatus::Forgotten {
        warnings.push("the point is forgotten: gc will remove it".to_owned());
    }
    context
        .progress
        .total
        .store(geometry.len(), Ordering::Relaxed);
    let losses = Losses::new(request.salvage, point.id().to_string(), geometry.clone());
    let job = Job::new(context, geometry, losses);
    let bad = Arc::clone(&job.bad);
    let seed = u64::from_le_bytes(random());
    let restore = Restore {
        point: &point,
        request,
        seed,
    };
    let report = match &request.target {
        TargetSpec::Stdout => restore.to_stream(job, stream::standard_output()?),
        TargetSpec::Path(path) => {
            let target = Target::open(path, &restore.target_options(&job))?;
            restore.to_target(job, target, path)
        }
        TargetSpec::Received(device, name) => {
            let target = Target::received(device, name, &restore.target_options(&job))?;
            restore.to_target(job, target, name)
        }
        TargetSpec::Rbd(name) => {
            let target = RbdTarget::open(name, &restore.target_options(&job))?;
            restore.to_output(job, &target, name)
        }
    };
    let is_forgotten = point.status == PointStatus::Forgotten;
    if !is_forgotten {
        // What a collector took from a forgotten point is no damage.
        bad.mark(&context.repository, lease.is_held());
    }
    let mut report = report.map_err(|error| name_vanished(error, &lease, is_forgotten))?;
    warnings.append(&mut report.warnings);
    Ok(RestoreReport {
        warnings,
        duration_seconds: started.elapsed().as_secs_f64(),
        ..report
    })
}

fn check_flags(request: &RestoreRequest) -> Result<()> {
    if request.target == TargetSpec::Stdout && request.delta {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "compare standard output with the point",
        )
        .hint("leave --delta out, or give a file or device"));
    }
    Ok(())
}

/// Pins the point. One that was forgotten is read only if the user knows.
fn lease(context: &Context, request: &RestoreRequest, point: &Point) -> Result<ReaderLease> {
    if point.status != PointStatus::Forgotten {
        return ReaderLease::take(&context.repository, Kind::Restore, &[point]);
    }
    if !request.forgotten {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("use point {}: it was forgotten", point.id()),
        )
        .object(point.id())
        .hint("--forgotten restores it all the same, as long as gc has not removed it"));
    }
    ReaderLease::take_forgotten(&context.repository, Kind::Restore, &[point])
}

/// What is gone was removed by a collector if the point was forgotten or the store refused our record, and is lost otherwise.
fn name_vanished(error: Error, lease: &ReaderLease, is_forgotten: bool) -> Error {
    let is_missing = crate::repository::segments::is_missing(&error);
    // A collector may also have taken single chunks out of a segment, which reads as damage.
    if is_forgotten && (is_missing || error.kind() == ErrorKind::Corrupt) {
        return error
            .context("read a forgotten point: gc has removed it, or a part of it")
            .hint("choose another point; what gc removed cannot be restored");
    }
    if !lease.is_held() && is_missing {
        return error
            .context("read an object that is gone: it may have been removed by gc while reading")
            .hint("the store refuses reader records, which protect from that: choose a newer point and run no gc meanwhile");
    }
    error
}

/// The parts of a restore that do not change.
struct Restore<'a> {
    point: &'a Point,
    request: &'a RestoreRequest,
    seed: u64,
}

impl Restore<'_> {
    fn target_options(&self, job: &Job<'_>) -> TargetOptions {
        let url = job.context.repository.store.url();
        TargetOptions {
            force: self.request.force,
            delta: self.request.delta,
            size: job.geometry.len(),
            chunk_size: self.point.manifest.chunk_size,
            repository_path: directory_of(&url),
        }
    }

    fn queue_options(&self, job: &Job<'_>) -> QueueOptions {
        QueueOptions {
            depth: WRITE_DEPTH,
            buffer_len: direct::buffer_len(job.geometry.chunk_size()),
            engine: self.request.engine,
        }
    }

    /// Into anything that takes bytes in order.
    fn to_stream(&self, job: Job<'_>, stream: impl Write + Send) -> Result<RestoreReport> {
        let mut pipe = Pipe::new(stream);
        let mut walked = Walked::default();
        ordered::run(&job, &mut pipe, |sink| {
            let items = &mut |item| sink(Part::Item(item));
            walked = content::walk(&job, self.point, self.seed, items)?;
            Ok(())
        });
        if job.failure.goes_on() {
            job.failure.note(pipe.finish());
        }
        let report = self.report(&job, "-", walked);
        job.failure.into_result()?;
        check_sum(&report)?;
        Ok(report)
    }

    /// Into a file or device, which looks complete only at the very end.
    fn to_target(&self, job: Job<'_>, target: Target, path: &Path) -> Result<RestoreReport> {
        let mut report = self.to_output(job, &target, &path.display().to_string())?;
        report.warnings.extend(target.warnings());
        target.finish(None)?;
        Ok(report)
    }

    /// Everything up to the checked end. A failure of any thread ends here.
    fn to_output(&self, job: Job<'_>, output: &dyn Output, name: &str) -> Result<RestoreReport> {
        let walked = if job.geometry.is_chunk_aligned() {
            let direct = Direct {
                point: self.point,
                delta: self.request.delta,
                queue: self.queue_options(&job),
                seed: self.seed,
            };
            direct::run(&job, output, &direct)
        } else {
            self.in_blocks(&job, output)?
        };
        let samples = walked.samples.clone();
        let report = self.report(&job, name, walked);
        if job.failure.goes_on() {
            // Nothing may make the target look complete before every byte is accounted for.
            let first_chunk = job.take_first_chunk(output);
            let settled = check_sum(&report)
                .and_then(|()| output.settle(first_chunk.as_deref()))
                .and_then(|()| readback::check(&job, output, name, &samples));
            job.failure.note(settled);
        }
        job.failure.into_result().map(|()| report)
    }

    /// A range that begins inside a chunk: its bytes are moved, in order.
    fn in_blocks(&self, job: &Job<'_>, output: &dyn Output) -> Result<Walked> {
        let (options, chunk_size) = (self.queue_options(job), job.geometry.chunk_size());
        job.protect(output)?;
        let mut blocks = Blocks::new(output, &options, chunk_size, job.geometry.len())?;
        let mut walked = Walked::default();
        ordered::run(job, &mut blocks, |sink| {
            let items = &mut |item| sink(Part::Item(item));
            walked = content::walk(job, self.point, self.seed, items)?;
            Ok(())
        });
        if job.failure.goes_on() {
            match blocks.finish() {
                Ok(Some(first)) => job.hold_first_chunk(first),
                Ok(None) => {}
                Err(error) => job.failure.set(error),
            }
        }
        Ok(walked)
    }

    fn report(&self, job: &Job<'_>, target: &str, walked: Walked) -> RestoreReport {
        let (written_bytes, zero_bytes, skipped_bytes) = job.counts.totals();
        RestoreReport {
            point: self.point.id().to_string(),
            target: target.to_owned(),
            size_bytes: job.geometry.len(),
            written_bytes,
            zero_bytes,
            skipped_bytes,
            lost: job.losses.ranges(),
            warnings: walked.warnings,
            duration_seconds: 0.0,
        }
    }
}

/// The directory that a repository is in, if it is in one: nothing in there is a target.
fn directory_of(url: &str) -> Option<PathBuf> {
    match url.parse() {
        Ok(StoreUrl::Directory(path)) => Some(path),
        _ => None,
    }
}

/// Every byte was written, is zero (lost ones included) or was right already.
fn check_sum(report: &RestoreReport) -> Result<()> {
    let sum = report.written_bytes + report.zero_bytes + report.skipped_bytes;
    if sum == report.size_bytes {
        return Ok(());
    }
    let message = format!(
        "account for {} bytes of the target: {sum} were written, zero or skipped",
        report.size_bytes
    );
    Err(Error::new(ErrorKind::Internal, message)
        .object(&report.target)
        .hint("report this with the point's id"))
}

#[cfg(test)]
mod tests;
