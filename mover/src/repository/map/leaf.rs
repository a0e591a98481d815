//! The lowest pages of the map: 256 chunks each.
//!
//! Owns: a leaf in memory. Must not: know bytes (`page`).

use super::FANOUT;
use super::entry::{Entry, Location};
use super::slots::Slots;
use crate::repository::ids::Digest;

/// One stored chunk of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) digest: Digest,
    pub(super) location: Location,
}

/// 256 neighbouring chunks of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub(super) slots: Slots<Stored>,
}

impl Leaf {
    /// A leaf of zeros.
    #[must_use]
    pub fn zero() -> Self {
        Self {
            slots: Slots::new(),
        }
    }

    /// The entry at place `i`.
    ///
    /// # Panics
    /// If `i` is not below [`FANOUT`].
    #[must_use]
    pub fn get(&self, i: usize) -> Entry {
        assert!(i < FANOUT, "a leaf has {FANOUT} places, not {i}");
        match self.slots.get(i) {
            None => Entry::Zero,
            Some(Stored { digest, location }) => Entry::Data { digest, location },
        }
    }

    /// Puts an entry at place `i`.
    ///
    /// # Panics
    /// If `i` is not below [`FANOUT`].
    pub fn set(&mut self, i: usize, entry: Entry) {
        assert!(i < FANOUT, "a leaf has {FANOUT} places, not {i}");
        let item = match entry {
            Entry::Zero => None,
            Entry::Data { digest, location } => Some(Stored { digest, location }),
        };
        self.slots.set(i, item);
    }

    /// Whether every entry is zero. Such a leaf is a null pointer and is never stored.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of entries that are data.
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.slots.len()
    }

    /// The entries that are data, with their places, ascending.
    pub fn data(&self) -> impl Iterator<Item = (usize, Digest, Location)> + '_ {
        self.slots
            .iter()
            .map(|(place, stored)| (place, stored.digest, stored.location))
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.slots.memory()
    }
}
