//! The answer of `thin_delta`: where two thin devices of a pool map different blocks.
//!
//! ```text
//!   <superblock …><diff left= right=>
//!     <same begin= length=/> <different …/> <left_only …/> <right_only …/>     counted in data blocks
//! ```
//!
//! Owns: the elements of that answer (man thin_delta; without `--verbose`). Must not: decide what becomes of a range.

use std::io::BufRead;

use super::dump::{Ascending, Superblock};
use super::tag::{Form, Tags};
use crate::source::SourceError;

/// How the two devices map a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// Both to the same block of the pool.
    Same,
    /// Each to a block of its own.
    Different,
    /// Only the left one, the base.
    LeftOnly,
    /// Only the right one, the target.
    RightOnly,
}

/// Blocks of both devices that are mapped alike; blocks that neither maps are in no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) relation: Relation,
    pub(super) begin: u64,
    pub(super) length: u64,
}

/// Reads a whole answer about the thin devices `left` and `right`, and gives its ranges to `take`, ascending and disjoint.
pub(super) fn read(
    input: impl BufRead,
    [left, right]: [u64; 2],
    take: &mut dyn FnMut(Range) -> Result<(), SourceError>,
) -> Result<Superblock, SourceError> {
    let mut tags = Tags::new(input);
    let superblock = Superblock::parse(&tags.next()?)?;
    let tag = tags.next()?;
    if (tag.form, tag.name) != (Form::Open, "diff")
        || tag.numbers(["left", "right"])? != [left, right]
    {
        return Err(tag.fault());
    }
    let mut ascending = Ascending::default();
    loop {
        let tag = tags.next()?;
        let relation = match (tag.form, tag.name) {
            (Form::Empty, "same") => Relation::Same,
            (Form::Empty, "different") => Relation::Different,
            (Form::Empty, "left_only") => Relation::LeftOnly,
            (Form::Empty, "right_only") => Relation::RightOnly,
            (Form::Close, "diff") => break,
            _ => return Err(tag.fault()),
        };
        let [begin, length] = tag.numbers(["begin", "length"])?;
        ascending.accept(begin, length)?;
        take(Range {
            relation,
            begin,
            length,
        })?;
    }
    let tag = tags.next()?;
    if (tag.form, tag.name) != (Form::Close, "superblock") {
        return Err(tag.fault());
    }
    tags.end()?;
    Ok(superblock)
}

#[cfg(test)]
mod tests;
