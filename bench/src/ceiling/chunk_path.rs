//! What happens to one chunk on one core: zero test, keyed BLAKE3, LZ4, AES-256-GCM, straight into the open segment.
//!
//! Owns: the segment buffer and the clocks of the four steps. Must not: do I/O.

use std::time::Instant;

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use serde::Serialize;

use super::reader::{ALIGNMENT, Aligned, is_zero};
use super::{CHUNK_BYTES, Mode, SEGMENT_BYTES};

/// Room behind a segment's end for the worst result of compressing one chunk, and for its tag.
const SLACK_BYTES: usize = 2 * CHUNK_BYTES;
/// AES-256-GCM tag.
const TAG_BYTES: usize = 16;
/// A throw-away key: the probe stores nothing that anybody reads again.
const KEY: [u8; 32] = [0x5e; 32];

/// Seconds per stage, summed over threads, and the bytes that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StageSeconds {
    /// Waiting for reads, summed over reads in flight: divide by the depth for time of the disk.
    pub read: f64,
    /// Zero test.
    pub zero: f64,
    /// Keyed BLAKE3.
    pub hash: f64,
    /// LZ4, and the copy of what does not shrink.
    pub compress: f64,
    /// AES-256-GCM.
    pub seal: f64,
    /// Writing 32 MiB files.
    pub write: f64,
    /// Flushing them.
    pub flush: f64,
    /// Bytes through the zero test.
    pub tested_bytes: u64,
    /// Bytes of chunks that were not zero.
    pub data_bytes: u64,
    /// Bytes written.
    pub stored_bytes: u64,
}

impl StageSeconds {
    /// Adds what another thread measured.
    pub fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.zero += other.zero;
        self.hash += other.hash;
        self.compress += other.compress;
        self.seal += other.seal;
        self.write += other.write;
        self.flush += other.flush;
        self.tested_bytes += other.tested_bytes;
        self.data_bytes += other.data_bytes;
        self.stored_bytes += other.stored_bytes;
    }
}

/// A segment being filled.
#[derive(Debug)]
pub struct OpenSegment {
    buffer: Aligned,
    filled: usize,
    ordinal: u32,
    /// Tells this buffer's output files apart from those of the other buffers.
    pub number: u64,
    /// How many files this buffer has become.
    pub uses: u64,
}

impl OpenSegment {
    /// An empty segment.
    #[must_use]
    pub fn new(number: u64) -> Self {
        let buffer = Aligned::new(SEGMENT_BYTES + SLACK_BYTES);
        Self { buffer, filled: 0, ordinal: 0, number, uses: 0 }
    }

    /// Whether the next chunk might not fit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.filled + CHUNK_BYTES + TAG_BYTES > SEGMENT_BYTES
    }

    /// The filled part, rounded up to whole pages.
    #[must_use]
    pub fn pages(&self) -> &[u8] {
        &self.buffer[..self.filled.next_multiple_of(ALIGNMENT)]
    }

    /// Empties the segment for its next use.
    pub fn reset(&mut self) {
        self.filled = 0;
        self.ordinal = 0;
        self.uses += 1;
    }
}

/// The four steps with their scratch memory and clocks; one per worker.
pub struct ChunkPath {
    mode: Mode,
    table: CompressTable,
    key: LessSafeKey,
    stages: StageSeconds,
}

impl std::fmt::Debug for ChunkPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkPath").field("stages", &self.stages).finish_non_exhaustive()
    }
}

impl ChunkPath {
    /// Ready for the first chunk.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &KEY).expect("32 bytes are a key of AES-256");
        let table = CompressTable::large();
        Self { mode, table, key: LessSafeKey::new(key), stages: StageSeconds::default() }
    }

    /// Tests for zeros and hashes; whether the chunk must be stored.
    pub fn wanted(&mut self, chunk: &[u8]) -> bool {
        let start = Instant::now();
        let zero = is_zero(chunk);
        let tested = Instant::now();
        self.stages.zero += (tested - start).as_secs_f64();
        self.stages.tested_bytes += chunk.len() as u64;
        if zero {
            return false;
        }
        // The digest would go into a map; here it only must not be optimised away.
        std::hint::black_box(blake3::keyed_hash(&KEY, chunk));
        self.stages.hash += tested.elapsed().as_secs_f64();
        self.stages.data_bytes += chunk.len() as u64;
        self.mode == Mode::Backup
    }

    /// Compresses and seals a chunk into `segment`, raw where it does not shrink.
    ///
    /// # Errors
    /// Where compression or encryption refuses, which no input of this size makes them do.
    pub fn store(&mut self, chunk: &[u8], segment: &mut OpenSegment) -> Result<()> {
        let start = Instant::now();
        let room = &mut segment.buffer[segment.filled..];
        debug_assert!(room.len() >= get_maximum_output_size(chunk.len()) + TAG_BYTES);
        let mut stored = compress_into_with_table(chunk, room, &mut self.table)?;
        if stored >= chunk.len() {
            room[..chunk.len()].copy_from_slice(chunk);
            stored = chunk.len();
        }
        let compressed = Instant::now();
        self.stages.compress += (compressed - start).as_secs_f64();

        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&segment.ordinal.to_le_bytes());
        nonce[4..].copy_from_slice(&(segment.number << 32 | segment.uses).to_le_bytes());
        let (body, behind) = room.split_at_mut(stored);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from([0; 32]), body)
            .map_err(|_| anyhow!("encrypt a chunk"))?;
        behind[..TAG_BYTES].copy_from_slice(tag.as_ref());
        self.stages.seal += compressed.elapsed().as_secs_f64();
        segment.filled += stored + TAG_BYTES;
        segment.ordinal += 1;
        Ok(())
    }

    /// What was measured.
    #[must_use]
    pub fn into_stages(self) -> StageSeconds {
        self.stages
    }
}
