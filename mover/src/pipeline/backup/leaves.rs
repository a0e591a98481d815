//! Leaves in work: filled by many workers, finished in order.
//!
//! ```text
//!   reader: LeafWork{order, parent, pending} ──► workers fill entries ──► last one hands it over ──► in order ──► map
//! ```
//!
//! Owns: [`LeafWork`] and [`InOrder`]. Must not: write pages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::changes::Delta;
use super::plan::Geometry;
use crate::pipeline::budget::Claim;
use crate::repository::map::{Entry, Leaf, LeafRef};
use crate::repository::quarantine::Quarantine;

/// What becomes of the chunks of a leaf that are not read.
#[derive(Clone, Copy, Debug)]
pub enum Unread<'a> {
    /// They are zero.
    Zero {
        /// Whether that is believed also where the parent has data: by the file system of a file. Else those are read.
        believed: bool,
    },
    /// They are what the parent has, unless that was found bad.
    AsParent {
        /// What was found bad.
        quarantine: &'a Quarantine,
        /// Size of the parent.
        parent: Geometry,
        /// What was said to have changed, and which other chunks are read to see whether it is true; `None` where nobody
        /// can be wrong.
        delta: Option<&'a Delta>,
    },
}

/// One leaf while its chunks are read.
#[derive(Debug)]
pub struct LeafWork {
    /// Position among the leaves of this backup, from 0 without gaps.
    pub order: u64,
    /// Index of the leaf in the map.
    pub index: u64,
    /// The same leaf of the parent.
    pub parent: Option<LeafRef>,
    state: Mutex<State>,
    /// Bounds the leaves in work; given back once the map has taken the leaf.
    _claim: Claim,
}

#[derive(Debug)]
struct State {
    leaf: Leaf,
    pending: u64,
}

impl LeafWork {
    /// A leaf of which `pending` chunks will be filled in; all others stay what `leaf` has.
    #[must_use]
    pub fn new(
        order: u64,
        index: u64,
        parent: Option<LeafRef>,
        (leaf, pending): (Leaf, u64),
        claim: Claim,
    ) -> Self {
        let state = Mutex::new(State { leaf, pending });
        Self {
            order,
            index,
            parent,
            state,
            _claim: claim,
        }
    }

    /// The parent's entry at a position in the leaf.
    #[must_use]
    pub fn parent_entry(&self, at: usize) -> Entry {
        self.parent
            .as_ref()
            .map_or(Entry::Zero, |parent| parent.leaf.get(at))
    }

    /// Fills entries from position `first` on; true for the caller that completed the leaf.
    #[must_use]
    pub fn fill(&self, first: usize, entries: &[Entry]) -> bool {
        let mut state = self.state.lock().expect("no holder panics");
        for (at, entry) in entries.iter().enumerate() {
            state.leaf.set(first + at, *entry);
        }
        let filled = entries.len() as u64;
        assert!(filled <= state.pending, "a chunk is filled in once");
        state.pending -= filled;
        state.pending == 0
    }

    /// Takes the completed leaf out.
    #[must_use]
    pub fn take(&self) -> Leaf {
        let mut state = self.state.lock().expect("no holder panics");
        assert_eq!(state.pending, 0, "only a completed leaf is handed over");
        std::mem::replace(&mut state.leaf, Leaf::zero())
    }
}

/// Puts completed leaves back into the order in which they were begun.
#[derive(Debug, Default)]
pub struct InOrder {
    next: u64,
    waiting: BTreeMap<u64, Arc<LeafWork>>,
}

impl InOrder {
    /// Adds a completed leaf.
    pub fn push(&mut self, leaf: Arc<LeafWork>) {
        self.waiting.insert(leaf.order, leaf);
    }

    /// The next leaf in order, once it is there.
    pub fn pop(&mut self) -> Option<Arc<LeafWork>> {
        let leaf = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(leaf)
    }

    /// Whether every leaf given in was taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::budget::Budget;

    fn leaf(order: u64, pending: u64) -> LeafWork {
        LeafWork::new(
            order,
            order * 2,
            None,
            (Leaf::zero(), pending),
            Budget::new(1).claim(),
        )
    }

    #[test]
    fn the_last_filler_completes_a_leaf() {
        let work = leaf(0, 3);
        assert!(!work.fill(0, &[Entry::Zero, Entry::Zero]));
        assert!(work.fill(9, &[Entry::Zero]));
        assert!(work.take().is_zero());
    }

    #[test]
    fn leaves_come_out_in_order() {
        let mut in_order = InOrder::default();
        in_order.push(Arc::new(leaf(1, 0)));
        assert!(in_order.pop().is_none());
        in_order.push(Arc::new(leaf(0, 0)));
        assert_eq!(in_order.pop().unwrap().order, 0);
        assert_eq!(in_order.pop().unwrap().order, 1);
        assert!(in_order.is_empty());
    }
}
