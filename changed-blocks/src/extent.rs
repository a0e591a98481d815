//! Byte positions, lengths and ranges of a volume.
//!
//! Owns: the newtypes every other crate counts bytes with. Must not: do I/O. All ranges are half open.

use std::fmt;

/// A byte position in a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(pub u64);

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Bytes that must be read.
    Data,
    /// Bytes the source guarantees to read as zero.
    Zero,
}

/// A byte range `[offset, offset + len)` of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: ByteOffset,
    /// Length; never zero in a valid answer.
    pub len: ByteLen,
    /// What the range holds.
    pub kind: ExtentKind,
}

impl Extent {
    /// A data extent.
    #[must_use]
    pub fn data(offset: u64, len: u64) -> Self {
        Self {
            offset: ByteOffset(offset),
            len: ByteLen(len),
            kind: ExtentKind::Data,
        }
    }

    /// A zero extent.
    #[must_use]
    pub fn zero(offset: u64, len: u64) -> Self {
        Self {
            offset: ByteOffset(offset),
            len: ByteLen(len),
            kind: ExtentKind::Zero,
        }
    }

    /// First byte after the extent, or `None` where it would pass the end of the address space.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.offset.0.checked_add(self.len.0)
    }
}
