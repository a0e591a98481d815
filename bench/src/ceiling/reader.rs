//! Reads of the allocated extents, many at once, past the page cache, by the queue that `snaphaul` reads with.
//!
//! Owns: the plan of reads and the thread that drives the queue. Must not: look at what was read.

use std::time::Instant;

use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, Sender};
use mover::device::{AlignedBuffer, IoQueue, QueueOptions, SourceDevice};

use super::chunk_path::StageSeconds;
use super::{CHUNK_BYTES, READ_BYTES};

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte in the image.
    pub(super) offset: u64,
    /// Bytes, at most one read buffer.
    pub(super) len: usize,
}

/// The queue, with as many reads in flight as its default says.
pub(super) fn queue(source: &dyn SourceDevice) -> Result<(Box<dyn IoQueue>, QueueOptions)> {
    let options = QueueOptions {
        buffer_len: READ_BYTES,
        ..QueueOptions::default()
    };
    Ok((source.queue(&options)?, options))
}

/// Splits the allocated extents, rounded out to whole chunks, into aligned reads.
pub(super) fn plan(source: &dyn SourceDevice) -> Result<Vec<Piece>> {
    let (size, chunk) = (source.size(), CHUNK_BYTES as u64);
    let mut extents = Vec::new();
    source.hole_map()?.allocated(&mut |extent| {
        extents.push((extent.offset.0, extent.len.0));
        true
    })?;
    let mut pieces = Vec::new();
    let mut planned = 0;
    for (start, len) in extents {
        let end = (start + len).next_multiple_of(chunk).min(size);
        let mut offset = (start / chunk * chunk).max(planned);
        while offset < end {
            let next = ((offset / READ_BYTES as u64 + 1) * READ_BYTES as u64).min(end);
            pieces.push(Piece {
                offset,
                len: usize::try_from(next - offset)?,
            });
            offset = next;
        }
        planned = planned.max(end);
    }
    Ok(pieces)
}

/// Reads the whole plan. It ends early when nobody takes what it reads any more: they say why.
pub(super) fn read_all(
    mut queue: Box<dyn IoQueue>,
    depth: usize,
    pieces: Vec<Piece>,
    empty: &Receiver<AlignedBuffer>,
    filled: &Sender<(Piece, AlignedBuffer)>,
) -> Result<StageSeconds> {
    let mut stages = StageSeconds::default();
    let mut idle = queue.take_buffers();
    let mut left = pieces.into_iter().peekable();
    loop {
        idle.extend(empty.try_iter());
        while queue.in_flight() < depth && left.peek().is_some() {
            let Some(buffer) = idle.pop() else { break };
            if let Some(piece) = left.next() {
                queue.read(0, piece.offset, piece.len, buffer);
            }
        }
        let start = Instant::now();
        let Some(done) = queue.wait() else {
            if left.peek().is_none() {
                return Ok(stages);
            }
            idle.push(empty.recv().map_err(|_| anyhow!("every worker has gone"))?);
            continue;
        };
        stages.read += start.elapsed().as_secs_f64();
        done.result?;
        if filled
            .send((
                Piece {
                    offset: done.offset,
                    len: done.len,
                },
                done.buffer,
            ))
            .is_err()
        {
            return Ok(stages);
        }
    }
}
