//! Seeded randomness for images, edits and moments to kill.
//!
//! Owns: the generator and the seed of a run. Must not: be used for secrets. Every test that draws from it prints its seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64: small, fast, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator seeded by `SNAPHAUL_TEST_SEED`, else by the clock; the seed is printed so that a failure can be run again.
    #[must_use]
    pub fn from_environment(test: &str) -> Self {
        let chosen = std::env::var("SNAPHAUL_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = chosen.unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |age| age.as_secs() ^ u64::from(age.subsec_nanos()))
        });
        eprintln!("{test}: SNAPHAUL_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next_u64() % end }
    }

    /// An index in `0..len`.
    pub fn index(&mut self, len: usize) -> usize {
        let end = u64::try_from(len).expect("a usize fits 64 bits");
        usize::try_from(self.below(end)).expect("smaller than a usize")
    }

    /// Fills `bytes` with noise that does not compress.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_same_bytes() {
        let mut first = [0; 100];
        let mut second = [0; 100];
        Random::new(7).fill(&mut first);
        Random::new(7).fill(&mut second);
        assert_eq!(first, second);
        assert_ne!(first[..50], first[50..]);
    }
}
