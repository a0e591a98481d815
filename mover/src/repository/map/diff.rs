//! Finds the chunks in which two maps differ, at the cost of what differs.
//!
//! ```text
//!   a: root ─┐  equal hashes: the whole subtree is the same, skipped
//!   b: root ─┴► children that differ, both sides at once ─► … ─► leaves, entry by entry ─► runs of chunks
//! ```
//!
//! Owns: the walk over two maps. Must not: know sizes or bytes: chunks behind the end of the smaller volume are zero there, and a
//! chunk cut off at the end of a volume has the digest of its true bytes.

use std::sync::Arc;

use super::entry::PagePointer;
use super::leaf::Leaf;
use super::node::Node;
use super::page::Page;
use super::pages::{PageReader, PageRequest};
use super::{FANOUT, LEVEL_BITS, MapRoot};
use crate::error::Result;
use crate::repository::access::Repository;
use crate::repository::segments::SegmentReader;

/// Calls `sink` with the first chunk and the number of chunks of every run that differs, ascending, disjoint and not
/// touching.
///
/// # Errors
/// If a page that differs cannot be read; what `sink` returns.
pub fn diff(
    repository: &Arc<Repository>,
    a: &MapRoot,
    b: &MapRoot,
    sink: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let pages = PageReader::new(Arc::new(SegmentReader::new(repository)));
    let mut runs = Runs { sink, run: None };
    let level = a.depth.max(b.depth).saturating_sub(1);
    compare(
        &pages,
        level,
        &[(0, [Side::of(a, level), Side::of(b, level)])],
        &mut runs,
    )?;
    runs.flush()
}

/// What one map has at a place in the tree.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// Zeros.
    Zero,
    Page(PagePointer),
    /// A node that is not stored, because this map is less deep: its first child is `Above` again or the root.
    Above(PagePointer, u8),
}

impl Side {
    fn of(root: &MapRoot, level: u8) -> Self {
        match root.pointer {
            None => Self::Zero,
            Some(pointer) if root.depth - 1 == level => Self::Page(pointer),
            Some(pointer) => Self::Above(pointer, root.depth - 1),
        }
    }

    fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Zero, Self::Zero) => false,
            (Self::Page(a), Self::Page(b)) => a.content() != b.content(),
            _ => true,
        }
    }
}

/// A loaded [`Side`].
enum Content {
    Zero,
    Leaf(Leaf),
    Node(Node),
    Above(PagePointer, u8),
}

impl Content {
    fn child(&self, level: u8, place: usize) -> Side {
        match self {
            Self::Node(node) => node.slots.get(place).map_or(Side::Zero, Side::Page),
            Self::Above(root, at) if place == 0 && level - 1 == *at => Side::Page(*root),
            Self::Above(root, at) if place == 0 => Side::Above(*root, *at),
            _ => Side::Zero,
        }
    }
}

/// Compares pairs of pages of one level, ascending. Recursion is at most as deep as the map; of each level it holds the
/// pages of one pair of nodes.
fn compare<S: FnMut(u64, u64) -> Result<()>>(
    pages: &PageReader,
    level: u8,
    pairs: &[(u64, [Side; 2])],
    runs: &mut Runs<S>,
) -> Result<()> {
    let pairs = pairs
        .iter()
        .filter(|(_, [a, b])| a.differs(b))
        .copied()
        .collect::<Vec<_>>();
    let contents = load(pages, level, &pairs)?;
    for ((index, _), [a, b]) in pairs.iter().zip(contents) {
        let first = index << LEVEL_BITS;
        if level > 0 {
            let child = |place: usize| {
                (
                    first + place as u64,
                    [a.child(level, place), b.child(level, place)],
                )
            };
            let children = (0..FANOUT).map(child).collect::<Vec<_>>();
            compare(pages, level - 1, &children, runs)?;
            continue;
        }
        let zero = Leaf::zero();
        let leaf = |content| match content {
            Content::Leaf(leaf) => leaf,
            _ => zero.clone(),
        };
        let (a, b) = (leaf(a), leaf(b));
        for place in 0..FANOUT {
            if a.get(place).digest() != b.get(place).digest() {
                runs.push(first + place as u64)?;
            }
        }
    }
    Ok(())
}

fn load(pages: &PageReader, level: u8, pairs: &[(u64, [Side; 2])]) -> Result<Vec<[Content; 2]>> {
    let sides = pairs
        .iter()
        .flat_map(|(index, sides)| sides.iter().map(move |side| (*index, side)));
    let request = |(index, side): (u64, &Side)| match side {
        Side::Page(pointer) => Some(PageRequest {
            pointer: *pointer,
            level,
            index,
        }),
        _ => None,
    };
    let requests = sides.filter_map(request).collect::<Vec<_>>();
    let mut loaded = pages.load(&requests, false).into_iter();
    let mut content = |side: &Side| match side {
        Side::Zero => Ok(Content::Zero),
        Side::Above(root, at) => Ok(Content::Above(*root, *at)),
        Side::Page(_) => match loaded.next().expect("one result for each request") {
            Ok(Page::Leaf(leaf)) => Ok(Content::Leaf(leaf)),
            Ok(Page::Node(node)) => Ok(Content::Node(node)),
            Err(damage) => Err(damage.to_error()),
        },
    };
    pairs
        .iter()
        .map(|(_, [a, b])| Ok([content(a)?, content(b)?]))
        .collect()
}

/// Joins neighbouring chunks.
struct Runs<S> {
    sink: S,
    run: Option<(u64, u64)>,
}

impl<S: FnMut(u64, u64) -> Result<()>> Runs<S> {
    fn push(&mut self, chunk: u64) -> Result<()> {
        match &mut self.run {
            Some((first, count)) if *first + *count == chunk => *count += 1,
            _ => {
                self.flush()?;
                self.run = Some((chunk, 1));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.run.take() {
            Some((first, count)) => (self.sink)(first, count),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
