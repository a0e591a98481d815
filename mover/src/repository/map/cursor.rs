//! Reads the leaves of a map in ascending order, ahead of its consumer.
//!
//! ```text
//!   thread: Walk ─► queue of 2 batches (a batch = the leaves of one node, at most 2.6 MiB) ─► cursor ─► consumer
//!             ▲                                                                               │
//!             └────────────── "nothing before this leaf is wanted any more" ──────────────────┘
//! ```
//!
//! Owns: the prefetching thread, which is joined when the cursor goes. Must not: hold more than a few nodes of leaves.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::entry::{Location, PagePointer};
use super::leaf::Leaf;
use super::node::NodeRef;
use super::pages::PageReader;
use super::walk::{Selection, Step, Walk};
use super::{DamagedPage, MapRoot};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::segments::SegmentReader;

/// Batches that wait for the consumer: one hides the time of loading the next, two smooth nodes of unequal size.
const QUEUED_BATCHES: usize = 2;

/// A leaf of a stored map, and its place there, so that a writer can keep it.
#[derive(Clone, Debug)]
pub struct LeafRef {
    /// The stored page.
    pub pointer: PagePointer,
    /// What it holds.
    pub leaf: Arc<Leaf>,
    /// The inner node that points at it; `None` where the leaf is the root.
    pub(super) home: Option<Arc<NodeRef>>,
}

impl LeafRef {
    /// The pages on the way from the leaf to the root, the leaf's own first.
    pub fn path(&self) -> impl Iterator<Item = Location> + '_ {
        let nodes = std::iter::successors(self.home.as_deref(), |node| node.parent.as_deref());
        std::iter::once(self.pointer.location).chain(nodes.map(|node| node.pointer.location))
    }
}

/// Reads leaves in ascending order. Going back is allowed and starts again from the root.
#[derive(Debug)]
pub struct MapCursor {
    pages: Arc<PageReader>,
    root: MapRoot,
    selection: Selection,
    worker: Option<Worker>,
    /// Steps received and not passed yet.
    steps: VecDeque<Step>,
    /// The end of the map was received.
    ended: bool,
    /// Nothing before this leaf was kept.
    from: u64,
}

#[derive(Debug)]
struct Worker {
    /// Taken first when the worker is dropped, so that a thread that waits for room stops.
    batches: Option<Receiver<Option<Vec<Step>>>>,
    from: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl MapCursor {
    /// Reads all leaves of a map.
    #[must_use]
    pub fn new(repository: &Arc<Repository>, root: &MapRoot) -> Self {
        Self::with_segments(&Arc::new(SegmentReader::new(repository)), root)
    }

    /// Reads all leaves of a map through a shared directory cache.
    #[must_use]
    pub fn with_segments(segments: &Arc<SegmentReader>, root: &MapRoot) -> Self {
        Self {
            pages: Arc::new(PageReader::new(Arc::clone(segments))),
            root: *root,
            selection: Selection::All,
            worker: None,
            steps: VecDeque::new(),
            ended: false,
            from: 0,
        }
    }

    /// Restricts it to these leaves, ascending and disjoint: no page is read for others only, and they must not be asked
    /// for. To be called before the first leaf is.
    #[must_use]
    pub fn select(mut self, leaves: Vec<Range<u64>>) -> Self {
        debug_assert!(leaves.windows(2).all(|pair| pair[0].end <= pair[1].start));
        self.selection = Selection::Ranges(leaves);
        self
    }

    /// The leaf at `index`, or `None` where it is all zero.
    ///
    /// # Errors
    /// If the leaf or a node above it cannot be read; [`damaged_page`](super::damaged_page) then names the range, and leaves
    /// behind it can still be asked for.
    pub fn leaf(&mut self, index: u64) -> Result<Option<LeafRef>> {
        self.seek(index)?;
        match self.steps.front() {
            Some(Step::Leaf(at, leaf)) if *at == index => Ok(Some(leaf.clone())),
            Some(Step::Damaged(page)) if page.leaves().contains(&index) => Err(page.to_error()),
            _ => Ok(None),
        }
    }

    /// The first leaf at or behind `from` that is not all zero.
    ///
    /// # Errors
    /// As [`leaf`](Self::leaf): what cannot be read may hold the next leaf.
    pub fn next(&mut self, from: u64) -> Result<Option<(u64, LeafRef)>> {
        self.seek(from)?;
        match self.steps.front() {
            Some(Step::Leaf(at, leaf)) => Ok(Some((*at, leaf.clone()))),
            Some(Step::Damaged(page)) => Err(page.to_error()),
            None => Ok(None),
        }
    }

    /// Makes the first step that ends behind `index` the front of `steps`.
    fn seek(&mut self, index: u64) -> Result<()> {
        if index < self.from {
            self.worker = None;
            self.steps.clear();
            self.ended = false;
        }
        self.from = index;
        loop {
            while self
                .steps
                .front()
                .is_some_and(|step| step.leaves().end <= index)
            {
                self.steps.pop_front();
            }
            if self.ended || !self.steps.is_empty() {
                return Ok(());
            }
            match self.receive(index)? {
                Some(batch) => self.steps.extend(batch),
                None => self.ended = true,
            }
        }
    }

    fn receive(&mut self, from: u64) -> Result<Option<Vec<Step>>> {
        let worker = match &mut self.worker {
            Some(worker) => worker,
            empty => {
                let walk = Walk::new(Arc::clone(&self.pages), self.root, self.selection.clone());
                empty.insert(Worker::start(walk, from)?)
            }
        };
        worker.from.store(from, Ordering::Relaxed);
        let received = worker
            .batches
            .as_ref()
            .and_then(|batches| batches.recv().ok());
        received
            .ok_or_else(|| Error::new(ErrorKind::Internal, "read the map: its thread ended early"))
    }
}

impl Worker {
    fn start(walk: Walk, from: u64) -> Result<Self> {
        let (sender, batches) = bounded(QUEUED_BATCHES);
        let from = Arc::new(AtomicU64::new(from));
        let bound = Arc::clone(&from);
        let thread = std::thread::Builder::new()
            .name("map-cursor".to_owned())
            .spawn(move || send_all(walk, &bound, &sender))
            .map_err(|cause| {
                Error::new(ErrorKind::Io, "start the thread that reads the map").source(cause)
            })?;
        Ok(Self {
            batches: Some(batches),
            from,
            thread: Some(thread),
        })
    }
}

/// Sends every batch and then `None`; stops early when nobody receives any more.
fn send_all(mut walk: Walk, from: &AtomicU64, batches: &Sender<Option<Vec<Step>>>) {
    loop {
        let batch = walk.next(from.load(Ordering::Relaxed));
        let ended = batch.is_none();
        if batches.send(batch).is_err() || ended {
            return;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was told by the hook and is of no use here.
            drop(thread.join());
        }
    }
}

/// Leaves of a damaged page, for callers that go on behind it.
impl DamagedPage {
    /// The first leaf behind the damage.
    #[must_use]
    pub fn next_leaf(&self) -> u64 {
        self.leaves().end
    }
}

#[cfg(test)]
mod tests;
