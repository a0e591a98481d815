//! What is tried, and what becomes of it.
//!
//! Owns: the order of the steps, and the words in which a person hears of it. Must not: take an answer (`delta`, `full`), or keep
//! records.

use super::candidates::Candidates;
use super::full::Full;
use super::gate::{self, Standing};
use super::lie::{Again, Lie};
use super::refusal::{Refusal, Step};
use super::verdict::Verdict;
use super::{Delta, Mode, Question, delta};
use crate::device::source::Blocks;
use crate::error::Result;
use crate::pipeline::backup::request::ChangedBlocksChoice;

/// How the source is read.
pub(super) struct Decision {
    pub(super) mode: Mode,
    pub(super) blocks: Blocks,
    pub(super) reason: String,
    pub(super) warnings: Vec<String>,
    pub(super) caught: Option<Verdict>,
}

impl Decision {
    /// By a delta where one can be had, else in full.
    ///
    /// # Errors
    /// What ends the run: a hole map that a source does not have, a source that gives up, a stop on request.
    pub(super) fn of(
        question: &Question<'_>,
        mut candidates: Candidates,
        standing: Standing<'_>,
    ) -> Result<Self> {
        let warnings: Vec<_> = match &question.request.changed_blocks {
            ChangedBlocksChoice::Auto => candidates.warnings().collect(),
            _ => Vec::new(),
        };
        let caught = question.again.and_then(Again::lie).map(Lie::verdict);
        match attempt(question, &mut candidates, standing) {
            Ok((delta, blocks, reason)) => Ok(Self {
                mode: Mode::Delta(delta),
                blocks,
                reason,
                warnings,
                caught,
            }),
            Err(refusal) => {
                let without = Self::without_delta(question, candidates, refusal)?;
                Ok(Self {
                    warnings: warnings.into_iter().chain(without.warnings).collect(),
                    caught: without.caught.or(caught),
                    ..without
                })
            }
        }
    }

    fn without_delta(
        question: &Question<'_>,
        candidates: Candidates,
        refusal: Refusal,
    ) -> Result<Self> {
        let mut warnings = Vec::new();
        let mut caught = None;
        let (full, reason) = match refusal {
            Refusal::Failed(error) => return Err(*error),
            Refusal::Full(reason) => (Full::choose(question, candidates)?, reason),
            // Whoever is not believed, or is to be checked, does not say either what is zero.
            Refusal::Scan(reason) => (Full::by_itself(question)?, reason),
            Refusal::Caught(verdict) => {
                let reason = format!(
                    "{} contradicts itself: {}",
                    verdict.source, verdict.evidence
                );
                warnings.push(format!(
                    "{reason}; everything is read instead, and the point is right"
                ));
                caught = Some(verdict);
                (Full::by_itself(question)?, reason)
            }
        };
        warnings.extend(full.doubt.clone());
        let reason = match full.doubt {
            Some(doubt) => format!("{reason}; {doubt}"),
            None => reason,
        };
        // Whoever asked for a source by name is told when it could not be used; `auto` only gives the reason.
        if question.request.changed_blocks.is_by_name() {
            warnings.push(format!("everything allocated is read: {reason}"));
        }
        Ok(Self {
            mode: full.mode,
            blocks: full.blocks,
            reason,
            warnings,
            caught,
        })
    }
}

/// The delta with whoever told it and why it is followed, or why there is none.
fn attempt(
    question: &Question<'_>,
    candidates: &mut Candidates,
    standing: Standing<'_>,
) -> Step<(Delta, Blocks, String)> {
    if let Some(again) = question.again {
        return Err(Refusal::Scan(again.to_string()));
    }
    let Some(mut blocks) = candidates.best.take() else {
        return Err(Refusal::Full(candidates.explain(without_anybody(question))));
    };
    match follow(question, &mut blocks, standing) {
        Ok((delta, reason)) => Ok((delta, blocks, reason)),
        Err(refusal) => {
            candidates.best = Some(blocks);
            Err(refusal)
        }
    }
}

fn follow(
    question: &Question<'_>,
    blocks: &mut Blocks,
    standing: Standing<'_>,
) -> Step<(Delta, String)> {
    gate::may_ask(question, blocks, standing)?;
    let (Some(parent), Some(history)) = (question.parent, standing.history) else {
        let reason = "there is no parent to compare with";
        return Err(Refusal::Full(reason.to_owned()));
    };
    gate::may_compare(question, parent)?;
    delta::take(question, parent, blocks, history)
}

fn without_anybody(question: &Question<'_>) -> String {
    let reason = match &question.request.changed_blocks {
        ChangedBlocksChoice::Auto if question.source.has_hole_map() => {
            "the file system tells which ranges of the file hold data"
        }
        ChangedBlocksChoice::Auto => {
            "nothing cheaper is known for this source: everything is read and compared"
        }
        ChangedBlocksChoice::Source(_) => "nobody else is to be asked",
        _ => "asked for with --changed-blocks",
    };
    reason.to_owned()
}
