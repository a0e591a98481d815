//! Fetches the stored bytes of wanted chunks: one worker of sixteen.
//!
//! ```text
//!   SegmentJob ──► first read: directory (+ front) ──► chunks found there ─────────────► Fetched
//!                                                 └──► other chunks, coalesced ranges ──► Fetched
//! ```
//!
//! Owns: which requests are made, the check of map against directory, and the search for a moved segment. Must not: decode.
//! Ranges of one segment are offered to all workers; when nobody has room the worker that found them reads them itself.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError, select_biased};

use super::budget::BudgetGuard;
use super::job::{Job, LossSink};
use super::plan::{Run, SegmentJob, Wanted, push_run};
use super::ranges::{Body, FetchRange, MAX_GET_BYTES, coalesce};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::{Queued, Stage};
use crate::repository::format::{BodyEntry, Class, Directory, HEAD_LEN, fault};
use crate::repository::ids::SegmentId;

/// Requests in flight: hides the latency of an object store, as for map pages; the byte budget bounds the large ones.
pub(crate) const FETCHERS: usize = 16;

/// Times the rest of a segment is looked for after its object vanished between two requests.
const MOVE_ATTEMPTS: u8 = 3;

/// Stored bytes with the chunks that are inside; the guard is given back when they are decoded.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Of the object they are from.
    pub directory: Arc<Directory>,
    /// Offset of `bytes` in the object.
    pub base: u64,
    /// Part of the object.
    pub bytes: Bytes,
    /// Chunks whose bodies are inside.
    pub chunks: Vec<Wanted>,
    _guard: (BudgetGuard, Queued),
}

impl Fetched {
    /// The body of a chunk, as stored.
    ///
    /// # Errors
    /// `Corrupt` where the object ends before it.
    pub(crate) fn body(&self, wanted: &Wanted) -> Result<(&BodyEntry, &[u8])> {
        let entry = entry(&self.directory, wanted)?;
        let stored = entry
            .offset
            .checked_sub(self.base)
            .and_then(|start| usize::try_from(start).ok())
            .and_then(|start| {
                self.bytes
                    .get(start..start.checked_add(entry.stored_len as usize)?)
            });
        match stored {
            Some(stored) => Ok((entry, stored)),
            None => {
                let need = entry.offset + u64::from(entry.stored_len);
                Err(fault::truncated(
                    self.directory.object(),
                    self.base + self.bytes.len() as u64,
                    need,
                ))
            }
        }
    }
}

/// A range of one segment that any worker may fetch.
#[derive(Debug)]
pub(crate) struct RangeTask {
    directory: Arc<Directory>,
    range: FetchRange<Wanted>,
    attempt: u8,
}

/// What a fetcher does next.
enum Next {
    Range(RangeTask),
    Segment(SegmentJob),
    /// Others have ended; the planner may not have.
    Nothing,
    End,
}

/// One fetching thread's ends of the channels.
pub(crate) struct Fetcher<'a, 'j, L> {
    /// Shared state.
    pub job: &'a Job<'j>,
    /// Told of chunks that cannot be had.
    pub losses: L,
    /// Work from the planner.
    pub segments: Receiver<SegmentJob>,
    /// Ranges offered by other workers.
    pub ranges: (Sender<RangeTask>, Receiver<RangeTask>),
    /// To the decoders.
    pub fetched: Sender<Fetched>,
}

impl<L: LossSink> Fetcher<'_, '_, L> {
    /// Works until the planner is done, or any thread failed.
    pub(crate) fn run(self) {
        let result = self.work();
        self.job.failure.note(result);
    }

    fn work(&self) -> Result<()> {
        let stages = &self.job.context.progress.stages;
        let _clock = stages.clock(Stage::Fetch);
        while self.job.failure.goes_on() {
            match stages.waits(Stage::Fetch, || self.next()) {
                Next::Range(task) => self.fetch(task)?,
                Next::Segment(job) => self.segment(job, 0)?,
                Next::Nothing => {}
                Next::End => break,
            }
        }
        // Whoever offers ranges from here on finds this queue empty of takers and reads them itself below.
        loop {
            match self.ranges.1.try_recv() {
                Ok(task) if self.job.failure.goes_on() => self.fetch(task)?,
                Ok(_) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    fn next(&self) -> Next {
        select_biased! {
            recv(self.ranges.1) -> task => task.map_or(Next::Nothing, Next::Range),
            recv(self.segments) -> job => job.map_or(Next::End, Next::Segment),
        }
    }

    fn queued(&self, bytes: usize) -> Queued {
        Queued::new(&self.job.context.progress, bytes)
    }

    /// Waits until so many bytes more may be fetched; nothing once the others have failed.
    fn acquire(&self, bytes: u64) -> Option<BudgetGuard> {
        let stages = &self.job.context.progress.stages;
        stages.waits(Stage::Fetch, || self.job.fetched.acquire(bytes))
    }

    /// Opens a segment and fetches what is wanted of it.
    fn segment(&self, job: SegmentJob, attempt: u8) -> Result<()> {
        let first_read = job.first_read(HEAD_LEN, self.job.geometry.chunk_size(), MAX_GET_BYTES);
        let Some(guard) = self.acquire(first_read) else {
            return Ok(());
        };
        let opened = self
            .job
            .segments
            .directory_and_front(Class::Data, job.segment, first_read);
        let (directory, front) = match opened {
            Ok((directory, front)) => (directory, front.unwrap_or_default()),
            Err(error) => return self.lose(job.segment, &job.chunks, error),
        };
        self.job.read(front.len());
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for wanted in job.chunks {
            match self.locate(&directory, &wanted) {
                Ok(body) if body.bytes.end <= front.len() as u64 => inside.push(wanted),
                Ok(body) => outside.push(body),
                Err(error) => self.lose(job.segment, &[wanted], error)?,
            }
        }
        if inside.is_empty() {
            drop((front, guard));
        } else {
            let queued = self.queued(front.len());
            self.deliver(Fetched {
                directory: Arc::clone(&directory),
                base: 0,
                bytes: front,
                chunks: inside,
                _guard: (guard, queued),
            });
        }
        for range in coalesce(outside) {
            let task = RangeTask {
                directory: Arc::clone(&directory),
                range,
                attempt,
            };
            if let Err(task) = self.ranges.0.try_send(task) {
                self.fetch(task.into_inner())?;
            }
        }
        Ok(())
    }

    /// Where a chunk's body is, after the map and the directory were found to agree on it.
    fn locate(&self, directory: &Directory, wanted: &Wanted) -> Result<Body<Wanted>> {
        let entry = entry(directory, wanted)?;
        let expected = self.job.geometry.chunk_len(wanted.chunk);
        if entry.digest != wanted.digest || u64::from(entry.raw_len) != expected {
            let what = format!(
                "body {} is not chunk {} of the volume",
                wanted.ordinal, wanted.chunk
            );
            return Err(fault::swapped(directory.object(), what));
        }
        let bytes = entry.offset..entry.offset + u64::from(entry.stored_len);
        Ok(Body {
            bytes,
            tag: *wanted,
        })
    }

    fn fetch(&self, task: RangeTask) -> Result<()> {
        let bytes = task.range.bytes.clone();
        let Some(guard) = self.acquire(bytes.end - bytes.start) else {
            return Ok(());
        };
        match self.job.segments.read(&task.directory, bytes.clone()) {
            Ok(stored) => {
                self.job.read(stored.len());
                let queued = self.queued(stored.len());
                let chunks = task.range.bodies.into_iter().map(|body| body.tag).collect();
                self.deliver(Fetched {
                    directory: task.directory,
                    base: bytes.start,
                    bytes: stored,
                    chunks,
                    _guard: (guard, queued),
                });
                Ok(())
            }
            Err(error) => {
                drop(guard);
                self.retry(task, error)
            }
        }
    }

    /// A vanished object was compacted: look for it again. A range that cannot be read is tried body by body when salvaging.
    fn retry(&self, task: RangeTask, error: Error) -> Result<()> {
        let RangeTask {
            directory,
            range,
            attempt,
        } = task;
        let mut chunks: Vec<Wanted> = range.bodies.iter().map(|body| body.tag).collect();
        if error.kind() == ErrorKind::NotFound {
            if attempt >= MOVE_ATTEMPTS {
                return self.lose(directory.id(), &chunks, error);
            }
            self.job.segments.forget(Class::Data, directory.id());
            chunks.sort_by_key(|wanted| wanted.chunk);
            return self.segment(
                SegmentJob {
                    segment: directory.id(),
                    chunks,
                },
                attempt + 1,
            );
        }
        if self.job.losses.is_salvage() && range.bodies.len() > 1 {
            for body in range.bodies {
                let range = FetchRange {
                    bytes: body.bytes.clone(),
                    bodies: vec![body],
                };
                self.fetch(RangeTask {
                    directory: Arc::clone(&directory),
                    range,
                    attempt,
                })?;
            }
            return Ok(());
        }
        self.lose(directory.id(), &chunks, error)
    }

    fn lose(&self, segment: SegmentId, chunks: &[Wanted], error: Error) -> Result<()> {
        self.job.bad.note(segment, chunks, &error);
        let runs = runs_of(chunks);
        self.job.losses.note(&runs, error)?;
        runs.into_iter().try_for_each(|run| self.losses.lost(run))
    }

    /// A closed channel means that the decoders are gone because something failed.
    fn deliver(&self, fetched: Fetched) {
        let stages = &self.job.context.progress.stages;
        drop(stages.waits(Stage::Fetch, || self.fetched.send(fetched)));
    }
}

/// Runs of the chunks, ascending.
pub(crate) fn runs_of(chunks: &[Wanted]) -> Vec<Run> {
    let mut numbers: Vec<u64> = chunks.iter().map(|wanted| wanted.chunk).collect();
    numbers.sort_unstable();
    let mut runs = Vec::new();
    for chunk in numbers {
        push_run(&mut runs, chunk, 1);
    }
    runs
}

fn entry<'d>(directory: &'d Directory, wanted: &Wanted) -> Result<&'d BodyEntry> {
    directory.entry(wanted.ordinal).ok_or_else(|| {
        let what = format!(
            "it has no body {}, where chunk {} should be",
            wanted.ordinal, wanted.chunk
        );
        fault::damaged(directory.object(), what)
    })
}
