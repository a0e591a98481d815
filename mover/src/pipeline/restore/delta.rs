//! `--delta`: which chunks of a target already hold what the point says.
//!
//! ```text
//!   expectations of a window ──► reads of ≤ 1 MiB, queue depth deep ──► compare on all cores ──► still to be written
//! ```
//!
//! Owns: reading the target in place. Must not: write. The target may be anything, so every chunk is read, zeros included.

use crossbeam_channel::{Receiver, Sender, bounded};

use super::decode::{WRITE_BYTES, to_usize};
use super::geometry::Geometry;
use super::job::Job;
use super::output::Output;
use super::plan::{Run, Wanted, WindowBuilder};
use crate::device::buffer::{AlignedBuffer, is_zero};
use crate::device::queue::{IoQueue, QueueOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::SegmentId;

/// A run of zero chunks, or one chunk with data: what a window should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Zeros.
    Zeros(Run),
    /// A chunk and the segment it is in.
    Data(SegmentId, Wanted),
}

/// Up to [`WRITE_BYTES`] of the target and what it should hold.
#[derive(Debug)]
struct Piece {
    first: u64,
    /// By chunk; `None` is zero.
    expected: Vec<Option<(SegmentId, Wanted)>>,
}

/// A piece that was read.
#[derive(Debug)]
struct Read {
    piece: Piece,
    buffer: AlignedBuffer,
}

/// A piece that was compared: bit `n` is set where its chunk `n` is right.
#[derive(Debug)]
struct Compared {
    piece: Piece,
    buffer: AlignedBuffer,
    equal: Vec<bool>,
}

/// Compares a target with windows of a point.
#[derive(Debug)]
pub(crate) struct TargetScan {
    queue: Box<dyn IoQueue>,
    free: Vec<AlignedBuffer>,
}

impl TargetScan {
    /// With a queue of its own, beside the writer's: windows that are compared and windows that are written never overlap.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) fn new(output: &dyn Output, options: &QueueOptions) -> Result<Self> {
        let mut queue = output.queue(options)?;
        let free = queue.take_buffers();
        Ok(Self { queue, free })
    }

    /// Puts what differs into `builder` and counts what does not as skipped.
    ///
    /// # Errors
    /// What the target answers, `Interrupted` on a stop.
    pub(crate) fn filter(
        &mut self,
        job: &Job<'_>,
        items: &[Item],
        builder: &mut WindowBuilder,
    ) -> Result<()> {
        let mut differing = Vec::new();
        let depth = self.free.len().max(1);
        let (read_tx, read_rx) = bounded::<Read>(depth);
        let (done_tx, done_rx) = bounded::<Compared>(depth);
        std::thread::scope(|scope| {
            for _ in 0..job.context.jobs.max(1) {
                let (read_rx, done_tx) = (read_rx.clone(), done_tx.clone());
                scope.spawn(move || compare_all(job, &read_rx, &done_tx));
            }
            drop((read_rx, done_tx));
            // Both ends move in, so that the workers see the end.
            self.read_all(job, items, (read_tx, done_rx), &mut differing)
        })?;
        differing.sort_unstable_by_key(|(chunk, _)| *chunk);
        for (chunk, expected) in differing {
            match expected {
                Some((segment, wanted)) => builder.data(segment, wanted),
                None => builder.zeros(chunk, 1),
            }
        }
        Ok(())
    }

    fn read_all(
        &mut self,
        job: &Job<'_>,
        items: &[Item],
        (read, done): (Sender<Read>, Receiver<Compared>),
        differing: &mut Vec<Differing>,
    ) -> Result<()> {
        let mut pieces = Pieces::new(items, max_chunks(&job.geometry));
        let mut waiting = std::collections::HashMap::new();
        let mut comparing = 0usize;
        loop {
            job.context.stop.check()?;
            while let Some(buffer) = self.free.pop() {
                let Some(piece) = pieces.next() else {
                    self.free.push(buffer);
                    break;
                };
                let (offset, len) = job.geometry.place(piece.first, piece.expected.len() as u64);
                self.queue.read(offset, offset, to_usize(len), buffer);
                waiting.insert(offset, piece);
            }
            if let Some(completion) = self.queue.wait() {
                completion.result?;
                let piece = waiting
                    .remove(&completion.token)
                    .ok_or_else(unknown_token)?;
                read.send(Read {
                    piece,
                    buffer: completion.buffer,
                })
                .map_err(|_| unknown_token())?;
                comparing += 1;
            } else if comparing == 0 {
                return Ok(());
            } else {
                let compared = done.recv().map_err(|_| unknown_token())?;
                comparing -= 1;
                self.settle(job, compared, differing);
            }
            while let Ok(compared) = done.try_recv() {
                comparing -= 1;
                self.settle(job, compared, differing);
            }
        }
    }

    fn settle(&mut self, job: &Job<'_>, compared: Compared, differing: &mut Vec<Differing>) {
        self.free.push(compared.buffer);
        let chunks = compared.piece.first..;
        for ((chunk, expected), equal) in chunks.zip(compared.piece.expected).zip(compared.equal) {
            if equal {
                job.skipped(job.geometry.place(chunk, 1).1);
            } else {
                differing.push((chunk, expected));
            }
        }
    }
}

type Differing = (u64, Option<(SegmentId, Wanted)>);

fn max_chunks(geometry: &Geometry) -> u64 {
    (WRITE_BYTES / geometry.chunk_size()).max(1)
}

fn unknown_token() -> Error {
    Error::new(ErrorKind::Internal, "compare the target: a read was lost")
}

fn compare_all(job: &Job<'_>, read: &Receiver<Read>, done: &Sender<Compared>) {
    let (keys, geometry) = (&job.context.repository.keys, &job.geometry);
    while let Ok(Read { piece, buffer }) = read.recv() {
        let mut equal = Vec::with_capacity(piece.expected.len());
        let mut at = 0;
        for (chunk, expected) in (piece.first..).zip(&piece.expected) {
            let len = to_usize(geometry.place(chunk, 1).1);
            let bytes = &buffer[at..at + len];
            let is_equal = match expected {
                None => is_zero(bytes),
                // A chunk that the range cuts cannot be told by its digest, and is written.
                Some((_, wanted)) => {
                    len as u64 == geometry.chunk_len(chunk) && keys.digest(bytes) == wanted.digest
                }
            };
            if is_equal && chunk == geometry.chunks().start {
                // It goes back at the end, should anything else have to be written.
                job.hold_first_chunk(bytes.to_vec());
            }
            equal.push(is_equal);
            at += len;
        }
        if done
            .send(Compared {
                piece,
                buffer,
                equal,
            })
            .is_err()
        {
            return;
        }
    }
}

/// Cuts items into pieces of neighbouring chunks.
struct Pieces<'a> {
    items: &'a [Item],
    max_chunks: u64,
    /// Chunks of `items[0]` that are in earlier pieces.
    used: u64,
}

impl<'a> Pieces<'a> {
    fn new(items: &'a [Item], max_chunks: u64) -> Self {
        Self {
            items,
            max_chunks,
            used: 0,
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let mut piece: Option<Piece> = None;
        while let Some(item) = self.items.first() {
            let (chunk, left) = match item {
                Item::Zeros(run) => (run.first + self.used, run.count - self.used),
                Item::Data(_, wanted) => (wanted.chunk, 1),
            };
            let piece = piece.get_or_insert_with(|| Piece {
                first: chunk,
                expected: Vec::new(),
            });
            let have = piece.expected.len() as u64;
            if have == self.max_chunks || piece.first + have != chunk {
                break;
            }
            let take = left.min(self.max_chunks - have);
            match item {
                Item::Zeros(_) => piece.expected.extend((0..take).map(|_| None)),
                Item::Data(segment, wanted) => piece.expected.push(Some((*segment, *wanted))),
            }
            if take == left {
                self.items = &self.items[1..];
                self.used = 0;
            } else {
                self.used += take;
            }
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::ids::{Digest, SessionId};

    fn data(chunk: u64) -> Item {
        let segment = SegmentId {
            session: SessionId([1; 16]),
            number: 0,
        };
        Item::Data(
            segment,
            Wanted {
                chunk,
                digest: Digest([0; 16]),
                ordinal: 0,
            },
        )
    }

    #[test]
    fn pieces_are_contiguous_and_short() {
        let items = [
            Item::Zeros(Run { first: 0, count: 5 }),
            data(5),
            data(6),
            data(9),
            Item::Zeros(Run {
                first: 10,
                count: 1,
            }),
        ];
        let pieces: Vec<(u64, Vec<bool>)> = Pieces::new(&items, 4)
            .map(|piece| {
                (
                    piece.first,
                    piece.expected.iter().map(Option::is_some).collect(),
                )
            })
            .collect();
        assert_eq!(
            pieces,
            [
                (0, vec![false, false, false, false]),
                (4, vec![false, true, true]),
                (9, vec![true, false]),
            ]
        );
    }

    #[test]
    fn no_items_no_pieces() {
        assert!(Pieces::new(&[], 8).next().is_none());
    }
}
