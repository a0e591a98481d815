//! The open segment of a session: chunks go in, sealed segments come out.
//!
//! Owns: segment numbers, sealing, and the check of what was sealed before it is sent. Must not: compress or compare.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::upload::{Upload, Uploader};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::budget::{Budget, Claim};
use crate::pipeline::progress::{Progress, Stage};
use crate::repository::access::Repository;
use crate::repository::format::Decoder;
use crate::repository::format::codec::Codec;
use crate::repository::format::{BufferPool, MAX_BODIES, parse_object};
use crate::repository::format::{Class, ContainerBuilder};
use crate::repository::ids::{Digest, SegmentId, SessionId, name};
use crate::repository::map::Location;

/// Chunks per segment: ordinals are 16 bits, and a directory must stay small enough to be read first.
const MAX_CHUNKS: usize = MAX_BODIES;
/// One chunk in this many is decoded again from the sealed segment; with zstd, whose encoder once had a bug, every chunk.
const CHECK_ONE_IN: usize = 64;

/// The log of one session.
#[derive(Debug)]
pub struct SegmentLog {
    repository: Arc<Repository>,
    session: SessionId,
    uploader: Uploader,
    progress: Arc<Progress>,
    budget: Budget,
    /// Segment buffers go round: mapping and faulting 32 MiB afresh costs as much as encrypting it.
    buffers: BufferPool,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_number: u32,
    segment: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    id: SegmentId,
    builder: ContainerBuilder,
    claim: Claim,
}

/// A chunk as it will be stored, before encryption.
#[derive(Clone, Copy, Debug)]
pub struct EncodedChunk<'a> {
    /// Its number in the volume.
    pub number: u64,
    /// Digest of its plain bytes.
    pub digest: Digest,
    /// Length of its plain bytes.
    pub raw_len: u32,
    /// How `bytes` are encoded.
    pub codec: Codec,
    /// Encoded bytes.
    pub bytes: &'a [u8],
}

impl SegmentLog {
    /// An empty log; one segment is open and at most `uploads` are sealed at any time.
    #[must_use]
    pub fn new(
        repository: Arc<Repository>,
        session: SessionId,
        (uploader, uploads): (Uploader, usize),
        progress: Arc<Progress>,
    ) -> Self {
        let segments = 1 + uploads;
        let capacity = repository.config.segment_size as usize;
        let buffers = BufferPool::new(ContainerBuilder::buffer_len(capacity, MAX_CHUNKS), segments);
        let budget = Budget::new(segments);
        Self {
            repository,
            session,
            uploader,
            progress,
            budget,
            buffers,
            open: Mutex::new(Open::default()),
        }
    }

    /// Stores a chunk and says where it will be found.
    ///
    /// # Errors
    /// What sealing answers; `Internal` once the uploads have ended.
    pub fn append(&self, chunk: &EncodedChunk<'_>) -> Result<Location> {
        let len = chunk.bytes.len();
        loop {
            let mut open = self.open.lock().expect("no holder panics");
            match &mut open.segment {
                Some(segment) if segment.builder.fits(len) => return segment.append(chunk),
                Some(segment) if segment.builder.is_empty() => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "fit a chunk into an empty segment",
                    ));
                }
                // Sealed outside the lock: meanwhile the others fill the next one, perhaps to its end.
                Some(_) => {
                    let full = open.segment.take();
                    drop(open);
                    full.map_or(Ok(()), |full| self.seal(full))?;
                }
                None => open.segment = Some(self.begin(&mut open.next_number)?),
            }
        }
    }

    /// Seals the open segment.
    ///
    /// # Errors
    /// As [`SegmentLog::append`].
    pub fn finish(&self) -> Result<()> {
        let open = self.open.lock().expect("no holder panics").segment.take();
        open.map_or(Ok(()), |segment| self.seal(segment))
    }

    fn begin(&self, next_number: &mut u32) -> Result<Segment> {
        let stages = &self.progress.stages;
        let claim = stages.waits(Stage::Encode, || self.budget.claim());
        let id = SegmentId {
            session: self.session,
            number: *next_number,
        };
        *next_number = next_number
            .checked_add(1)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "number one more segment"))?;
        let keys = Arc::clone(&self.repository.keys);
        let builder = ContainerBuilder::pooled(keys, Class::Data, id, MAX_CHUNKS, &self.buffers);
        Ok(Segment { id, builder, claim })
    }

    fn seal(&self, segment: Segment) -> Result<()> {
        let name = name::segment(segment.id, 0);
        let body = segment.builder.finish(&name)?;
        self.check(segment.id, &name, &body)?;
        self.uploader.send(Upload {
            name,
            body,
            claim: segment.claim,
        })
    }

    /// Reads the sealed segment back the way a restore does: a wrong bit of memory or a faulty encoder shows here, while
    /// the source still has the data.
    fn check(&self, id: SegmentId, name: &str, body: &Bytes) -> Result<()> {
        let keys = &self.repository.keys;
        let directory = parse_object(keys, Class::Data, id, name, body)?;
        let mut decoder = Decoder::new();
        let mut raw = vec![0; self.repository.config.chunk_size as usize];
        for entry in directory.entries() {
            let sampled =
                usize::from(entry.ordinal) % CHECK_ONE_IN == 0 || entry.codec == Codec::Zstd;
            if !sampled {
                continue;
            }
            let start = usize::try_from(entry.offset).expect("a segment fits in memory");
            let stored = &body[start..start + entry.stored_len as usize];
            decoder.decode(keys, &directory, entry, stored, &mut raw[..entry.raw_len as usize]).map_err(
                |error| {
                    Error::new(ErrorKind::Internal, "check a chunk before its upload: it does not decode")
                        .object(name)
                        .hint("nothing wrong was stored; test this machine's memory and processor, then run again")
                        .source(error)
                },
            )?;
        }
        Ok(())
    }
}

impl Segment {
    fn append(&mut self, chunk: &EncodedChunk<'_>) -> Result<Location> {
        let EncodedChunk {
            number,
            digest,
            raw_len,
            codec,
            bytes,
        } = *chunk;
        let ordinal = self.builder.append(number, raw_len, digest, codec, bytes)?;
        Ok(Location {
            segment: self.id,
            ordinal,
        })
    }
}

#[cfg(test)]
mod tests;
