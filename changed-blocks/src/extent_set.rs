//! Sets of bytes as sorted, disjoint ranges, and the arithmetic on them.
//!
//! ```text
//!   any extents ── normalise ──► [====]   [==]  [====]        sorted, disjoint, never touching
//!                  round out ──► [======] [====][======]      to whole units, clipped to a size
//!                   coalesce ──► [==========================] bridges gaps where one long read beats two
//! ```
//!
//! Owns: the set algebra. Must not: do I/O, or know what the bytes are for.

use std::ops::Range;

use crate::extent::{ByteLen, ByteOffset, Extent};

/// A set of byte positions.
///
/// Invariant: ranges are not empty, ascending, and separated by at least one byte, so equal sets have equal ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentSet {
    ranges: Vec<Range<u64>>,
}

impl ExtentSet {
    /// The set without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The bytes of extents in any order, which may overlap; their kind is not looked at.
    ///
    /// Empty extents add nothing. An extent that passes the end of the address space ends there.
    #[must_use]
    pub fn normalise(extents: impl IntoIterator<Item = Extent>) -> Self {
        let mut ranges: Vec<Range<u64>> = extents
            .into_iter()
            .map(|extent| extent.offset.0..extent.end().unwrap_or(u64::MAX))
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_unstable_by_key(|range| range.start);
        Self::from_sorted(ranges)
    }

    /// Joins what touches or overlaps; `ranges` come sorted by their start and are not empty.
    fn from_sorted(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Self { ranges: joined }
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of separate ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Number of bytes.
    #[must_use]
    pub fn bytes(&self) -> ByteLen {
        ByteLen(
            self.ranges
                .iter()
                .map(|range| range.end - range.start)
                .sum(),
        )
    }

    /// Whether the byte at `offset` belongs to the set.
    #[must_use]
    pub fn contains(&self, offset: ByteOffset) -> bool {
        let after = self.ranges.partition_point(|range| range.end <= offset.0);
        self.ranges
            .get(after)
            .is_some_and(|range| range.start <= offset.0)
    }

    /// The ranges as data extents, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.ranges
            .iter()
            .map(|range| Extent::data(range.start, range.end - range.start))
    }

    /// Bytes in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + other.ranges.len());
        let (mut left, mut right) = (
            self.ranges.iter().peekable(),
            other.ranges.iter().peekable(),
        );
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.start <= b.start => left.next(),
                (_, Some(_)) => right.next(),
                (_, None) => left.next(),
            };
            match next {
                Some(range) => ranges.push(range.clone()),
                None => return Self::from_sorted(ranges),
            }
        }
    }

    /// Bytes of this set that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        let mut holes = other.ranges.iter().peekable();
        for range in &self.ranges {
            let mut start = range.start;
            while holes.next_if(|hole| hole.end <= start).is_some() {}
            while start < range.end {
                match holes.peek() {
                    Some(hole) if hole.start < range.end => {
                        if start < hole.start {
                            ranges.push(start..hole.start);
                        }
                        start = hole.end;
                        // A hole that reaches past this range may cut the next one as well.
                        if hole.end <= range.end {
                            holes.next();
                        }
                    }
                    _ => {
                        ranges.push(start..range.end);
                        break;
                    }
                }
            }
        }
        Self { ranges }
    }

    /// Bytes of this set inside `[window.offset, window end)`.
    #[must_use]
    pub fn clip(&self, window: Extent) -> Self {
        let (start, end) = (window.offset.0, window.end().unwrap_or(u64::MAX));
        let first = self.ranges.partition_point(|range| range.end <= start);
        let ranges = self.ranges[first..]
            .iter()
            .take_while(|range| range.start < end)
            .map(|range| range.start.max(start)..range.end.min(end))
            .filter(|range| !range.is_empty())
            .collect();
        Self { ranges }
    }

    /// Every whole unit of `unit` bytes that holds at least one byte of the set, clipped to `size`.
    ///
    /// A unit of zero bytes rounds nothing.
    #[must_use]
    pub fn round_out(&self, unit: ByteLen, size: ByteLen) -> Self {
        let unit = unit.0.max(1);
        Self::from_sorted(
            self.ranges
                .iter()
                .filter(|range| range.start < size.0)
                .map(|range| {
                    let end = range.end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
                    range.start - range.start % unit..end.min(size.0)
                }),
        )
    }

    /// Bridges gaps of at most `max_gap` bytes, smallest first, until `budget` bytes were bridged in all.
    ///
    /// The result is a superset by at most `budget` bytes: reading a small gap costs less than a request of its own, and
    /// the budget keeps a comb of gaps from turning into a scan. Of equal gaps the earlier ones are bridged.
    #[must_use]
    pub fn coalesce(&self, max_gap: ByteLen, budget: ByteLen) -> Self {
        let mut gaps: Vec<(u64, usize)> = self
            .ranges
            .windows(2)
            .enumerate()
            .map(|(index, pair)| (pair[1].start - pair[0].end, index))
            .filter(|(gap, _)| *gap <= max_gap.0)
            .collect();
        gaps.sort_unstable();
        let mut left = budget.0;
        let mut bridged: Vec<usize> = gaps
            .into_iter()
            .map_while(|(gap, index)| {
                left = left.checked_sub(gap)?;
                Some(index)
            })
            .collect();
        bridged.sort_unstable();
        let mut bridged = bridged.into_iter().peekable();
        let mut ranges: Vec<Range<u64>> = Vec::with_capacity(self.ranges.len() - bridged.len());
        for (index, range) in self.ranges.iter().enumerate() {
            let joins = index > 0 && bridged.next_if_eq(&(index - 1)).is_some();
            match ranges.last_mut() {
                Some(last) if joins => last.end = range.end,
                _ => ranges.push(range.clone()),
            }
        }
        Self { ranges }
    }
}

impl FromIterator<Extent> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        Self::normalise(extents)
    }
}

#[cfg(test)]
mod tests;
