//! A delta: bound to the parent's base, taken in whole, held against what is allocated.
//!
//! Owns: rules R1 to R4, R6 and, where a source tells both, R7. Must not: decide who may answer (`gate` does), or read data.

use changed_blocks::{
    Base, ByteLen, ChangedBlocks, Checked, ChunkSet, Extent, ExtentKind, Identity, extents_file,
};

use super::history::History;
use super::recheck::{Recheck, RecheckPlan};
use super::refusal::{Refusal, Step, ended};
use super::verdict::{Verdict, in_one_line};
use super::{Delta, Question, gate, seed};
use crate::device::source::Blocks;
use crate::pipeline::backup::plan::Geometry;
use crate::pipeline::progress::Progress;
use crate::repository::session::points::Point;

/// Binds `blocks` to the parent's base and takes its whole answer; says why it is followed.
pub(super) fn take(
    question: &Question<'_>,
    parent: &Point,
    blocks: &mut Blocks,
    before: &History,
) -> Step<(Delta, String)> {
    match (
        bind(question, parent, blocks),
        gate::upheaval(question, parent, blocks),
    ) {
        // The first reason says more, the second that nobody is asked.
        (Err(Refusal::Full(why)), Some(reason)) => {
            return Err(Refusal::Scan(format!("{why}; {reason}")));
        }
        (Ok(()), Some(reason)) => return Err(Refusal::Scan(reason)),
        (bound, _) => bound?,
    }
    let chunks = told(question, blocks)?;
    let manifest = &parent.manifest;
    let plan = RecheckPlan {
        geometry: question.geometry,
        parent_data_bytes: manifest.size - manifest.stats.zero.min(manifest.size),
        recent: (manifest.session.session, manifest.stats.new),
        rolled_to: before.rolled_to,
        seed: seed(Some(parent), blocks),
    };
    let recheck = Recheck::new(&plan, &chunks);
    let (name, point) = (blocks.capabilities().name, parent.id());
    let reason = format!("{name} tells what changed since {point}");
    Ok((Delta { chunks, recheck }, reason))
}

/// To what the parent recorded, and to nothing else.
fn bind(question: &Question<'_>, parent: &Point, blocks: &mut Blocks) -> Step<()> {
    let name = blocks.capabilities().name;
    let record = match Identity::among(name, &parent.manifest.identity) {
        Some(record) => record,
        // A list names the point itself.
        None if name == extents_file::NAME => Identity::new(name),
        None => {
            let message = format!("the parent recorded nothing that {name} could compare with");
            return Err(Refusal::Full(message));
        }
    };
    blocks.bind(&Base {
        record: &record,
        point: &parent.id().to_string(),
        named: question.request.base.as_deref(),
    })?;
    Ok(())
}

/// The chunks of a delta. Both kinds of extents are read: what became zero has changed as well, and a wrong zero is seen.
fn told(question: &Question<'_>, blocks: &mut Blocks) -> Step<ChunkSet> {
    let chunks = question.geometry.chunks();
    let unit = ByteLen(u64::from(question.geometry.chunk_size));
    let (mut changed, mut data) = (ChunkSet::new(chunks), ChunkSet::new(chunks));
    let compared = blocks.tells_both();
    ask(question, blocks, Asked::Delta, &mut |extent| {
        changed.insert_extent(extent, unit);
        if compared && extent.kind == ExtentKind::Data {
            data.insert_extent(extent, unit);
        }
    })?;
    if compared {
        let allocated = allocated(question, blocks)?;
        if let Some(chunk) = first_outside(&data, &allocated) {
            return Err(Refusal::Caught(contradiction(question, blocks, chunk)));
        }
    }
    Ok(changed)
}

/// The chunks that may hold anything but zeros.
pub(super) fn allocated(question: &Question<'_>, blocks: &mut Blocks) -> Step<ChunkSet> {
    let mut chunks = ChunkSet::new(question.geometry.chunks());
    let unit = ByteLen(u64::from(question.geometry.chunk_size));
    ask(question, blocks, Asked::Allocated, &mut |extent| {
        if extent.kind == ExtentKind::Data {
            chunks.insert_extent(extent, unit);
        }
    })?;
    Ok(chunks)
}

#[derive(Clone, Copy)]
enum Asked {
    Delta,
    Allocated,
}

fn ask(
    question: &Question<'_>,
    blocks: &mut Blocks,
    asked: Asked,
    take: &mut dyn FnMut(Extent),
) -> Step<()> {
    let Geometry { size, .. } = question.geometry;
    let mut checked = Checked::new(&mut **blocks, ByteLen(size));
    let mut sink = |extent| {
        take(extent);
        Progress::add(&question.progress.told, 1);
        !question.stop.is_stopped()
    };
    let answer = match asked {
        Asked::Delta => checked.delta(&mut sink),
        Asked::Allocated => checked.allocated(&mut sink),
    };
    ended(question.stop, answer).map(drop)
}

fn first_outside(inner: &ChunkSet, outer: &ChunkSet) -> Option<u64> {
    let outside = |range: std::ops::Range<u64>| {
        let absent = outer.next_absent(range.start);
        (absent < range.end).then_some(absent)
    };
    inner.ranges().find_map(outside)
}

fn contradiction(question: &Question<'_>, blocks: &Blocks, chunk: u64) -> Verdict {
    let offset = question.geometry.offset_of(chunk);
    let evidence = format!(
        "the chunk at byte {offset} changed to data, and holds nothing: both cannot be true"
    );
    let target = in_one_line(blocks.identity().as_ref());
    Verdict::new(blocks.capabilities().name, evidence, &target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_chunk_outside_is_found() {
        let set = |ranges: &[(u64, u64)]| {
            let mut set = ChunkSet::new(1000);
            for (start, end) in ranges {
                set.insert_range(*start..*end);
            }
            set
        };
        let outer = set(&[(10, 20), (500, 700), (999, 1000)]);
        for (inner, first) in [
            (set(&[]), None),
            (set(&[(10, 20), (510, 700), (999, 1000)]), None),
            (set(&[(9, 12)]), Some(9)),
            (set(&[(15, 21)]), Some(20)),
            (set(&[(10, 11), (650, 801)]), Some(700)),
            (set(&[(998, 1000)]), Some(998)),
        ] {
            assert_eq!(first_outside(&inner, &outer), first);
        }
    }
}
