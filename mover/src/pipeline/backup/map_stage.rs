//! The last stage: completed leaves, in order, become the map and the liveness of the new point.
//!
//! Owns: one thread that writes pages and counts what is live. Must not: touch chunks.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::feeder::Watch;
use super::leaves::{InOrder, LeafWork};
use super::plan::{Geometry, LEAF_CHUNKS};
use crate::error::Result;
use crate::repository::map::{Leaf, LeafRef, Liveness, LivenessBuilder, MapRoot, MapWriter};

/// What the stage leaves to the commit.
#[derive(Debug)]
pub struct Mapped {
    /// Where the map begins.
    pub root: MapRoot,
    /// What the point keeps alive; every leaf was visited, so it is exact.
    pub liveness: Liveness,
}

/// Takes leaves until every sender is gone.
///
/// # Errors
/// What writing pages answers.
pub fn run(
    geometry: Geometry,
    leaves: &Receiver<Arc<LeafWork>>,
    mut writer: MapWriter,
    watch: &Watch<'_>,
) -> Result<Option<Mapped>> {
    let mut liveness = LivenessBuilder::fresh();
    let mut in_order = InOrder::default();
    for leaf in leaves {
        in_order.push(leaf);
        while let Some(leaf) = in_order.pop() {
            write_leaf(&leaf, &mut writer, &mut liveness)?;
            let done = geometry.offset_of((leaf.index + 1) * LEAF_CHUNKS);
            watch
                .progress
                .done
                .store(done, std::sync::atomic::Ordering::Relaxed);
        }
    }
    // Leaves are missing only after somebody else failed: then there is nothing to commit.
    if watch.failure.is_failed() || watch.stop.is_stopped() || !in_order.is_empty() {
        return Ok(None);
    }
    watch
        .progress
        .done
        .store(geometry.size, std::sync::atomic::Ordering::Relaxed);
    let map = writer.finish(geometry.chunks())?;
    liveness.set_pages(map.pages);
    Ok(Some(Mapped {
        root: map.root,
        liveness: liveness.finish(),
    }))
}

fn write_leaf(
    work: &LeafWork,
    writer: &mut MapWriter,
    liveness: &mut LivenessBuilder,
) -> Result<()> {
    let leaf = work.take();
    if leaf.is_zero() {
        return Ok(());
    }
    liveness.replace_leaf(None, Some(&leaf));
    match &work.parent {
        Some(parent) if is_same(parent, &leaf) => writer.keep(work.index, parent),
        _ => writer.push(work.index, &leaf),
    }
}

fn is_same(parent: &LeafRef, leaf: &Leaf) -> bool {
    *parent.leaf == *leaf
}
