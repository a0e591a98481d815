//! One bit for every body of every segment of a repository that a point uses.
//!
//! ```text
//!   session ─► segments ascending ─► first n  (the common case: 12 bytes a segment)
//!                                 └► words    (a slice of one array for all segments of the session)
//! ```
//!
//! Owns: the packed form, about one bit a body for a fully fragmented volume. Must not: know what a set bit means.

use crate::repository::ids::{SegmentId, SessionId};

/// Bits of a word.
const WORD: usize = 64;

/// Set ordinals of many segments.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentTable {
    /// Ascending by session.
    sessions: Vec<(SessionId, SessionBits)>,
    /// Where the last lookup ended: neighbours nearly always share a session.
    hint: usize,
}

/// Set ordinals of the segments of one session.
#[derive(Clone, Debug, Default)]
struct SessionBits {
    /// Ascending by number.
    rows: Vec<Row>,
    words: Vec<u64>,
    /// Words that no row uses any more.
    garbage: usize,
    hint: usize,
}

/// Set ordinals of one segment: the first `first` of them, or else `len` words from `start`.
#[derive(Clone, Copy, Debug)]
struct Row {
    number: u32,
    start: u32,
    /// Words; 0 where `first` says it all.
    len: u16,
    first: u16,
}

/// Set ordinals of one segment, to look at.
#[derive(Clone, Copy, Debug)]
pub struct LiveSet<'a> {
    first: u16,
    words: &'a [u64],
}

impl LiveSet<'_> {
    /// Whether `ordinal` is in the set.
    #[must_use]
    pub fn contains(&self, ordinal: u16) -> bool {
        let at = usize::from(ordinal);
        ordinal < self.first
            || self
                .words
                .get(at / WORD)
                .is_some_and(|word| word >> (at % WORD) & 1 == 1)
    }

    /// The set as its two parts, whose union it is: the first so many ordinals, and bits from ordinal 0.
    pub(crate) fn parts(&self) -> (u16, &[u64]) {
        (self.first, self.words)
    }

    /// A set from its two parts.
    pub(crate) fn from_parts(first: u16, words: &[u64]) -> LiveSet<'_> {
        LiveSet { first, words }
    }

    /// Number of ordinals in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.first) + self.words.iter().map(|word| word.count_ones()).sum::<u32>()
    }

    /// One more than the highest ordinal in the set; 0 for an empty one.
    #[must_use]
    pub fn end(&self) -> u32 {
        let highest = self
            .words
            .iter()
            .enumerate()
            .rev()
            .find(|(_, word)| **word != 0);
        match highest {
            None => u32::from(self.first),
            Some((at, word)) => {
                u32::try_from((at + 1) * WORD).expect("ordinals are 16 bits") - word.leading_zeros()
            }
        }
    }

    /// The ordinals, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let words = self.words.iter().enumerate().flat_map(|(at, word)| {
            (0..WORD)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| at * WORD + bit)
        });
        (0..self.first).chain(words.map(|at| u16::try_from(at).expect("ordinals are 16 bits")))
    }
}

impl PartialEq for LiveSet<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl SegmentTable {
    /// Sets a bit and says whether it was clear.
    pub(crate) fn insert(&mut self, segment: SegmentId, ordinal: u16) -> bool {
        let at = match self.find(segment.session) {
            Ok(at) => at,
            Err(at) => {
                self.sessions
                    .insert(at, (segment.session, SessionBits::default()));
                at
            }
        };
        self.hint = at;
        self.sessions[at].1.insert(segment.number, ordinal)
    }

    /// Sets the bits of a bitmap, at once where the segment comes behind all others of its session.
    pub(crate) fn fill(&mut self, segment: SegmentId, bitmap: &[u8]) {
        let Some(bits) = self.behind(segment) else {
            for (at, byte) in (0u16..).zip(bitmap) {
                for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                    self.insert(segment, at * 8 + bit);
                }
            }
            return;
        };
        let start = bits.words.len();
        let words = bitmap.chunks(WORD / 8).map(|bytes| {
            let mut word = [0; WORD / 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        });
        grow_by_eighths(&mut bits.words, words.len());
        bits.words.extend(words);
        let len = bits.words.len() - start;
        bits.push(Row {
            number: segment.number,
            start: u32::try_from(start).expect("one session has fewer than 2^38 chunks"),
            len: u16::try_from(len).expect("at most 1024 words"),
            first: 0,
        });
    }

    /// Sets the first `count` bits, at once where the segment comes behind all others of its session.
    pub(crate) fn fill_first(&mut self, segment: SegmentId, count: u32) {
        match (u16::try_from(count), self.behind(segment)) {
            (Ok(0), _) => {}
            (Ok(first), Some(bits)) => bits.push(Row {
                number: segment.number,
                start: 0,
                len: 0,
                first,
            }),
            _ => {
                let all = (0..=u16::MAX).take_while(|ordinal| u32::from(*ordinal) < count);
                all.for_each(|ordinal| {
                    self.insert(segment, ordinal);
                });
            }
        }
    }

    /// The bits of the session, where the segment would be its last and the session the last one.
    fn behind(&mut self, segment: SegmentId) -> Option<&mut SessionBits> {
        match self.sessions.last() {
            Some((last, _)) if *last > segment.session => return None,
            Some((last, _)) if *last == segment.session => {}
            _ => self
                .sessions
                .push((segment.session, SessionBits::default())),
        }
        self.hint = self.sessions.len() - 1;
        let (_, bits) = self.sessions.last_mut()?;
        let is_behind = bits
            .rows
            .last()
            .is_none_or(|row| row.number < segment.number);
        is_behind.then_some(bits)
    }

    /// Clears a bit and says whether it was set.
    pub(crate) fn remove(&mut self, segment: SegmentId, ordinal: u16) -> bool {
        let Ok(at) = self.find(segment.session) else {
            return false;
        };
        self.hint = at;
        self.sessions[at].1.remove(segment.number, ordinal)
    }

    pub(crate) fn contains(&self, segment: SegmentId, ordinal: u16) -> bool {
        self.get(segment).contains(ordinal)
    }

    /// The set of one segment, empty where it has none.
    pub(crate) fn get(&self, segment: SegmentId) -> LiveSet<'_> {
        self.find(segment.session)
            .ok()
            .and_then(|at| self.sessions[at].1.get(segment.number))
            .unwrap_or(LiveSet {
                first: 0,
                words: &[],
            })
    }

    /// All segments with a set that is not empty, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SegmentId, LiveSet<'_>)> + '_ {
        self.sessions
            .iter()
            .flat_map(|(session, bits)| {
                bits.rows.iter().map(|row| {
                    (
                        SegmentId {
                            session: *session,
                            number: row.number,
                        },
                        bits.view(row),
                    )
                })
            })
            .filter(|(_, set)| set.end() > 0)
    }

    /// Drops empty sets and spells prefixes as such. To be called when no more changes come.
    pub(crate) fn compact(&mut self) {
        for (_, bits) in &mut self.sessions {
            bits.compact();
        }
        self.sessions.retain(|(_, bits)| !bits.rows.is_empty());
        self.sessions.shrink_to_fit();
        self.hint = 0;
    }

    /// Bytes it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        let sessions = self.sessions.iter().map(|(_, bits)| {
            bits.rows.capacity() * size_of::<Row>() + bits.words.capacity() * size_of::<u64>()
        });
        sessions.sum::<usize>() + self.sessions.capacity() * size_of::<(SessionId, SessionBits)>()
    }

    fn find(&self, session: SessionId) -> Result<usize, usize> {
        match self.sessions.get(self.hint) {
            Some((same, _)) if *same == session => Ok(self.hint),
            _ => self
                .sessions
                .binary_search_by_key(&session, |(session, _)| *session),
        }
    }
}

impl SessionBits {
    /// Adds a row behind all others.
    fn push(&mut self, row: Row) {
        grow_by_eighths(&mut self.rows, 1);
        self.rows.push(row);
        self.hint = self.rows.len() - 1;
    }

    fn find(&self, number: u32) -> Result<usize, usize> {
        match self.rows.get(self.hint) {
            Some(row) if row.number == number => Ok(self.hint),
            _ => self.rows.binary_search_by_key(&number, |row| row.number),
        }
    }

    fn get(&self, number: u32) -> Option<LiveSet<'_>> {
        self.find(number).ok().map(|at| self.view(&self.rows[at]))
    }

    fn view(&self, row: &Row) -> LiveSet<'_> {
        LiveSet {
            first: row.first,
            words: &self.words[row.words()],
        }
    }

    fn insert(&mut self, number: u32, ordinal: u16) -> bool {
        let at = match self.find(number) {
            Ok(at) => at,
            Err(at) => {
                grow_by_eighths(&mut self.rows, 1);
                self.rows.insert(
                    at,
                    Row {
                        number,
                        start: 0,
                        len: 0,
                        first: 0,
                    },
                );
                at
            }
        };
        self.hint = at;
        if self.view(&self.rows[at]).contains(ordinal) {
            return false;
        }
        let row = &mut self.rows[at];
        // Bodies are nearly always met in the order they were written in.
        if row.len == 0 && ordinal == row.first && ordinal < u16::MAX {
            row.first += 1;
            return true;
        }
        self.spread(at, usize::from(ordinal) + 1);
        let start = self.rows[at].words().start;
        self.words[start + usize::from(ordinal) / WORD] |= 1 << (usize::from(ordinal) % WORD);
        true
    }

    fn remove(&mut self, number: u32, ordinal: u16) -> bool {
        let Ok(at) = self.find(number) else {
            return false;
        };
        self.hint = at;
        if !self.view(&self.rows[at]).contains(ordinal) {
            return false;
        }
        let row = &mut self.rows[at];
        if row.len == 0 && ordinal + 1 == row.first {
            row.first -= 1;
            return true;
        }
        self.spread(at, usize::from(ordinal) + 1);
        let start = self.rows[at].words().start;
        self.words[start + usize::from(ordinal) / WORD] &= !(1 << (usize::from(ordinal) % WORD));
        true
    }

    /// Makes the row at `at` one of words with room for `bits` bits.
    fn spread(&mut self, at: usize, bits: usize) {
        let row = self.rows[at];
        let need = bits.max(usize::from(row.first)).div_ceil(WORD);
        if row.len != 0 && need <= usize::from(row.len) {
            return;
        }
        // Growth by half keeps a segment whose ordinals come one by one from moving for each of them.
        let len = need
            .max(usize::from(row.len) * 3 / 2)
            .min(usize::from(u16::MAX) / WORD + 1);
        if self.garbage > 1024 && self.garbage > self.words.len() / 2 {
            self.collect();
        }
        let row = self.rows[at];
        let old = row.words();
        let start = if row.len != 0 && old.end == self.words.len() {
            old.start
        } else {
            self.words.len()
        };
        let add = start + len - self.words.len();
        grow_by_eighths(&mut self.words, add);
        self.words.resize(start + len, 0);
        if start != old.start {
            self.garbage += old.len();
            self.words.copy_within(old, start);
        }
        for bit in 0..usize::from(row.first) {
            self.words[start + bit / WORD] |= 1 << (bit % WORD);
        }
        self.rows[at] = Row {
            number: row.number,
            start: u32::try_from(start).expect("one session has fewer than 2^38 chunks"),
            len: u16::try_from(len).expect("at most 1024 words"),
            first: 0,
        };
    }

    /// Moves all used words together.
    fn collect(&mut self) {
        let used = self.words.len() - self.garbage;
        let mut words = Vec::with_capacity(used + used / 8);
        for row in &mut self.rows {
            let range = row.words();
            row.start = u32::try_from(words.len()).expect("shorter than before");
            words.extend_from_slice(&self.words[range]);
        }
        self.words = words;
        self.garbage = 0;
    }

    fn compact(&mut self) {
        let old = std::mem::take(&mut self.words);
        for row in &mut self.rows {
            let set = LiveSet {
                first: row.first,
                words: &old[row.words()],
            };
            let (count, end) = (set.count(), set.end());
            row.start = 0;
            match u16::try_from(count) {
                Ok(count) if u32::from(count) == end => (row.first, row.len) = (count, 0),
                _ => {
                    let len = usize::try_from(end).expect("17 bits").div_ceil(WORD);
                    row.start = u32::try_from(self.words.len()).expect("shorter than before");
                    self.words.extend_from_slice(&set.words[..len]);
                    row.len = u16::try_from(len).expect("at most 1024 words");
                }
            }
        }
        self.rows.retain(|row| row.first > 0 || row.len > 0);
        self.rows.shrink_to_fit();
        self.words.shrink_to_fit();
        self.garbage = 0;
        self.hint = 0;
    }
}

impl Row {
    fn words(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.len)
    }
}

/// Doubling would hold twice the memory at the worst moment; an eighth keeps the budget and is still amortised.
fn grow_by_eighths<T>(items: &mut Vec<T>, add: usize) {
    if items.capacity() - items.len() < add {
        items.reserve_exact(add.max(items.len() / 8));
    }
}

#[cfg(test)]
mod tests;
