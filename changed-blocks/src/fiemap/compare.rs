//! Comparing the maps of two files, both read once and side by side.
//!
//! Owns: which ranges may differ, and the fingerprint by which two readings of a map are told apart. Must not: do I/O, or
//! hold more than one piece of each map.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::extent::{Extent, ExtentKind};
use crate::fiemap::map::{Piece, Place};
use crate::scan::stopped;
use crate::source::{ExtentSink, SourceError};

/// Tells one reading of a map from another. Not against malice: who can choose the places of a file can write it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    hash: u64,
    pieces: u64,
}

/// The fingerprints of both maps and the number of extents delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compared {
    /// Of the base, then of the target.
    pub(super) maps: (Fingerprint, Fingerprint),
    /// Extents delivered.
    pub(super) extents: u64,
}

/// The fingerprint of a map, read to its end.
pub(super) fn fingerprint(
    pieces: impl Iterator<Item = Result<Piece, SourceError>>,
) -> Result<Fingerprint, SourceError> {
    Side::new(pieces)?.finish()
}

/// Delivers every range below `end` in which `target` may differ from `base`: as zero where the target has a hole, else as
/// data. Holes equal holes, and equal places equal places; nothing else is equal.
pub(super) fn compare(
    base: impl Iterator<Item = Result<Piece, SourceError>>,
    target: impl Iterator<Item = Result<Piece, SourceError>>,
    end: u64,
    sink: &mut ExtentSink<'_>,
) -> Result<Compared, SourceError> {
    let (mut base, mut target) = (Side::new(base)?, Side::new(target)?);
    let mut delta = Joined {
        sink,
        pending: None,
        extents: 0,
    };
    let mut position = 0;
    while position < end {
        let (before, base_end) = base.at(position)?;
        let (after, target_end) = target.at(position)?;
        let stop = base_end.min(target_end).min(end);
        match (before, after) {
            (None, None) => {}
            (Some(a @ Place::At { .. }), Some(b)) if a == b => {}
            (_, None) => delta.push(position, stop, ExtentKind::Zero)?,
            (_, Some(_)) => delta.push(position, stop, ExtentKind::Data)?,
        }
        position = stop;
    }
    let extents = delta.finish()?;
    Ok(Compared {
        maps: (base.finish()?, target.finish()?),
        extents,
    })
}

/// One map that is walked from its start to its end.
struct Side<I> {
    pieces: I,
    current: Option<Piece>,
    hasher: DefaultHasher,
    count: u64,
}

impl<I: Iterator<Item = Result<Piece, SourceError>>> Side<I> {
    /// Stands at the start of a map.
    fn new(pieces: I) -> Result<Self, SourceError> {
        let mut side = Self {
            pieces,
            current: None,
            // Without a random key, so that two readings can be compared.
            hasher: DefaultHasher::new(),
            count: 0,
        };
        side.pull()?;
        Ok(side)
    }

    fn pull(&mut self) -> Result<(), SourceError> {
        self.current = self.pieces.next().transpose()?;
        if let Some(piece) = &self.current {
            piece.hash(&mut self.hasher);
            self.count += 1;
        }
        Ok(())
    }

    /// Where the byte at `position` is, `None` in a hole, and up to which byte that goes on. Positions ascend.
    fn at(&mut self, position: u64) -> Result<(Option<Place>, u64), SourceError> {
        if self.current.is_some_and(|piece| piece.end <= position) {
            self.pull()?;
        }
        Ok(match self.current {
            None => (None, u64::MAX),
            Some(piece) if position < piece.start => (None, piece.start),
            Some(piece) => (Some(piece.place.after(position - piece.start)), piece.end),
        })
    }

    fn finish(mut self) -> Result<Fingerprint, SourceError> {
        while self.current.is_some() {
            self.pull()?;
        }
        Ok(Fingerprint {
            hash: self.hasher.finish(),
            pieces: self.count,
        })
    }
}

/// Joins ranges that touch before they are delivered.
struct Joined<'a, 'b> {
    sink: &'a mut ExtentSink<'b>,
    pending: Option<(u64, u64, ExtentKind)>,
    extents: u64,
}

impl Joined<'_, '_> {
    fn push(&mut self, start: u64, end: u64, kind: ExtentKind) -> Result<(), SourceError> {
        match &mut self.pending {
            Some((_, last, same)) if *last == start && *same == kind => *last = end,
            _ => {
                self.deliver()?;
                self.pending = Some((start, end, kind));
            }
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), SourceError> {
        let Some((start, end, kind)) = self.pending.take() else {
            return Ok(());
        };
        let extent = match kind {
            ExtentKind::Data => Extent::data(start, end - start),
            ExtentKind::Zero => Extent::zero(start, end - start),
        };
        self.extents += 1;
        if (self.sink)(extent) {
            Ok(())
        } else {
            Err(stopped())
        }
    }

    fn finish(mut self) -> Result<u64, SourceError> {
        self.deliver()?;
        Ok(self.extents)
    }
}

#[cfg(test)]
mod tests;
