//! What a window of a volume needs: runs of zeros, and the chunks wanted from each segment.
//!
//! ```text
//!   map entries, ascending ──► Window { zeros: runs, segments: [segment → chunks] }
//! ```
//!
//! Owns: grouping by segment inside a window and the size of the first read of a segment. Must not: do I/O. A window of
//! 8 GiB holds at most 131,072 chunks, so a plan stays below 8 MiB whatever the volume's size.

use std::collections::HashMap;

use crate::repository::ids::{Digest, SegmentId};

/// Volume bytes planned at once (data-plane 13): large enough that a segment is read once although parallel workers wrote
/// its chunks out of order, small enough that a plan is a few MiB.
pub(crate) const WINDOW_BYTES: u64 = 8 << 30;

/// A run of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// First chunk.
    pub first: u64,
    /// Number of chunks.
    pub count: u64,
}

impl Run {
    /// First chunk after the run.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// Appends a run, joined with the last one where they touch.
pub(crate) fn push_run(runs: &mut Vec<Run>, first: u64, count: u64) {
    match runs.last_mut() {
        _ if count == 0 => {}
        Some(last) if last.end() == first => last.count += count,
        _ => runs.push(Run { first, count }),
    }
}

/// A chunk of the volume that a body of a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Chunk number in the volume.
    pub chunk: u64,
    /// Digest that the map promises.
    pub digest: Digest,
    /// Body in the segment.
    pub ordinal: u16,
}

/// Everything a window wants from one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentJob {
    /// The segment.
    pub segment: SegmentId,
    /// Its chunks, ascending by chunk number.
    pub chunks: Vec<Wanted>,
}

impl SegmentJob {
    /// How much of the object to read first, from its start: the head alone, or, where at least half of what lies before
    /// the last wanted body is wanted, everything up to there, capped at `max_get`. The directory comes with it either way.
    pub(crate) fn first_read(&self, head: u64, chunk_size: u64, max_get: u64) -> u64 {
        let Some(last) = self
            .chunks
            .iter()
            .map(|wanted| u64::from(wanted.ordinal))
            .max()
        else {
            return head;
        };
        let mut seen = vec![false; usize::try_from(last).map_or(0, |last| last + 1)];
        for wanted in &self.chunks {
            seen[usize::from(wanted.ordinal)] = true;
        }
        let distinct = seen.iter().filter(|seen| **seen).count() as u64;
        if distinct * 2 <= last + 1 && last > 0 {
            return head;
        }
        // A body is never longer than a chunk, so this reaches the last wanted one; compressed segments are read a little
        // further than needed, which the cap bounds.
        (head + (last + 1) * chunk_size).min(max_get)
    }
}

/// One window of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// Zero runs, ascending.
    pub zeros: Vec<Run>,
    /// Segments in the order in which the volume meets them.
    pub segments: Vec<SegmentJob>,
}

impl Window {
    /// Whether nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.zeros.is_empty() && self.segments.is_empty()
    }
}

/// Collects one window; chunks arrive in ascending order.
#[derive(Debug, Default)]
pub(crate) struct WindowBuilder {
    window: Window,
    at: HashMap<SegmentId, usize>,
}

impl WindowBuilder {
    /// Adds a run of zero chunks.
    pub(crate) fn zeros(&mut self, first: u64, count: u64) {
        push_run(&mut self.window.zeros, first, count);
    }

    /// Adds a chunk with data.
    pub(crate) fn data(&mut self, segment: SegmentId, wanted: Wanted) {
        let segments = &mut self.window.segments;
        let index = *self.at.entry(segment).or_insert_with(|| {
            segments.push(SegmentJob {
                segment,
                chunks: Vec::new(),
            });
            segments.len() - 1
        });
        segments[index].chunks.push(wanted);
    }

    /// Hands the window over and begins the next.
    pub(crate) fn take(&mut self) -> Window {
        self.at.clear();
        std::mem::take(&mut self.window)
    }
}

#[cfg(test)]
mod tests;
