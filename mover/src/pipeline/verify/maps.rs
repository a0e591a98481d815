//! Walks the maps of points: pages, liveness, and which chunks each segment must hold.
//!
//! Owns: both walks: the one that checks, and the one that finds whom a faulty segment hurts. Must not: read segments itself.
//! What no point needs hurts nobody and is no finding. A leaf that several points share is checked once; of leaves that were seen only 8 bytes of their hash are kept (0.5 MiB per
//! TiB of different leaves).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::findings::{Fault, Findings, Flaw};
use super::segments::SegmentFault;
use crate::error::{Error, Result};
use crate::pipeline::Context;
use crate::pipeline::progress::Progress;
use crate::pipeline::restore::plan::{Run, SegmentJob, WINDOW_BYTES, Wanted, WindowBuilder};
use crate::pipeline::walk::{Step, Walk};
use crate::repository::ids::{SegmentId, name};
use crate::repository::map::liveness::SegmentTable;
use crate::repository::map::{LeafRef, Liveness, Location, damaged_page};
use crate::repository::segments::SegmentReader;
use crate::repository::session::points::Point;

/// What a segment thread is asked to check.
#[derive(Debug)]
pub(crate) enum Task {
    /// A data segment, and chunks of a volume of this many bytes that it must hold.
    Data(SegmentJob, u64),
    /// A map segment.
    Map(SegmentId),
    /// The bodies of a data segment whose directory was checked.
    Bodies(SegmentId),
}

/// Walks maps one after the other.
pub(crate) struct MapCheck<'a> {
    /// Repository, progress and stop flag.
    pub context: &'a Context,
    /// Shared directories.
    pub reader: &'a Arc<SegmentReader>,
    /// Where faults go.
    pub findings: &'a Findings,
    /// Hands a task to the threads that check segments.
    pub emit: &'a mut dyn FnMut(Task) -> Result<()>,
    seen_leaves: HashSet<u64>,
    seen_maps: HashSet<SegmentId>,
}

impl<'a> MapCheck<'a> {
    /// Nothing was seen yet.
    pub(crate) fn new(
        context: &'a Context,
        reader: &'a Arc<SegmentReader>,
        findings: &'a Findings,
        emit: &'a mut dyn FnMut(Task) -> Result<()>,
    ) -> Self {
        Self {
            context,
            reader,
            findings,
            emit,
            seen_leaves: HashSet::new(),
            seen_maps: HashSet::new(),
        }
    }

    /// Walks one point. Without a readable liveness the rest is checked all the same.
    ///
    /// # Errors
    /// What the store answers and is no fault of an object.
    pub(crate) fn point(&mut self, point: &Point, liveness: Option<&Liveness>) -> Result<()> {
        let manifest = &point.manifest;
        let chunk_size = u64::from(manifest.chunk_size);
        let window_chunks = (WINDOW_BYTES / chunk_size).max(1);
        let mut walk = Walk::new(self.reader, &manifest.root, 0..manifest.chunks());
        let mut live = LiveCheck::new(liveness);
        let (mut builder, mut window_end) = (WindowBuilder::default(), window_chunks);
        while let Some(step) = walk.next()? {
            self.context.stop.check()?;
            match step {
                Step::Zeros(run) => {
                    Progress::add(
                        &self.context.progress.done,
                        run.count.saturating_mul(chunk_size),
                    );
                }
                Step::Leaf(first, leaf) => {
                    if first >= window_end {
                        self.flush(&mut builder, manifest.size)?;
                        window_end = first + window_chunks;
                    }
                    let end = manifest.chunks();
                    live.leaf(&leaf);
                    self.leaf(first, &leaf, &mut builder)?;
                    let chunks = (end - first).min(crate::pipeline::walk::LEAF_CHUNKS);
                    Progress::add(&self.context.progress.done, chunks * chunk_size);
                }
                Step::Lost(run, error) => self.lost(point, run, &error)?,
            }
        }
        self.flush(&mut builder, manifest.size)?;
        let keys = &self.context.repository.keys;
        let content_hash = manifest
            .root
            .content_hash(keys, manifest.size, manifest.chunk_size);
        if content_hash != manifest.content_hash {
            let flaw = Flaw::new(
                Fault::Damaged,
                "match the content hash of the manifest with the root of its map: they differ",
            );
            self.findings
                .hurts(&name::slot(&point.key), &flaw, point, None);
        }
        if !live.is_complete {
            let flaw = Flaw::new(
                Fault::Damaged,
                "compare the liveness with the map: the point needs chunks that it does not list",
            );
            self.findings
                .hurts(&name::live(&point.key), &flaw, point, None);
        }
        Ok(())
    }

    fn leaf(&mut self, first: u64, leaf: &LeafRef, builder: &mut WindowBuilder) -> Result<()> {
        for page in leaf.path() {
            if self.seen_maps.insert(page.segment) {
                (self.emit)(Task::Map(page.segment))?;
            }
        }
        let mut short = [0; 8];
        // Of the half that tells apart where chunks are stored: each place is checked.
        short.copy_from_slice(&leaf.pointer.hash[16..24]);
        // The last leaf of a volume holds a chunk whose length depends on the volume's size.
        let is_new = self.seen_leaves.insert(u64::from_le_bytes(short) ^ first);
        if is_new {
            for (place, digest, location) in leaf.leaf.data() {
                let wanted = Wanted {
                    chunk: first + place as u64,
                    digest,
                    ordinal: location.ordinal,
                };
                builder.data(location.segment, wanted);
            }
        }
        Ok(())
    }

    fn flush(&mut self, builder: &mut WindowBuilder, size: u64) -> Result<()> {
        builder
            .take()
            .segments
            .into_iter()
            .try_for_each(|job| (self.emit)(Task::Data(job, size)))
    }

    fn lost(&mut self, point: &Point, run: Run, error: &Error) -> Result<()> {
        let Some(flaw) = Flaw::of(error) else {
            return Err(Error::new(error.kind(), error.to_string()));
        };
        let object = match (error.object_name(), damaged_page(error)) {
            (Some(object), _) => object.to_owned(),
            (None, Some(page)) => page.page.clone(),
            (None, None) => name::slot(&point.key),
        };
        tracing::debug!(%error, object, "note a finding");
        self.findings
            .hurts(&object, &flaw, point, Some(bytes_of(point, run)));
        Ok(())
    }
}

/// Compares what a walk meets with what the liveness says: it may say more, never less.
pub(crate) struct LiveCheck<'l> {
    liveness: Option<&'l Liveness>,
    met: SegmentTable,
    last_path: Vec<Location>,
    /// Whether everything met so far is live.
    pub is_complete: bool,
}

impl<'l> LiveCheck<'l> {
    /// Nothing was met yet; without a liveness nothing is found either.
    pub(crate) fn new(liveness: Option<&'l Liveness>) -> Self {
        Self {
            liveness,
            met: SegmentTable::default(),
            last_path: Vec::new(),
            is_complete: true,
        }
    }

    /// Takes the next leaf of the walk.
    pub(crate) fn leaf(&mut self, leaf: &LeafRef) {
        let Some(liveness) = self.liveness else {
            return;
        };
        for (_, _, location) in leaf.leaf.data() {
            let is_first = self.met.insert(location.segment, location.ordinal);
            self.is_complete &=
                liveness.is_live(location) && (is_first || liveness.is_shared(location));
        }
        let path: Vec<Location> = leaf.path().collect();
        if path != self.last_path {
            self.is_complete &= path.iter().all(|page| liveness.is_page_live(*page));
            self.last_path = path;
        }
    }
}

/// Tells the faults of segments themselves, whomever they hurt.
pub(crate) fn tell_own(faults: &HashMap<SegmentId, SegmentFault>, findings: &Findings) {
    for fault in faults.values().filter(|fault| fault.itself) {
        findings.object(&fault.object, &fault.flaw);
    }
}

/// Finds the points and ranges that faulty data segments hurt, by walking the points again.
///
/// # Errors
/// What the store answers and is no fault of an object.
pub(crate) fn attribute(
    context: &Context,
    reader: &Arc<SegmentReader>,
    points: &[Point],
    faults: &HashMap<SegmentId, SegmentFault>,
    findings: &Findings,
) -> Result<()> {
    for point in points {
        let mut walk = Walk::new(reader, &point.manifest.root, 0..point.manifest.chunks());
        while let Some(step) = walk.next()? {
            context.stop.check()?;
            let Step::Leaf(first, leaf) = step else {
                continue;
            };
            for (place, _, location) in leaf.leaf.data() {
                let Some(fault) = faults.get(&location.segment) else {
                    continue;
                };
                if fault.whole || fault.ordinals.contains(&location.ordinal) {
                    let run = Run {
                        first: first + place as u64,
                        count: 1,
                    };
                    findings.hurts(
                        &fault.object,
                        &fault.flaw,
                        point,
                        Some(bytes_of(point, run)),
                    );
                }
            }
        }
    }
    Ok(())
}

/// Bytes of a volume, `[start, end)`.
fn bytes_of(point: &Point, run: Run) -> (u64, u64) {
    let chunk_size = u64::from(point.manifest.chunk_size);
    let clip = |chunk: u64| chunk.saturating_mul(chunk_size).min(point.manifest.size);
    (clip(run.first), clip(run.end()))
}
