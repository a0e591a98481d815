//! The map: a tree that says for every chunk of a point what it holds and where that is stored.
//!
//! ```text
//!   manifest ─► root ─► inner nodes (256 pointers each) ─► leaves (256 chunks each) ─► data segments
//!                 └ pages, content-hashed, packed into map segments; a subtree of zeros is a null pointer
//!
//!   parent's pages ─► MapCursor ─► (old leaf, new chunks) ─► MapWriter ─► map segments, root, live pages
//! ```
//!
//! Owns: the tree's shape, pages, reading and writing them, comparing two maps, liveness. Must not: read chunks, or decide
//! which of them are new. Depth follows the size of the volume: a map of depth `d` covers 256^d chunks.

pub(crate) mod cbor;
pub mod content;
pub mod cursor;
pub mod damage;
pub mod diff;
pub mod entry;
#[cfg(any(test, feature = "testing"))]
pub mod hostile;
pub mod leaf;
pub mod liveness;
mod node;
pub mod orphans;
pub mod page;
mod pages;
mod plan;
mod slots;
#[cfg(test)]
pub(crate) mod testing;
mod walk;
pub mod writer;

pub use content::ContentTree;
pub use cursor::{LeafRef, MapCursor};
pub use damage::{DamagedPage, damaged_page};
pub use diff::diff;
pub use entry::{Entry, Location, PagePointer};
pub use leaf::Leaf;
pub use liveness::{LivePages, LiveSet, Liveness, LivenessBuilder, LivenessRef};
pub use writer::{MapWriter, WrittenMap};

use super::format::Keys;

/// Children of a page: chunks of a leaf, pages of an inner node.
pub const FANOUT: usize = 256;

/// Bits of a chunk number that one level resolves.
const LEVEL_BITS: u32 = FANOUT.trailing_zeros();

/// The deepest map: a size of 64 bits in chunks of 64 KiB needs 6 levels.
pub const MAX_DEPTH: u8 = 7;

/// The top of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRoot {
    /// The root page; `None` where every chunk is zero.
    pub pointer: Option<PagePointer>,
    /// Levels of pages. At depth 1 the root is a leaf; a map covers 256^depth chunks.
    pub depth: u8,
}

impl MapRoot {
    /// The hash over everything a point of `size` bytes with this map holds, wherever its chunks are stored.
    #[must_use]
    pub fn content_hash(&self, keys: &Keys, size: u64, chunk_size: u32) -> [u8; 32] {
        let root = self.pointer.map_or([0; 16], |root| root.content());
        keys.content_hash(size, chunk_size, root)
    }

    /// The map of a volume of `chunks` zero chunks.
    #[must_use]
    pub fn zero(chunks: u64) -> Self {
        Self {
            pointer: None,
            depth: depth_of(chunks),
        }
    }
}

/// The smallest depth, at least 1, whose map covers `chunks` chunks.
#[must_use]
pub fn depth_of(chunks: u64) -> u8 {
    (1..=MAX_DEPTH)
        .find(|depth| chunks <= span_of(depth - 1))
        .unwrap_or(MAX_DEPTH + 1)
}

/// Chunks below a page of `level`; leaves are level 0.
fn span_of(level: u8) -> u64 {
    1u64.checked_shl(LEVEL_BITS * (u32::from(level) + 1))
        .unwrap_or(u64::MAX)
}

/// Leaves below a page of `level`.
fn leaves_of(level: u8) -> u64 {
    1u64.checked_shl(LEVEL_BITS * u32::from(level))
        .unwrap_or(u64::MAX)
}

/// The place of page `index` inside its parent.
fn place_of(index: u64) -> usize {
    usize::try_from(index % FANOUT as u64).expect("below 256")
}

#[cfg(test)]
mod tests;
