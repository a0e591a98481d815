//! Parts of a point, read in order: what differs from another point, or what is not zero.
//!
//! ```text
//!   byte ranges, ascending ──► leaves they touch ──► chunks of those leaves ──► restore in order ──► sink
//!                 (what lies between two ranges is told to the sink as unread, and never fetched)
//! ```
//!
//! Owns: the way from ranges to chunks. Must not: decide which ranges, or know what the sink is.

use std::ops::Range;

use changed_blocks::Extent;

use super::content;
use super::delta::Item;
use super::geometry::Geometry;
use super::job::Job;
use super::losses::Losses;
use super::ordered::{self, ByteSink, Part};
use super::plan::{Run, Wanted};
use crate::error::Result;
use crate::pipeline::Context;
use crate::pipeline::walk::LEAF_CHUNKS;
use crate::repository::map::{Entry, Leaf, MapCursor};
use crate::repository::session::points::Point;

/// Ranges looked up at once: their leaves are read ahead, their list stays below 64 KiB.
const BATCH: usize = 4096;

/// Says which bytes are wanted: ascending, disjoint, never touching, beginning at a chunk and ending at one or at the end.
pub(crate) type Ranges<'a> =
    dyn FnMut(&mut dyn FnMut(Extent) -> Result<()>) -> Result<()> + Send + 'a;

/// Reads what `ranges` wants of `point` into `sink`, in order. Everything is checked as in a restore.
///
/// # Errors
/// `Corrupt` with object, point and range where stored data is damaged; what `ranges` and `sink` return.
pub(crate) fn read(
    context: &Context,
    point: &Point,
    ranges: &mut Ranges<'_>,
    sink: &mut dyn ByteSink,
) -> Result<()> {
    let manifest = &point.manifest;
    let geometry = Geometry::new(manifest.size, manifest.chunk_size, None)?;
    let losses = Losses::new(false, point.id().to_string(), geometry.clone());
    let job = Job::new(context, geometry, losses);
    content::check_root(&context.repository, point)?;
    ordered::run(&job, sink, |out| {
        let mut parts = Parts {
            job: &job,
            point,
            batch: Vec::new(),
            next: 0,
            out,
        };
        ranges(&mut |extent| parts.add(extent))?;
        parts.flush()?;
        parts.unread_until(job.geometry.chunks().end)
    });
    job.failure.into_result()
}

struct Parts<'a, 'j> {
    job: &'a Job<'j>,
    point: &'a Point,
    batch: Vec<Range<u64>>,
    /// The first chunk that was not handed over.
    next: u64,
    out: &'a mut dyn FnMut(Part) -> Result<()>,
}

impl Parts<'_, '_> {
    fn add(&mut self, extent: Extent) -> Result<()> {
        let chunk_size = self.job.geometry.chunk_size();
        let end = extent.offset.0.saturating_add(extent.len.0);
        self.batch
            .push(extent.offset.0 / chunk_size..end.div_ceil(chunk_size));
        if self.batch.len() == BATCH {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let mut cursor = MapCursor::with_segments(&self.job.segments, &self.point.manifest.root)
            .select(leaves_of(&batch));
        for range in batch {
            self.job.context.stop.check()?;
            self.unread_until(range.start)?;
            for index in range.start / LEAF_CHUNKS..range.end.div_ceil(LEAF_CHUNKS) {
                let leaf = cursor.leaf(index)?;
                let first = index * LEAF_CHUNKS;
                let inside = range.start.max(first)..range.end.min(first + LEAF_CHUNKS);
                self.chunks(inside, leaf.as_ref().map(|leaf| leaf.leaf.as_ref()))?;
            }
        }
        Ok(())
    }

    fn chunks(&mut self, chunks: Range<u64>, leaf: Option<&Leaf>) -> Result<()> {
        for chunk in chunks {
            let place = usize::try_from(chunk % LEAF_CHUNKS).expect("smaller than a leaf");
            let item = match leaf.map_or(Entry::Zero, |leaf| leaf.get(place)) {
                Entry::Zero => Item::Zeros(Run {
                    first: chunk,
                    count: 1,
                }),
                Entry::Data { digest, location } => Item::Data(
                    location.segment,
                    Wanted {
                        chunk,
                        digest,
                        ordinal: location.ordinal,
                    },
                ),
            };
            (self.out)(Part::Item(item))?;
            self.next = chunk + 1;
        }
        Ok(())
    }

    fn unread_until(&mut self, chunk: u64) -> Result<()> {
        if chunk <= self.next {
            return Ok(());
        }
        let run = Run {
            first: self.next,
            count: chunk - self.next,
        };
        self.next = chunk;
        (self.out)(Part::Unread(run))
    }
}

/// The leaves of ascending chunk ranges, those that touch joined.
fn leaves_of(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut leaves: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let touched = range.start / LEAF_CHUNKS..range.end.div_ceil(LEAF_CHUNKS);
        match leaves.last_mut() {
            Some(last) if touched.start <= last.end => last.end = last.end.max(touched.end),
            _ => leaves.push(touched),
        }
    }
    leaves
}
