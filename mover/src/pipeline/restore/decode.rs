//! Decodes fetched bodies into aligned buffers, runs of neighbouring chunks together: one worker per core.
//!
//! ```text
//!   Fetched ──► runs of ≤ 1 MiB ──► free buffer ◄─ decrypt, decompress, check digest ──► Filled ──► writer
//!                         chunk 0 of the target ──► held back, written last
//! ```
//!
//! Owns: placing chunks in buffers. Must not: write. A chunk whose check fails never reaches the writer.

use crossbeam_channel::{Receiver, Sender};

use super::fetch::Fetched;
use super::job::{Job, LossSink};
use super::plan::{Run, Wanted};
use super::runs;
use crate::device::buffer::AlignedBuffer;
use crate::error::Result;
use crate::pipeline::progress::{Stage, StageClock};
use crate::repository::format::Decoder;

/// Longest write (1 MiB is where direct writes reach the disk's rate); at least one chunk.
pub(crate) const WRITE_BYTES: u64 = 1 << 20;

/// A buffer with bytes for the target.
#[derive(Debug)]
pub(crate) struct Filled {
    /// Offset in the target.
    pub offset: u64,
    /// Bytes to write.
    pub len: usize,
    /// Holds them from its start.
    pub buffer: AlignedBuffer,
}

/// One decoding thread's ends of the channels.
pub(crate) struct DecodeWorker<'a, 'j, L> {
    /// Shared state.
    pub job: &'a Job<'j>,
    /// Told of chunks that fail their check.
    pub losses: L,
    /// From the fetchers.
    pub fetched: Receiver<Fetched>,
    /// Buffers to fill.
    pub free: Receiver<AlignedBuffer>,
    /// To the writer.
    pub filled: Sender<Filled>,
    /// Decrypts and decompresses.
    pub decoder: Decoder,
}

/// The pipeline is being taken down; the reason was recorded by whoever failed.
struct Closed;

impl<L: LossSink> DecodeWorker<'_, '_, L> {
    /// Works until the fetchers are done, or any thread failed.
    pub(crate) fn run(mut self) {
        let progress = &self.job.context.progress;
        let mut clock = progress.stages.clock(Stage::Decode);
        while let Ok(fetched) = clock.waits(|| self.fetched.recv()) {
            if !self.job.failure.goes_on() {
                return;
            }
            match self.unit(fetched, &mut clock) {
                Ok(Ok(())) => {}
                Ok(Err(Closed)) => return,
                Err(error) => return self.job.failure.set(error),
            }
        }
    }

    fn unit(
        &mut self,
        mut fetched: Fetched,
        clock: &mut StageClock<'_>,
    ) -> Result<Result<(), Closed>> {
        let mut chunks = std::mem::take(&mut fetched.chunks);
        let first = self.job.geometry.chunks().start;
        if let Some(at) = chunks.iter().position(|wanted| wanted.chunk == first) {
            let wanted = chunks.swap_remove(at);
            self.first_chunk(&fetched, &wanted)?;
        }
        let max_chunks = usize::try_from(WRITE_BYTES / self.job.geometry.chunk_size())
            .unwrap_or(1)
            .max(1);
        for run in runs::split(chunks, max_chunks, |wanted| wanted.chunk) {
            if let Err(Closed) = self.run_of_chunks(&fetched, &run, clock)? {
                return Ok(Err(Closed));
            }
        }
        Ok(Ok(()))
    }

    /// Decodes the chunk that makes the target look complete; it is not given to the writer.
    fn first_chunk(&mut self, fetched: &Fetched, wanted: &Wanted) -> Result<()> {
        let (_, len) = self.job.geometry.place(wanted.chunk, 1);
        let mut bytes = vec![0; to_usize(self.job.geometry.chunk_len(wanted.chunk))];
        match self.decode(fetched, wanted, &mut bytes) {
            Ok(()) => {
                bytes.truncate(to_usize(len));
                self.job.written(len);
                self.job.hold_first_chunk(bytes);
                Ok(())
            }
            Err(error) => self.lose(fetched, wanted, error),
        }
    }

    fn run_of_chunks(
        &mut self,
        fetched: &Fetched,
        run: &[Wanted],
        clock: &mut StageClock<'_>,
    ) -> Result<Result<(), Closed>> {
        let mut pending: Option<(AlignedBuffer, u64, usize)> = None;
        for wanted in run {
            let (mut buffer, first, used) = match pending.take() {
                Some(pending) => pending,
                None => match clock.waits(|| self.free.recv()) {
                    Ok(buffer) => (buffer, wanted.chunk, 0),
                    Err(_) => return Ok(Err(Closed)),
                },
            };
            let len = to_usize(self.job.geometry.chunk_len(wanted.chunk));
            match self.decode(fetched, wanted, &mut buffer[used..used + len]) {
                Ok(()) => pending = Some((buffer, first, used + len)),
                Err(error) => {
                    // What came before the bad chunk is good; the rest of the run begins a new write.
                    let sent = if used > 0 {
                        self.send(buffer, first, used)
                    } else {
                        self.give_back(buffer)
                    };
                    self.lose(fetched, wanted, error)?;
                    if let Err(Closed) = sent {
                        return Ok(Err(Closed));
                    }
                }
            }
        }
        Ok(pending.map_or(Ok(()), |(buffer, first, used)| {
            self.send(buffer, first, used)
        }))
    }

    fn decode(&mut self, fetched: &Fetched, wanted: &Wanted, out: &mut [u8]) -> Result<()> {
        let (entry, stored) = fetched.body(wanted)?;
        let keys = &self.job.context.repository.keys;
        self.decoder
            .decode(keys, &fetched.directory, entry, stored, out)
    }

    fn lose(&self, fetched: &Fetched, wanted: &Wanted, error: crate::Error) -> Result<()> {
        let segment = fetched.directory.id();
        self.job.bad.note(segment, &[*wanted], &error);
        let run = Run {
            first: wanted.chunk,
            count: 1,
        };
        self.job.losses.note(&[run], error)?;
        self.losses.lost(run)
    }

    /// Gives `used` bytes that begin with chunk `first` to the writer, without what lies past the restored range.
    fn send(&self, buffer: AlignedBuffer, first: u64, used: usize) -> Result<(), Closed> {
        let chunks = (used as u64).div_ceil(self.job.geometry.chunk_size());
        let (offset, len) = self.job.geometry.place(first, chunks);
        self.filled
            .send(Filled {
                offset,
                len: to_usize(len),
                buffer,
            })
            .map_err(|_| Closed)
    }

    /// An empty write returns the buffer to where it came from.
    fn give_back(&self, buffer: AlignedBuffer) -> Result<(), Closed> {
        self.filled
            .send(Filled {
                offset: 0,
                len: 0,
                buffer,
            })
            .map_err(|_| Closed)
    }
}

/// A length that was bounded by the chunk size.
pub(crate) fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("a length of at most one write")
}
