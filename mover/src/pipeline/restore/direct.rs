//! Restore out of order, straight into the target.
//!
//! ```text
//!   planner (this thread) ─► segment jobs ─► fetchers ═ stored bytes ═► decoders ═ filled buffers ═► writer
//!      │    └ --delta: compares the target first            ▲                ▲                         │
//!      └──► zero runs ─► zeroer                        byte budget           └──── free buffers ◄──────┘
//! ```
//!
//! Owns: the threads and channels, and the order of their ending: each stage ends when the one before it has dropped its
//! sender. Must not: finish the target: what it leaves behind does not look complete.

use crossbeam_channel::{Receiver, Sender, bounded};

use super::content::{self, Walked};
use super::decode::{DecodeWorker, Filled, to_usize};
use super::delta::{Item, TargetScan};
use super::fetch::{FETCHERS, Fetched, Fetcher};
use super::job::{Job, LossSink};
use super::output::Output;
use super::plan::{Run, SegmentJob, WINDOW_BYTES, WindowBuilder};
use super::writer::Writer;
use crate::device::queue::QueueOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::format::Decoder;
use crate::repository::session::points::Point;

/// Zero runs that wait for the thread that makes them.
const ZERO_RUNS: usize = 1024;
/// Bytes that are zeroed between two looks whether to go on.
const ZERO_STEP: u64 = 64 << 20;

/// What is restored, and how.
#[derive(Debug)]
pub(crate) struct Direct<'a> {
    /// The point.
    pub point: &'a Point,
    /// Whether what the target has already is compared first.
    pub delta: bool,
    /// Depth, buffers and engine of the target's queue.
    pub queue: QueueOptions,
    /// Of the choice of samples.
    pub seed: u64,
}

/// Moves everything but the first chunk, which stays in `job`. The first failure is in `job` as well.
pub(crate) fn run(job: &Job<'_>, output: &dyn Output, direct: &Direct<'_>) -> Walked {
    let mut walked = Walked::default();
    let result = move_all(job, output, direct, &mut walked);
    job.failure.note(result);
    walked
}

fn move_all(
    job: &Job<'_>,
    output: &dyn Output,
    direct: &Direct<'_>,
    walked: &mut Walked,
) -> Result<()> {
    let scan = match direct.delta && !output.is_fresh() {
        true => Some(TargetScan::new(output, &direct.queue)?),
        false => None,
    };
    let queue = output.queue(&direct.queue)?;
    job.context.progress.tell_engine(queue.engine());
    let depth = direct.queue.depth.max(1);
    let (segment_tx, segments) = bounded::<SegmentJob>(FETCHERS);
    let ranges = bounded(FETCHERS);
    let (fetched_tx, fetched) = bounded::<Fetched>(FETCHERS);
    let (filled_tx, filled) = bounded::<Filled>(depth);
    // One place for every buffer, so that giving one back never waits.
    let (free_tx, free) = bounded(depth);
    let (zero_tx, zeros) = bounded::<Run>(ZERO_RUNS);
    std::thread::scope(|scope| {
        for _ in 0..FETCHERS {
            let (segments, ranges, fetched) =
                (segments.clone(), ranges.clone(), fetched_tx.clone());
            let fetcher = Fetcher {
                job,
                losses: ZeroLost { job, output },
                segments,
                ranges,
                fetched,
            };
            scope.spawn(|| fetcher.run());
        }
        for _ in 0..job.context.jobs.max(1) {
            let (fetched, free, filled) = (fetched.clone(), free.clone(), filled_tx.clone());
            let losses = ZeroLost { job, output };
            let worker = DecodeWorker {
                job,
                losses,
                fetched,
                free,
                filled,
                decoder: Decoder::new(),
            };
            scope.spawn(|| worker.run());
        }
        scope.spawn(|| {
            Writer {
                job,
                queue,
                filled,
                free: free_tx,
            }
            .run();
        });
        // The receiver outlives the note, so that the planner never reports its end in place of its reason.
        scope.spawn(move || {
            job.failure.note(zero_all(job, output, &zeros));
            drop(zeros);
        });
        // Every end that only workers may hold is dropped here, so that each stage sees the end of the one before it.
        drop((segments, ranges, fetched_tx, fetched, free, filled_tx));
        let planner = Planner {
            job,
            output,
            scan,
            segments: segment_tx,
            zeros: zero_tx,
            items: Vec::new(),
            window_end: 0,
        };
        match planner.run(direct) {
            Ok(done) => *walked = done,
            Err(error) => job.failure.set(error),
        }
    });
    Ok(())
}

/// Leaves the place of a lost chunk zero.
#[derive(Clone, Copy)]
struct ZeroLost<'a, 'j> {
    job: &'a Job<'j>,
    output: &'a dyn Output,
}

impl LossSink for ZeroLost<'_, '_> {
    fn lost(&self, run: Run) -> Result<()> {
        zero_run(self.job, self.output, run)
    }
}

/// Zeroes a run step by step: a device may have to write what it zeroes, for hours, and nobody can stop it within a step.
pub(super) fn zero_run(job: &Job<'_>, output: &dyn Output, run: Run) -> Result<()> {
    let (mut offset, mut left) = job.geometry.place(run.first, run.count);
    if output.is_fresh() {
        job.zeroed(left);
        return Ok(());
    }
    while left > 0 && job.failure.goes_on() {
        let step = left.min(ZERO_STEP);
        output.zero(offset, step)?;
        job.zeroed(step);
        offset += step;
        left -= step;
    }
    Ok(())
}

/// Joins neighbouring runs, which come leaf by leaf, into one call.
fn zero_all(job: &Job<'_>, output: &dyn Output, zeros: &Receiver<Run>) -> Result<()> {
    let mut waiting: Option<Run> = None;
    loop {
        // Nothing more at hand: what waits is done now rather than held until the next run comes.
        let next = match waiting {
            Some(_) => zeros.try_recv().ok(),
            None => match zeros.recv() {
                Ok(run) => Some(run),
                Err(_) => return Ok(()),
            },
        };
        waiting = match (waiting, next) {
            (Some(run), Some(next)) if run.end() == next.first => Some(Run {
                first: run.first,
                count: run.count + next.count,
            }),
            (Some(run), next) => {
                if !job.failure.goes_on() {
                    return Ok(());
                }
                zero_run(job, output, run)?;
                next
            }
            (None, next) => next,
        };
    }
}

/// Cuts the items into windows and hands each to the fetchers and the zeroer.
struct Planner<'a, 'j> {
    job: &'a Job<'j>,
    output: &'a dyn Output,
    scan: Option<TargetScan>,
    segments: Sender<SegmentJob>,
    zeros: Sender<Run>,
    items: Vec<Item>,
    /// First chunk behind the window.
    window_end: u64,
}

impl Planner<'_, '_> {
    fn run(mut self, direct: &Direct<'_>) -> Result<Walked> {
        let window_chunks = (WINDOW_BYTES / self.job.geometry.chunk_size()).max(1);
        self.window_end = self
            .job
            .geometry
            .chunks()
            .start
            .saturating_add(window_chunks);
        let job = self.job;
        let walked = content::walk(job, direct.point, direct.seed, &mut |item| {
            self.add(item, window_chunks)
        })?;
        self.flush()?;
        Ok(walked)
    }

    /// Adds an item; one that reaches behind the window is cut there.
    fn add(&mut self, item: Item, window_chunks: u64) -> Result<()> {
        let Item::Zeros(mut run) = item else {
            let Item::Data(_, wanted) = item else {
                return Ok(());
            };
            while wanted.chunk >= self.window_end {
                self.flush()?;
                self.window_end += window_chunks;
            }
            self.items.push(item);
            return Ok(());
        };
        if self.scan.is_none() {
            // Nothing is to be compared, so a run of any length is one request.
            self.job.protect(self.output)?;
            return self.zeros.send(run).map_err(|_| stopped());
        }
        while run.end() > self.window_end {
            let inside = self.window_end.saturating_sub(run.first).min(run.count);
            if inside > 0 {
                self.items.push(Item::Zeros(Run {
                    first: run.first,
                    count: inside,
                }));
                run = Run {
                    first: run.first + inside,
                    count: run.count - inside,
                };
            }
            self.flush()?;
            self.window_end += window_chunks;
        }
        if run.count > 0 {
            self.items.push(Item::Zeros(run));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let items = std::mem::take(&mut self.items);
        if items.is_empty() {
            return Ok(());
        }
        let mut builder = WindowBuilder::default();
        match &mut self.scan {
            Some(scan) => scan.filter(self.job, &items, &mut builder)?,
            None => {
                for item in items {
                    match item {
                        Item::Zeros(run) => builder.zeros(run.first, run.count),
                        Item::Data(segment, wanted) => builder.data(segment, wanted),
                    }
                }
            }
        }
        let window = builder.take();
        if !window.is_empty() {
            self.job.protect(self.output)?;
        }
        for run in window.zeros {
            self.zeros.send(run).map_err(|_| stopped())?;
        }
        for segment in window.segments {
            self.segments.send(segment).map_err(|_| stopped())?;
        }
        Ok(())
    }
}

/// Seen by the planner when a later stage is gone; that stage's error came first and is the one reported.
fn stopped() -> Error {
    Error::new(
        ErrorKind::Internal,
        "go on: a later stage of the restore ended early",
    )
}

/// Buffers of one chunk at least and of the longest write.
pub(crate) fn buffer_len(chunk_size: u64) -> usize {
    to_usize(chunk_size.max(super::decode::WRITE_BYTES))
}
