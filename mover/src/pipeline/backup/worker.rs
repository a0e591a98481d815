//! The way of a chunk: zero? hashed, same as the parent's? seen before? compressed, stored.
//!
//! Owns: that sequence, one chunk on one core from first to last touch. Must not: read devices or wait for uploads other
//! than through the segment log's budget.

use std::sync::Arc;

use changed_blocks::ChunkSet;
use crossbeam_channel::{Receiver, Sender};

use super::adopted::AdoptedChunks;
use super::changes::lie::Lie;
use super::dedupe::DedupeTable;
use super::feeder::{Piece, Watch};
use super::leaves::LeafWork;
use super::plan::{Geometry, LEAF_CHUNKS};
use super::segment_log::{EncodedChunk, SegmentLog};
use crate::device::buffer::{AlignedBuffer, is_zero};
use crate::error::Result;
use crate::pipeline::progress::Progress;
use crate::repository::format::codec::Encoder;
use crate::repository::format::crypto::Keys;
use crate::repository::ids::{Digest, SessionKey};
use crate::repository::map::Entry;
use crate::repository::quarantine::Quarantine;

/// What all workers of a backup share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Size of the volume and its chunks.
    pub geometry: Geometry,
    /// Keys of the digests.
    pub keys: &'a Keys,
    /// Chunks of this session.
    pub dedupe: &'a DedupeTable,
    /// Chunks of the sessions it took over.
    pub adopted: &'a AdoptedChunks,
    /// Bodies that were found bad: what only they hold counts as not stored.
    pub quarantine: &'a Quarantine,
    /// Where new chunks go.
    pub log: &'a SegmentLog,
    /// First error, stop flag, counters.
    pub watch: Watch<'a>,
    /// Whoever said what changed is watched.
    pub witness: Option<Witness<'a>>,
}

/// What must be as in the parent, because somebody said so.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// What was said to have changed.
    pub delta: &'a ChunkSet,
    /// Who said it.
    pub source: &'static str,
    /// Id of the parent.
    pub parent: &'a str,
    /// The session that found it.
    pub session: SessionKey,
}

impl Witness<'_> {
    /// Compares a chunk outside the delta with the parent's.
    fn check(
        &self,
        number: u64,
        chunk_size: u32,
        before: Entry,
        found: Option<Digest>,
    ) -> Result<()> {
        let before = match before {
            Entry::Data { digest, .. } => Some(digest),
            Entry::Zero => None,
        };
        if before == found {
            return Ok(());
        }
        let lie = Lie {
            source: self.source,
            parent: self.parent.to_owned(),
            offset: number * u64::from(chunk_size),
            before,
            found,
            session: self.session,
        };
        Err(lie.into_error())
    }
}

/// Where a worker takes pieces from and gives what it is done with.
#[derive(Clone, Debug)]
pub struct WorkerLanes {
    /// Pieces read.
    pub pieces: Receiver<Piece>,
    /// Buffers for the reader.
    pub buffers: Sender<AlignedBuffer>,
    /// Completed leaves.
    pub leaves: Sender<Arc<LeafWork>>,
}

/// One worker thread.
///
/// # Errors
/// What storing or looking up a chunk answers.
pub fn run(shared: &Shared<'_>, lanes: &WorkerLanes, mut encoder: Encoder) -> Result<()> {
    let mut entries = Vec::new();
    for piece in &lanes.pieces {
        if shared.watch.failure.is_failed() {
            return Ok(());
        }
        entries.clear();
        let bytes = &piece.buffer[..piece.len];
        let chunk_size = shared.geometry.chunk_size as usize;
        for (number, chunk) in piece.chunks.clone().zip(bytes.chunks(chunk_size)) {
            entries.push(shared.process(&piece.leaf, number, chunk, &mut encoder)?);
        }
        // The buffer goes back first: the device must not wait for the map.
        let _ = lanes.buffers.send(piece.buffer);
        let first = usize::try_from(piece.chunks.start % LEAF_CHUNKS).expect("smaller than a leaf");
        if piece.leaf.fill(first, &entries) && lanes.leaves.send(piece.leaf).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Shared<'_> {
    fn process(
        &self,
        leaf: &LeafWork,
        number: u64,
        chunk: &[u8],
        encoder: &mut Encoder,
    ) -> Result<Entry> {
        let progress = self.watch.progress;
        let len = chunk.len() as u64;
        let at = usize::try_from(number % LEAF_CHUNKS).expect("smaller than a leaf");
        let digest = (!is_zero(chunk)).then(|| self.keys.digest(chunk));
        if let Some(witness) = self
            .witness
            .filter(|witness| !witness.delta.contains(number))
        {
            Progress::add(&progress.sampled, len);
            witness.check(
                number,
                self.geometry.chunk_size,
                leaf.parent_entry(at),
                digest,
            )?;
        }
        let Some(digest) = digest else {
            return Ok(Entry::Zero);
        };
        if let entry @ Entry::Data {
            digest: before,
            location,
        } = leaf.parent_entry(at)
            && before == digest
            && !self.quarantine.contains(location)
        {
            Progress::add(&progress.unchanged, len);
            return Ok(entry);
        }
        if let Some(location) = self.dedupe.get(&digest) {
            Progress::add(&progress.deduplicated, len);
            return Ok(Entry::Data { digest, location });
        }
        if let Some(location) = self.adopted.find(number, &digest)?
            && !self.quarantine.contains(location)
        {
            Progress::add(&progress.deduplicated, len);
            Progress::add(&progress.resumed, len);
            self.dedupe.insert(&digest, location);
            return Ok(Entry::Data { digest, location });
        }
        let (codec, bytes) = encoder.encode(chunk);
        let raw_len = u32::try_from(chunk.len()).expect("a chunk is at most 1 MiB");
        let location = self.log.append(&EncodedChunk {
            number,
            digest,
            raw_len,
            codec,
            bytes,
        })?;
        Progress::add(&progress.new, len);
        self.dedupe.insert(&digest, location);
        Ok(Entry::Data { digest, location })
    }
}
