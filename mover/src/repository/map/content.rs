//! The content hash of a map, computed from the digests of its chunks alone.
//!
//! Owns: the tree of content halves (`FORMAT.md`, "Digests"). Must not: know where anything is stored. It holds the children of one
//! node of each level.

use std::sync::Arc;

use super::page;
use super::slots::Slots;
use super::{FANOUT, place_of};
use crate::repository::format::Keys;
use crate::repository::ids::Digest;

type Half = [u8; 16];

/// Takes digests in ascending order of their chunks and gives the content half of the page above them all.
#[derive(Debug)]
pub struct ContentTree {
    keys: Arc<Keys>,
    levels: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    /// Number of the page among those of its level.
    index: u64,
    slots: Slots<Half>,
}

impl ContentTree {
    /// A tree without chunks.
    #[must_use]
    pub fn new(keys: &Arc<Keys>) -> Self {
        Self {
            keys: Arc::clone(keys),
            levels: Vec::new(),
        }
    }

    /// Adds a chunk that is not zero, behind all that were added.
    pub fn chunk(&mut self, number: u64, digest: &Digest) {
        self.add(0, number, digest.0);
    }

    /// The content half of the page of `level` that covers every chunk added; `None` where there are none. The caller must not
    /// have added chunks of two such pages.
    #[must_use]
    pub fn finish(mut self, level: u8) -> Option<Half> {
        let mut at = 0;
        loop {
            if at >= self.levels.len() {
                return None;
            }
            let open = self.take(at);
            let (index, half) = self.close(at, &open);
            if at == usize::from(level) {
                return Some(half);
            }
            self.add(at + 1, index, half);
            at += 1;
        }
    }

    fn add(&mut self, level: usize, index: u64, half: Half) {
        let parent = index / FANOUT as u64;
        if self.levels.len() == level {
            self.levels.push(Open {
                index: parent,
                slots: Slots::new(),
            });
        }
        if self.levels[level].index != parent {
            let open = self.take(level);
            self.levels[level].index = parent;
            let (index, closed) = self.close(level, &open);
            self.add(level + 1, index, closed);
        }
        self.levels[level].slots.append(place_of(index), half);
    }

    fn take(&mut self, level: usize) -> Open {
        let empty = Open {
            index: 0,
            slots: Slots::new(),
        };
        std::mem::replace(&mut self.levels[level], empty)
    }

    fn close(&self, level: usize, open: &Open) -> (u64, Half) {
        let runs = page::encode_runs(&open.slots);
        let mut content = Vec::with_capacity(1 + runs.len() + open.slots.len() * 16);
        content.push(u8::try_from(level).expect("maps are at most 8 levels deep"));
        content.extend_from_slice(&runs);
        for half in open.slots.items() {
            content.extend_from_slice(half);
        }
        let hash = self.keys.page_hash(&content, &[]);
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        (open.index, half)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::testing::{Bed, CHUNK, Layout};
    use crate::repository::map::depth_of;
    use crate::repository::session::points;

    #[test]
    fn nothing_has_no_hash() {
        let bed = Bed::new();
        assert_eq!(ContentTree::new(&bed.repository.keys).finish(0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn agrees_with_the_map_writer(data in proptest::collection::btree_set(0usize..70_000, 1..12), len in 70_001usize..70_100) {
            let bed = Bed::new();
            // A map of depth 3, given leaf by leaf; the chunks themselves are small.
            let mut tree = ContentTree::new(&bed.repository.keys);
            let mut digests = Vec::new();
            for chunk in &data {
                let digest = bed.repository.keys.digest(&chunk.to_le_bytes());
                tree.chunk(*chunk as u64, &digest);
                digests.push((*chunk as u64, digest));
            }
            let root = bed.root_of(&digests, len as u64);
            prop_assert_eq!(tree.finish(depth_of(len as u64) - 1), root.pointer.map(|root| root.content()));
        }
    }

    #[test]
    fn agrees_with_a_stored_point() {
        let bed = Bed::new();
        let image = crate::pipeline::testing::image(300, 5, 11);
        bed.point("disk", &image, Layout::default());
        let mut tree = ContentTree::new(&bed.repository.keys);
        for (chunk, bytes) in image.chunks(CHUNK).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                tree.chunk(chunk as u64, &bed.repository.keys.digest(bytes));
            }
        }
        let point = points::list(&bed.repository, None)
            .unwrap()
            .points
            .remove(0);
        let root = point.manifest.root;
        assert_eq!(
            tree.finish(root.depth - 1),
            root.pointer.map(|root| root.content())
        );
    }
}
