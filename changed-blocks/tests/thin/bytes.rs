//! Contents of volumes: random ones, and where two differ, byte by byte.
//!
//! Owns: the truth that answers are compared with. Must not: ask a source.

use changed_blocks::{Extent, ExtentSet};

/// Smallest unit that a device reads or writes.
pub(crate) const SECTOR: usize = 512;

/// SplitMix64: small, fast, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Where two contents differ, in sectors, as far as both reach.
pub(crate) fn different(one: &[u8], two: &[u8]) -> ExtentSet {
    let pairs = one.chunks(SECTOR).zip(two.chunks(SECTOR));
    let sectors = pairs.enumerate().filter(|(_, (one, two))| one != two);
    sectors
        .map(|(index, _)| Extent::data((index * SECTOR) as u64, SECTOR as u64))
        .collect()
}

/// Where a content is not zero, in sectors.
pub(crate) fn not_zero(content: &[u8]) -> ExtentSet {
    different(content, &vec![0; content.len()])
}

/// The bytes of a range.
pub(crate) fn part(content: &[u8], extent: Extent) -> &[u8] {
    let start = usize::try_from(extent.offset.0).unwrap();
    &content[start..start + usize::try_from(extent.len.0).unwrap()]
}
