//! What happens to one chunk on one core: zero test, keyed BLAKE3, LZ4, AES-256-GCM, straight into the open segment.
//!
//! Owns: the segment buffer and the clocks of the four steps. Must not: do I/O.

use std::time::Instant;

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use mover::device::{ALIGNMENT, AlignedBuffer, is_zero};
use serde::{Deserialize, Serialize};

use super::restore::StoredSegment;
use super::{CHUNK_BYTES, Mode, SEGMENT_BYTES};

/// Room behind a segment's end for the worst result of compressing one chunk, and for its tag.
const SLACK_BYTES: usize = 2 * CHUNK_BYTES;
/// AES-256-GCM tag.
pub(super) const TAG_BYTES: usize = 16;
/// A throw-away key: the probe stores nothing that anybody reads again.
const KEY: [u8; 32] = [0x5e; 32];

pub(super) fn key() -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, &KEY).expect("32 bytes are a key of AES-256");
    LessSafeKey::new(key)
}

pub(super) fn digest(chunk: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&KEY, chunk).as_bytes()
}

/// As long as what a repository binds a body to.
pub(super) fn aad() -> Aad<[u8; 40]> {
    Aad::from([0; 40])
}

/// Seconds per stage, summed over threads, and the bytes that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StageSeconds {
    /// Waiting for a read to end, with others in flight.
    pub read: f64,
    /// Zero test.
    pub zero: f64,
    /// Keyed BLAKE3.
    pub hash: f64,
    /// LZ4 in either direction, and the copy of what does not shrink.
    pub compress: f64,
    /// AES-256-GCM in either direction.
    pub seal: f64,
    /// Writing, summed over writes in flight.
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
    buffer: AlignedBuffer,
    filled: usize,
    bodies: Vec<Body>,
    /// Names the output file this buffer becomes next.
    pub id: SegmentId,
}

/// Names an output file: no two segments of a run share it, so it serves as the nonce's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentId {
    /// Tells this buffer's output files apart from those of the other buffers.
    pub buffer: u32,
    /// How many files this buffer has become before.
    pub uses: u32,
}

impl SegmentId {
    /// Name of the file in the output directory.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}-{}", self.buffer, self.uses)
    }

    pub(super) fn nonce(self, ordinal: u32) -> Nonce {
        let mut nonce = [0; 12];
        for (place, part) in nonce
            .chunks_exact_mut(4)
            .zip([ordinal, self.buffer, self.uses])
        {
            place.copy_from_slice(&part.to_le_bytes());
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// One chunk in a segment. Its tag stands right behind it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Body {
    /// Place of the chunk in the image, in bytes.
    pub offset: u64,
    /// First byte in the segment.
    pub start: usize,
    /// Bytes in the segment, without the tag.
    pub stored: usize,
    /// Bytes of the chunk; equal to `stored` where it did not shrink.
    pub raw: usize,
    /// Keyed BLAKE3.
    pub digest: [u8; 32],
}

impl OpenSegment {
    /// An empty segment.
    #[must_use]
    pub fn new(number: u32) -> Self {
        let buffer = AlignedBuffer::new(SEGMENT_BYTES + SLACK_BYTES);
        Self {
            buffer,
            filled: 0,
            bodies: Vec::new(),
            id: SegmentId {
                buffer: number,
                uses: 0,
            },
        }
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

    /// Empties the segment for its next use; returns what it held.
    pub fn reset(&mut self) -> StoredSegment {
        let stored = StoredSegment {
            id: self.id,
            pages: self.pages().len(),
            bodies: std::mem::take(&mut self.bodies),
        };
        self.filled = 0;
        self.id.uses += 1;
        stored
    }
}

/// The four steps with their scratch memory and clocks; one per worker.
pub struct ChunkPath {
    mode: Mode,
    table: CompressTable,
    key: LessSafeKey,
    digest: [u8; 32],
    stages: StageSeconds,
}

impl std::fmt::Debug for ChunkPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkPath")
            .field("stages", &self.stages)
            .finish_non_exhaustive()
    }
}

impl ChunkPath {
    /// Ready for the first chunk.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let table = CompressTable::large();
        Self {
            mode,
            table,
            key: key(),
            digest: [0; 32],
            stages: StageSeconds::default(),
        }
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
        self.digest = digest(chunk);
        self.stages.hash += tested.elapsed().as_secs_f64();
        self.stages.data_bytes += chunk.len() as u64;
        self.mode == Mode::Backup
    }

    /// Compresses and seals the chunk that [`Self::wanted`] has just hashed into `segment`, raw where it does not shrink.
    ///
    /// # Errors
    /// Where compression or encryption refuses, which no input of this size makes them do.
    pub fn store(&mut self, offset: u64, chunk: &[u8], segment: &mut OpenSegment) -> Result<()> {
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

        let nonce = segment.id.nonce(u32::try_from(segment.bodies.len())?);
        let (body, behind) = room.split_at_mut(stored);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, aad(), body)
            .map_err(|_| anyhow!("encrypt a chunk"))?;
        behind[..TAG_BYTES].copy_from_slice(tag.as_ref());
        self.stages.seal += compressed.elapsed().as_secs_f64();
        let (start, raw) = (segment.filled, chunk.len());
        segment.bodies.push(Body {
            offset,
            start,
            stored,
            raw,
            digest: self.digest,
        });
        segment.filled += stored + TAG_BYTES;
        Ok(())
    }

    /// What was measured.
    #[must_use]
    pub fn into_stages(self) -> StageSeconds {
        self.stages
    }
}
