//! Which chunks of a finished target are read back, and what they must hold.
//!
//! Owns: the choice, made while the map is walked: all of the first and last MiB, 64 random chunks with data, a few zero
//! ones. Must not: read the target or ask for randomness: the seed is given.

use super::geometry::Geometry;
use super::plan::Run;
use crate::repository::ids::Digest;

/// Random chunks with data (data-plane 17).
const DATA_SAMPLES: usize = 64;
/// Random zero chunks: zeroing is one call per run, so that a few show whether it works at all.
const ZERO_SAMPLES: usize = 8;
/// Both ends of the target are checked in full for this many bytes.
const EDGE_BYTES: u64 = 1 << 20;

/// What a chunk of the target must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Zeros.
    Zero,
    /// Bytes of this digest.
    Data(Digest),
}

/// A small, seeded generator (splitmix64): the choice only has to be even, not secret.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Chooses samples from a stream of chunks.
#[derive(Debug)]
pub(crate) struct Sampler {
    random: Random,
    edges: Vec<(u64, Expected)>,
    data: Vec<(u64, Expected)>,
    data_seen: u64,
    zeros: Vec<(u64, Expected)>,
    zeros_seen: u64,
    head_end: u64,
    tail_start: u64,
}

impl Sampler {
    /// For the chunks of `geometry`.
    pub(crate) fn new(geometry: &Geometry, seed: u64) -> Self {
        let (chunks, edge) = (
            geometry.chunks(),
            EDGE_BYTES.div_ceil(geometry.chunk_size()),
        );
        Self {
            random: Random::new(seed),
            edges: Vec::new(),
            data: Vec::new(),
            data_seen: 0,
            zeros: Vec::new(),
            zeros_seen: 0,
            head_end: chunks.start + edge,
            tail_start: chunks.end.saturating_sub(edge),
        }
    }

    /// The next chunk holds data.
    pub(crate) fn data(&mut self, chunk: u64, digest: Digest) {
        if chunk < self.head_end || chunk >= self.tail_start {
            self.edges.push((chunk, Expected::Data(digest)));
        }
        self.data_seen += 1;
        let sample = (chunk, Expected::Data(digest));
        reservoir(
            &mut self.data,
            sample,
            DATA_SAMPLES,
            self.data_seen,
            &mut self.random,
        );
    }

    /// The next chunks are zero.
    pub(crate) fn zeros(&mut self, run: Run) {
        let head = run.first..run.end().min(self.head_end);
        let tail = run.first.max(self.tail_start).max(head.end)..run.end();
        self.edges
            .extend(head.chain(tail).map(|chunk| (chunk, Expected::Zero)));
        self.zeros_seen += 1;
        let chunk = run.first + self.random.below(run.count.max(1));
        reservoir(
            &mut self.zeros,
            (chunk, Expected::Zero),
            ZERO_SAMPLES,
            self.zeros_seen,
            &mut self.random,
        );
    }

    /// All samples, ascending, each chunk once.
    pub(crate) fn finish(mut self) -> Vec<(u64, Expected)> {
        let mut samples = self.edges;
        samples.append(&mut self.data);
        samples.append(&mut self.zeros);
        samples.sort_by_key(|(chunk, _)| *chunk);
        samples.dedup_by_key(|(chunk, _)| *chunk);
        samples
    }
}

/// Keeps an even choice of `room` out of all `seen` so far.
fn reservoir<T>(kept: &mut Vec<T>, item: T, room: usize, seen: u64, random: &mut Random) {
    if kept.len() < room {
        kept.push(item);
    } else if let Ok(at) = usize::try_from(random.below(seen))
        && at < room
    {
        kept[at] = item;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(chunks: u64, zero: impl Fn(u64) -> bool, seed: u64) -> Vec<(u64, Expected)> {
        let geometry = Geometry::new(chunks * 65536, 65536, None).unwrap();
        let mut sampler = Sampler::new(&geometry, seed);
        for chunk in 0..chunks {
            if zero(chunk) {
                sampler.zeros(Run {
                    first: chunk,
                    count: 1,
                });
            } else {
                sampler.data(chunk, Digest([u8::try_from(chunk % 251).unwrap(); 16]));
            }
        }
        sampler.finish()
    }

    #[test]
    fn takes_both_edges_and_random_chunks() {
        let samples = sample(10_000, |chunk| chunk % 10 == 0, 7);
        for chunk in (0..16).chain(9_984..10_000) {
            assert!(
                samples.iter().any(|(sample, _)| *sample == chunk),
                "chunk {chunk}"
            );
        }
        assert!(
            (60..=32 + DATA_SAMPLES + ZERO_SAMPLES).contains(&samples.len()),
            "{}",
            samples.len()
        );
        for (chunk, expected) in &samples {
            assert_eq!(*expected == Expected::Zero, chunk % 10 == 0);
        }
        assert_ne!(samples, sample(10_000, |chunk| chunk % 10 == 0, 8));
    }

    #[test]
    fn a_long_zero_run_costs_its_edges_only() {
        let geometry = Geometry::new(1 << 44, 131_072, None).unwrap();
        let mut sampler = Sampler::new(&geometry, 1);
        sampler.zeros(Run {
            first: 0,
            count: 1 << 27,
        });
        let samples = sampler.finish();
        assert!((16..=17).contains(&samples.len()), "{}", samples.len());
    }

    #[test]
    fn a_small_point_is_checked_whole() {
        assert_eq!(sample(5, |_| false, 3).len(), 5);
        assert!(sample(0, |_| false, 3).is_empty());
    }
}
