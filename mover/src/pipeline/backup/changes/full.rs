//! What is read where there is no delta, and on whose word the rest is taken for zeros.
//!
//! ```text
//!   the file system of the very file, or nobody ─► streamed, believed
//!   anybody else ─► whole answer ─► chunks outside of it: hot places, random, what the parent has ─► one is not zero: a liar
//! ```
//!
//! Owns: that choice, and rule R7 for who says what is allocated. Must not: read data.

use changed_blocks::Scan;

use super::candidates::Candidates;
use super::delta::allocated;
use super::recheck::outside;
use super::refusal::{Refusal, Step};
use super::{Claim, Mode, Question, seed};
use crate::device::source::Blocks;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::backup::request::ChangedBlocksChoice;

/// How everything allocated is read.
pub(super) struct Full {
    pub(super) mode: Mode,
    pub(super) blocks: Blocks,
    /// Why somebody who was to say what is allocated could not.
    pub(super) doubt: Option<String>,
}

impl Full {
    /// By nobody but the source itself.
    pub(super) fn by_itself(question: &Question<'_>) -> Result<Self> {
        Ok(Self {
            mode: Mode::Allocated,
            blocks: match question.request.changed_blocks {
                ChangedBlocksChoice::Scan => Box::new(Scan::new(question.source.size())),
                _ => question.source.hole_map()?,
            },
            doubt: None,
        })
    }

    /// By whoever knows best.
    pub(super) fn choose(question: &Question<'_>, candidates: Candidates) -> Result<Self> {
        let has_hole_map = question.source.has_hole_map();
        let told = match &question.request.changed_blocks {
            ChangedBlocksChoice::HoleMap if !has_hole_map => {
                let message = "ask for holes: this source has no hole map";
                return Err(Error::new(ErrorKind::InvalidRequest, message)
                    .object(question.source.name())
                    .hint("leave --changed-blocks out, or say scan"));
            }
            ChangedBlocksChoice::ExtentsFile(_) => !candidates.tells_changes_only,
            // Nobody knows a file better than its file system.
            _ => !has_hole_map,
        };
        match candidates.best.filter(|_| told) {
            Some(blocks) => Self::claimed(question, blocks),
            None => Self::by_itself(question),
        }
    }

    fn claimed(question: &Question<'_>, mut blocks: Blocks) -> Result<Self> {
        match claim(question, &mut blocks) {
            Ok(claim) => Ok(Self {
                mode: Mode::Claimed(claim),
                blocks,
                doubt: None,
            }),
            Err(Refusal::Failed(error)) => Err(*error),
            Err(Refusal::Full(reason) | Refusal::Scan(reason)) => {
                let name = blocks.capabilities().name;
                let doubt = format!("{name} cannot say what is allocated: {reason}");
                Ok(Self {
                    doubt: Some(doubt),
                    ..Self::by_itself(question)?
                })
            }
            Err(Refusal::Caught(verdict)) => Ok(Self {
                doubt: Some(verdict.to_string()),
                ..Self::by_itself(question)?
            }),
        }
    }
}

fn claim(question: &Question<'_>, blocks: &mut Blocks) -> Step<Claim> {
    let chunks = allocated(question, blocks)?;
    let seed = seed(question.parent.or(question.newest.first()), blocks);
    let samples = outside(question.geometry, &chunks, seed);
    Ok(Claim {
        chunks,
        samples,
        seed,
    })
}
