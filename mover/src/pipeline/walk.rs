//! A point's chunks in order, leaf by leaf.
//!
//! Owns: turning the map into zero runs, leaves and lost subtrees. Must not: decide what a loss means.

use std::ops::Range;
use std::sync::Arc;

use super::restore::plan::Run;
use crate::error::{Error, Result};
use crate::repository::access::Repository;
use crate::repository::map::{FANOUT, LeafRef, MapCursor, MapRoot};

/// Chunks in a leaf.
pub(crate) const LEAF_CHUNKS: u64 = FANOUT as u64;

/// The next part of a map.
#[derive(Debug)]
pub(crate) enum Step {
    /// Chunks that are zero.
    Zeros(Run),
    /// The leaf that begins at chunk `index * LEAF_CHUNKS`.
    Leaf(u64, LeafRef),
    /// Chunks whose map pages cannot be read.
    Lost(Run, Error),
}

/// Walks the leaves that hold any chunk of a range, ascending.
#[derive(Debug)]
pub(crate) struct Walk {
    cursor: MapCursor,
    next: u64,
    end: u64,
    pending: Option<(u64, LeafRef)>,
}
