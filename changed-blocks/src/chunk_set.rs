//! Sets of chunk numbers as a sparse bitmap: what a delta comes down to once it is rounded to chunks.
//!
//! ```text
//!   chunks   0 … 32767   32768 … 65535   65536 … 98303   …
//!   blocks   [bits]      (none set)      full            one bit a chunk, memory only where some but not all are set
//! ```
//!
//! Owns: the bitmap. Must not: do I/O, or know what a chunk holds.
//! Sixteen TiB of 128 KiB chunks are 2^27 bits: at most 16 MiB in 4096 blocks, however many extents the delta had.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::extent::{ByteLen, Extent};

/// Chunks of a block.
const BLOCK: u64 = 1 << 15;
const WORDS: usize = (BLOCK / 64) as usize;

/// A set of chunk numbers below a limit.
///
/// Invariant: no block is empty, and a block of which every chunk is set holds no words, so equal sets have equal blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSet {
    limit: u64,
    len: u64,
    blocks: BTreeMap<u64, Block>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Full,
    Some { set: u64, words: Box<[u64; WORDS]> },
}

impl ChunkSet {
    /// The set without chunks, of a volume that has `chunks`.
    #[must_use]
    pub fn new(chunks: u64) -> Self {
        Self {
            limit: chunks,
            len: 0,
            blocks: BTreeMap::new(),
        }
    }

    /// Every chunk of a volume that has `chunks`.
    #[must_use]
    pub fn full(chunks: u64) -> Self {
        let mut set = Self::new(chunks);
        set.insert_range(0..chunks);
        set
    }

    /// Number of chunks of the volume; no member is at or above it.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a chunk; one at or above the limit is left out.
    pub fn insert(&mut self, chunk: u64) {
        self.insert_range(chunk..chunk.saturating_add(1));
    }

    /// Adds a range of chunks, clipped to the limit.
    pub fn insert_range(&mut self, chunks: Range<u64>) {
        let end = chunks.end.min(self.limit);
        let mut at = chunks.start;
        while at < end {
            let number = at / BLOCK;
            let stop = number.saturating_add(1).saturating_mul(BLOCK).min(end);
            let first = at % BLOCK;
            let block = self.blocks.entry(number).or_insert_with(Block::empty);
            self.len += block.insert(first, first + (stop - at));
            at = stop;
        }
    }

    /// Adds every chunk of `chunk` bytes that holds at least one byte of `extent`.
    pub fn insert_extent(&mut self, extent: Extent, chunk: ByteLen) {
        let (unit, end) = (chunk.0.max(1), extent.end().unwrap_or(u64::MAX));
        if extent.len.0 > 0 {
            self.insert_range(extent.offset.0 / unit..end.div_ceil(unit));
        }
    }

    /// Adds every member of `other`, up to the limit of this set.
    pub fn union_with(&mut self, other: &Self) {
        let theirs = &other.blocks;
        for (&number, block) in theirs.range(..self.limit.div_ceil(BLOCK)) {
            let cut = number.saturating_add(1).saturating_mul(BLOCK) > self.limit;
            match block {
                Block::Some { words, .. } if !cut => {
                    let mine = self.blocks.entry(number).or_insert_with(Block::empty);
                    self.len += mine.merge(words);
                }
                // The rare block that the limit cuts, and one that needs no words.
                _ => {
                    let first = number * BLOCK;
                    let last = first.saturating_add(BLOCK);
                    for range in other.ranges_from(first).take_while(|r| r.start < last) {
                        self.insert_range(range.start..range.end.min(last));
                    }
                }
            }
        }
    }

    /// Whether `chunk` is a member.
    #[must_use]
    pub fn contains(&self, chunk: u64) -> bool {
        self.blocks
            .get(&(chunk / BLOCK))
            .is_some_and(|block| block.contains(chunk % BLOCK))
    }

    /// The first member at or after `from`.
    #[must_use]
    pub fn next(&self, from: u64) -> Option<u64> {
        self.blocks
            .range(from / BLOCK..)
            .find_map(|(&number, block)| {
                let first = number * BLOCK;
                let bit = block.next_set(from.saturating_sub(first))?;
                Some(first + bit)
            })
    }

    /// The first chunk at or after `from` that is no member; it may be the limit or lie above it.
    #[must_use]
    pub fn next_absent(&self, from: u64) -> u64 {
        let mut at = from;
        for (&number, block) in self.blocks.range(from / BLOCK..) {
            if number != at / BLOCK {
                break;
            }
            let first = number * BLOCK;
            match block.next_clear(at - first) {
                Some(bit) => return first + bit,
                None => at = first.saturating_add(BLOCK),
            }
        }
        at
    }

    /// The last chunk at or before `from` that is no member; `None` where all down to the first are.
    #[must_use]
    pub fn previous_absent(&self, from: u64) -> Option<u64> {
        let mut at = from;
        for (&number, block) in self.blocks.range(..=from / BLOCK).rev() {
            if number != at / BLOCK {
                break;
            }
            let first = number * BLOCK;
            match block.previous_clear(at - first) {
                Some(bit) => return Some(first + bit),
                None => at = first.checked_sub(1)?,
            }
        }
        Some(at)
    }

    /// The member before which there are `index` others, counted from the lowest.
    #[must_use]
    pub fn nth(&self, index: u64) -> Option<u64> {
        let mut left = index;
        for (&number, block) in &self.blocks {
            match left.checked_sub(block.len()) {
                Some(rest) => left = rest,
                None => return Some(number * BLOCK + block.nth(left)),
            }
        }
        None
    }

    /// Members, ascending, as ranges that do not touch.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges_from(0)
    }

    /// Members at or after `from`, ascending, as ranges that do not touch.
    pub fn ranges_from(&self, from: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            let start = self.next(at)?;
            at = self.next_absent(start);
            Some(start..at)
        })
    }

    /// Members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.iter_from(0)
    }

    /// Members at or after `from`, ascending.
    pub fn iter_from(&self, from: u64) -> impl Iterator<Item = u64> + '_ {
        self.ranges_from(from).flatten()
    }
}

impl Block {
    fn empty() -> Self {
        Self::Some {
            set: 0,
            words: Box::new([0; WORDS]),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Full => BLOCK,
            Self::Some { set, .. } => *set,
        }
    }

    fn contains(&self, bit: u64) -> bool {
        match self {
            Self::Full => true,
            Self::Some { words, .. } => {
                words[(bit / 64 % WORDS as u64) as usize] >> (bit % 64) & 1 == 1
            }
        }
    }

    /// Sets the bits `[first, end)` and says how many of them were clear.
    fn insert(&mut self, first: u64, end: u64) -> u64 {
        let Self::Some { set, words } = self else {
            return 0;
        };
        let before = *set;
        let mut base = first / 64 * 64;
        for word in &mut words[(first / 64 % WORDS as u64) as usize..] {
            if base >= end {
                break;
            }
            let mask = bits_below(end - base) & !bits_below(first.saturating_sub(base));
            *set += u64::from((mask & !*word).count_ones());
            *word |= mask;
            base += 64;
        }
        let added = *set - before;
        self.settle();
        added
    }

    /// Sets every bit that `other` has and says how many of them were clear.
    fn merge(&mut self, other: &[u64; WORDS]) -> u64 {
        let Self::Some { set, words } = self else {
            return 0;
        };
        let before = *set;
        for (word, other) in words.iter_mut().zip(other) {
            *set += u64::from((other & !*word).count_ones());
            *word |= other;
        }
        let added = *set - before;
        self.settle();
        added
    }

    /// Gives the words back once all are set.
    fn settle(&mut self) {
        if self.len() == BLOCK {
            *self = Self::Full;
        }
    }

    fn next_set(&self, from: u64) -> Option<u64> {
        match self {
            Self::Full => Some(from),
            Self::Some { words, .. } => next_one(words, from, 0),
        }
    }

    fn next_clear(&self, from: u64) -> Option<u64> {
        match self {
            Self::Full => None,
            Self::Some { words, .. } => next_one(words, from, u64::MAX),
        }
    }

    fn previous_clear(&self, from: u64) -> Option<u64> {
        let Self::Some { words, .. } = self else {
            return None;
        };
        let last = (from / 64 % WORDS as u64) as usize;
        let mut base = from / 64 * 64;
        let mut mask = bits_below(from % 64 + 1);
        for word in words[..=last].iter().rev() {
            let clear = !word & mask;
            if clear != 0 {
                return Some(base + 63 - u64::from(clear.leading_zeros()));
            }
            mask = u64::MAX;
            base = base.saturating_sub(64);
        }
        None
    }

    /// The bit before which `index` others are set; `index` is less than the number set.
    fn nth(&self, index: u64) -> u64 {
        let Self::Some { words, .. } = self else {
            return index;
        };
        let (mut left, mut base) = (index, 0);
        for word in words.iter() {
            let ones = u64::from(word.count_ones());
            if left < ones {
                let mut rest = *word;
                for _ in 0..left {
                    rest &= rest - 1;
                }
                return base + u64::from(rest.trailing_zeros());
            }
            left -= ones;
            base += 64;
        }
        base
    }
}

/// The lowest `count` bits of a word; all from 64 on.
fn bits_below(count: u64) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

/// The first one at or after bit `from` of the words, each turned over by `flip`.
fn next_one(words: &[u64; WORDS], from: u64, flip: u64) -> Option<u64> {
    let first = (from / 64 % WORDS as u64) as usize;
    let mut base = from / 64 * 64;
    let mut mask = !bits_below(from % 64);
    for word in &words[first..] {
        let seen = (word ^ flip) & mask;
        if seen != 0 {
            return Some(base + u64::from(seen.trailing_zeros()));
        }
        mask = u64::MAX;
        base += 64;
    }
    None
}

#[cfg(test)]
mod tests;
