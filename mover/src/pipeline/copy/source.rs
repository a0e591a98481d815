//! A point of another repository as the source of a backup.
//!
//! ```text
//!   map of the point (and of its base) ──► extents ──► the backup's reader ──► requests, ascending ─┐
//!         └──► the same walk ──► restore in order ──► bytes, ascending ──► PointQueue ──────────────┴─► buffers
//! ```
//!
//! Owns: what a point answers as a source: its size, which ranges hold data, which differ from a base. Must not: know the
//! repository that the bytes go to, but for the size of its chunks.

use std::io;
use std::sync::Arc;

use changed_blocks::source::{Capabilities, ExtentSink};
use changed_blocks::{ByteLen, ChangedBlocks, Extent, SourceError, SourceErrorKind, Summary};

use super::queue::PointQueue;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::source::{SourceDevice, SourceIdentity};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::walk::{Step, Walk};
use crate::repository::map::{self, MapRoot};
use crate::repository::segments::SegmentReader;
use crate::repository::session::points::Point;

/// A point to be read, and a point that the target has already.
#[derive(Clone, Debug)]
pub struct PointSource {
    pub(super) context: Context,
    pub(super) point: Arc<Point>,
    pub(super) base: Option<Arc<Point>>,
    /// Ranges are rounded out to this many bytes, so that the chunks of both repositories lie wholly inside them.
    pub(super) unit: u64,
}

impl PointSource {
    /// Reads `point` through `context`; only what differs from `base` where there is one. `chunk_size` is that of the
    /// repository it goes to.
    #[must_use]
    pub fn new(context: Context, point: Point, base: Option<Point>, chunk_size: u32) -> Self {
        let unit = u64::from(point.manifest.chunk_size.max(chunk_size));
        Self {
            context,
            point: Arc::new(point),
            base: base.map(Arc::new),
            unit,
        }
    }

    /// Calls `sink` with every byte range that must be read: ascending, disjoint, never touching.
    ///
    /// # Errors
    /// What the maps answer, and what `sink` returns.
    pub(super) fn ranges(&self, sink: &mut dyn FnMut(Extent) -> Result<()>) -> Result<()> {
        let mut rounding = Rounding::new(self.unit, self.point.manifest.size, sink);
        let root = &self.point.manifest.root;
        match &self.base {
            Some(base) => self.differing(&base.manifest.root, &mut rounding)?,
            None => self.allocated(root, &mut rounding)?,
        }
        rounding.finish()
    }

    fn allocated(&self, root: &MapRoot, rounding: &mut Rounding<'_>) -> Result<()> {
        let chunk_size = u64::from(self.point.manifest.chunk_size);
        let chunks = 0..self.point.manifest.size.div_ceil(chunk_size);
        let segments = Arc::new(SegmentReader::new(&self.context.repository));
        let mut walk = Walk::new(&segments, root, chunks);
        while let Some(step) = walk.next()? {
            self.context.stop.check()?;
            match step {
                Step::Zeros(_) => {}
                Step::Leaf(first, leaf) => {
                    for (place, ..) in leaf.leaf.data() {
                        let start = (first + place as u64) * chunk_size;
                        rounding.add(start, chunk_size)?;
                    }
                }
                Step::Lost(_, error) => return Err(error),
            }
        }
        Ok(())
    }

    fn differing(&self, base: &MapRoot, rounding: &mut Rounding<'_>) -> Result<()> {
        let chunk_size = u64::from(self.point.manifest.chunk_size);
        let repository = &self.context.repository;
        rounding.insert(self.resized());
        map::diff(
            repository,
            base,
            &self.point.manifest.root,
            |first, count| {
                self.context.stop.check()?;
                rounding.add(
                    first.saturating_mul(chunk_size),
                    count.saturating_mul(chunk_size),
                )
            },
        )
    }
}

impl PointSource {
    /// The last bytes that base and point share, where the point goes on or ends inside their unit: the target's chunk there has
    /// another length, although no chunk of the source differs.
    fn resized(&self) -> Option<u64> {
        let (old, new) = (self.base.as_ref()?.manifest.size, self.point.manifest.size);
        let shared = old.min(new);
        (old != new && !shared.is_multiple_of(self.unit)).then(|| shared - 1)
    }
}

impl SourceDevice for PointSource {
    fn name(&self) -> String {
        format!(
            "{} of {}",
            self.point.id(),
            self.context.repository.store.url()
        )
    }

    fn size(&self) -> u64 {
        self.point.manifest.size
    }

    fn block_size(&self) -> u32 {
        512
    }

    fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>> {
        Ok(Box::new(PointBlocks(self.clone())))
    }

    fn queue(&self, _options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        PointQueue::start(self).map(|queue| Box::new(queue) as Box<dyn IoQueue>)
    }

    /// A point never changes.
    fn check_unchanged(&self) -> Result<bool> {
        Ok(true)
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> SourceIdentity {
        SourceIdentity {
            kind: "point".to_owned(),
            immutable: Some(self.name()),
        }
    }
}

/// The map of a point as a source of changed blocks.
#[derive(Debug)]
struct PointBlocks(PointSource);

impl PointBlocks {
    fn answer(&self, sink: &mut ExtentSink<'_>) -> std::result::Result<Summary, SourceError> {
        let mut extents = 0;
        let walked = self.0.ranges(&mut |extent| {
            extents += 1;
            if sink(extent) {
                Ok(())
            } else {
                Err(Error::new(ErrorKind::Interrupted, "stop on request"))
            }
        });
        walked.map_err(|error| SourceError {
            kind: SourceErrorKind::GiveUp,
            message: error.to_string(),
            source: Some(io::Error::other(error)),
        })?;
        Ok(Summary {
            size: ByteLen(self.0.size()),
            extents,
        })
    }
}

impl ChangedBlocks for PointBlocks {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            needs_base: true,
            ..Capabilities::without_base("point", ByteLen(self.0.unit))
        }
    }

    fn allocated(
        &mut self,
        sink: &mut ExtentSink<'_>,
    ) -> std::result::Result<Summary, SourceError> {
        if self.0.base.is_some() {
            // Its bytes come in the order of the delta: another answer would not fit them.
            let message = "ask a point with a base for everything";
            return Err(SourceError::new(SourceErrorKind::GiveUp, message));
        }
        self.answer(sink)
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> std::result::Result<Summary, SourceError> {
        if self.0.base.is_none() {
            return Err(SourceError::full(
                "a point without a base compares with nothing",
            ));
        }
        self.answer(sink)
    }
}

/// Rounds ascending byte ranges out to a unit, clips them to a size and joins those that touch.
struct Rounding<'a> {
    unit: u64,
    size: u64,
    pending: Option<(u64, u64)>,
    /// A byte that is to be among the ranges, at its place.
    extra: Option<u64>,
    sink: &'a mut dyn FnMut(Extent) -> Result<()>,
}

impl<'a> Rounding<'a> {
    fn new(unit: u64, size: u64, sink: &'a mut dyn FnMut(Extent) -> Result<()>) -> Self {
        Self {
            unit,
            size,
            pending: None,
            extra: None,
            sink,
        }
    }

    /// Adds the byte at `offset` when the ranges come to it.
    fn insert(&mut self, offset: Option<u64>) {
        self.extra = offset;
    }

    fn add(&mut self, start: u64, len: u64) -> Result<()> {
        if let Some(offset) = self.extra.take_if(|offset| *offset <= start) {
            self.add(offset, 1)?;
        }
        let end = start.saturating_add(len).min(self.size);
        if start >= end {
            return Ok(());
        }
        let start = start / self.unit * self.unit;
        let end = end.next_multiple_of(self.unit).min(self.size);
        match &mut self.pending {
            Some((_, last)) if start <= *last => {
                *last = end.max(*last);
                Ok(())
            }
            _ => {
                self.flush()?;
                self.pending = Some((start, end));
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self.pending.take() {
            Some((start, end)) => (self.sink)(Extent::data(start, end - start)),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<()> {
        if let Some(offset) = self.extra.take() {
            self.add(offset, 1)?;
        }
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(unit: u64, size: u64, ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut sink = |extent: Extent| {
            out.push((extent.offset.0, extent.len.0));
            Ok(())
        };
        let mut rounding = Rounding::new(unit, size, &mut sink);
        for (start, len) in ranges {
            rounding.add(*start, *len).unwrap();
        }
        rounding.finish().unwrap();
        out
    }

    #[test]
    fn a_byte_is_inserted_at_its_place() {
        for (extra, expected) in [
            (5, vec![(0, 10), (20, 10)]),
            (25, vec![(20, 10)]),
            (94, vec![(20, 10), (90, 5)]),
        ] {
            let mut out = Vec::new();
            let mut sink = |extent: Extent| {
                out.push((extent.offset.0, extent.len.0));
                Ok(())
            };
            let mut rounding = Rounding::new(10, 95, &mut sink);
            rounding.insert(Some(extra));
            rounding.add(21, 3).unwrap();
            rounding.finish().unwrap();
            assert_eq!(out, expected, "{extra}");
        }
    }

    #[test]
    fn ranges_are_rounded_joined_and_clipped() {
        assert_eq!(
            rounded(10, 95, &[(3, 2), (19, 1), (40, 5)]),
            [(0, 20), (40, 10)]
        );
        assert_eq!(rounded(10, 95, &[(91, 9)]), [(90, 5)]);
        assert_eq!(rounded(10, 95, &[(95, 9), (200, u64::MAX)]), []);
    }
}
