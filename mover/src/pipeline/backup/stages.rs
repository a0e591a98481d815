//! Starts the threads of a backup, joins them in order, and says what failed first.
//!
//! Owns: lanes, thread counts and the order of ending: feeder → workers → map stage → uploads. Each stage ends when the one
//! before it has dropped its senders, so nothing waits for ever and nothing is detached.

use std::ops::Range;
use std::sync::Arc;
use std::thread::Scope;
use std::time::Duration;

use bytes::Bytes;
use changed_blocks::{ChangedBlocks, ChunkSet};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::Run;
use super::adopted::AdoptedChunks;
use super::changes::{Mode, Reading};
use super::dedupe::DedupeTable;
use super::extents::{self, BATCHES_IN_FLIGHT, ExtentStream, Question};
use super::feeder::{Feeder, LEAVES_IN_WORK, Lanes, Watch};
use super::leaves::{LeafWork, Unread};
use super::map_stage::{self, Mapped};
use super::plan::{ChunkRanges, Geometry, LeafPlan, LeafPlans, PIECE_BYTES};
use super::segment_log::SegmentLog;
use super::upload::{self, Upload, Uploader};
use super::worker::{self, Shared, Witness, WorkerLanes};
use crate::device::queue::{IoQueue, QueueOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::budget::{Budget, Failure, uploads_in_flight};
use crate::repository::format::codec::Encoder;
use crate::repository::ids::{SegmentId, name};
use crate::repository::map::{MapCursor, MapWriter};
use crate::repository::quarantine::Quarantine;

/// Reads in flight: 32 of 1 MiB saturate local disks as well as networked ones, within the budget of 32 MiB.
const READ_DEPTH: usize = 32;
/// Bytes of a map segment: small, because few incrementals fill one, and a reader of one page reads little else.
const MAP_SEGMENT_BYTES: usize = 8 << 20;
/// Map segments on their way at once.
const MAP_SEGMENTS_IN_FLIGHT: usize = 2;
/// Signs of life per take-over time: two may get lost before anybody else may think this session dead.
const BEATS_PER_TAKEOVER: u32 = 4;
/// More often would only cost requests.
const SHORTEST_BEAT: Duration = Duration::from_secs(5);

/// Runs all stages; returns once everything the map references is stored.
///
/// # Errors
/// The first failure of any stage.
pub(super) fn run(
    run: &Run<'_>,
    reading: &Reading,
    blocks: &mut (dyn ChangedBlocks + Send),
) -> Result<Mapped> {
    let repository = &run.context.repository;
    let failure = Failure::default();
    let watch = Watch {
        failure: &failure,
        stop: &run.context.stop,
        progress: &run.context.progress,
    };
    let adopted = AdoptedChunks::load(repository, &run.session.adoption().sessions)?;
    let builds_on_something = run.parent.is_some() || !run.session.adoption().sessions.is_empty();
    let quarantine = if builds_on_something {
        Quarantine::load_if_used(repository.store.as_ref())?
    } else {
        Quarantine::default()
    };
    let known = Known {
        adopted: &adopted,
        quarantine: &quarantine,
    };
    let in_flight = uploads_in_flight(run.context.memory, repository.config.segment_size);
    let (uploader, uploads) = Uploader::new(1 + in_flight + MAP_SEGMENTS_IN_FLIGHT);
    let mapped = std::thread::scope(|scope| {
        for _ in 0..in_flight {
            let uploads = uploads.clone();
            let store = repository.store.as_ref();
            scope.spawn(move || upload::run(store, &uploads, watch.failure, watch.progress));
        }
        drop(uploads);
        // The upload threads end with the last sender, which `move_data` drops on its way out.
        move_data(run, (reading, blocks), watch, known, uploader)
    });
    if let Some(error) = failure.take() {
        return Err(error);
    }
    match mapped {
        Ok(Some(mapped)) => Ok(mapped),
        Ok(None) => {
            run.context.stop.check()?;
            Err(Error::new(
                ErrorKind::Internal,
                "end a backup without a map and without a reason",
            ))
        }
        Err(error) => Err(error),
    }
}

/// What is stored already, beside the parent's chunks, and what only seems to be.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    adopted: &'a AdoptedChunks,
    quarantine: &'a Quarantine,
}

/// Reads, compares and stores; the last segments may still be on their way when it returns.
fn move_data(
    run: &Run<'_>,
    (reading, blocks): (&Reading, &mut (dyn ChangedBlocks + Send)),
    watch: Watch<'_>,
    known: Known<'_>,
    uploader: Uploader,
) -> Result<Option<Mapped>> {
    let repository = &run.context.repository;
    let session = run.session.key().session;
    let dedupe = DedupeTable::new();
    let in_flight = uploads_in_flight(run.context.memory, repository.config.segment_size);
    let uploads = (uploader.clone(), in_flight);
    let progress = Arc::clone(&run.context.progress);
    let log = SegmentLog::new(Arc::clone(repository), session, uploads, progress);
    let emit = emit_map_segments(uploader);
    let writer = MapWriter::new(
        Arc::clone(&repository.keys),
        session,
        MAP_SEGMENT_BYTES,
        emit,
    );
    let geometry = run.geometry;
    let parent_id = run.parent.as_ref().map(|parent| parent.id().to_string());
    let shared = Shared {
        geometry,
        keys: &repository.keys,
        dedupe: &dedupe,
        adopted: known.adopted,
        quarantine: known.quarantine,
        log: &log,
        watch,
        witness: witness(reading, parent_id.as_deref()),
    };
    let buffer_len = PIECE_BYTES as usize;
    let queue = run.source.queue(&QueueOptions {
        depth: READ_DEPTH,
        buffer_len,
        engine: run.request.engine,
    })?;
    run.context.progress.tell_engine(queue.engine());

    std::thread::scope(|scope| {
        let plans = plans(scope, reading, blocks, geometry);
        let unread = unread(run, reading, known.quarantine);
        let (pieces, pieces_out) = bounded(READ_DEPTH);
        let (buffers, buffers_out) = bounded(READ_DEPTH);
        let (leaves, leaves_out) = bounded::<Arc<LeafWork>>(LEAVES_IN_WORK);
        let lanes = Lanes {
            pieces,
            buffers: buffers_out,
            leaves: leaves.clone(),
        };
        let worker_lanes = WorkerLanes {
            pieces: pieces_out,
            buffers,
            leaves,
        };
        for _ in 0..run.context.jobs.max(1) {
            let lanes = worker_lanes.clone();
            scope.spawn(move || {
                let worked = Encoder::new(run.request.compression)
                    .and_then(|encoder| worker::run(&shared, &lanes, encoder));
                record(watch, worked);
            });
        }
        drop(worker_lanes);
        scope.spawn(move || record(watch, feed(run, (plans, unread), queue, lanes, watch)));
        let (ended, end) = bounded(1);
        let log = &log;
        scope.spawn(move || {
            let mapped = map_stage::run(geometry, &leaves_out, writer, &watch)
                .and_then(|mapped| log.finish().map(|()| mapped));
            // The receiver waits until this is sent.
            let _ = ended.send(mapped);
        });
        beat_until_end(run, watch, &end)
    })
}

type Plans<'a> = Box<dyn Iterator<Item = Result<LeafPlan>> + Send + 'a>;

/// What is read, leaf by leaf: streamed from the source, or from an answer that is there in whole.
fn plans<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    reading: &'a Reading,
    blocks: &'a mut (dyn ChangedBlocks + Send),
    geometry: Geometry,
) -> Plans<'a> {
    let question = match &reading.mode {
        Mode::Delta(delta) => {
            let mut chunks = delta.chunks.clone();
            chunks.union_with(delta.recheck.anywhere());
            return Box::new(LeafPlans::new(OwnedRanges { chunks, from: 0 }));
        }
        Mode::Claimed(claim) => {
            let mut chunks = claim.chunks.clone();
            chunks.union_with(&claim.samples);
            return Box::new(LeafPlans::new(OwnedRanges { chunks, from: 0 }));
        }
        Mode::Allocated => Question::Allocated,
        Mode::Known => Question::Delta,
    };
    let (answer, answers) = bounded(BATCHES_IN_FLIGHT);
    scope.spawn(move || extents::send(blocks, question, &answer));
    let extents = ExtentStream::new(answers, geometry.size);
    Box::new(LeafPlans::new(ChunkRanges::new(geometry, extents)))
}

/// The ranges of a set that nobody else needs.
struct OwnedRanges {
    chunks: ChunkSet,
    from: u64,
}

impl Iterator for OwnedRanges {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.chunks.next(self.from)?;
        self.from = self.chunks.next_absent(start);
        Some(Ok(start..self.from))
    }
}

/// What the answer says of the chunks that are not read.
fn unread<'a>(run: &Run<'_>, reading: &'a Reading, quarantine: &'a Quarantine) -> Unread<'a> {
    let delta = match &reading.mode {
        Mode::Allocated => {
            return Unread::Zero {
                believed: reading.is_of_the_file,
            };
        }
        Mode::Claimed(_) => return Unread::Zero { believed: false },
        Mode::Known => None,
        Mode::Delta(delta) => Some(delta),
    };
    match &run.parent {
        None => Unread::Zero { believed: true },
        Some(parent) => Unread::AsParent {
            quarantine,
            parent: Geometry {
                size: parent.manifest.size,
                ..run.geometry
            },
            delta,
        },
    }
}

fn witness<'a>(reading: &'a Reading, parent: Option<&'a str>) -> Option<Witness<'a>> {
    let (told, parent) = match &reading.mode {
        Mode::Delta(delta) => (&delta.chunks, Some(parent?)),
        Mode::Claimed(claim) => (&claim.chunks, None),
        Mode::Allocated | Mode::Known => return None,
    };
    Some(Witness {
        told,
        source: reading.name,
        target: &reading.target,
        parent,
        discard_unstable: reading.discard_unstable,
    })
}

fn feed(
    run: &Run<'_>,
    (plans, unread): (Plans<'_>, Unread<'_>),
    queue: Box<dyn IoQueue>,
    lanes: Lanes,
    watch: Watch<'_>,
) -> Result<()> {
    let cursor = run
        .parent
        .as_ref()
        .map(|parent| MapCursor::new(&run.context.repository, &parent.manifest.root));
    Feeder::new(run.geometry, (plans, unread), cursor, queue, lanes, watch)?.run()
}

fn beat_interval(run: &Run<'_>) -> Duration {
    (run.request.takeover_after / BEATS_PER_TAKEOVER).max(SHORTEST_BEAT)
}

/// Shows that the session lives while `work` is done. Both must go well.
///
/// # Errors
/// Those of `work`; `Fenced` where somebody took the session over meanwhile.
pub(super) fn beating<T>(run: &Run<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (end, ended) = bounded::<()>(0);
    std::thread::scope(|scope| {
        let beats = scope.spawn(move || {
            while ended.recv_timeout(beat_interval(run)) == Err(RecvTimeoutError::Timeout) {
                run.session.beat()?;
            }
            Ok(())
        });
        let done = work();
        drop(end);
        let beaten = beats.join().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "show that the session lives",
            ))
        });
        let done = done?;
        beaten.map(|()| done)
    })
}

/// Waits for the map stage and shows meanwhile that the session lives.
fn beat_until_end(
    run: &Run<'_>,
    watch: Watch<'_>,
    end: &Receiver<Result<Option<Mapped>>>,
) -> Result<Option<Mapped>> {
    loop {
        match end.recv_timeout(beat_interval(run)) {
            Ok(mapped) => return mapped,
            Err(RecvTimeoutError::Timeout) => record(watch, run.session.beat()),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

fn record(watch: Watch<'_>, result: Result<()>) {
    if let Err(error) = result {
        watch.failure.record(error);
    }
}

type Emit = Box<dyn FnMut(SegmentId, Bytes) -> Result<()> + Send>;

/// Queues map segments for upload, a few at a time.
fn emit_map_segments(uploader: Uploader) -> Emit {
    let budget = Budget::new(MAP_SEGMENTS_IN_FLIGHT);
    Box::new(move |id, body| {
        let claim = budget.claim();
        uploader.send(Upload {
            name: name::map_segment(id),
            body,
            claim,
        })
    })
}
