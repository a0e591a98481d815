//! The bytes of snapshots, and in what they differ: what every answer is held against.
//!
//! Owns: reading whole images and comparing them byte by byte. Must not: ask the source.

use std::sync::Arc;

use anyhow::{Context, Result};
use changed_blocks::rbd::{AioQueue, Image};
use changed_blocks::{Extent, ExtentSet};

/// Bytes of one read.
const PIECE: u64 = 4 << 20;
/// Compared at once before single bytes are.
const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = 4096;

/// All bytes of an open image.
pub(crate) fn read(image: &Arc<Image>) -> Result<Vec<u8>> {
    let size = image.size()?;
    let mut queue: AioQueue<Vec<u8>> = AioQueue::new(Arc::clone(image))?;
    for start in (0..size).step_by(usize::try_from(PIECE)?) {
        let len = usize::try_from(PIECE.min(size - start))?;
        queue.read(start, start, len, vec![0x11; len]);
    }
    let mut content = vec![0x22; usize::try_from(size)?];
    while let Some(done) = queue.wait() {
        done.result?;
        let start = usize::try_from(done.offset)?;
        let buffer = done.buffer.context("reads give their buffer back")?;
        content[start..start + done.len].copy_from_slice(&buffer);
    }
    Ok(content)
}

/// Bytes in which two images differ, as far as both reach.
pub(crate) fn changed(before: &[u8], after: &[u8]) -> ExtentSet {
    let len = before.len().min(after.len());
    let blocks = before[..len].chunks(BLOCK).zip(after[..len].chunks(BLOCK));
    marked(blocks.map(|(before, after)| {
        (before != after).then(|| {
            before
                .iter()
                .zip(after)
                .map(|(before, after)| before != after)
        })
    }))
}

/// Bytes that are not zero.
pub(crate) fn not_zero(content: &[u8]) -> ExtentSet {
    let zeros = [0; BLOCK];
    marked(
        content.chunks(BLOCK).map(|block| {
            (block != &zeros[..block.len()]).then(|| block.iter().map(|byte| *byte != 0))
        }),
    )
}

/// The marked bytes; whole blocks without a mark are passed over at once.
fn marked<B: Iterator<Item = bool>>(blocks: impl Iterator<Item = Option<B>>) -> ExtentSet {
    let (mut ranges, mut block_start) = (Vec::new(), 0);
    for block in blocks {
        for (position, mark) in (block_start..).zip(block.into_iter().flatten()) {
            if mark {
                ranges.push(Extent::data(position, 1));
            }
        }
        block_start += BLOCK_BYTES;
    }
    ranges.into_iter().collect()
}

/// Whether an image reads as zero in a range.
pub(crate) fn is_zero(content: &[u8], extent: Extent) -> bool {
    let start = usize::try_from(extent.offset.0).expect("images of tests fit the memory");
    let len = usize::try_from(extent.len.0).expect("images of tests fit the memory");
    content[start..start + len].iter().all(|byte| *byte == 0)
}
