//! Which listed segments are needed by any root, and which ordinals of them.
//!
//! Owns: the union of the roots' liveness over the rows of [`Segments`], 8 bytes a row and about one bit a chunk. Must
//! not: know roots. Segments that were not listed are nobody's candidates, so their bits are dropped.

use super::objects::Segments;
use crate::repository::ids::SegmentId;
use crate::repository::map::LiveSet;

/// Live ordinals of one segment: the first `first`, and those in `len` words from `start`.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    start: u32,
    len: u16,
    first: u16,
}

/// Words that may lie unused before the rest is moved together.
const MIN_GARBAGE: usize = 1 << 12;

/// The union for one table of segments. All generations of a segment share the bits of its first row.
#[derive(Debug)]
pub(super) struct LiveUnion {
    rows: Vec<Row>,
    words: Vec<u64>,
    garbage: usize,
    hint: usize,
}

impl LiveUnion {
    pub(super) fn new(segments: &Segments) -> Self {
        Self {
            rows: vec![Row::default(); segments.rows().len()],
            words: Vec::new(),
            garbage: 0,
            hint: 0,
        }
    }

    /// Adds the ordinals that one root needs of one segment.
    pub(super) fn add(&mut self, segments: &Segments, id: SegmentId, set: LiveSet<'_>) {
        let Some(range) = segments.find(id.session, &mut self.hint) else {
            return;
        };
        let rows = &segments.rows()[range.clone()];
        let at = rows.partition_point(|row| row.number < id.number);
        if rows.get(at).is_some_and(|row| row.number == id.number) {
            self.add_at(range.start + at, set);
        }
    }

    fn add_at(&mut self, at: usize, set: LiveSet<'_>) {
        let (first, words) = set.parts();
        let row = &mut self.rows[at];
        row.first = row.first.max(first);
        if words.is_empty() {
            return;
        }
        if words.len() > usize::from(row.len) {
            self.grow(at, words.len());
        }
        let start = self.rows[at].start as usize;
        for (ours, theirs) in self.words[start..].iter_mut().zip(words) {
            *ours |= theirs;
        }
    }

    /// Moves the words of a row to where there is room for `len`.
    fn grow(&mut self, at: usize, len: usize) {
        if self.garbage > MIN_GARBAGE.max(self.words.len() / 8) {
            self.collect();
        }
        let old = self.rows[at].range();
        self.garbage += old.len();
        let start = self.words.len();
        // Doubling would hold twice the memory at the worst moment; an eighth keeps the budget and is still amortised.
        if self.words.capacity() - start < len {
            self.words.reserve_exact(len.max(start / 8));
        }
        self.words.extend_from_within(old);
        self.words.resize(start + len, 0);
        let row = &mut self.rows[at];
        row.start = u32::try_from(start).expect("fewer than 2^38 live chunks");
        row.len = u16::try_from(len).expect("at most 1024 words a segment");
    }

    fn collect(&mut self) {
        let mut words = Vec::with_capacity(self.words.len() - self.garbage);
        for row in &mut self.rows {
            let old = row.range();
            row.start = u32::try_from(words.len()).expect("shorter than before");
            words.extend_from_slice(&self.words[old]);
        }
        self.words = words;
        self.garbage = 0;
    }

    /// Live ordinals of the row at `at`, which must be the first of its segment.
    pub(super) fn get(&self, at: usize) -> Live<'_> {
        let row = self.rows[at];
        Live(LiveSet::from_parts(row.first, &self.words[row.range()]))
    }

    pub(super) fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.words.capacity() * size_of::<u64>()
    }
}

impl Row {
    fn range(self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.len)
    }
}

/// Live ordinals of one segment. Unlike in a single point's liveness, prefix and bits may overlap.
#[derive(Clone, Copy, Debug)]
pub struct Live<'a>(LiveSet<'a>);

impl Live<'_> {
    /// Whether nothing of the segment is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.end() == 0
    }

    /// One more than the highest live ordinal.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.0.end().max(u32::from(self.0.parts().0))
    }

    /// Number of live ordinals.
    #[must_use]
    pub fn count(&self) -> u32 {
        let (first, words) = self.0.parts();
        let beyond = |at: usize, word: u64| {
            let below = (usize::from(first).saturating_sub(at * 64)).min(64);
            let mask = if below == 64 { 0 } else { u64::MAX << below };
            (word & mask).count_ones()
        };
        let words = words.iter().enumerate();
        u32::from(first) + words.map(|(at, word)| beyond(at, *word)).sum::<u32>()
    }

    /// Whether an ordinal is live.
    #[must_use]
    pub fn contains(&self, ordinal: u16) -> bool {
        self.0.contains(ordinal)
    }

    /// The live ordinals, ascending.
    pub fn ordinals(&self) -> impl Iterator<Item = u16> + '_ {
        let first = self.0.parts().0;
        (0..first).chain(
            self.0
                .iter()
                .skip(usize::from(first))
                .filter(move |ordinal| *ordinal >= first),
        )
    }
}
