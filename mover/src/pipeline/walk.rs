//! A point's chunks in order, leaf by leaf.
//!
//! Owns: turning the map into zero runs, leaves and lost subtrees. Must not: decide what a loss means.

use std::ops::Range;
use std::sync::Arc;

use super::restore::plan::Run;
use crate::error::{Error, Result};
use crate::repository::map::{FANOUT, LeafRef, MapCursor, MapRoot, damaged_page};
use crate::repository::segments::SegmentReader;

/// Chunks in a leaf.
pub(crate) const LEAF_CHUNKS: u64 = FANOUT as u64;

/// The next part of a map.
#[derive(Debug)]
pub(crate) enum Step {
    /// Chunks that are zero.
    Zeros(Run),
    /// The leaf that begins at this chunk; some of its chunks may lie outside the range.
    Leaf(u64, LeafRef),
    /// Chunks whose map pages cannot be read.
    Lost(Run, Error),
}

/// Walks what a map says about a range of chunks, ascending and without gaps.
#[derive(Debug)]
pub(crate) struct Walk {
    cursor: MapCursor,
    range: Range<u64>,
    /// A leaf behind the zero run that was handed out.
    pending: Option<(u64, LeafRef)>,
}

impl Walk {
    /// Over the chunks in `range`, through a directory cache that may be shared.
    pub(crate) fn new(segments: &Arc<SegmentReader>, root: &MapRoot, range: Range<u64>) -> Self {
        let leaves = range.start / LEAF_CHUNKS..range.end.div_ceil(LEAF_CHUNKS);
        let mut cursor = MapCursor::with_segments(segments, root);
        if leaves.start > 0 {
            // A part of a point reads no pages of other parts; a whole one is scanned with read-ahead.
            cursor = cursor.select(vec![leaves]);
        }
        Self {
            cursor,
            range,
            pending: None,
        }
    }

    /// The next part, `None` at the end. A damaged page is a part, and the walk goes on behind it.
    ///
    /// # Errors
    /// What the store answers; damage that hides no known range.
    pub(crate) fn next(&mut self) -> Result<Option<Step>> {
        if self.range.is_empty() {
            return Ok(None);
        }
        if let Some((index, leaf)) = self.pending.take() {
            return Ok(Some(self.leaf(index, leaf)));
        }
        match self.cursor.next(self.range.start / LEAF_CHUNKS) {
            Ok(Some((index, leaf))) if index * LEAF_CHUNKS < self.range.end => {
                let start = index * LEAF_CHUNKS;
                if start <= self.range.start {
                    return Ok(Some(self.leaf(index, leaf)));
                }
                self.pending = Some((index, leaf));
                Ok(Some(Step::Zeros(self.take(start))))
            }
            Ok(_) => Ok(Some(Step::Zeros(self.take(self.range.end)))),
            Err(error) => self.lost(error),
        }
    }

    fn leaf(&mut self, index: u64, leaf: LeafRef) -> Step {
        let first = index * LEAF_CHUNKS;
        self.take(first + LEAF_CHUNKS);
        Step::Leaf(first, leaf)
    }

    /// The part of the range before `end`, which is left behind.
    fn take(&mut self, end: u64) -> Run {
        let first = self.range.start;
        self.range.start = end.clamp(first, self.range.end);
        Run {
            first,
            count: self.range.start - first,
        }
    }

    /// What lies between here and the damaged page is zero; the page's chunks come out as lost.
    fn lost(&mut self, error: Error) -> Result<Option<Step>> {
        let Some(page) = damaged_page(&error) else {
            return Err(error);
        };
        let chunks = page.chunks();
        if chunks.end <= self.range.start {
            return Err(error);
        }
        if chunks.start > self.range.start {
            return Ok(Some(Step::Zeros(self.take(chunks.start))));
        }
        Ok(Some(Step::Lost(self.take(chunks.end), error)))
    }
}
