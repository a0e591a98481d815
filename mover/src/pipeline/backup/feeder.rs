//! The reader: keeps the device's queue full and hands what arrives to the workers.
//!
//! ```text
//!   leaf plans + parent's leaves ──► pieces ──► IoQueue (32 × 1 MiB) ──► workers
//!                                                  ▲── buffers come back ──┘
//! ```
//!
//! Owns: one thread, the queue and its buffers. Must not: look into the data.

use std::ops::Range;
use std::sync::Arc;

use changed_blocks::SourceError;
use crossbeam_channel::{Receiver, Sender};

use super::leaves::{LeafWork, Unread};
use super::plan::{Geometry, LEAF_CHUNKS, LeafPlan};
use crate::device::buffer::AlignedBuffer;
use crate::device::queue::{Completion, IoQueue};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::budget::{Budget, Failure};
use crate::pipeline::progress::{Progress, Stage, StageClock, StopFlag};
use crate::repository::ids::name;
use crate::repository::map::{Entry, Leaf, LeafRef, MapCursor, damaged_page};

/// Leaves in work at once. Reads in flight touch at most 32; the rest absorbs a slow read among fast ones (12 KiB each).
pub const LEAVES_IN_WORK: usize = 512;

/// Bytes of some chunks, for a worker.
#[derive(Debug)]
pub struct Piece {
    /// The leaf they belong to.
    pub leaf: Arc<LeafWork>,
    /// The chunks.
    pub chunks: Range<u64>,
    /// Their bytes, from the start of the buffer.
    pub buffer: AlignedBuffer,
    /// Number of bytes.
    pub len: usize,
}

/// A piece that is being read.
#[derive(Debug)]
struct Reading {
    leaf: Arc<LeafWork>,
    chunks: Range<u64>,
}

/// Where the feeder sends to and gets its buffers back from.
#[derive(Debug)]
pub struct Lanes {
    /// Pieces for the workers.
    pub pieces: Sender<Piece>,
    /// Buffers the workers are done with.
    pub buffers: Receiver<AlignedBuffer>,
    /// Leaves that need no reading.
    pub leaves: Sender<Arc<LeafWork>>,
}

/// What tells every thread to stop, and hears of what is done.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// First error.
    pub failure: &'a Failure,
    /// Stop on request.
    pub stop: &'a StopFlag,
    /// Counters.
    pub progress: &'a Progress,
}

/// The reader's state.
#[derive(Debug)]
pub struct Feeder<'a, P> {
    geometry: Geometry,
    plans: P,
    unread: Unread<'a>,
    next_plan: Option<LeafPlan>,
    parent: Option<MapCursor>,
    next_parent: Option<(u64, LeafRef)>,
    current: Option<(Arc<LeafWork>, std::vec::IntoIter<Range<u64>>)>,
    order: u64,
    leaf_budget: Budget,
    queue: Box<dyn IoQueue>,
    free: Vec<AlignedBuffer>,
    reading: Vec<Option<Reading>>,
    lanes: Lanes,
    watch: Watch<'a>,
}

/// What the feeder can do next.
enum Step {
    Read(Reading),
    /// Every leaf in work is taken; some must finish first.
    Wait,
    End,
}

impl<'a, P: Iterator<Item = Result<LeafPlan>>> Feeder<'a, P> {
    /// A feeder over `plans`, each leaf paired with the parent's, and what becomes of the chunks that no plan has.
    ///
    /// # Errors
    /// What the parent's map answers.
    pub fn new(
        geometry: Geometry,
        (plans, unread): (P, Unread<'a>),
        parent: Option<MapCursor>,
        mut queue: Box<dyn IoQueue>,
        lanes: Lanes,
        watch: Watch<'a>,
    ) -> Result<Self> {
        let free = queue.take_buffers();
        let reading = free.iter().map(|_| None).collect();
        let mut feeder = Self {
            geometry,
            plans,
            unread,
            next_plan: None,
            parent,
            next_parent: None,
            current: None,
            order: 0,
            leaf_budget: Budget::new(LEAVES_IN_WORK),
            queue,
            free,
            reading,
            lanes,
            watch,
        };
        feeder.advance_plan()?;
        feeder.advance_parent(0)?;
        Ok(feeder)
    }

    /// Reads everything; returns early once another thread failed.
    ///
    /// # Errors
    /// What the device, the source of changed blocks or the parent's map answers; `Interrupted` on request.
    pub fn run(mut self) -> Result<()> {
        let mut step = self.step()?;
        let progress = self.watch.progress;
        let mut clock = progress.stages.clock(Stage::Read);
        loop {
            self.watch.stop.check()?;
            if self.watch.failure.is_failed() {
                return Ok(());
            }
            self.free.extend(self.lanes.buffers.try_iter());
            while let Some(buffer) = self.free.pop() {
                match step {
                    Step::Read(reading) => {
                        self.submit(reading, buffer);
                        step = self.step()?;
                    }
                    Step::Wait | Step::End => {
                        self.free.push(buffer);
                        break;
                    }
                }
            }
            if let Some(completion) = self.queue.wait() {
                if !self.deliver(completion, &mut clock)? {
                    return Ok(());
                }
            } else {
                match step {
                    Step::End => return Ok(()),
                    // Nothing is in flight, so the workers can finish what they have without this thread.
                    Step::Wait => clock.waits(|| drop(self.leaf_budget.claim())),
                    Step::Read(_) => match clock.waits(|| self.lanes.buffers.recv()) {
                        Ok(buffer) => self.free.push(buffer),
                        Err(_) => return Ok(()),
                    },
                }
            }
            if matches!(step, Step::Wait) {
                step = self.step()?;
            }
        }
    }

    fn submit(&mut self, reading: Reading, buffer: AlignedBuffer) {
        let slot = self
            .reading
            .iter()
            .position(Option::is_none)
            .expect("one slot per buffer");
        let offset = self.geometry.offset_of(reading.chunks.start);
        let len =
            usize::try_from(self.geometry.bytes_of(&reading.chunks)).expect("a piece is small");
        self.reading[slot] = Some(reading);
        self.queue.read(slot as u64, offset, len, buffer);
    }

    /// Hands a finished read over; false once nobody listens.
    fn deliver(&mut self, completion: Completion, clock: &mut StageClock<'_>) -> Result<bool> {
        completion.result.map_err(cut_short)?;
        let slot = usize::try_from(completion.token)
            .ok()
            .and_then(|slot| self.reading.get_mut(slot));
        let Some(Reading { leaf, chunks }) = slot.and_then(Option::take) else {
            return Err(Error::new(
                ErrorKind::Internal,
                "match a finished read to its request",
            ));
        };
        let len = completion.len;
        assert_eq!(
            len as u64,
            self.geometry.bytes_of(&chunks),
            "a read is whole or an error"
        );
        Progress::add(&self.watch.progress.read, len as u64);
        let piece = Piece {
            leaf,
            chunks,
            buffer: completion.buffer,
            len,
        };
        self.watch.progress.hand_on(len);
        let sent = clock.waits(|| self.lanes.pieces.send(piece)).is_ok();
        if !sent {
            self.watch.progress.take_over(len);
        }
        Ok(sent)
    }

    /// The next piece to read; opens leaves on the way.
    fn step(&mut self) -> Result<Step> {
        loop {
            if let Some((leaf, pieces)) = &mut self.current {
                if let Some(chunks) = pieces.next() {
                    return Ok(Step::Read(Reading {
                        leaf: Arc::clone(leaf),
                        chunks,
                    }));
                }
                self.current = None;
            }
            let planned = self.next_plan.as_ref().map(|plan| plan.index);
            let inherited = self.next_parent.as_ref().map(|(index, _)| *index);
            let Some(index) = [planned, inherited].into_iter().flatten().min() else {
                return Ok(Step::End);
            };
            let Some(claim) = self.leaf_budget.try_claim() else {
                return Ok(Step::Wait);
            };
            let parent = self.take_parent(index)?;
            let mut plan = None;
            if planned == Some(index) {
                plan = self.next_plan.take();
                self.advance_plan()?;
            }
            let plan = self.rechecked(index, parent.as_ref(), plan);
            let pending = plan.as_ref().map_or(0, LeafPlan::chunks);
            let kept = self
                .kept(index, parent.as_ref(), plan.as_ref())
                .map_err(|error| self.doubt(error))?;
            let work = LeafWork::new(self.order, index, parent, (kept, pending), claim);
            let work = Arc::new(work);
            self.order += 1;
            match plan {
                Some(plan) => {
                    let pieces: Vec<_> = plan.pieces(self.geometry.piece_chunks()).collect();
                    self.current = Some((work, pieces.into_iter()));
                }
                // Everything the parent had in this leaf is gone, and zero now, or is kept.
                None => {
                    let _ = self.lanes.leaves.send(work);
                }
            }
        }
    }

    /// The plan with chunks that nobody said had changed: samples, those that the parent holds in bad bodies, and those that
    /// were said to be gone.
    fn rechecked(
        &self,
        index: u64,
        parent: Option<&LeafRef>,
        plan: Option<LeafPlan>,
    ) -> Option<LeafPlan> {
        let Some(parent) = parent else { return plan };
        let chunks = self.geometry.chunks();
        let first = index * LEAF_CHUNKS;
        let mut more = match self.unread {
            Unread::AsParent {
                quarantine,
                delta: Some(delta),
                ..
            } => {
                let mut more = delta.recheck.choose(index, &parent.leaf, &delta.chunks);
                for (place, _, location) in parent.leaf.data() {
                    if quarantine.contains(location) {
                        more.push(first + place as u64);
                    }
                }
                more
            }
            // What was there is gone only if it reads as zeros.
            Unread::Zero { believed: false } => {
                let places = parent.leaf.data();
                places.map(|(place, ..)| first + place as u64).collect()
            }
            Unread::AsParent { delta: None, .. } | Unread::Zero { believed: true } => return plan,
        };
        more.retain(|chunk| *chunk < chunks);
        LeafPlan::with(plan, index, &more)
    }

    /// The chunks of a leaf that stay what the parent has; chunks behind the end of the volume are gone.
    fn kept(&self, index: u64, parent: Option<&LeafRef>, plan: Option<&LeafPlan>) -> Result<Leaf> {
        let mut kept = Leaf::zero();
        let (
            Unread::AsParent {
                quarantine,
                parent: before,
                ..
            },
            Some(parent),
        ) = (self.unread, parent)
        else {
            return Ok(kept);
        };
        let mut bytes = 0;
        for (place, digest, location) in parent.leaf.data() {
            let chunk = index * LEAF_CHUNKS + place as u64;
            let is_read =
                plan.is_some_and(|plan| plan.ranges.iter().any(|range| range.contains(&chunk)));
            if is_read || chunk >= self.geometry.chunks() {
                continue;
            }
            if quarantine.contains(location) {
                let message = format!("keep chunk {chunk} of the parent: it was found bad");
                return Err(Error::new(ErrorKind::Corrupt, message)
                    .object(name::segment(location.segment, 0))
                    .hint("read everything, so that it is stored again"));
            }
            let len = self.geometry.bytes_of(&(chunk..chunk + 1));
            if len != before.bytes_of(&(chunk..chunk + 1)) {
                let message =
                    format!("keep chunk {chunk} of the parent: it has another length now");
                return Err(Error::new(ErrorKind::Corrupt, message).hint(
                    "read everything: the source did not say that the end of the volume moved",
                ));
            }
            kept.set(place, Entry::Data { digest, location });
            bytes += len;
        }
        Progress::add(&self.watch.progress.unchanged, bytes);
        Ok(kept)
    }

    /// Where a delta needs what is lost, everything is read instead: the source still has it.
    fn doubt(&self, error: Error) -> Error {
        let is_delta = matches!(self.unread, Unread::AsParent { delta: Some(_), .. });
        if error.kind() != ErrorKind::Corrupt || !is_delta {
            return error;
        }
        let lost = SourceError::full(format!("the parent's map is damaged: {error}"));
        Error::new(ErrorKind::Io, "build on the parent").source(lost)
    }

    fn advance_plan(&mut self) -> Result<()> {
        self.next_plan = self.plans.next().transpose()?;
        Ok(())
    }

    fn advance_parent(&mut self, from: u64) -> Result<()> {
        let leaves = self.geometry.chunks().div_ceil(LEAF_CHUNKS);
        let Some(cursor) = &mut self.parent else {
            return Ok(());
        };
        let mut from = from;
        self.next_parent = loop {
            match cursor.next(from) {
                Ok(found) => break found.filter(|(index, _)| *index < leaves),
                // What cannot be compared is stored again: the source still has it. What is not read must be known.
                Err(error) => match damaged_page(&error) {
                    Some(page)
                        if error.kind() == ErrorKind::Corrupt
                            && matches!(self.unread, Unread::Zero { .. }) =>
                    {
                        tracing::warn!(%error, "store chunks again whose place in the parent's map is lost");
                        from = page.next_leaf();
                    }
                    _ => return Err(self.doubt(error)),
                },
            }
        };
        Ok(())
    }

    fn take_parent(&mut self, index: u64) -> Result<Option<LeafRef>> {
        match self.next_parent.take() {
            Some((at, leaf)) if at == index => {
                self.advance_parent(index + 1)?;
                Ok(Some(leaf))
            }
            other => {
                self.next_parent = other;
                Ok(None)
            }
        }
    }
}

/// A source that ends before its size became smaller while it was read.
fn cut_short(error: Error) -> Error {
    let is_short = std::error::Error::source(&error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof);
    if !is_short {
        return error;
    }
    let object = error.object_name().unwrap_or_default().to_owned();
    Error::new(
        ErrorKind::SourceChanged,
        "read the source: it became smaller while it was read",
    )
    .object(object)
    .hint("back up a snapshot of it, or stop what writes to it, then run again")
    .source(error)
}
