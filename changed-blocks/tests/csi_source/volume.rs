//! What an honest server would say of one pair of snapshots.

use changed_blocks::csi::{BlockType, MetadataMessage};
use changed_blocks::split_mix::SplitMix64;
use changed_blocks::{Extent, ExtentSet};

use crate::csi_source::server::{Asked, Item};

const BLOCK: i64 = 4096;

/// The truth.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) capacity: i64,
    pub(crate) block_type: BlockType,
    pub(crate) ranges: Vec<(i64, i64)>,
}

impl Volume {
    /// `blocks` blocks, of which about one in three is told, as `seed` has it.
    pub(crate) fn random(seed: u64, blocks: i64, block_type: BlockType) -> Self {
        let mut random = SplitMix64::new(seed);
        let told = (0..blocks).filter(|_| random.below(3) == 0);
        Self {
            capacity: blocks * BLOCK,
            block_type,
            ranges: told.map(|block| (block * BLOCK, BLOCK)).collect(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.capacity).unwrap()
    }

    /// The bytes that must be told.
    pub(crate) fn set(&self) -> ExtentSet {
        self.ranges
            .iter()
            .map(|&(offset, length)| {
                Extent::data(
                    u64::try_from(offset).unwrap(),
                    u64::try_from(length).unwrap(),
                )
            })
            .collect()
    }

    pub(crate) fn message(&self, ranges: &[(i64, i64)]) -> Item {
        Item::Message(MetadataMessage {
            block_type: self.block_type,
            capacity: self.capacity,
            ranges: ranges.to_vec(),
        })
    }

    /// Every message of an honest answer, of at most `most` ranges each.
    pub(crate) fn honest(&self, asked: &Asked, most: usize) -> Vec<Item> {
        let ranges: Vec<_> = self
            .ranges
            .iter()
            .copied()
            .filter(|(offset, length)| offset + length > asked.offset)
            .collect();
        ranges.chunks(most).map(|page| self.message(page)).collect()
    }
}
