//! 256 places of which some are taken: the shape that leaves and inner nodes share.
//!
//! Owns: the packed form in memory. Must not: know what an item means. A leaf with one chunk costs one item, not 256, so
//! that a sparse volume's leaves stay small in every queue and cache.

use super::FANOUT;

/// Words of the bitmap of taken places.
const WORDS: usize = FANOUT / 64;

/// At most 256 items, each at its own place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slots<T> {
    taken: [u64; WORDS],
    items: Vec<T>,
}

impl<T: Copy> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            taken: [0; WORDS],
            items: Vec::new(),
        }
    }

    /// Number of taken places.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn is_taken(&self, place: usize) -> bool {
        self.taken[place / 64] >> (place % 64) & 1 == 1
    }

    pub(super) fn get(&self, place: usize) -> Option<T> {
        self.is_taken(place).then(|| self.items[self.rank(place)])
    }

    pub(super) fn set(&mut self, place: usize, item: Option<T>) {
        let rank = self.rank(place);
        let bit = 1 << (place % 64);
        match (self.is_taken(place), item) {
            (true, Some(item)) => self.items[rank] = item,
            (true, None) => {
                self.items.remove(rank);
                self.taken[place / 64] &= !bit;
            }
            (false, Some(item)) => {
                self.items.insert(rank, item);
                self.taken[place / 64] |= bit;
            }
            (false, None) => {}
        }
    }

    /// Appends at a place above all taken ones: the fast way to fill in ascending order.
    pub(super) fn append(&mut self, place: usize, item: T) {
        debug_assert_eq!(
            self.rank(place),
            self.items.len(),
            "places are appended in ascending order"
        );
        self.items.push(item);
        self.taken[place / 64] |= 1 << (place % 64);
    }

    /// All items with their places, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, T)> + '_ {
        (0..FANOUT)
            .filter(|place| self.is_taken(*place))
            .zip(self.items.iter().copied())
    }

    /// All items in the order of their places.
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.items.capacity() * size_of::<T>()
    }

    /// Number of taken places below `place`.
    fn rank(&self, place: usize) -> usize {
        let (word, bit) = (place / 64, place % 64);
        let below = self.taken[..word]
            .iter()
            .map(|word| word.count_ones())
            .sum::<u32>();
        let here = (self.taken[word] & ((1 << bit) - 1)).count_ones();
        (below + here) as usize
    }
}
