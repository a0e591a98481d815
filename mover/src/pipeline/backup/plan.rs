//! From extents to chunks: which chunks of a volume are read, leaf by leaf.
//!
//! ```text
//!   extents (bytes) ──► ChunkRanges (merged, rounded out) ──► LeafPlans (one leaf of the map each) ──► pieces (one read each)
//! ```
//!
//! Owns: that arithmetic. Must not: do I/O.

use std::iter::Peekable;
use std::ops::Range;

use changed_blocks::{Extent, ExtentKind};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::map::FANOUT;

/// Size of a volume and of its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the volume.
    pub size: u64,
    /// Bytes of a chunk; a power of two.
    pub chunk_size: u32,
}

impl Geometry {
    /// Number of chunks, the last one possibly partial.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.size.div_ceil(u64::from(self.chunk_size))
    }

    /// First byte of a chunk, or the volume's end for the number of chunks.
    #[must_use]
    pub fn offset_of(&self, chunk: u64) -> u64 {
        (chunk * u64::from(self.chunk_size)).min(self.size)
    }

    /// Bytes of `chunks`, the partial last one clipped.
    #[must_use]
    pub fn bytes_of(&self, chunks: &Range<u64>) -> u64 {
        self.offset_of(chunks.end) - self.offset_of(chunks.start)
    }

    /// Number of chunks read at once: about 1 MiB, at least one.
    #[must_use]
    pub fn piece_chunks(&self) -> u64 {
        (u64::from(PIECE_BYTES) / u64::from(self.chunk_size)).max(1)
    }
}

/// Bytes of one read: large enough for a disk's full rate, small enough that 32 in flight stay within 32 MiB.
pub const PIECE_BYTES: u32 = 1 << 20;

/// Ranges of chunks that hold anything of the given data extents; ascending, disjoint, never adjacent.
#[derive(Debug)]
pub struct ChunkRanges<I> {
    extents: I,
    geometry: Geometry,
    end_of_last: u64,
    pending: Option<Range<u64>>,
}

impl<I: Iterator<Item = Result<Extent>>> ChunkRanges<I> {
    /// Ranges over `extents`, which must be ascending, disjoint and within the volume.
    pub fn new(geometry: Geometry, extents: I) -> Self {
        Self {
            extents,
            geometry,
            end_of_last: 0,
            pending: None,
        }
    }

    fn check(&mut self, extent: &Extent) -> Result<Range<u64>> {
        let end = extent
            .end()
            .filter(|end| *end <= self.geometry.size && extent.len.0 > 0);
        match end {
            Some(end) if extent.offset.0 >= self.end_of_last => {
                self.end_of_last = end;
                let chunk_size = u64::from(self.geometry.chunk_size);
                Ok(extent.offset.0 / chunk_size..end.div_ceil(chunk_size))
            }
            _ => Err(Error::new(
                ErrorKind::Io,
                format!(
                    "use the answer of the changed-block source: extent {} + {} is out of order or past the end",
                    extent.offset, extent.len
                ),
            )
            .hint("run again with --changed-blocks scan")),
        }
    }
}

impl<I: Iterator<Item = Result<Extent>>> Iterator for ChunkRanges<I> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let extent = match self.extents.next() {
                Some(Ok(extent)) => extent,
                Some(Err(error)) => return Some(Err(error)),
                None => return self.pending.take().map(Ok),
            };
            let range = match self.check(&extent) {
                Ok(range) => range,
                Err(error) => return Some(Err(error)),
            };
            if extent.kind == ExtentKind::Zero {
                continue;
            }
            match &mut self.pending {
                Some(pending) if range.start <= pending.end => {
                    pending.end = pending.end.max(range.end);
                }
                pending => {
                    if let Some(done) = pending.replace(range) {
                        return Some(Ok(done));
                    }
                }
            }
        }
    }
}

/// What is read of one leaf of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafPlan {
    /// Index of the leaf.
    pub index: u64,
    /// Chunks to read, inside the leaf; every other chunk of it is zero.
    pub ranges: Vec<Range<u64>>,
}

impl LeafPlan {
    /// Number of chunks to read.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// `plan` of leaf `index` with single chunks of that leaf added, in any order; `None` where there is nothing to read.
    #[must_use]
    pub fn with(plan: Option<Self>, index: u64, chunks: &[u64]) -> Option<Self> {
        if chunks.is_empty() {
            return plan;
        }
        let ranges = plan.map(|plan| plan.ranges).unwrap_or_default();
        let singles = chunks.iter().map(|chunk| *chunk..chunk + 1);
        let mut all: Vec<_> = ranges.into_iter().chain(singles).collect();
        all.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(all.len());
        for range in all {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Some(Self {
            index,
            ranges: joined,
        })
    }

    /// Cuts the ranges into pieces of at most `piece_chunks`, aligned to it so that neighbours share no piece.
    pub fn pieces(&self, piece_chunks: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().flat_map(move |range| {
            let range = range.clone();
            let mut start = range.start;
            std::iter::from_fn(move || {
                let end = range.end.min((start / piece_chunks + 1) * piece_chunks);
                let piece = start..end;
                start = end;
                (!piece.is_empty()).then_some(piece)
            })
        })
    }
}

/// Groups ranges of chunks by leaf.
#[derive(Debug)]
pub struct LeafPlans<I: Iterator<Item = Result<Range<u64>>>> {
    ranges: Peekable<I>,
    rest: Option<Range<u64>>,
}

/// Number of chunks under one leaf.
pub const LEAF_CHUNKS: u64 = FANOUT as u64;

impl<I: Iterator<Item = Result<Range<u64>>>> LeafPlans<I> {
    /// Leaves over ascending, disjoint `ranges`.
    pub fn new(ranges: I) -> Self {
        Self {
            ranges: ranges.peekable(),
            rest: None,
        }
    }

    /// The next range that begins in leaf `index`, cut at the leaf's end; any leaf where `index` is `None`.
    fn next_in(&mut self, index: Option<u64>) -> Result<Option<(u64, Range<u64>)>> {
        let begins = match (&self.rest, self.ranges.peek()) {
            (Some(rest), _) => rest.start,
            (None, Some(Ok(range))) => range.start,
            (None, Some(Err(_))) if index.is_some() => return Ok(None),
            (None, Some(Err(_))) => u64::MAX,
            (None, None) => return Ok(None),
        };
        let leaf = begins / LEAF_CHUNKS;
        if index.is_some_and(|index| index != leaf) {
            return Ok(None);
        }
        let range = match self.rest.take() {
            Some(rest) => rest,
            None => match self.ranges.next() {
                Some(range) => range?,
                None => return Ok(None),
            },
        };
        let end = range.end.min((leaf + 1) * LEAF_CHUNKS);
        if end < range.end {
            self.rest = Some(end..range.end);
        }
        Ok(Some((leaf, range.start..end)))
    }
}

impl<I: Iterator<Item = Result<Range<u64>>>> Iterator for LeafPlans<I> {
    type Item = Result<LeafPlan>;

    fn next(&mut self) -> Option<Self::Item> {
        let (index, first) = match self.next_in(None) {
            Ok(found) => found?,
            Err(error) => return Some(Err(error)),
        };
        let mut ranges = vec![first];
        loop {
            match self.next_in(Some(index)) {
                Ok(Some((_, range))) => ranges.push(range),
                Ok(None) => return Some(Ok(LeafPlan { index, ranges })),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u32 = 64 * 1024;

    fn geometry(size: u64) -> Geometry {
        Geometry {
            size,
            chunk_size: CHUNK,
        }
    }

    fn plans(size: u64, extents: Vec<Extent>) -> Result<Vec<LeafPlan>> {
        let ranges = ChunkRanges::new(geometry(size), extents.into_iter().map(Ok));
        LeafPlans::new(ranges).collect()
    }

    fn one_range(index: u64, range: Range<u64>) -> LeafPlan {
        LeafPlan {
            index,
            ranges: Vec::from([range]),
        }
    }

    #[test]
    fn a_scan_covers_every_chunk_once() {
        let size = 3 * LEAF_CHUNKS * u64::from(CHUNK) + 5;
        let plans = plans(size, vec![Extent::data(0, size)]).unwrap();
        assert_eq!(plans.len(), 4);
        assert_eq!(plans[3], one_range(3, 768..769));
        assert_eq!(geometry(size).bytes_of(&(768..769)), 5);
    }

    #[test]
    fn lies_are_refused() {
        for extents in [
            vec![Extent::data(10, 10), Extent::data(5, 2)],
            vec![Extent::data(0, 101)],
            vec![Extent::data(0, 0)],
            vec![Extent::data(u64::MAX, 2)],
        ] {
            assert!(plans(100, extents).is_err());
        }
    }

    #[test]
    fn zero_extents_are_not_read() {
        let size = 10 * u64::from(CHUNK);
        let extents = vec![Extent::zero(0, size - 1), Extent::data(size - 1, 1)];
        assert_eq!(plans(size, extents).unwrap(), vec![one_range(0, 9..10)]);
    }

    proptest! {
        #[test]
        fn plans_match_a_bitmap(
            gaps in proptest::collection::vec((0_u64..3_000_000, 1_u64..40_000_000), 0..40),
            tail in 0_u64..100_000,
        ) {
            let (mut at, mut extents) = (0, Vec::new());
            for (gap, len) in gaps {
                extents.push(Extent::data(at + gap, len));
                at += gap + len;
            }
            let size = at + tail;
            let mut naive = vec![false; usize::try_from(geometry(size).chunks()).unwrap()];
            for extent in &extents {
                let end = extent.end().unwrap();
                for chunk in extent.offset.0 / u64::from(CHUNK)..end.div_ceil(u64::from(CHUNK)) {
                    naive[usize::try_from(chunk).unwrap()] = true;
                }
            }
            let mut seen = vec![false; naive.len()];
            let mut last_leaf = None;
            for plan in plans(size, extents).unwrap() {
                prop_assert!(last_leaf < Some(plan.index));
                last_leaf = Some(plan.index);
                for piece in plan.pieces(16) {
                    prop_assert!(piece.end - piece.start <= 16);
                    for chunk in piece {
                        prop_assert_eq!(chunk / LEAF_CHUNKS, plan.index);
                        let at = usize::try_from(chunk).unwrap();
                        prop_assert!(!seen[at]);
                        seen[at] = true;
                    }
                }
            }
            prop_assert_eq!(seen, naive);
        }
    }
}
