//! Whether anybody may be asked at all, and whether a delta may be taken.
//!
//! Owns: rules R10 and R12 and what follows from a verdict. Must not: ask a source for extents.

use changed_blocks::Identity;

use super::history::History;
use super::refusal::{Refusal, Step};
use super::{Question, environment::Environment};
use crate::device::source::Blocks;
use crate::pipeline::backup::request::ChangedBlocksChoice;
use crate::repository::format::manifest::PointState;
use crate::repository::session::points::Point;

/// What is known before anybody is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing<'a> {
    /// The records of the volume; `None` before its first point.
    pub(super) history: Option<&'a History>,
    /// Where this runs.
    pub(super) environment: &'a Environment,
    /// In milliseconds since 1970.
    pub(super) now: i64,
}

/// Whether `blocks` may be asked, be it only for what is allocated.
pub(super) fn may_ask(
    question: &Question<'_>,
    blocks: &Blocks,
    standing: Standing<'_>,
) -> Step<()> {
    let scan = |reason: String| Err(Refusal::Scan(reason));
    let request = question.request;
    // What is told of a source that is being written to is of another moment than what is read.
    if request.allow_live && !question.source.check_unchanged()? {
        return scan(
            "somebody may be writing to the source: only what is frozen can be checked".to_owned(),
        );
    }
    let Some(history) = standing.history else {
        return Ok(());
    };
    // Whoever names the source in spite of the verdict takes it back, and is watched like before.
    let is_named = request.changed_blocks.is_by_name();
    let name = blocks.capabilities().name;
    if let Some(verdict) = history.verdict_on(name).filter(|_| !is_named) {
        return scan(format!(
            "{verdict}; name the source with --changed-blocks to trust it again"
        ));
    }
    history
        .full_due(standing.now, standing.environment)
        .map_or(Ok(()), scan)
}

/// Whether a delta from `parent` is wanted at all.
pub(super) fn may_compare(question: &Question<'_>, parent: &Point) -> Step<()> {
    if question.request.changed_blocks == ChangedBlocksChoice::None {
        return Err(Refusal::Full("asked for with --changed-blocks".to_owned()));
    }
    if parent.manifest.state == PointState::Fuzzy {
        let reason = "the parent is a mix of several moments";
        return Err(Refusal::Full(reason.to_owned()));
    }
    Ok(())
}

/// What happened to the volume since `parent` after which everything is read once.
pub(super) fn upheaval(question: &Question<'_>, parent: &Point, blocks: &Blocks) -> Option<String> {
    let (before, now) = (parent.manifest.size, question.geometry.size);
    if before != now {
        return Some(format!(
            "the volume has {now} bytes, {before} before: after a change of size everything is read once"
        ));
    }
    let record = Identity::among(blocks.capabilities().name, &parent.manifest.identity)?;
    let reason = blocks.goes_back(&record)?;
    Some(format!(
        "{reason}: after a step back everything is read once"
    ))
}
