//! Verify: is everything there that the points need, and is it what was written?
//!
//! ```text
//!   roots, records ─► maps, liveness ─► segments: exist, sizes, directories agree with the maps
//!                                          sample: the bodies of some        data: all bodies
//!   faults ─► walk the maps again ─► points and byte ranges hurt ─► marks, so that the next backup stores them again
//! ```
//!
//! Owns: the levels and the run. Must not: repair, or stop at the first fault. Each segment is read once, however many points
//! share it. Memory: directories (32 MiB), map cache (32 MiB), 128 MiB of bodies being checked, and per TiB of different data about
//! 6 MiB of segment ids, sizes and leaf hashes; about 100 bytes a point and 1,024 manifests; nothing per chunk but one bit while a point's
//! liveness is checked.

mod controls;
mod findings;
pub(crate) mod maps;
mod memory;
mod segments;
mod selection;
pub mod verdict;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::budget::Failure;
use crate::pipeline::progress::Progress;
use crate::pipeline::report::VerifyReport;
use crate::repository::access::Repository;
use crate::repository::format::Decoder;
use crate::repository::ids::{SegmentId, SessionKey, random};
use crate::repository::quarantine::{Quarantine, is_refusal};
use crate::repository::segments::SegmentReader;
use crate::repository::session::reader::ReaderLease;
use findings::{Fault, Findings};
use maps::{MapCheck, Task};
use memory::Memory;
use segments::{Checker, SegmentFault};
use selection::Selection;

/// How deep a verification looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyLevel {
    /// Everything but chunks: records, maps, liveness, and that every segment exists, has its size and an intact directory.
    Metadata,
    /// And all chunks of some segments, those that were not checked for longest.
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

/// Share of the data that a sample takes unless it is told, in percent.
pub const DEFAULT_SAMPLE_PERCENT: f64 = 5.0;

/// What to verify.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// Points by id, prefix or `NAME@latest`; empty means all.
    pub points: Vec<String>,
    /// How deep.
    pub level: VerifyLevel,
    /// Share of the data at the sample level, in percent.
    pub sample_percent: f64,
}

/// Verifies points. What is wrong is in the report's `errors`; the caller must not call a report with errors a success.
///
/// Bodies found bad are marked, where the store takes marks, so that the next backup stores their chunks again.
///
/// # Errors
/// `NotFound` for an unknown point, `Interrupted` on request, and what the store answers: an unreachable store is no finding.
pub fn run(context: &Context, request: &VerifyRequest) -> Result<VerifyReport> {
    check(context, request, true).map(|(report, _)| report)
}

/// As [`run`], with the names of the points that were looked at; without `notes` nothing is marked or remembered.
pub(crate) fn check(
    context: &Context,
    request: &VerifyRequest,
    notes: bool,
) -> Result<(VerifyReport, Vec<SessionKey>)> {
    let started = Instant::now();
    memory::check_percent(request.sample_percent)?;
    let findings = Findings::default();
    let repository = &context.repository;
    let selection = Selection::new(repository, request)?;
    controls::check_repository(repository, &findings)?;
    let reader = Arc::new(SegmentReader::new(repository));
    let checker = Checker::new(context, &reader, request.level);
    let held = check_all(context, &selection, &reader, &checker, &findings)?;
    let mut warnings = held.warning();
    if request.level == VerifyLevel::Sample {
        warnings.extend(sample(context, request, &checker)?);
    }
    let (faults, map_faults, counted) = checker.finish();
    for fault in map_faults.values() {
        findings.object(&fault.object, &fault.flaw);
    }
    if !faults.is_empty() {
        maps::tell_own(&faults, &findings);
        selection.again(repository, &held.keys, &findings, &mut |points| {
            maps::attribute(context, &reader, points, &faults, &findings)
        })?;
        // Without a record of ours a collector may have removed what is missing.
        if notes {
            warnings.extend(mark(repository, &faults, held.is_whole())?);
        }
    }
    for without in &held.without_copy {
        controls::settle_copy(repository, without, &findings)?;
    }
    let (errors, untold) = findings.finish();
    if untold > 0 {
        warnings.push(format!("{untold} more findings are not listed"));
    }
    let points = held.keys.len() as u64;
    let report = VerifyReport {
        level: request.level.as_str().to_owned(),
        points,
        // Start record, slot, second copy and liveness of each point, and every segment.
        objects: counted.objects + 4 * points,
        chunks: counted.chunks,
        read_bytes: Progress::read_of(&context.progress.read),
        errors,
        warnings,
        duration_seconds: started.elapsed().as_secs_f64(),
        ..VerifyReport::default()
    };
    Ok((report, held.keys))
}

/// What was looked at, and the records that keep it in place.
#[derive(Default)]
struct Held {
    leases: Vec<ReaderLease>,
    keys: Vec<SessionKey>,
    /// Points that had no second copy, and their volumes.
    without_copy: Vec<(SessionKey, String)>,
}

impl Held {
    fn warning(&self) -> Vec<String> {
        let warnings = self.leases.iter().filter_map(ReaderLease::warning);
        warnings.take(1).map(str::to_owned).collect()
    }

    fn is_whole(&self) -> bool {
        self.leases.iter().all(ReaderLease::is_held)
    }
}

/// Checks the share of the data that was not looked at for longest, and remembers it. Gives what a person should know.
fn sample(
    context: &Context,
    request: &VerifyRequest,
    checker: &Checker<'_>,
) -> Result<Option<String>> {
    let repository = &context.repository;
    let memory = Memory::load(repository)?;
    let segments = checker.opened();
    let seed = u64::from_le_bytes(random());
    let chosen = memory.choose(&segments, request.sample_percent, seed);
    with_threads(context, checker, |emit| {
        chosen.iter().try_for_each(|id| emit(Task::Bodies(*id)))
    })?;
    let known = request.points.is_empty().then_some(&segments[..]);
    match memory.store(repository, &chosen, known) {
        Ok(()) => Ok(None),
        Err(error) if is_refusal(&error) => Ok(Some(format!(
            "the store takes no notes ({error}): the next sample does not know what this one checked, and takes what chance brings"
        ))),
        Err(error) => Err(error),
    }
}

/// Marks what was found bad, where the store lets us. Gives what a person should know.
fn mark(
    repository: &Repository,
    faults: &HashMap<SegmentId, SegmentFault>,
    is_held: bool,
) -> Result<Option<String>> {
    let mut marks = Quarantine::load(repository.store.as_ref())?;
    for (id, fault) in faults {
        if !is_held && fault.flaw.fault == Fault::Missing {
            continue;
        }
        let ordinals: Vec<u16> = fault.ordinals.iter().copied().collect();
        let ordinals = (!fault.whole).then_some(&ordinals[..]);
        match marks.mark(repository, *id, ordinals, &fault.flaw.why) {
            Ok(_) => {}
            Err(error) if is_refusal(&error) => {
                return Ok(Some(format!(
                    "the store takes no marks ({error}): the next backup does not know what to store again; verify with an account that may write"
                )));
            }
            Err(error) => return Err(error),
        }
    }
    repository.store.sync()?;
    Ok(None)
}

/// Checks records and maps of all points while other threads check the segments they name.
fn check_all(
    context: &Context,
    selection: &Selection,
    reader: &Arc<SegmentReader>,
    checker: &Checker<'_>,
    findings: &Findings,
) -> Result<Held> {
    with_threads(context, checker, |emit| {
        let mut maps = MapCheck::new(context, reader, findings, emit);
        let mut held = Held::default();
        selection.hold(context, findings, &mut |points, lease| {
            let sizes = points.iter().map(|point| point.manifest.size);
            let size = sizes.fold(0, u64::saturating_add);
            Progress::add(&context.progress.total, size);
            held.leases.push(lease);
            for point in points {
                let (liveness, copy_is_missing) =
                    controls::check_point(&context.repository, point, findings)?;
                if copy_is_missing {
                    let volume = point.manifest.volume.clone();
                    held.without_copy.push((point.key, volume));
                }
                maps.point(point, liveness.as_ref())?;
                held.keys.push(point.key);
            }
            Ok(())
        })?;
        Ok(held)
    })
}

/// Runs `work`, whose tasks other threads take; returns when all are done.
fn with_threads<T>(
    context: &Context,
    checker: &Checker<'_>,
    work: impl FnOnce(&mut dyn FnMut(Task) -> Result<()>) -> Result<T>,
) -> Result<T> {
    let failure = Failure::default();
    let chunk_size = u64::from(context.repository.config.chunk_size);
    let threads = checker.threads();
    let (tasks, tasks_out) = bounded::<Task>(threads);
    let done = std::thread::scope(|scope| {
        for _ in 0..threads {
            let tasks = tasks_out.clone();
            let failure = &failure;
            scope.spawn(move || check_segments(checker, &tasks, chunk_size, failure));
        }
        drop(tasks_out);
        let done = work(&mut |task| {
            let sent = tasks.send(task).is_ok() && !failure.is_failed();
            sent.then_some(()).ok_or_else(|| {
                Error::new(
                    ErrorKind::Internal,
                    "go on: a thread that checks segments ended early",
                )
            })
        });
        drop(tasks);
        done
    });
    match failure.take() {
        Some(error) => Err(error),
        None => done,
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
            Task::Map(id) => checker.map(id),
            Task::Bodies(id) => checker.bodies(&mut decoder, id),
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
