//! The map of a file: which bytes of it are where, as a stream that says the same for the same places.
//!
//! ```text
//!   FS_IOC_FIEMAP  [A shared][A+4k][..hole..][B][B+8k unwritten]      split wherever the file system keeps a record
//!   pieces         [A              ]          [B][B+8k unwritten]      split only where the places differ
//! ```
//!
//! Owns: reading maps in batches and their normal form. Must not: compare two of them.

use std::fs::File;

use crate::fiemap::ioctl::{Batch, RawExtent};
use crate::source::SourceError;

/// Flags that say nothing about the bytes (`linux/fiemap.h`): LAST, MERGED, SHARED.
const HARMLESS: u32 = 0x1 | 0x1000 | 0x2000;
/// The place is reserved, and reads as zero.
const UNWRITTEN: u32 = 0x800;

/// Where a range of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// From this byte of the file system's space on. Equal places at one instant are equal bytes.
    At {
        /// First byte.
        physical: u64,
        /// Whether it reads as zero.
        unwritten: bool,
    },
    /// Told in a way that proves nothing: compressed, inline, encrypted, not yet placed, or with flags unknown here.
    Unsure {
        /// What the file system said.
        physical: u64,
        /// What it said of it.
        flags: u32,
    },
}

impl Place {
    fn of(extent: &RawExtent) -> Self {
        let physical = extent.physical;
        let trusted = extent.flags & !(HARMLESS | UNWRITTEN) == 0;
        // No block of data is at the start of a device, so zero stands for a place that was not told.
        if trusted && physical != 0 && physical.checked_add(extent.length).is_some() {
            return Self::At {
                physical,
                unwritten: extent.flags & UNWRITTEN != 0,
            };
        }
        Self::Unsure {
            physical,
            flags: extent.flags & !HARMLESS,
        }
    }

    /// The place `bytes` further on.
    pub(super) fn after(self, bytes: u64) -> Self {
        match self {
            Self::At {
                physical,
                unwritten,
            } => Self::At {
                physical: physical.saturating_add(bytes),
                unwritten,
            },
            Self::Unsure { .. } => self,
        }
    }
}

/// A range `[start, end)` of a file that is in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) place: Place,
}

impl Piece {
    /// Whether `next` goes on where this one ends, in the file and in its place.
    fn is_continued_by(&self, next: &Self) -> bool {
        let told = matches!(self.place, Place::At { .. });
        told && self.end == next.start && self.place.after(self.end - self.start) == next.place
    }
}

/// The extents of a file as the file system tells them, batch by batch.
pub(super) struct Extents<'a> {
    file: &'a File,
    batch: Batch,
    next: usize,
    position: u64,
    end: u64,
}

impl<'a> Extents<'a> {
    /// Those of the first `end` bytes of `file`.
    pub(super) fn new(file: &'a File, end: u64) -> Self {
        Self {
            file,
            batch: Batch::new(),
            next: 0,
            position: 0,
            end,
        }
    }

    /// Asks for what lies behind the last extent. The flag LAST is not believed: only an empty answer ends the map.
    fn refill(&mut self) -> Result<(), SourceError> {
        let (position, end) = (self.position, self.end);
        if position >= end {
            return Ok(());
        }
        let extents = self
            .batch
            .fill(self.file, position, end - position)
            .map_err(|errno| {
                SourceError::full(format!("ask for the map of extents after byte {position}"))
                    .because(errno.into())
            })?;
        if let Some(last) = extents.last() {
            let next = last.logical.checked_add(last.length);
            let next = next.filter(|next| *next > position).ok_or_else(|| {
                SourceError::full(format!(
                    "the map of extents does not go on after byte {position}"
                ))
            })?;
            self.position = next;
        }
        self.next = 0;
        Ok(())
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<RawExtent, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.extent(self.next).is_none()
            && let Err(error) = self.refill()
        {
            self.end = 0;
            return Some(Err(error));
        }
        let extent = self.batch.extent(self.next)?;
        self.next += 1;
        Some(Ok(extent))
    }
}

/// Brings extents into normal form: ascending, disjoint, clipped to `[0, end)`, split only where places differ.
pub(super) struct Pieces<I> {
    extents: I,
    position: u64,
    end: u64,
    pending: Option<Piece>,
}

impl<I: Iterator<Item = Result<RawExtent, SourceError>>> Pieces<I> {
    /// Of the extents of a file's first `end` bytes.
    pub(super) fn new(extents: I, end: u64) -> Self {
        Self {
            extents,
            position: 0,
            end,
            pending: None,
        }
    }

    /// The part of an extent that was not told yet; `None` where nothing is left of it.
    fn clip(&mut self, extent: &RawExtent) -> Result<Option<Piece>, SourceError> {
        let end = extent.logical.checked_add(extent.length);
        // A batch may begin with an extent that the last one ended in: its head was told.
        let start = extent.logical.max(self.position);
        let end = end.filter(|end| *end > start).ok_or_else(|| {
            SourceError::full(format!(
                "the map of extents is not in order at byte {}",
                extent.logical
            ))
        })?;
        self.position = end;
        let place = Place::of(extent).after(start - extent.logical);
        let end = end.min(self.end);
        Ok((start < end).then_some(Piece { start, end, place }))
    }
}

impl<I: Iterator<Item = Result<RawExtent, SourceError>>> Iterator for Pieces<I> {
    type Item = Result<Piece, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(extent) = self.extents.next() else {
                return self.pending.take().map(Ok);
            };
            let piece = match extent.and_then(|extent| self.clip(&extent)) {
                Err(error) => return Some(Err(error)),
                Ok(None) => continue,
                Ok(Some(piece)) => piece,
            };
            match &mut self.pending {
                Some(pending) if pending.is_continued_by(&piece) => pending.end = piece.end,
                pending => {
                    if let Some(whole) = pending.replace(piece) {
                        return Some(Ok(whole));
                    }
                }
            }
        }
    }
}
