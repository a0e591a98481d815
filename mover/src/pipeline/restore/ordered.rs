//! Restore in order, for what cannot be written out of order: a pipe, or a range whose bytes move against the alignment.
//!
//! ```text
//!   planner ──► layout of a window (what follows what) ─────────────► emitter ──► sink
//!      └──► segment jobs ──► fetchers ──► decoders ──► chunks ──────────┘
//! ```
//!
//! Owns: putting decoded chunks back in order. Must not: know what the sink is. A window is at most 32 MiB of data, three are
//! on their way at once, so memory is bounded however far apart the chunks of a window are stored.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::budget::{BudgetGuard, ByteBudget};
use super::decode::to_usize;
use super::delta::Item;
use super::fetch::{FETCHERS, Fetched, Fetcher};
use super::job::{Job, LossSink};
use super::plan::{Run, SegmentJob, Wanted, WindowBuilder};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::format::Decoder;

/// Data in one window: a full segment of the default size, so that most are read with one pass.
const WINDOW_DATA_BYTES: u64 = 32 << 20;
/// Windows that were planned and not yet emitted.
const WINDOWS_AHEAD: usize = 3;
/// Zero runs are no data, so that a window is also cut by its number of places.
const MAX_PLACES: usize = 8192;
/// Decoded chunks on their way to the emitter, which always takes them.
const DELIVERED: usize = 64;

/// Takes the bytes of the restored range from its start to its end.
pub(crate) trait ByteSink: Send {
    /// The next bytes.
    ///
    /// # Errors
    /// What the target answers.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()>;

    /// The next `len` bytes are zero.
    ///
    /// # Errors
    /// What the target answers.
    fn zeros(&mut self, len: u64) -> Result<()>;

    /// The next `len` bytes are not read. Only a reader of parts asks for that.
    ///
    /// # Errors
    /// `Internal` where the target needs every byte.
    fn unread(&mut self, len: u64) -> Result<()> {
        let message = format!("leave {len} bytes out of a stream");
        Err(Error::new(ErrorKind::Internal, message))
    }
}

/// What comes next in the order of the volume.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Something to deliver.
    Item(Item),
    /// Chunks that nobody wants.
    Unread(Run),
}

/// What follows what in a window.
#[derive(Clone, Copy, Debug)]
enum Place {
    Unread(Run),
    Zeros(Run),
    Chunk(u64),
}

/// One window in order, and the room its chunks take.
#[derive(Debug)]
struct Layout {
    places: Vec<Place>,
    _guard: BudgetGuard,
}

/// A chunk that was decoded; no bytes where it is lost.
#[derive(Debug)]
struct Delivered {
    chunk: u64,
    bytes: Option<Vec<u8>>,
}

/// Runs a restore in order: `walk` hands over the parts of the range, ascending, and everything ends up in `sink`. The first
/// failure is in `job`.
pub(crate) fn run(
    job: &Job<'_>,
    sink: &mut dyn ByteSink,
    walk: impl FnOnce(&mut dyn FnMut(Part) -> Result<()>) -> Result<()>,
) {
    let (segment_tx, segments) = bounded::<SegmentJob>(FETCHERS);
    let ranges = bounded(FETCHERS);
    let (fetched_tx, fetched) = bounded::<Fetched>(FETCHERS);
    let (delivered_tx, delivered) = bounded::<Delivered>(DELIVERED);
    let (layout_tx, layouts) = bounded::<Layout>(WINDOWS_AHEAD);
    let room = ByteBudget::new(WINDOW_DATA_BYTES * WINDOWS_AHEAD as u64);
    std::thread::scope(|scope| {
        for _ in 0..FETCHERS {
            let losses = LossMarker(delivered_tx.clone());
            let (segments, ranges, fetched) =
                (segments.clone(), ranges.clone(), fetched_tx.clone());
            let fetcher = Fetcher {
                job,
                losses,
                segments,
                ranges,
                fetched,
            };
            scope.spawn(|| fetcher.run());
        }
        for _ in 0..job.context.jobs.max(1) {
            let (fetched, delivered) = (fetched.clone(), delivered_tx.clone());
            scope.spawn(move || decode_all(job, &fetched, &delivered));
        }
        // Every end that only workers may hold is dropped here, so that each stage sees the end of the one before it.
        drop((segments, ranges, fetched_tx, fetched, delivered_tx));
        let emitter_room = Arc::clone(&room);
        scope.spawn(move || {
            job.failure.note(emit(job, sink, &layouts, &delivered));
            emitter_room.close();
        });
        let mut planner = Planner::new(job, room, segment_tx, layout_tx);
        job.failure
            .note(walk(&mut |part| planner.part(part)).and_then(|()| planner.flush()));
    });
}

/// Tells the emitter of lost chunks.
struct LossMarker(Sender<Delivered>);

impl LossSink for LossMarker {
    fn lost(&self, run: Run) -> Result<()> {
        for chunk in run.first..run.end() {
            // An emitter that is gone has failed and said why.
            drop(self.0.send(Delivered { chunk, bytes: None }));
        }
        Ok(())
    }
}

/// Cuts the items into windows.
struct Planner<'a, 'j> {
    job: &'a Job<'j>,
    room: Arc<ByteBudget>,
    segments: Sender<SegmentJob>,
    layouts: Sender<Layout>,
    builder: WindowBuilder,
    places: Vec<Place>,
    data_chunks: u64,
}

impl<'a, 'j> Planner<'a, 'j> {
    fn new(
        job: &'a Job<'j>,
        room: Arc<ByteBudget>,
        segments: Sender<SegmentJob>,
        layouts: Sender<Layout>,
    ) -> Self {
        let (builder, places) = (WindowBuilder::default(), Vec::new());
        Self {
            job,
            room,
            segments,
            layouts,
            builder,
            places,
            data_chunks: 0,
        }
    }

    fn part(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Unread(run) => self.places.push(Place::Unread(run)),
            Part::Item(Item::Zeros(run)) => self.places.push(Place::Zeros(run)),
            Part::Item(Item::Data(segment, wanted)) => {
                self.places.push(Place::Chunk(wanted.chunk));
                self.builder.data(segment, wanted);
                self.data_chunks += 1;
            }
        }
        let full = self.data_chunks * self.job.geometry.chunk_size() >= WINDOW_DATA_BYTES;
        if full || self.places.len() >= MAX_PLACES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = self.data_chunks * self.job.geometry.chunk_size();
        self.data_chunks = 0;
        let places = std::mem::take(&mut self.places);
        let guard = self.room.acquire(bytes).ok_or_else(stopped)?;
        self.layouts
            .send(Layout {
                places,
                _guard: guard,
            })
            .map_err(|_| stopped())?;
        for segment in self.builder.take().segments {
            self.segments.send(segment).map_err(|_| stopped())?;
        }
        Ok(())
    }
}

/// Seen by a stage whose neighbour is gone; the neighbour's own error came first and is the one reported.
fn stopped() -> Error {
    Error::new(
        ErrorKind::Internal,
        "go on: a later stage of the restore ended early",
    )
}

fn decode_all(job: &Job<'_>, fetched: &Receiver<Fetched>, delivered: &Sender<Delivered>) {
    let mut decoder = Decoder::new();
    while let Ok(unit) = fetched.recv() {
        if !job.failure.goes_on() {
            return;
        }
        for wanted in &unit.chunks {
            let sent = match decode_chunk(job, &mut decoder, &unit, wanted) {
                Ok(chunk) => delivered.send(chunk),
                Err(error) => return job.failure.set(error),
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

fn decode_chunk(
    job: &Job<'_>,
    decoder: &mut Decoder,
    unit: &Fetched,
    wanted: &Wanted,
) -> Result<Delivered> {
    let chunk = wanted.chunk;
    let mut bytes = vec![0; to_usize(job.geometry.chunk_len(chunk))];
    let decoded = unit.body(wanted).and_then(|(entry, stored)| {
        decoder.decode(
            &job.context.repository.keys,
            &unit.directory,
            entry,
            stored,
            &mut bytes,
        )
    });
    match decoded {
        Ok(()) => Ok(Delivered {
            chunk,
            bytes: Some(bytes),
        }),
        Err(error) => {
            job.bad.note(unit.directory.id(), &[*wanted], &error);
            job.losses.note(
                &[Run {
                    first: chunk,
                    count: 1,
                }],
                error,
            )?;
            Ok(Delivered { chunk, bytes: None })
        }
    }
}

/// Brings the chunks of each window into the order of its layout.
fn emit(
    job: &Job<'_>,
    sink: &mut dyn ByteSink,
    layouts: &Receiver<Layout>,
    delivered: &Receiver<Delivered>,
) -> Result<()> {
    let mut early: HashMap<u64, Option<Vec<u8>>> = HashMap::new();
    while let Ok(layout) = layouts.recv() {
        for place in &layout.places {
            if !job.failure.goes_on() {
                return Ok(());
            }
            match *place {
                Place::Unread(run) => sink.unread(job.geometry.place(run.first, run.count).1)?,
                Place::Zeros(run) => emit_zeros(job, sink, run)?,
                Place::Chunk(chunk) => {
                    let bytes = loop {
                        if let Some(bytes) = early.remove(&chunk) {
                            break bytes;
                        }
                        let Ok(next) = delivered.recv() else {
                            return Err(stopped());
                        };
                        early.insert(next.chunk, next.bytes);
                    };
                    emit_chunk(job, sink, chunk, bytes)?;
                }
            }
        }
    }
    Ok(())
}

fn emit_chunk(
    job: &Job<'_>,
    sink: &mut dyn ByteSink,
    chunk: u64,
    bytes: Option<Vec<u8>>,
) -> Result<()> {
    let Some(bytes) = bytes else {
        return emit_zeros(
            job,
            sink,
            Run {
                first: chunk,
                count: 1,
            },
        );
    };
    let clip = job.geometry.clip(chunk, 1);
    let skip = to_usize(clip.start - chunk * job.geometry.chunk_size());
    let bytes = &bytes[skip..skip + to_usize(clip.end - clip.start)];
    sink.bytes(bytes)?;
    job.written(bytes.len() as u64);
    Ok(())
}

fn emit_zeros(job: &Job<'_>, sink: &mut dyn ByteSink, run: Run) -> Result<()> {
    let (_, len) = job.geometry.place(run.first, run.count);
    sink.zeros(len)?;
    job.zeroed(len);
    Ok(())
}
