//! Chunks outside a delta that are read all the same: samples of every run, and the slow round over everything.
//!
//! Owns: rules R4, R8 and R9, and data-plane.md 23: which chunks. Must not: read or compare them (the workers do).
//!
//! ```text
//!   hot places, random anywhere  ─┐
//!   random among the parent's    ─┤
//!   what the parent stored itself ┼─► with each leaf of the parent: chunks to read although nobody said they changed
//!   round, oldest first, ≤ 5 %   ─┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use changed_blocks::samples::{self, SAMPLES, SampleSpace};
use changed_blocks::{ByteLen, ChunkSet};

use super::super::plan::{Geometry, LEAF_CHUNKS};
use crate::repository::ids::SessionId;
use crate::repository::map::{Entry, Leaf};

/// The round reads about one byte for twenty of the delta.
const ROUND_SHARE: u64 = 20;
/// Samples among the chunks that the parent stored: what is written once is often written again.
const RECENT: u64 = SAMPLES as u64 / 4;

/// What the choice is made from.
#[derive(Clone, Copy, Debug)]
pub struct RecheckPlan {
    /// Size of the volume and its chunks.
    pub geometry: Geometry,
    /// Bytes of the parent that are not zero.
    pub parent_data_bytes: u64,
    /// The session that stored what was new in the parent, and how many bytes that was.
    pub recent: (SessionId, u64),
    /// The byte where the round stopped last time.
    pub rolled_to: u64,
    /// Of the random samples.
    pub seed: u64,
}

/// The choice. Used by one thread; the counters tell others how far it came.
#[derive(Debug)]
pub struct Recheck {
    anywhere: ChunkSet,
    seed: u64,
    /// So many of the chunks that hold data are samples.
    half: u64,
    /// Chunks of the parent that hold data, about.
    of: u64,
    /// Who stored what was new in the parent, and how many chunks that were, about.
    recent: (SessionId, u64),
    chunk_size: u64,
    from: u64,
    left: AtomicU64,
    rolled_to: AtomicU64,
}

impl Recheck {
    /// Chooses outside `delta`.
    #[must_use]
    pub fn new(plan: &RecheckPlan, delta: &ChunkSet) -> Self {
        let chunk_size = u64::from(plan.geometry.chunk_size);
        // An empty delta is legal and suspicious.
        let half = if delta.is_empty() {
            SAMPLES
        } else {
            SAMPLES / 2
        };
        let (recent, stored) = plan.recent;
        // At least one chunk a run, so that small deltas move the round as well.
        let round = delta.len().div_ceil(ROUND_SHARE).max(1);
        Self {
            anywhere: outside(plan.geometry, delta, plan.seed),
            seed: plan.seed,
            half: half as u64,
            of: plan.parent_data_bytes / chunk_size,
            recent: (recent, stored.div_ceil(chunk_size)),
            chunk_size,
            from: plan.rolled_to / chunk_size,
            left: AtomicU64::new(round),
            rolled_to: AtomicU64::new(0),
        }
    }

    /// What the random samples follow from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Chunks that are read whatever the parent has there.
    #[must_use]
    pub fn anywhere(&self) -> &ChunkSet {
        &self.anywhere
    }

    /// Chunks of one of the parent's leaves to read, beside those of the delta. Leaves come in ascending order.
    pub fn choose(&self, index: u64, leaf: &Leaf, delta: &ChunkSet) -> Vec<u64> {
        let first = index * LEAF_CHUNKS;
        let stored_by = |place| match leaf.get(place) {
            Entry::Data { location, .. } => Some(location.segment.session),
            Entry::Zero => None,
        };
        (0..)
            .zip(0..LEAF_CHUNKS)
            .filter_map(|(place, number)| Some((first + number, stored_by(place)?)))
            .filter(|(chunk, _)| !delta.contains(*chunk))
            .filter(|(chunk, by)| {
                self.is_sample(*chunk) || self.is_recent(*chunk, *by) || self.is_next(*chunk)
            })
            .map(|(chunk, _)| chunk)
            .collect()
    }

    fn is_sample(&self, chunk: u64) -> bool {
        samples::is_drawn(self.seed, chunk, self.half, self.of)
    }

    /// Whether it is drawn from what the parent stored itself (rule R8: recently changed).
    fn is_recent(&self, chunk: u64, by: SessionId) -> bool {
        let (session, stored) = self.recent;
        by == session && samples::is_drawn(!self.seed, chunk, RECENT, stored)
    }

    /// Whether the round goes on here, as long as it may read.
    fn is_next(&self, chunk: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if chunk < self.from || left == 0 {
            return false;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        self.rolled_to.store(chunk + 1, Ordering::Relaxed);
        true
    }

    /// The byte where the next round goes on: the beginning, once this one came to the end.
    #[must_use]
    pub fn rolled_to(&self) -> u64 {
        match self.left.load(Ordering::Relaxed) {
            0 => self.rolled_to.load(Ordering::Relaxed).max(self.from) * self.chunk_size,
            _ => 0,
        }
    }
}

/// Chunks at hot places and at random that `told` leaves out.
pub(super) fn outside(geometry: Geometry, told: &ChunkSet, seed: u64) -> ChunkSet {
    let space = SampleSpace {
        chunks: geometry.chunks(),
        chunk: ByteLen(u64::from(geometry.chunk_size)),
        delta: told,
        allocated: None,
    };
    let mut chosen = ChunkSet::new(geometry.chunks());
    for chunk in samples::choose(&space, seed) {
        chosen.insert(chunk);
    }
    chosen
}

#[cfg(test)]
mod tests;
