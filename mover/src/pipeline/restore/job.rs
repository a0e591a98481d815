//! What all threads of one restore share.
//!
//! Owns: the shared state and the counters of the result. Must not: hold logic of any stage.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::bad::BadBodies;
use super::budget::ByteBudget;
use super::failure::Failure;
use super::geometry::Geometry;
use super::losses::Losses;
use super::output::Output;
use super::plan::Run;
use crate::error::Result;
use crate::pipeline::Context;
use crate::pipeline::budget::fetched_bytes;
use crate::pipeline::progress::Progress;
use crate::repository::segments::SegmentReader;

/// Takes note of chunks that will not be delivered.
pub(crate) trait LossSink: Sync {
    /// The run is lost: its place in the target must read as zeros.
    ///
    /// # Errors
    /// What the target answers.
    fn lost(&self, run: Run) -> Result<()>;
}

/// Bytes of the target by how they got there.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    written: AtomicU64,
    zero: AtomicU64,
    skipped: AtomicU64,
}

/// Shared by the stages of one restore.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Repository, progress, stop flag and number of workers.
    pub context: &'a Context,
    /// Where chunks go.
    pub geometry: Geometry,
    /// What could not be read.
    pub losses: Losses,
    /// First error of any thread.
    pub failure: Failure,
    /// Room for fetched bytes.
    pub fetched: Arc<ByteBudget>,
    /// Data segments.
    pub segments: Arc<SegmentReader>,
    /// What became of the bytes of the target.
    pub counts: Counts,
    /// Stored bodies that could not be read.
    pub bad: Arc<BadBodies>,
    first_chunk: Mutex<Option<Vec<u8>>>,
    protected: AtomicBool,
}

impl<'a> Job<'a> {
    /// A restore that has not begun.
    pub(crate) fn new(context: &'a Context, geometry: Geometry, losses: Losses) -> Self {
        let fetched = ByteBudget::new(fetched_bytes(context.memory));
        Self {
            failure: Failure::new(context.stop.clone(), Arc::clone(&fetched)),
            segments: Arc::new(SegmentReader::new(&context.repository)),
            counts: Counts::default(),
            bad: Arc::default(),
            first_chunk: Mutex::default(),
            protected: AtomicBool::default(),
            context,
            geometry,
            losses,
            fetched,
        }
    }

    /// Counts bytes that reached the target.
    pub(crate) fn written(&self, bytes: u64) {
        self.counts.written.fetch_add(bytes, Ordering::Relaxed);
        Progress::add(&self.context.progress.new, bytes);
        Progress::add(&self.context.progress.done, bytes);
    }

    /// Counts bytes that were made or left zero.
    pub(crate) fn zeroed(&self, bytes: u64) {
        self.counts.zero.fetch_add(bytes, Ordering::Relaxed);
        Progress::add(&self.context.progress.zero, bytes);
        Progress::add(&self.context.progress.done, bytes);
    }

    /// Counts bytes that were right already.
    pub(crate) fn skipped(&self, bytes: u64) {
        self.counts.skipped.fetch_add(bytes, Ordering::Relaxed);
        Progress::add(&self.context.progress.unchanged, bytes);
        Progress::add(&self.context.progress.done, bytes);
    }

    /// Counts bytes fetched from the store.
    pub(crate) fn read(&self, bytes: usize) {
        Progress::add(&self.context.progress.read, bytes as u64);
    }

    /// Keeps the first chunk of the target, which is written last.
    pub(crate) fn hold_first_chunk(&self, bytes: Vec<u8>) {
        *self
            .first_chunk
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    /// Makes the target look broken until it is settled; to be called before its first write. A fresh file has another name
    /// until then, and an empty target has no first chunk.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) fn protect(&self, output: &dyn Output) -> Result<()> {
        if output.is_fresh()
            || self.geometry.len() == 0
            || self.protected.swap(true, Ordering::AcqRel)
        {
            return Ok(());
        }
        output.protect()
    }

    /// What the target must get as its first chunk: zeros where nothing was held back, nothing where nothing was written.
    pub(crate) fn take_first_chunk(&self, output: &dyn Output) -> Option<Vec<u8>> {
        let held = self
            .first_chunk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if output.is_fresh() {
            return held;
        }
        let len = self.geometry.chunk_size().min(self.geometry.len());
        let zeros = || vec![0; usize::try_from(len).unwrap_or(0)];
        self.protected
            .load(Ordering::Acquire)
            .then(|| held.unwrap_or_else(zeros))
    }
}

impl Counts {
    /// Written, zero and skipped bytes.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.written), read(&self.zero), read(&self.skipped))
    }
}
