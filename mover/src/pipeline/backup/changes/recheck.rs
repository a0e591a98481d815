//! Chunks outside a delta that are read all the same: samples of every run, and the slow round over everything.
//!
//! Owns: rules R4, R8 and R9, and data-plane.md 23: which chunks. Must not: read or compare them (the workers do).
//!
//! ```text
//!   hot places, random anywhere ─┐
//!   random among the parent's   ─┼─► with each leaf of the parent: chunks to read although nobody said they changed
//!   round, oldest first, ≤ 5 %  ─┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use changed_blocks::samples::{self, SAMPLES, SampleSpace};
use changed_blocks::{ByteLen, ChunkSet};

use super::super::plan::{Geometry, LEAF_CHUNKS};
use crate::repository::map::{Entry, Leaf};

/// The round reads at most one byte for twenty of the delta.
const ROUND_SHARE: u64 = 20;

/// What the choice is made from.
#[derive(Clone, Copy, Debug)]
pub struct RecheckPlan {
    /// Size of the volume and its chunks.
    pub geometry: Geometry,
    /// Bytes of the parent that are not zero.
    pub parent_data_bytes: u64,
    /// Chunks of the delta.
    pub delta_chunks: u64,
    /// Where the round stopped last time.
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
        let space = SampleSpace {
            chunks: plan.geometry.chunks(),
            chunk: ByteLen(chunk_size),
            delta,
            allocated: None,
        };
        let mut anywhere = ChunkSet::new(plan.geometry.chunks());
        for chunk in samples::choose(&space, plan.seed) {
            anywhere.insert(chunk);
        }
        Self {
            anywhere,
            seed: plan.seed,
            half: half as u64,
            of: plan.parent_data_bytes / chunk_size,
            from: plan.rolled_to,
            left: AtomicU64::new(plan.delta_chunks / ROUND_SHARE),
            rolled_to: AtomicU64::new(0),
        }
    }

    /// Chunks that are read whatever the parent has there.
    #[must_use]
    pub fn anywhere(&self) -> &ChunkSet {
        &self.anywhere
    }

    /// Chunks of one of the parent's leaves to read, beside those of the delta. Leaves come in ascending order.
    pub fn choose(&self, index: u64, leaf: &Leaf, delta: &ChunkSet) -> Vec<u64> {
        let first = index * LEAF_CHUNKS;
        let places = (0..).zip(0..LEAF_CHUNKS);
        places
            .filter(|(place, _)| matches!(leaf.get(*place), Entry::Data { .. }))
            .map(|(_, place)| first + place)
            .filter(|chunk| !delta.contains(*chunk))
            .filter(|chunk| self.is_sample(*chunk) || self.is_next(*chunk))
            .collect()
    }

    fn is_sample(&self, chunk: u64) -> bool {
        samples::is_drawn(self.seed, chunk, self.half, self.of)
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

    /// Where the next round goes on: from the beginning, once this one came to the end.
    #[must_use]
    pub fn rolled_to(&self) -> u64 {
        match self.left.load(Ordering::Relaxed) {
            0 => self.rolled_to.load(Ordering::Relaxed).max(self.from),
            _ => 0,
        }
    }
}
