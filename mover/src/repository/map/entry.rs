//! What the map says about one chunk, and how it points at things.
//!
//! Owns: locations, entries and page pointers. Must not: know how they are encoded (`page`) or stored (`pages`).

use std::fmt;

use crate::repository::ids::{Digest, SegmentId, to_hex};

/// Where a body lives: a segment and the body's number in it. Offsets stand in the segment's directory only, so that
/// compaction never touches a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// A data segment for a chunk, a map segment for a page.
    pub segment: SegmentId,
    /// Number of the body inside the segment, from 0.
    pub ordinal: u16,
}

/// What a point holds at one chunk number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Only zeros, or a hole: the two are the same.
    Zero,
    /// Data, stored somewhere.
    Data {
        /// Keyed BLAKE3 of the chunk's true bytes, first 16 bytes.
        digest: Digest,
        /// Where the chunk is stored.
        location: Location,
    },
}

impl Entry {
    /// The digest, or `None` for zeros.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Zero => None,
            Self::Data { digest, .. } => Some(digest),
        }
    }
}

/// Points at one page of the map: its content and where that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PagePointer {
    /// First half: keyed BLAKE3 of what the page's chunks hold, wherever they are stored. Second half: of its raw bytes.
    pub hash: [u8; 32],
    /// Where the page is stored; the segment is a map segment.
    pub location: Location,
}

impl PagePointer {
    /// The half of the hash that is the same for all pages whose chunks hold the same bytes.
    #[must_use]
    pub fn content(&self) -> [u8; 16] {
        let mut content = [0; 16];
        content.copy_from_slice(&self.hash[..16]);
        content
    }
}

impl fmt::Debug for PagePointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = to_hex(&self.hash[..8]);
        write!(f, "PagePointer({short} at {:?})", self.location)
    }
}
