//! Verify: is everything there that the points need, and is it what was written?
//!
//! ```text
//!   roots, records ─► maps, liveness ─► segments: exist, sizes, directories agree with the maps
//!                                          sample: a few bodies of each        data: all bodies
//!   faults ─► walk the maps again ─► points and byte ranges hurt
//! ```
//!
//! Owns: the levels and the run. Must not: repair, or stop at the first fault. Each object is read once, however many points
//! share it. Memory: directories (32 MiB), map cache (32 MiB), 128 MiB of bodies being checked, and per TiB of different data about
//! 6 MiB of segment ids, sizes and leaf hashes; nothing per chunk but one bit while a point's liveness is checked.

mod controls;
mod findings;
mod maps;
mod segments;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::budget::Failure;
use crate::pipeline::progress::Progress;
use crate::pipeline::report::VerifyReport;
use crate::repository::format::Decoder;
use crate::repository::ids::{name, random};
use crate::repository::segments::SegmentReader;
use crate::repository::session::points::{self, Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::Kind;
use crate::repository::session::resolve::resolve;
use findings::{Fault, Findings};
use maps::{MapCheck, Task};
use segments::Checker;

/// How deep a verification looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyLevel {
    /// Everything but chunks: records, maps, liveness, and that every segment exists, has its size and an intact directory.
    Metadata,
    /// And a few chunks of every segment.
    Sample,
    /// And all chunks.
    Data,
}

impl VerifyLevel {
    /// Stable name in flags and JSON output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Sample => "sample",
            Self::Data => "data",
        }
    }
}

impl FromStr for VerifyLevel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Metadata, Self::Sample, Self::Data]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidRequest,
                    format!("parse `{text}` as a level"),
                )
                .hint("say metadata, sample or data")
            })
    }
}

/// What to verify.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// Points by id, prefix or `NAME@latest`; empty means all.
    pub points: Vec<String>,
    /// How deep.
    pub level: VerifyLevel,
}

/// Verifies points. What is wrong is in the report's `errors`; the caller must not call a report with errors a success.
///
/// # Errors
/// `NotFound` for an unknown point, `Interrupted` on request, and what the store answers: an unreachable store is no finding.
pub fn run(context: &Context, request: &VerifyRequest) -> Result<VerifyReport> {
    let started = Instant::now();
    let findings = Findings::default();
    let selected = select(context, request, &findings)?;
    let pins: Vec<&Point> = selected.iter().collect();
    let lease = ReaderLease::take(&context.repository, Kind::Verify, &pins)?;
    let sizes = selected.iter().map(|point| point.manifest.size);
    context
        .progress
        .total
        .store(sizes.fold(0, u64::saturating_add), Ordering::Relaxed);
    controls::check_repository(&context.repository, &findings)?;
    let reader = Arc::new(SegmentReader::new(&context.repository));
    let checker = Checker::new(
        context,
        &reader,
        request.level,
        u64::from_le_bytes(random()),
    );
    let without_copy = check_all(context, &selected, &reader, &checker, &findings)?;
    let (faults, map_faults, counted) = checker.finish();
    for fault in map_faults.values() {
        findings.object(&fault.object, fault.fault);
    }
    if !faults.is_empty() {
        maps::attribute(context, &reader, &selected, &faults, &findings)?;
    }
    for at in without_copy {
        controls::settle_copy(&context.repository, &selected[at], &findings)?;
    }
    Ok(VerifyReport {
        level: request.level.as_str().to_owned(),
        points: selected.len() as u64,
        // Start record, slot, second copy and liveness of each point, and every segment.
        objects: counted.objects + 4 * selected.len() as u64,
        chunks: counted.chunks,
        read_bytes: Progress::read_of(&context.progress.read),
        errors: findings.finish(),
        warnings: lease.warning().map(str::to_owned).into_iter().collect(),
        duration_seconds: started.elapsed().as_secs_f64(),
    })
}

/// The points to look at. Points that are lost, in part or whole, are findings.
fn select(context: &Context, request: &VerifyRequest, findings: &Findings) -> Result<Vec<Point>> {
    let repository = &context.repository;
    if !request.points.is_empty() {
        return request
            .points
            .iter()
            .map(|text| resolve(repository, text))
            .collect();
    }
    let listing = points::list(repository, None)?;
    for (key, error) in listing.unreadable {
        let Some(fault) = Fault::of(&error) else {
            return Err(error);
        };
        findings.hurts_named(
            &name::slot(&key),
            fault,
            ("", &key.point().to_string()),
            None,
        );
    }
    Ok(listing
        .points
        .into_iter()
        .filter(|point| point.status != PointStatus::Forgotten)
        .collect())
}

/// Checks records and maps of all points while other threads check the segments they name. Gives the points that have no second
/// copy.
fn check_all(
    context: &Context,
    points: &[Point],
    reader: &Arc<SegmentReader>,
    checker: &Checker<'_>,
    findings: &Findings,
) -> Result<Vec<usize>> {
    let failure = Failure::default();
    let chunk_size = u64::from(context.repository.config.chunk_size);
    let threads = checker.threads();
    let (tasks, tasks_out) = bounded::<Task>(threads);
    let without_copy = std::thread::scope(|scope| {
        for _ in 0..threads {
            let tasks = tasks_out.clone();
            let failure = &failure;
            scope.spawn(move || check_segments(checker, &tasks, chunk_size, failure));
        }
        drop(tasks_out);
        let mut emit = |task| {
            let sent = tasks.send(task).is_ok() && !failure.is_failed();
            sent.then_some(()).ok_or_else(|| {
                Error::new(
                    ErrorKind::Internal,
                    "go on: a thread that checks segments ended early",
                )
            })
        };
        let mut maps = MapCheck::new(context, reader, findings, &mut emit);
        let mut without_copy = Vec::new();
        for (at, point) in points.iter().enumerate() {
            let (liveness, copy_is_missing) =
                controls::check_point(&context.repository, point, findings)?;
            if copy_is_missing {
                without_copy.push(at);
            }
            maps.point(point, liveness.as_ref())?;
        }
        drop(tasks);
        Ok(without_copy)
    });
    match failure.take() {
        Some(error) => Err(error),
        None => without_copy,
    }
}

fn check_segments(
    checker: &Checker<'_>,
    tasks: &Receiver<Task>,
    chunk_size: u64,
    failure: &Failure,
) {
    let mut decoder = Decoder::new();
    while let Ok(task) = tasks.recv() {
        let checked = match task {
            Task::Map(id) => checker.map(&mut decoder, id),
            Task::Data(job, size) => {
                let chunk_len = |chunk: u64| {
                    size.saturating_sub(chunk.saturating_mul(chunk_size))
                        .min(chunk_size)
                };
                checker.data(&mut decoder, &job, &chunk_len)
            }
        };
        if let Err(error) = checked {
            return failure.record(error);
        }
    }
}

#[cfg(test)]
mod tests;
