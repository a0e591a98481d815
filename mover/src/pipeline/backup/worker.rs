//! The way of a chunk: zero? hashed, same as the parent's? seen before? compressed, stored.
//!
//! Owns: that sequence, one chunk on one core from first to last touch. Must not: read devices or wait for uploads other
//! than through the segment log's budget.

use std::sync::Arc;

use changed_blocks::ChunkSet;
use crossbeam_channel::{Receiver, Sender};

use super::adopted::AdoptedChunks;
use super::changes::lie::{Lie, Said};
use super::dedupe::DedupeTable;
use super::feeder::{Piece, Watch};
use super::leaves::LeafWork;
use super::plan::{Geometry, LEAF_CHUNKS};
use super::segment_log::{EncodedChunk, SegmentLog};
use crate::device::buffer::{AlignedBuffer, is_zero};
use crate::error::Result;
use crate::pipeline::progress::{Progress, Stage};
use crate::repository::format::codec::Encoder;
use crate::repository::format::crypto::Keys;
use crate::repository::ids::Digest;
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

/// What must be as somebody said.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// What was said to have changed, or to hold anything.
    pub told: &'a ChunkSet,
    /// Who said it.
    pub source: &'static str,
    /// The identity record of what that was about, in one line.
    pub target: &'a str,
    /// Id of the parent, which all other chunks are the same as; `None` where all others are zero.
    pub parent: Option<&'a str>,
    /// Whether a difference proves nothing (rule R15).
    pub discard_unstable: bool,
}

impl Witness<'_> {
    /// Compares a chunk outside of what was told with the parent's, or with zeros.
    fn check(&self, offset: u64, before: Entry, found: Option<Digest>) -> Testimony {
        let before = match before {
            Entry::Data { digest, .. } if self.parent.is_some() => Some(digest),
            _ => None,
        };
        if before == found {
            return Testimony::True;
        }
        if self.discard_unstable {
            return Testimony::Unstable;
        }
        let said = match self.parent {
            Some(parent) => Said::Unchanged {
                parent: parent.to_owned(),
                before,
            },
            None => Said::Unallocated,
        };
        let (source, target) = (self.source, self.target.to_owned());
        Testimony::Lie(Box::new(Lie {
            source,
            said,
            offset,
            found,
            target,
        }))
    }
}

/// What a chunk outside of what was told says of who told it.
enum Testimony {
    True,
    /// It differs, where that proves nothing.
    Unstable,
    Lie(Box<Lie>),
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
    let progress = shared.watch.progress;
    let mut clock = progress.stages.clock(Stage::Encode);
    while let Ok(piece) = clock.waits(|| lanes.pieces.recv()) {
        progress.take_over(piece.len);
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
    /// Holds a chunk that nobody told of against what that means.
    fn testify(
        &self,
        (number, len): (u64, u64),
        before: Entry,
        found: Option<Digest>,
    ) -> Result<()> {
        let outside = |witness: &Witness<'_>| !witness.told.contains(number);
        let Some(witness) = self.witness.filter(outside) else {
            return Ok(());
        };
        let progress = self.watch.progress;
        Progress::add(&progress.sampled, len);
        match witness.check(self.geometry.offset_of(number), before, found) {
            Testimony::True => {}
            Testimony::Unstable => Progress::add(&progress.unstable, len),
            Testimony::Lie(lie) => return Err(lie.into_error()),
        }
        Ok(())
    }

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
        self.testify((number, len), leaf.parent_entry(at), digest)?;
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
