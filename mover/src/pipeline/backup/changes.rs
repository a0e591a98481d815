//! Whether a backup reads only what changed: against what, on whose word, and why not.
//!
//! ```text
//!   who may be asked ─► may anybody? ─► trusted so far? ─► source bound to its base ─► whole answer ─► chunks to read
//!    `candidates`         `gate`            │ any doubt          │ any doubt  `delta`     │ any doubt
//!                           │               └────────────────────┴───────────────────────┴──► `full`: what is allocated
//!                           └── live, caught before, due ──► everything, and nobody is asked
//! ```
//!
//! Owns: the decision and its reason. Must not: read data, or know a storage (`changed_blocks` does).
//!
//! An answer is taken in whole before anything is read: one that breaks off costs nothing but a full read.

mod candidates;
mod decision;
mod delta;
pub mod environment;
mod full;
mod gate;
pub mod history;
pub mod lie;
pub mod recheck;
mod refusal;
pub mod verdict;

use std::time::{SystemTime, UNIX_EPOCH};

use changed_blocks::{ChunkSet, Identity};

use super::plan::Geometry;
use super::request::{BackupRequest, ChangedBlocksChoice};
use crate::device::source::{Blocks, SourceDevice};
use crate::error::Result;
use crate::pipeline::progress::{Progress, StopFlag};
use crate::repository::session::points::Point;
use candidates::Candidates;
use decision::Decision;
use environment::Environment;
use gate::Standing;
use history::History;
use lie::Again;
use recheck::Recheck;
use verdict::{Verdict, cut, in_one_line};

/// Name of the source that asks a file's own file system.
const HOLE_MAP: &str = "hole-map";
/// Record that names who needs what the point was made from to tell what changed since (rule R16).
const NEEDS_BASE: &str = "base-needed-by";

/// How the source of a backup is read, decided before the first byte.
#[derive(Debug)]
pub struct Reading {
    /// What is asked.
    pub mode: Mode,
    /// Name of who answers, for people and metrics.
    pub name: &'static str,
    /// What names the target for who answers, in one line.
    pub target: String,
    /// Whether holes are told by the file system of the very file, which cannot forget any.
    pub is_of_the_file: bool,
    /// Whether ranges that were discarded may read as anything: a chunk that differs is stored, and is no lie (rule R15).
    pub discard_unstable: bool,
    /// Why this way.
    pub reason: String,
    /// What the point records for the next one.
    pub records: Vec<(String, String)>,
    /// Who can tell what changed since this point only as long as what it is made from exists.
    pub base_needed_by: Option<&'static str>,
    /// Who was caught in this run.
    pub caught: Option<Verdict>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl Reading {
    /// The records of the point, with how far the round over the whole volume came. A `fuzzy` point is no base, so that only
    /// what is known of the sources stays.
    #[must_use]
    pub fn records_at_end(&self, fuzzy: bool) -> Vec<(String, String)> {
        let mut records = self.records.clone();
        records.retain(|(key, _)| !fuzzy || History::is_record(key));
        if let Mode::Delta(delta) = &self.mode {
            History::roll(&mut records, delta.recheck.rolled_to());
        }
        records
    }

    /// What the random samples follow from, where there are any: with the point it was taken against, the same run can be
    /// made again.
    #[must_use]
    pub fn sample_seed(&self) -> Option<String> {
        let seed = match &self.mode {
            Mode::Delta(delta) => delta.recheck.seed(),
            Mode::Claimed(claim) => claim.seed,
            Mode::Allocated | Mode::Known => return None,
        };
        Some(format!("{seed:016x}"))
    }
}

/// What a backup asks of its source.
#[derive(Debug)]
pub enum Mode {
    /// What may hold anything but zeros, by who cannot forget any: the file system of a file, or because everything is read.
    Allocated,
    /// What may hold anything but zeros, by somebody else, and chunks outside that are read to see whether it is true.
    Claimed(Claim),
    /// What differs from the parent, by somebody who cannot be wrong: a point of another repository.
    Known,
    /// What differs from the parent, and chunks outside that are read to see whether it is true.
    Delta(Delta),
}

/// What is said to be all that holds anything but zeros.
#[derive(Debug)]
pub struct Claim {
    /// Chunks that may.
    pub chunks: ChunkSet,
    /// Others that are read as well.
    pub samples: ChunkSet,
    /// What these follow from.
    pub seed: u64,
}

/// An answer in whole.
#[derive(Debug)]
pub struct Delta {
    /// Chunks that may differ.
    pub chunks: ChunkSet,
    /// Which others are read as well.
    pub recheck: Recheck,
}

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is read.
    pub source: &'a dyn SourceDevice,
    /// What was asked for.
    pub request: &'a BackupRequest,
    /// What the new point builds on.
    pub parent: Option<&'a Point>,
    /// The newest points of the volume, be one the parent or not: they know who was caught. Runs at the same time make several.
    pub newest: &'a [Point],
    /// Size of the volume and its chunks.
    pub geometry: Geometry,
    /// Why an earlier try of this very run was given up.
    pub again: Option<&'a Again>,
    /// Asked to stop.
    pub stop: &'a StopFlag,
    /// Who waits sees that the source answers.
    pub progress: &'a Progress,
}

/// Decides how the source is read, and asks it for its answer.
///
/// # Errors
/// `InvalidRequest` where a source is asked for that this volume does not have; `Unavailable`, `Io` where the source gives up.
pub fn decide(question: &Question<'_>) -> Result<(Reading, Blocks)> {
    if question.request.changed_blocks == ChangedBlocksChoice::Delta {
        return known(question.source);
    }
    let has = question.source.delta_sources();
    // Whoever is asked now, the next run may want to compare.
    let named: Vec<_> = has
        .found
        .iter()
        .filter_map(|source| Some((source.capabilities(), source.identity()?)))
        .collect();
    let base_needed_by = named
        .iter()
        .find(|(can, _)| can.needs_base)
        .map(|(can, _)| can.name);
    let identities: Vec<_> = named
        .iter()
        .flat_map(|(_, record)| record.pairs())
        .collect();
    // The backend is the same whoever is asked.
    let environment = Environment::current(&identities);
    let (now, history) = (now(), standing_history(question));
    let standing = Standing {
        history: history.as_ref(),
        environment: &environment,
        now,
    };
    let Decision {
        mode,
        blocks,
        reason,
        warnings,
        caught,
    } = Decision::of(question, Candidates::choose(question, has)?, standing)?;
    let name = blocks.capabilities().name;
    let before = history.unwrap_or_else(|| History::beginning(now));
    let after = match &mode {
        Mode::Delta(_) => before.after_delta(name, &environment),
        Mode::Claimed(_) => before.after_claim(&environment),
        Mode::Allocated | Mode::Known => before.after_full(now, &environment),
    };
    let after = match &caught {
        Some(verdict) => after.with_verdict(verdict.clone()),
        None => after,
    };
    let needs = base_needed_by.map(|name| (NEEDS_BASE.to_owned(), name.to_owned()));
    let reading = Reading {
        name,
        target: in_one_line(blocks.identity().as_ref()),
        is_of_the_file: question.source.has_hole_map() && name == HOLE_MAP,
        discard_unstable: blocks.capabilities().discard_unstable,
        mode,
        reason: cut(&reason),
        records: identities
            .into_iter()
            .chain(needs)
            .chain(after.pairs())
            .collect(),
        base_needed_by,
        caught,
        warnings,
    };
    Ok((reading, blocks))
}

fn known(source: &dyn SourceDevice) -> Result<(Reading, Blocks)> {
    let blocks = source.hole_map()?;
    let reading = Reading {
        name: blocks.capabilities().name,
        target: String::new(),
        is_of_the_file: false,
        discard_unstable: false,
        mode: Mode::Known,
        reason: "the source tells what differs from the parent".to_owned(),
        records: Vec::new(),
        base_needed_by: None,
        caught: None,
        warnings: Vec::new(),
    };
    Ok((reading, blocks))
}

/// The records of what is built on, else of the newest point. Who was caught is what the newest points say, any of them: to build
/// on an older one, on none, or on that of a run beside the one that caught somebody is no pardon.
fn standing_history(question: &Question<'_>) -> Option<History> {
    let of = |point: &Point| History::of(&point.manifest);
    let newest: Vec<_> = question.newest.iter().map(of).collect();
    let mut history = question
        .parent
        .map(of)
        .or_else(|| newest.first().cloned())?;
    if !newest.is_empty() {
        history.verdicts.clear();
    }
    let verdicts = newest.into_iter().flat_map(|point| point.verdicts);
    Some(verdicts.fold(history, History::with_verdict))
}

/// What is said where ranges that were discarded read as anything (rule R15).
pub(super) fn unstable_warning(reading: &Reading, bytes: u64) -> Option<String> {
    let name = reading.name;
    (bytes > 0).then(|| {
        format!(
            "{bytes} bytes differ that {name} did not tell of; discarded ranges read as anything there, so that this proves \
             nothing: they were stored as they were read"
        )
    })
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// Another choice of samples for each pair of states, and the same for the same: a run that was killed after it caught a liar
/// meets the same chunk again, unless the record holds what goes on by itself (thin: the time of the pool, which each snapshot moves).
fn seed(before: Option<&Point>, blocks: &Blocks) -> u64 {
    let mut hash = blake3::Hasher::new();
    if let Some(point) = before {
        hash.update(point.id().to_string().as_bytes());
    }
    for (key, value) in blocks.identity().iter().flat_map(Identity::pairs) {
        hash.update(key.as_bytes()).update(value.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests;
