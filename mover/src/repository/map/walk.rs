//! Walks a map from left to right, node by node.
//!
//! ```text
//!   root ─► its children at once ─► children of the first of them at once ─► … ─► a batch: the leaves of one node
//! ```
//!
//! Owns: the order of loading. Must not: run threads (`cursor`). Of each level it holds the children of one node, so memory does
//! not grow with the volume.

use std::ops::Range;
use std::sync::Arc;

use super::cursor::LeafRef;
use super::damage::DamagedPage;
use super::entry::PagePointer;
use super::node::NodeRef;
use super::page::Page;
use super::pages::{PageReader, PageRequest};
use super::{FANOUT, MapRoot, leaves_of};

/// What a walk comes across, ascending.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Leaf(u64, LeafRef),
    /// Leaves that cannot be read.
    Damaged(DamagedPage),
}

impl Step {
    /// First leaf it says something about, and the first behind.
    pub(super) fn leaves(&self) -> Range<u64> {
        match self {
            Self::Leaf(index, _) => *index..index + 1,
            Self::Damaged(page) => page.leaves(),
        }
    }
}

/// Which leaves are wanted; ascending and disjoint.
#[derive(Clone, Debug)]
pub(super) enum Selection {
    All,
    Ranges(Vec<Range<u64>>),
}

impl Selection {
    fn meets(&self, leaves: &Range<u64>) -> bool {
        match self {
            Self::All => true,
            Self::Ranges(ranges) => {
                let at = ranges.partition_point(|range| range.end <= leaves.start);
                ranges.get(at).is_some_and(|range| range.start < leaves.end)
            }
        }
    }
}

/// The state of a walk.
#[derive(Debug)]
pub(super) struct Walk {
    pages: Arc<PageReader>,
    selection: Selection,
    root: MapRoot,
    started: bool,
    /// Loaded nodes that are still to be descended into, the next one last; of every level those of one parent.
    pending: Vec<Result<Arc<NodeRef>, DamagedPage>>,
}

impl Walk {
    pub(super) fn new(pages: Arc<PageReader>, root: MapRoot, selection: Selection) -> Self {
        Self {
            pages,
            selection,
            root,
            started: false,
            pending: Vec::new(),
        }
    }

    /// The next leaves at or behind `from`, at most one node's; `None` at the end. Leaves before `from` may be left out.
    pub(super) fn next(&mut self, from: u64) -> Option<Vec<Step>> {
        if !std::mem::replace(&mut self.started, true)
            && let Some(steps) = self.start()
        {
            return Some(steps);
        }
        while let Some(pending) = self.pending.pop() {
            let node = match pending {
                Ok(node) => node,
                Err(page) => return Some(vec![Step::Damaged(page)]),
            };
            let children = self.load_children(&node, from);
            if node.level == 1 {
                return Some(
                    children
                        .into_iter()
                        .map(|(index, pointer, page)| step(index, pointer, page, &node))
                        .collect(),
                );
            }
            let nodes = children
                .into_iter()
                .map(|(index, pointer, page)| match page {
                    Ok(page) => Ok(node_ref(index, pointer, page, node.level - 1, Some(&node))),
                    Err(damage) => Err(damage),
                });
            let nodes = nodes.collect::<Vec<_>>();
            self.pending.extend(nodes.into_iter().rev());
        }
        None
    }

    /// Loads the root; gives it back if it is a leaf or damaged.
    fn start(&mut self) -> Option<Vec<Step>> {
        let pointer = self.root.pointer?;
        let level = self.root.depth - 1;
        match self.pages.load_one(PageRequest {
            pointer,
            level,
            index: 0,
        }) {
            Err(damage) => Some(vec![Step::Damaged(damage)]),
            Ok(Page::Leaf(leaf)) => {
                let leaf = LeafRef {
                    pointer,
                    leaf: Arc::new(leaf),
                    home: None,
                };
                Some(vec![Step::Leaf(0, leaf)])
            }
            Ok(page) => {
                self.pending
                    .push(Ok(node_ref(0, pointer, page, level, None)));
                None
            }
        }
    }

    fn load_children(
        &self,
        node: &NodeRef,
        from: u64,
    ) -> Vec<(u64, PagePointer, Result<Page, DamagedPage>)> {
        let level = node.level - 1;
        let first = node.index * FANOUT as u64;
        let requests = node.node.slots.iter().map(|(place, pointer)| PageRequest {
            pointer,
            level,
            index: first + place as u64,
        });
        let wanted = requests.filter(|request| {
            let start = request.index.saturating_mul(leaves_of(level));
            let leaves = start..start.saturating_add(leaves_of(level));
            leaves.end > from && self.selection.meets(&leaves)
        });
        let wanted = wanted.collect::<Vec<_>>();
        let scan = matches!(self.selection, Selection::All);
        let pages = self.pages.load(&wanted, scan);
        let with = |(request, page): (PageRequest, _)| (request.index, request.pointer, page);
        wanted.into_iter().zip(pages).map(with).collect()
    }
}

fn step(
    index: u64,
    pointer: PagePointer,
    page: Result<Page, DamagedPage>,
    node: &Arc<NodeRef>,
) -> Step {
    match page {
        Ok(Page::Leaf(leaf)) => Step::Leaf(
            index,
            LeafRef {
                pointer,
                leaf: Arc::new(leaf),
                home: Some(Arc::clone(node)),
            },
        ),
        Ok(Page::Node(_)) => unreachable!("a page of level 0 is decoded as a leaf"),
        Err(damage) => Step::Damaged(damage),
    }
}

fn node_ref(
    index: u64,
    pointer: PagePointer,
    page: Page,
    level: u8,
    parent: Option<&Arc<NodeRef>>,
) -> Arc<NodeRef> {
    let Page::Node(node) = page else {
        unreachable!("a page above level 0 is decoded as a node");
    };
    Arc::new(NodeRef {
        pointer,
        level,
        index,
        node,
        parent: parent.map(Arc::clone),
    })
}
