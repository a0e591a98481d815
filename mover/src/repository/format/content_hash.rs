//! One hash over everything a point holds, whatever way it was stored.
//!
//! Owns: the definition. Must not: read chunks. Runs of zero chunks are records of their length, so that a sparse volume of any
//! size costs what its data costs; neighbouring runs are joined, so that the way of counting does not change the hash.

use std::fmt;

use crate::repository::ids::Digest;

/// Record of a run of zero chunks: this byte, then the run's length in chunks as 8 bytes.
const ZEROS: u8 = 0;
/// Record of a chunk with data: this byte, then its digest.
const DATA: u8 = 1;
/// A zero chunk's digest in this hash. No keyed digest is this one, short of a 2⁻¹²⁸ accident.
const ZERO_DIGEST: Digest = Digest([0; 16]);

/// Takes the digests of all chunks in order.
pub struct ContentHash {
    hasher: Box<blake3::Hasher>,
    zeros: u64,
}

impl ContentHash {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            hasher: Box::new(blake3::Hasher::new_keyed(key)),
            zeros: 0,
        }
    }

    /// The next chunk. The digest of sixteen zero bytes stands for a zero chunk.
    pub fn chunk(&mut self, digest: &Digest) {
        if *digest == ZERO_DIGEST {
            return self.zeros(1);
        }
        self.flush();
        let mut record = [DATA; 17];
        record[1..].copy_from_slice(&digest.0);
        self.hasher.update(&record);
    }

    /// The next `count` chunks are zero.
    pub fn zeros(&mut self, count: u64) {
        self.zeros += count;
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        self.flush();
        self.hasher.finalize().into()
    }

    fn flush(&mut self) {
        if self.zeros > 0 {
            let mut record = [ZEROS; 9];
            record[1..].copy_from_slice(&self.zeros.to_le_bytes());
            self.hasher.update(&record);
            self.zeros = 0;
        }
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentHash").finish_non_exhaustive()
    }
}
