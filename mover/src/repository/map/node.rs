//! The inner pages of the map: 256 pointers each.
//!
//! Owns: an inner node in memory, and a loaded node's place in its tree. Must not: know bytes (`page`) or load pages.

use std::sync::Arc;

use super::entry::PagePointer;
use super::slots::Slots;

/// 256 neighbouring pages of the level below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) slots: Slots<PagePointer>,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            slots: Slots::new(),
        }
    }
}

/// A stored inner node together with the nodes above it: what a writer compares with to use it again.
#[derive(Debug)]
pub(super) struct NodeRef {
    pub(super) pointer: PagePointer,
    /// Leaves are level 0.
    pub(super) level: u8,
    /// Number among the nodes of its level.
    pub(super) index: u64,
    pub(super) node: Node,
    pub(super) parent: Option<Arc<NodeRef>>,
}
