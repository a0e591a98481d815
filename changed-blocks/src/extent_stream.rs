//! The arithmetic of [`ExtentSet`](crate::ExtentSet) on streams: millions of extents in the memory of a few.
//!
//! ```text
//!   answer A ──► in_order ──► union ──► round_out ──► coalesce ──► one extent at a time
//!   answer B ─────────────────┘
//! ```
//!
//! Owns: the adaptors. Must not: collect a stream, or go on after an extent out of order: such an answer is unsound.
//!
//! Streams are iterators of extents or of an error, which ends them. Extents come by their first byte; they may touch and
//! overlap, and their kind is not looked at: what comes out is data, ascending, disjoint and never touching.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::extent::{ByteLen, ByteOffset, Extent};
use crate::source::SourceError;

/// An extent came after one that begins behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("extent at {offset} comes after one at {after}")]
pub struct OutOfOrder {
    /// First byte of the extent that came too late.
    pub offset: ByteOffset,
    /// First byte of one that was told before it.
    pub after: ByteOffset,
}

impl From<OutOfOrder> for SourceError {
    fn from(fault: OutOfOrder) -> Self {
        Self::full(fault.to_string())
    }
}

/// Set operations on streams of extents; every one holds a bounded number of extents of each stream.
pub trait ExtentStream: Iterator<Item = Result<Extent, Self::Error>> + Sized {
    /// What a stream fails with.
    type Error: From<OutOfOrder>;

    /// The same bytes as extents that neither touch nor overlap.
    fn joined(self) -> impl ExtentStream<Error = Self::Error> {
        self.coalesce(ByteLen(0))
    }

    /// Bridges every gap of at most `max_gap` bytes: reading a small gap costs less than a request of its own.
    fn coalesce(self, max_gap: ByteLen) -> impl ExtentStream<Error = Self::Error> {
        Joined {
            input: self,
            max_gap: max_gap.0,
            pending: None,
            ended: false,
        }
    }

    /// Bytes of either stream.
    fn union(
        self,
        other: impl ExtentStream<Error = Self::Error>,
    ) -> impl ExtentStream<Error = Self::Error> {
        Merged {
            left: Ahead::new(self),
            right: Ahead::new(other),
        }
        .joined()
    }

    /// Bytes of this stream that are not in `other`.
    fn subtract(
        self,
        other: impl ExtentStream<Error = Self::Error>,
    ) -> impl ExtentStream<Error = Self::Error> {
        Without {
            kept: Ahead::new(self.joined()),
            holes: Ahead::new(other.joined()),
            rest: None,
            ended: false,
        }
    }

    /// Bytes of this stream inside `window`. What lies behind it is not asked for.
    fn clip(self, window: Extent) -> impl ExtentStream<Error = Self::Error> {
        let (start, end) = (window.offset.0, window.end().unwrap_or(u64::MAX));
        self.joined()
            .take_while(move |extent| !matches!(extent, Ok(extent) if extent.offset.0 >= end))
            .filter_map(move |extent| {
                let extent = match extent {
                    Ok(extent) => range_of(extent),
                    Err(error) => return Some(Err(error)),
                };
                let inside = extent.start.max(start)..extent.end.min(end);
                (!inside.is_empty()).then(|| Ok(extent_of(inside)))
            })
    }

    /// Every whole unit of `unit` bytes that holds at least one byte of the stream, clipped to `size`.
    ///
    /// A unit of zero bytes rounds nothing.
    fn round_out(self, unit: ByteLen, size: ByteLen) -> impl ExtentStream<Error = Self::Error> {
        let unit = unit.0.max(1);
        self.clip(Extent::data(0, size.0))
            .map(move |extent| {
                let range = range_of(extent?);
                let end = range.end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
                Ok(extent_of(range.start - range.start % unit..end.min(size.0)))
            })
            .joined()
    }

    /// Puts a stream in order whose extents come at most `window` places too late; any later one is an error.
    ///
    /// Holds `window` extents.
    fn in_order(self, window: usize) -> impl ExtentStream<Error = Self::Error> {
        InOrder {
            input: self,
            window,
            held: BinaryHeap::new(),
            last: 0,
            ended: false,
        }
    }
}

impl<I, E> ExtentStream for I
where
    I: Iterator<Item = Result<Extent, E>>,
    E: From<OutOfOrder>,
{
    type Error = E;
}

fn range_of(extent: Extent) -> Range<u64> {
    extent.offset.0..extent.end().unwrap_or(u64::MAX)
}

fn extent_of(range: Range<u64>) -> Extent {
    Extent::data(range.start, range.end - range.start)
}

/// Joins what touches, overlaps or leaves a small gap.
struct Joined<I> {
    input: I,
    max_gap: u64,
    pending: Option<Range<u64>>,
    ended: bool,
}

impl<I: ExtentStream> Joined<I> {
    /// Takes a range in; gives back the one before it where they stay apart.
    fn take_in(&mut self, range: Range<u64>) -> Result<Option<Range<u64>>, OutOfOrder> {
        if range.is_empty() {
            return Ok(None);
        }
        match &mut self.pending {
            Some(last) if range.start < last.start => Err(OutOfOrder {
                offset: ByteOffset(range.start),
                after: ByteOffset(last.start),
            }),
            Some(last) if range.start <= last.end.saturating_add(self.max_gap) => {
                last.end = last.end.max(range.end);
                Ok(None)
            }
            last => Ok(last.replace(range)),
        }
    }
}

impl<I: ExtentStream> Iterator for Joined<I> {
    type Item = Result<Extent, I::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let Some(extent) = self.input.next() else {
                self.ended = true;
                break;
            };
            match extent.and_then(|extent| Ok(self.take_in(range_of(extent))?)) {
                Ok(None) => {}
                Ok(Some(whole)) => return Some(Ok(extent_of(whole))),
                Err(error) => {
                    self.ended = true;
                    self.pending = None;
                    return Some(Err(error));
                }
            }
        }
        self.pending.take().map(extent_of).map(Ok)
    }
}

/// A stream whose next range can be looked at.
struct Ahead<I> {
    input: I,
    next: Option<Range<u64>>,
    ended: bool,
}

impl<I: ExtentStream> Ahead<I> {
    fn new(input: I) -> Self {
        Self {
            input,
            next: None,
            ended: false,
        }
    }

    /// The range that [`take`](Self::take) would give; `None` at the end.
    fn peek(&mut self) -> Result<Option<&Range<u64>>, I::Error> {
        if self.next.is_none() && !self.ended {
            match self.input.next() {
                Some(extent) => self.next = Some(range_of(extent?)),
                None => self.ended = true,
            }
        }
        Ok(self.next.as_ref())
    }

    fn take(&mut self) -> Option<Range<u64>> {
        self.next.take()
    }
}

/// Two streams as one, by the first byte of their extents.
struct Merged<I, J> {
    left: Ahead<I>,
    right: Ahead<J>,
}

impl<I: ExtentStream, J: ExtentStream<Error = I::Error>> Merged<I, J> {
    fn advance(&mut self) -> Result<Option<Range<u64>>, I::Error> {
        let right = self.right.peek()?.map(|range| range.start);
        let left = self.left.peek()?.map(|range| range.start);
        Ok(match (left, right) {
            (Some(left), Some(right)) if right < left => self.right.take(),
            (None, _) => self.right.take(),
            _ => self.left.take(),
        })
    }
}

impl<I: ExtentStream, J: ExtentStream<Error = I::Error>> Iterator for Merged<I, J> {
    type Item = Result<Extent, I::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.advance().transpose()?.map(extent_of))
    }
}

/// One stream without the bytes of another; both are joined.
struct Without<I, J> {
    kept: Ahead<I>,
    holes: Ahead<J>,
    /// What is left of the range that a hole was cut out of.
    rest: Option<Range<u64>>,
    ended: bool,
}

impl<I: ExtentStream, J: ExtentStream<Error = I::Error>> Without<I, J> {
    fn advance(&mut self) -> Result<Option<Range<u64>>, I::Error> {
        loop {
            let range = match self.rest.take() {
                Some(rest) => rest,
                None if self.kept.peek()?.is_none() => return Ok(None),
                None => match self.kept.take() {
                    Some(range) => range,
                    None => return Ok(None),
                },
            };
            while self
                .holes
                .peek()?
                .is_some_and(|hole| hole.end <= range.start)
            {
                self.holes.take();
            }
            match self.holes.peek()? {
                Some(hole) if hole.start <= range.start => {
                    if hole.end < range.end {
                        self.rest = Some(hole.end..range.end);
                    }
                }
                Some(hole) if hole.start < range.end => {
                    self.rest = Some(hole.start..range.end);
                    return Ok(Some(range.start..hole.start));
                }
                _ => return Ok(Some(range)),
            }
        }
    }
}

impl<I: ExtentStream, J: ExtentStream<Error = I::Error>> Iterator for Without<I, J> {
    type Item = Result<Extent, I::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        Some(next?.map(extent_of))
    }
}

/// Sorts a window of a stream that is nearly in order.
struct InOrder<I> {
    input: I,
    window: usize,
    held: BinaryHeap<Reverse<(u64, u64)>>,
    /// First byte of the last extent that was given out.
    last: u64,
    ended: bool,
}

impl<I: ExtentStream> InOrder<I> {
    /// Fills the window by one more extent; `false` at the end of the stream.
    fn hold_one(&mut self) -> Result<bool, I::Error> {
        let Some(extent) = self.input.next() else {
            return Ok(false);
        };
        let range = range_of(extent?);
        if range.start < self.last {
            return Err(OutOfOrder {
                offset: ByteOffset(range.start),
                after: ByteOffset(self.last),
            }
            .into());
        }
        self.held.push(Reverse((range.start, range.end)));
        Ok(true)
    }
}

impl<I: ExtentStream> Iterator for InOrder<I> {
    type Item = Result<Extent, I::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended && self.held.len() <= self.window {
            match self.hold_one() {
                Ok(more) => self.ended = !more,
                Err(error) => {
                    self.ended = true;
                    self.held.clear();
                    return Some(Err(error));
                }
            }
        }
        let Reverse((start, end)) = self.held.pop()?;
        self.last = start;
        Some(Ok(extent_of(start..end)))
    }
}

#[cfg(test)]
mod tests;
