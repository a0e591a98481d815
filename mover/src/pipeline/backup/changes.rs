//! Whether a backup reads only what changed: against what, on whose word, and why not.
//!
//! ```text
//!   parent's records ─► trusted so far? full due? ─► source bound to its base ─► whole answer ─► chunks to read
//!                              │ any doubt                    │ any doubt            │ any doubt
//!                              └──────────────────────────────┴──► read what is allocated, and say why
//! ```
//!
//! Owns: rules R1 to R6 and R10 of a delta (who may answer, and what an answer comes down to). Must not: read data, or know a
//! storage (`changed_blocks` does).
//!
//! A delta is taken in whole before anything is read: an answer that breaks off costs nothing but a full read.

pub mod history;
pub mod lie;
pub mod recheck;

use std::time::{SystemTime, UNIX_EPOCH};

use changed_blocks::{
    Base, ByteLen, ChangedBlocks, Checked, ChunkSet, Identity, SourceError, SourceErrorKind,
    Summary,
};

use super::plan::Geometry;
use super::request::{BackupRequest, ChangedBlocksChoice};
use crate::device::source::SourceDevice;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;
use crate::repository::format::manifest::PointState;
use crate::repository::session::points::Point;
use history::{Environment, History};
use lie::Again;
use recheck::{Recheck, RecheckPlan};

/// Name of the source that asks a file's own file system.
const HOLE_MAP: &str = "hole-map";

/// A source of changed blocks that may move to a thread of its own.
pub type Blocks = Box<dyn ChangedBlocks + Send>;

/// How the source of a backup is read, decided before the first byte.
#[derive(Debug)]
pub struct Reading {
    /// What is asked.
    pub mode: Mode,
    /// Name of who answers, for people and metrics.
    pub name: &'static str,
    /// Whether holes are told by the file system of the very file, which cannot forget any.
    pub is_of_the_file: bool,
    /// Why this way.
    pub reason: String,
    /// What the point records for the next one.
    pub records: Vec<(String, String)>,
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
}

/// What a backup asks of its source.
#[derive(Debug)]
pub enum Mode {
    /// What may hold anything but zeros.
    Allocated,
    /// What differs from the parent, by somebody who cannot be wrong: a point of another repository.
    Known,
    /// What differs from the parent, and chunks outside that are read to see whether it is true.
    Delta(Delta),
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
    /// Size of the volume and its chunks.
    pub geometry: Geometry,
    /// Why an earlier try of this very run was given up.
    pub again: Option<&'a Again>,
    /// Asked to stop.
    pub stop: &'a StopFlag,
}

/// Decides how the source is read, and asks it for its delta.
///
/// # Errors
/// `InvalidRequest` where a source is asked for that this volume does not have; `Unavailable`, `Io` where the source gives up.
pub fn decide(question: &Question<'_>) -> Result<(Reading, Blocks)> {
    let (source, choice) = (question.source, &question.request.changed_blocks);
    if *choice == ChangedBlocksChoice::Delta {
        return known(source);
    }
    let all = source.delta_sources();
    // Whoever is asked now, the next run may want to compare.
    let identities: Vec<_> = all
        .iter()
        .filter_map(|source| source.identity())
        .flat_map(|identity| identity.pairs().collect::<Vec<_>>())
        .collect();
    // The backend is the same whoever is asked.
    let environment = Environment::current(&identities);
    let mut candidates = candidates(question, all)?;
    let before = question.parent.map(|parent| History::of(&parent.manifest));
    let tried = match (question.parent, &before, candidates.first_mut()) {
        (Some(parent), Some(before), Some(blocks)) => {
            let name = blocks.capabilities().name;
            let allowed = allowed(question, (parent, before), name, &environment);
            Some(allowed.and_then(|()| delta(question, parent, blocks, before)))
        }
        _ => None,
    };
    let before = before.unwrap_or_default();
    let full = before.clone().after_full(now(), &environment);
    let after = match question.again.and_then(Again::lie) {
        Some(lie) => full.with_verdict(lie.verdict()),
        None => full,
    };
    let (mode, reason, blocks, after) = match tried {
        Some(Ok((delta, reason))) => {
            let blocks = candidates.swap_remove(0);
            let after = before.after_delta(blocks.capabilities().name, &environment);
            (Mode::Delta(delta), reason, blocks, after)
        }
        Some(Err(Refusal::Failed(error))) => return Err(*error),
        Some(Err(Refusal::Scan(reason))) => {
            // Whoever is not believed, or is to be checked, does not say either what is zero.
            (Mode::Allocated, reason, source.hole_map()?, after)
        }
        Some(Err(Refusal::Full(reason))) => {
            let blocks = floor(question, candidates.into_iter().next())?;
            (Mode::Allocated, reason, blocks, after)
        }
        None => {
            let reason = without_base(question, candidates.first());
            let blocks = floor(question, candidates.into_iter().next())?;
            (Mode::Allocated, reason, blocks, after)
        }
    };
    let reading = Reading {
        name: blocks.capabilities().name,
        is_of_the_file: source.has_hole_map() && blocks.capabilities().name == HOLE_MAP,
        warnings: mode_warnings(&mode, choice, &reason),
        mode,
        reason,
        records: identities.into_iter().chain(after.pairs()).collect(),
    };
    Ok((reading, blocks))
}

fn known(source: &dyn SourceDevice) -> Result<(Reading, Blocks)> {
    let blocks = source.hole_map()?;
    let reading = Reading {
        name: blocks.capabilities().name,
        is_of_the_file: false,
        mode: Mode::Known,
        reason: "the source tells what differs from the parent".to_owned(),
        records: Vec::new(),
        warnings: Vec::new(),
    };
    Ok((reading, blocks))
}

/// Whoever asked for a source by name is told when it could not be used; `auto` only gives the reason.
fn mode_warnings(mode: &Mode, choice: &ChangedBlocksChoice, reason: &str) -> Vec<String> {
    let named = matches!(
        choice,
        ChangedBlocksChoice::Source(_) | ChangedBlocksChoice::ExtentsFile(_)
    );
    match mode {
        Mode::Allocated if named => Vec::from([format!("everything allocated is read: {reason}")]),
        _ => Vec::new(),
    }
}

/// Sources that may answer, best first.
fn candidates(question: &Question<'_>, mut all: Vec<Blocks>) -> Result<Vec<Blocks>> {
    let source = question.source;
    match &question.request.changed_blocks {
        ChangedBlocksChoice::Auto | ChangedBlocksChoice::None => Ok(all),
        ChangedBlocksChoice::Source(name) => {
            let names: Vec<_> = all.iter().map(|one| one.capabilities().name).collect();
            all.retain(|one| one.capabilities().name == name);
            if all.is_empty() {
                return Err(no_such_source(source, name, &names));
            }
            Ok(all)
        }
        ChangedBlocksChoice::ExtentsFile(path) => {
            let file = changed_blocks::ExtentsFile::open(path, source.size())
                .map_err(|error| refused(&error))?;
            Ok(Vec::from([Box::new(file) as Blocks]))
        }
        ChangedBlocksChoice::Scan | ChangedBlocksChoice::HoleMap | ChangedBlocksChoice::Delta => {
            Ok(Vec::new())
        }
    }
}

fn no_such_source(source: &dyn SourceDevice, name: &str, has: &[&str]) -> Error {
    let hint = if has.is_empty() {
        "leave --changed-blocks out, or say scan".to_owned()
    } else {
        format!(
            "leave --changed-blocks out, or say one of: scan, {}",
            has.join(", ")
        )
    };
    let message = format!("ask {name} what changed: this source has no such changed-block source");
    Error::new(ErrorKind::InvalidRequest, message)
        .object(source.name())
        .hint(hint)
}

/// Why no delta is taken.
enum Refusal {
    /// The delta cannot be had: what is allocated is read.
    Full(String),
    /// Nobody is asked at all.
    Scan(String),
    Failed(Box<Error>),
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        let text = with_cause(&error);
        match error.kind {
            // To ask again later costs a point; to read more costs time only.
            SourceErrorKind::FullBackup | SourceErrorKind::Retry => Self::Full(text),
            SourceErrorKind::GiveUp => Self::Failed(Box::new(gave_up(error))),
        }
    }
}

fn with_cause(error: &SourceError) -> String {
    match &error.source {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn gave_up(error: SourceError) -> Error {
    Error::new(ErrorKind::Io, "ask what changed").source(error)
}

fn refused(error: &SourceError) -> Error {
    Error::new(ErrorKind::InvalidRequest, with_cause(error))
        .hint("see `snaphaul backup --help` for the form of the list")
}

/// Whether the history of the volume allows a delta at all.
fn allowed(
    question: &Question<'_>,
    (parent, before): (&Point, &History),
    source: &str,
    environment: &Environment,
) -> std::result::Result<(), Refusal> {
    let full = |reason: String| Err(Refusal::Full(reason));
    let scan = |reason: String| Err(Refusal::Scan(reason));
    if question.request.changed_blocks == ChangedBlocksChoice::None {
        return full("asked for with --changed-blocks".to_owned());
    }
    if let Some(again) = question.again {
        return scan(again.to_string());
    }
    if parent.manifest.state == PointState::Fuzzy {
        return full("the parent is a mix of several moments".to_owned());
    }
    // Whoever names the source in spite of the verdict takes it back, and is watched like before.
    if question.request.changed_blocks == ChangedBlocksChoice::Auto
        && let Some(verdict) = before
            .verdict
            .as_ref()
            .filter(|verdict| verdict.source == source)
    {
        return scan(format!(
            "{verdict}; name the source with --changed-blocks to trust it again"
        ));
    }
    match before.full_due(now(), environment) {
        Some(reason) => scan(reason),
        None => Ok(()),
    }
}

/// Binds the source to the parent's base and takes its whole answer.
fn delta(
    question: &Question<'_>,
    parent: &Point,
    blocks: &mut Blocks,
    before: &History,
) -> std::result::Result<(Delta, String), Refusal> {
    let name = blocks.capabilities().name;
    let record = match Identity::among(name, &parent.manifest.identity) {
        Some(record) => record,
        // A list names the point itself.
        None if name == changed_blocks::extents_file::NAME => Identity::new(name),
        None => {
            let message = format!("the parent recorded nothing that {name} could compare with");
            return Err(Refusal::Full(message));
        }
    };
    let point = parent.id().to_string();
    blocks.bind(&Base {
        record: &record,
        point: &point,
        named: question.request.base.as_deref(),
    })?;
    let mut chunks = ChunkSet::new(question.geometry.chunks());
    collect(question, blocks, &mut chunks)?;
    let delta_chunks = chunks.len();
    resized(question, blocks, parent, &mut chunks)?;
    let plan = RecheckPlan {
        geometry: question.geometry,
        parent_data_bytes: parent.manifest.size
            - parent.manifest.stats.zero.min(parent.manifest.size),
        delta_chunks,
        rolled_to: before.rolled_to,
        seed: seed(parent, blocks),
    };
    let recheck = Recheck::new(&plan, &chunks);
    let reason = format!("{name} tells what changed since {point}");
    Ok((Delta { chunks, recheck }, reason))
}

/// Both kinds of extents are read: what became zero has changed as well, and a wrong zero is seen.
fn collect(
    question: &Question<'_>,
    blocks: &mut Blocks,
    chunks: &mut ChunkSet,
) -> std::result::Result<(), Refusal> {
    let Geometry { size, chunk_size } = question.geometry;
    let unit = ByteLen(u64::from(chunk_size));
    let mut checked = Checked::new(&mut **blocks, ByteLen(size));
    let answer = checked.delta(&mut |extent| {
        chunks.insert_extent(extent, unit);
        !question.stop.is_stopped()
    });
    ended(question, answer)
}

/// A stop on request comes before whatever the source made of it.
fn ended(
    question: &Question<'_>,
    answer: std::result::Result<Summary, SourceError>,
) -> std::result::Result<(), Refusal> {
    let stopped = question.stop.check();
    stopped.map_err(|error| Refusal::Failed(Box::new(error)))?;
    answer.map(drop).map_err(Refusal::from)
}

/// After a change of size: the chunk at the smaller end, which has another length, and what is allocated behind it.
fn resized(
    question: &Question<'_>,
    blocks: &mut Blocks,
    parent: &Point,
    chunks: &mut ChunkSet,
) -> std::result::Result<(), Refusal> {
    let Geometry { size, chunk_size } = question.geometry;
    let (old, unit) = (parent.manifest.size, u64::from(chunk_size));
    if old == size {
        return Ok(());
    }
    let shared = old.min(size);
    if shared % unit != 0 {
        chunks.insert(shared / unit);
    }
    if size < old {
        return Ok(());
    }
    let mut checked = Checked::new(&mut **blocks, ByteLen(size));
    let answer = checked.allocated(&mut |extent| {
        let end = extent.end().unwrap_or(u64::MAX);
        if end > old {
            let start = extent.offset.0.max(old);
            chunks.insert_range(start / unit..end.div_ceil(unit));
        }
        !question.stop.is_stopped()
    });
    ended(question, answer)
}

fn without_base(question: &Question<'_>, candidate: Option<&Blocks>) -> String {
    match (&question.request.changed_blocks, candidate, question.parent) {
        (ChangedBlocksChoice::Auto, None, _) if question.source.has_hole_map() => {
            "the file system tells which ranges of the file hold data".to_owned()
        }
        (ChangedBlocksChoice::Auto, None, _) => {
            "nothing cheaper is known for this source: everything is read and compared".to_owned()
        }
        (_, Some(_), None) => "there is no parent to compare with".to_owned(),
        _ => "asked for with --changed-blocks".to_owned(),
    }
}

/// Who says what is allocated when there is no delta.
fn floor(question: &Question<'_>, candidate: Option<Blocks>) -> Result<Blocks> {
    let source = question.source;
    if question.again.is_some() {
        return source.hole_map();
    }
    match &question.request.changed_blocks {
        ChangedBlocksChoice::Scan => Ok(Box::new(changed_blocks::Scan::new(source.size()))),
        ChangedBlocksChoice::HoleMap if !source.has_hole_map() => Err(Error::new(
            ErrorKind::InvalidRequest,
            "ask for holes: this source has no hole map",
        )
        .object(source.name())
        .hint("leave --changed-blocks out, or say scan")),
        ChangedBlocksChoice::Auto | ChangedBlocksChoice::None | ChangedBlocksChoice::Source(_)
            if !source.has_hole_map() =>
        {
            candidate.map_or_else(|| source.hole_map(), Ok)
        }
        // A list without a base is one of what is allocated.
        ChangedBlocksChoice::ExtentsFile(path) => {
            let list = changed_blocks::ExtentsFile::open(path, source.size());
            match list.ok().filter(|list| list.base_point().is_none()) {
                Some(list) => Ok(Box::new(list)),
                None => source.hole_map(),
            }
        }
        _ => source.hole_map(),
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// Another choice of samples for each pair of states, and the same for the same: a run that was killed after it caught a liar
/// meets the same chunk again.
fn seed(parent: &Point, blocks: &Blocks) -> u64 {
    let mut hash = blake3::Hasher::new();
    hash.update(parent.id().to_string().as_bytes());
    for (key, value) in blocks.identity().iter().flat_map(Identity::pairs) {
        hash.update(key.as_bytes()).update(value.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests;
