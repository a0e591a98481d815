//! Which control objects of which session were listed: one row a session, whatever the number of listings.
//!
//! Owns: that table, 44 bytes a session. Must not: conclude anything.

use std::collections::BTreeMap;

use crate::repository::ids::{ReaderKey, SessionKey};

/// A set of facts about one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(u16);

impl Seen {
    /// The second copy of its manifest was listed.
    pub(super) const COPY: Self = Self(1);
    /// Its forget order was listed.
    pub(super) const TOMB: Self = Self(1 << 1);
    /// Its start record was listed, in either of the two listings.
    pub(super) const OPEN: Self = Self(1 << 2);
    /// Its slot holds a manifest.
    pub(super) const MANIFEST: Self = Self(1 << 3);
    /// Its slot holds an abort marker.
    pub(super) const ABORT: Self = Self(1 << 4);
    /// Its liveness was listed.
    pub(super) const LIVE: Self = Self(1 << 5);
    /// Its start record was read.
    pub(super) const READ: Self = Self(1 << 6);
    /// A second look found no damage: its copy is gone too, or the point is younger than the listings.
    pub(super) const SETTLED: Self = Self(1 << 7);
    /// A second look proved that the store lost its start record or manifest.
    pub(super) const LOST: Self = Self(1 << 8);
    /// As `LOST`, and neither start record nor manifest is left.
    pub(super) const BARE: Self = Self(1 << 9);
    /// Its liveness was folded in.
    pub(super) const FOLDED: Self = Self(1 << 10);
    /// There is nothing left of the point but a copy.
    pub(super) const GHOST: Self = Self(1 << 11);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// One writing session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: SessionKey,
    pub(super) live_bytes: u32,
    pub(super) seen: Seen,
}

/// New rows that are sorted in at once: few enough to cost no memory, many enough to cost no time.
const UNSORTED_ROWS: usize = 1 << 16;

/// All sessions with control objects or liveness.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// Ascending by key up to `sorted`, each key once.
    rows: Vec<Row>,
    sorted: usize,
    readers: BTreeMap<ReaderKey, Seen>,
}

impl Controls {
    pub(super) fn note(&mut self, key: SessionKey, seen: Seen, live_bytes: u64) {
        self.rows.push(Row {
            key,
            live_bytes: u32::try_from(live_bytes).unwrap_or(u32::MAX),
            seen,
        });
        if self.rows.len() - self.sorted > UNSORTED_ROWS.max(self.sorted / 4) {
            self.settle();
        }
    }

    pub(super) fn note_reader(&mut self, key: ReaderKey, seen: Seen) {
        self.readers.entry(key).or_default().add(seen);
    }

    /// Sorts new rows in.
    pub(super) fn settle(&mut self) {
        self.rows.sort_unstable_by_key(|row| row.key);
        self.rows.dedup_by(|later, kept| {
            let same = later.key == kept.key;
            if same {
                kept.seen.add(later.seen);
                kept.live_bytes = kept.live_bytes.max(later.live_bytes);
            }
            same
        });
        self.sorted = self.rows.len();
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn get(&self, key: &SessionKey) -> Option<&Row> {
        let at = self.rows.binary_search_by_key(key, |row| row.key).ok()?;
        self.rows.get(at)
    }

    pub(super) fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Row> {
        let at = self.rows.binary_search_by_key(key, |row| row.key).ok()?;
        self.rows.get_mut(at)
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = (ReaderKey, Seen)> + '_ {
        self.readers.iter().map(|(key, seen)| (*key, *seen))
    }

    pub(super) fn reader_mut(&mut self, key: &ReaderKey) -> Option<&mut Seen> {
        self.readers.get_mut(key)
    }

    pub(super) fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.readers.len() * size_of::<(ReaderKey, Seen)>()
    }
}
