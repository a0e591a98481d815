//! Writes a map from its leaves, in ascending order, and uses the parent's pages again wherever they are the same.
//!
//! ```text
//!   keep(leaf) ─┐                                    ┌─ same children as the parent's node: its pointer
//!   push(leaf) ─┴─► open node of level 1 ─► closed ──┴─ else: new children packed together, node ─► open node of level 2 ─► …
//! ```
//!
//! Owns: the shape of a new map and its map segments. Must not: read pages or talk to a store (`emit` does). A node's new
//! children are packed when the node is closed, next to each other, so that a reader gets all of them with one request. It
//! holds the children of one node of each level and one open segment.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::cursor::LeafRef;
use super::entry::{Location, PagePointer};
use super::leaf::Leaf;
use super::liveness::LivePages;
use super::node::{Node, NodeRef};
use super::{FANOUT, MapRoot, depth_of, page, place_of, span_of};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::format::{Class, Compression, ContainerBuilder, Encoder, Keys};
use crate::repository::ids::{SegmentId, SessionId, name};

/// A node that is written anyway and whose children lie in more map segments than this gets them written together: it
/// would cost a reader that many requests.
const MAX_SPREAD: usize = 32;

/// Most pages of one map segment: keeps its directory below 200 KiB.
const MAX_PAGES: usize = 4096;

/// Receives finished map segments, in order.
pub type Emit = Box<dyn FnMut(SegmentId, Bytes) -> Result<()> + Send>;

/// Builds one map.
pub struct MapWriter {
    packer: Packer,
    /// Open nodes by level; `levels[0]` is of level 1.
    levels: Vec<OpenNode>,
    /// The first leaf that may come.
    next: u64,
    live: LivePages,
}

/// What a writer made.
#[derive(Debug)]
pub struct WrittenMap {
    /// The map, for the manifest.
    pub root: MapRoot,
    /// Every page of it, kept and new, for the liveness.
    pub pages: LivePages,
    /// Pages written.
    pub pages_written: u64,
    /// Map segments emitted.
    pub segments: u32,
    /// Bytes of the emitted objects.
    pub stored_bytes: u64,
}

struct OpenNode {
    index: u64,
    children: Vec<(usize, Child)>,
}

enum Child {
    Kept {
        pointer: PagePointer,
        page: KeptPage,
        home: Option<Arc<NodeRef>>,
    },
    New {
        content: Vec<u8>,
        raw: Vec<u8>,
    },
}

enum KeptPage {
    Leaf(Arc<Leaf>),
    Node(Arc<NodeRef>),
}

impl MapWriter {
    /// A writer of the map segments of `session`, each of at most `segment_size` bytes of pages.
    #[must_use]
    pub fn new(keys: Arc<Keys>, session: SessionId, segment_size: usize, emit: Emit) -> Self {
        let encoder = None;
        let packer = Packer {
            keys,
            session,
            segment_size,
            emit,
            encoder,
            open: None,
            segments: 0,
            pages: 0,
            stored_bytes: 0,
        };
        Self {
            packer,
            levels: Vec::new(),
            next: 0,
            live: LivePages::default(),
        }
    }

    /// Uses a leaf of the parent again, at the same index as there.
    ///
    /// # Errors
    /// `Internal` if leaves do not ascend; else what `emit` returns.
    pub fn keep(&mut self, index: u64, leaf: &LeafRef) -> Result<()> {
        let page = KeptPage::Leaf(Arc::clone(&leaf.leaf));
        let home = leaf.home.as_ref().map(Arc::clone);
        self.add_leaf(
            index,
            Child::Kept {
                pointer: leaf.pointer,
                page,
                home,
            },
        )
    }

    /// Writes a leaf. A leaf of zeros is left out, as if it had not been pushed.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn push(&mut self, index: u64, leaf: &Leaf) -> Result<()> {
        if leaf.is_zero() {
            return Ok(());
        }
        self.add_leaf(
            index,
            Child::New {
                content: page::leaf_content(leaf),
                raw: page::encode_leaf(leaf),
            },
        )
    }

    /// Writes what is left and says where the map of a volume of `chunks` chunks begins.
    ///
    /// # Errors
    /// `Internal` if a leaf lies behind the end of the volume; else what `emit` returns.
    pub fn finish(mut self, chunks: u64) -> Result<WrittenMap> {
        if self.next > chunks.div_ceil(FANOUT as u64) {
            let message = format!("end a map of {chunks} chunks with leaf {}", self.next - 1);
            return Err(Error::new(ErrorKind::Internal, message));
        }
        let depth = depth_of(chunks);
        let pointer = self.close_all(depth)?;
        self.packer.flush()?;
        let Packer {
            segments,
            pages,
            stored_bytes,
            ..
        } = self.packer;
        let root = MapRoot { pointer, depth };
        Ok(WrittenMap {
            root,
            pages: self.live,
            pages_written: pages,
            segments,
            stored_bytes,
        })
    }

    fn add_leaf(&mut self, index: u64, child: Child) -> Result<()> {
        if index < self.next {
            let message = format!(
                "add leaf {index} to a map that has leaf {} already",
                self.next - 1
            );
            return Err(Error::new(ErrorKind::Internal, message));
        }
        self.next = index + 1;
        self.add(0, index, child)
    }

    /// Adds a page of `level`, closing the node before it if it belongs to another.
    fn add(&mut self, level: usize, index: u64, child: Child) -> Result<()> {
        let parent = index / FANOUT as u64;
        if self.levels.len() == level {
            self.levels.push(OpenNode {
                index: parent,
                children: Vec::new(),
            });
        }
        if self.levels[level].index != parent {
            let open = std::mem::replace(
                &mut self.levels[level],
                OpenNode {
                    index: parent,
                    children: Vec::new(),
                },
            );
            let (index, closed) = (open.index, self.close(level, open)?);
            self.add(level + 1, index, closed)?;
        }
        self.levels[level].children.push((place_of(index), child));
        Ok(())
    }

    /// Closes the open nodes from below up to the root's children, and writes the root.
    fn close_all(&mut self, depth: u8) -> Result<Option<PagePointer>> {
        if self.levels.is_empty() {
            return Ok(None);
        }
        for level in 0..usize::from(depth) - 1 {
            let open = OpenNode {
                index: 0,
                children: Vec::new(),
            };
            let open = std::mem::replace(&mut self.levels[level], open);
            let (index, closed) = (open.index, self.close(level, open)?);
            self.add(level + 1, index, closed)?;
        }
        let top = self
            .levels
            .pop()
            .map(|node| node.children)
            .unwrap_or_default();
        let mut top = top.into_iter();
        match (top.next(), top.next()) {
            (Some((0, root)), None) => self.place(usize::from(depth) - 1, 0, root).map(Some),
            _ => Err(Error::new(ErrorKind::Internal, "end a map with one root")),
        }
    }

    /// Turns a node with all its children into a page, or finds that the parent's page says the same.
    fn close(&mut self, level: usize, node: OpenNode) -> Result<Child> {
        let home = same_as_before(&node);
        let OpenNode {
            index,
            mut children,
        } = node;
        if home.is_none() && is_spread(&children) {
            children.iter_mut().for_each(|(_, child)| child.rewrite());
        }
        let mut page = Node::new();
        for (place, child) in children {
            let child_index = index * FANOUT as u64 + place as u64;
            page.slots
                .append(place, self.place(level, child_index, child)?);
        }
        if let Some(home) = home {
            let (pointer, above) = (home.pointer, home.parent.as_ref().map(Arc::clone));
            return Ok(Child::Kept {
                pointer,
                page: KeptPage::Node(home),
                home: above,
            });
        }
        let level = u8::try_from(level + 1).expect("maps are at most 8 levels deep");
        Ok(Child::New {
            content: page::node_content(level, &page),
            raw: page::encode_node(level, &page),
        })
    }

    /// Gives a page its place in a map segment, unless it has one.
    fn place(&mut self, level: usize, index: u64, child: Child) -> Result<PagePointer> {
        let pointer = match child {
            Child::Kept { pointer, .. } => pointer,
            Child::New { content, raw } => {
                let level = u8::try_from(level).expect("maps are at most 8 levels deep");
                self.packer.append(index * span_of(level), &content, &raw)?
            }
        };
        self.live.insert(pointer.location);
        Ok(pointer)
    }
}

impl Child {
    /// Makes a kept page a new one with the same content.
    fn rewrite(&mut self) {
        if let Self::Kept { page, .. } = self {
            let (content, raw) = match page {
                KeptPage::Leaf(leaf) => (page::leaf_content(leaf), page::encode_leaf(leaf)),
                KeptPage::Node(node) => (
                    page::node_content(node.level, &node.node),
                    page::encode_node(node.level, &node.node),
                ),
            };
            *self = Self::New { content, raw };
        }
    }
}

/// The parent's node with exactly these children, if there is one.
fn same_as_before(node: &OpenNode) -> Option<Arc<NodeRef>> {
    let mut home = None;
    for (place, child) in &node.children {
        let Child::Kept {
            pointer,
            home: Some(here),
            ..
        } = child
        else {
            return None;
        };
        let home = *home.get_or_insert(here);
        if home.pointer != here.pointer || home.node.slots.get(*place) != Some(*pointer) {
            return None;
        }
    }
    home.filter(|home| home.index == node.index && home.node.slots.len() == node.children.len())
        .map(Arc::clone)
}

/// Whether the children would lie in more than [`MAX_SPREAD`] segments.
fn is_spread(children: &[(usize, Child)]) -> bool {
    let mut segments = BTreeSet::new();
    let mut new = false;
    for (_, child) in children {
        match child {
            Child::Kept { pointer, .. } => drop(segments.insert(pointer.location.segment)),
            Child::New { .. } => new = true,
        }
    }
    segments.len() + usize::from(new) > MAX_SPREAD
}

/// Packs pages into map segments.
struct Packer {
    keys: Arc<Keys>,
    session: SessionId,
    segment_size: usize,
    emit: Emit,
    encoder: Option<Encoder>,
    open: Option<(SegmentId, ContainerBuilder)>,
    segments: u32,
    pages: u64,
    stored_bytes: u64,
}

impl Packer {
    fn append(&mut self, first_chunk: u64, content: &[u8], raw: &[u8]) -> Result<PagePointer> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            empty => empty.insert(Encoder::new(Compression::Lz4)?),
        };
        let (codec, stored) = encoder.encode(raw);
        let full = self
            .open
            .as_ref()
            .is_some_and(|(_, open)| open.len() >= MAX_PAGES || !open.fits(stored.len()));
        if full {
            flush(&mut self.open, &mut self.emit, &mut self.stored_bytes)?;
        }
        let (segment, open) = match &mut self.open {
            Some(open) => open,
            empty => {
                let segment = SegmentId {
                    session: self.session,
                    number: self.segments,
                };
                self.segments += 1;
                let keys = Arc::clone(&self.keys);
                let builder =
                    ContainerBuilder::new(keys, Class::Map, segment, self.segment_size, MAX_PAGES);
                empty.insert((segment, builder))
            }
        };
        let raw_len = u32::try_from(raw.len()).expect("pages are at most 16 KiB");
        let digest = self.keys.digest(raw);
        let ordinal = open.append(first_chunk, raw_len, digest, codec, stored)?;
        self.pages += 1;
        let location = Location {
            segment: *segment,
            ordinal,
        };
        Ok(PagePointer {
            hash: self.keys.page_hash(content, raw),
            location,
        })
    }

    fn flush(&mut self) -> Result<()> {
        flush(&mut self.open, &mut self.emit, &mut self.stored_bytes)
    }
}

/// Finishes the open segment, if there is one. Apart from the packer because its encoder's output is borrowed meanwhile.
fn flush(
    open: &mut Option<(SegmentId, ContainerBuilder)>,
    emit: &mut Emit,
    stored_bytes: &mut u64,
) -> Result<()> {
    let Some((segment, builder)) = open.take() else {
        return Ok(());
    };
    let object = builder.finish(&name::map_segment(segment))?;
    *stored_bytes += object.len() as u64;
    emit(segment, object)
}

impl fmt::Debug for MapWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapWriter")
            .field("session", &self.packer.session)
            .field("next", &self.next)
            .field("pages", &self.packer.pages)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
