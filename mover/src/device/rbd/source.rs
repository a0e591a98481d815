//! An image, best a snapshot of one, as the source of a backup.
//!
//! Owns: when an image counts as live, and what names it. Must not: read data other than through its queue.

use std::sync::Arc;

use changed_blocks::rbd::{Access, Cluster, Image, ImageName, RbdOptions, RbdSource, SnapshotName};
use changed_blocks::{ChangedBlocks, Scan};

use super::super::queue::{IoQueue, QueueOptions};
use super::super::source::{SourceDevice, SourceIdentity, SourceOptions};
use super::queue::RbdQueue;
use super::{failed, open, parse};
use crate::{Error, ErrorKind, Result};

/// An opened image.
#[derive(Debug)]
pub struct RbdVolume {
    text: String,
    cluster: Cluster,
    image: Arc<Image>,
    size: u64,
    block_size: u32,
    /// Opened with `allow_live` while somebody else had it open.
    live: bool,
}

impl RbdVolume {
    /// Opens `rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]`.
    ///
    /// # Errors
    /// `InvalidRequest` for a name that cannot be understood, a missing librbd and, without `allow_live`, the head of an image that
    /// somebody has open; `NotFound`, `AccessDenied`, `Io`.
    pub fn open(text: &str, options: &SourceOptions) -> Result<Self> {
        let name = parse(text)?;
        let (cluster, image) = open(text, &name, Access::Read)?;
        let live = is_open_elsewhere(&image, text)?;
        if live && !options.allow_live {
            return Err(
                Error::new(ErrorKind::InvalidRequest, "refuse source: somebody has the image open")
                    .object(text)
                    .hint("take a snapshot and back up rbd:POOL/IMAGE@SNAPSHOT, or accept a fuzzy point with --allow-live"),
            );
        }
        let size = image
            .size()
            .map_err(|error| failed("ask the size of the image", text, error))?;
        if size == 0 {
            let message = "refuse source: the image is empty";
            return Err(Error::new(ErrorKind::InvalidRequest, message).object(text));
        }
        Ok(Self {
            text: text.to_owned(),
            cluster,
            image,
            size,
            block_size: 512,
            live,
        })
    }
}

impl RbdVolume {
    /// Whether the snapshot is still there. Once it is deleted, what it held alone reads as zeros or as what came later, and
    /// whoever has it open for reading is not told.
    fn has_snapshot(&self, snapshot: u64) -> Result<bool> {
        let ask = |error| failed("look for the snapshot again", &self.text, error);
        let id = self.image.id().map_err(ask)?;
        let (name, at) = (ImageName::Id(&id), Some(SnapshotName::Id(snapshot)));
        match Image::open(self.image.pool(), name, at, Access::Read) {
            Ok(_) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(ask(error)),
        }
    }
}

/// A snapshot is frozen whoever has it open.
fn is_open_elsewhere(image: &Image, text: &str) -> Result<bool> {
    if image.snapshot().is_some() {
        return Ok(false);
    }
    // An image that is open for reading only, like ours, has no watcher.
    let watchers = image
        .watchers()
        .map_err(|error| failed("ask who has the image open", text, error))?;
    Ok(!watchers.is_empty())
}

impl SourceDevice for RbdVolume {
    fn name(&self) -> String {
        self.text.clone()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>> {
        Ok(Box::new(Scan::new(self.size)))
    }

    fn delta_sources(&self) -> Vec<Box<dyn ChangedBlocks + Send>> {
        match RbdSource::of_image(Arc::clone(&self.image), RbdOptions::default()) {
            Ok(source) => Vec::from([Box::new(source) as Box<dyn ChangedBlocks + Send>]),
            Err(error) => {
                tracing::warn!(%error, "read the whole image: it cannot be asked what it holds");
                Vec::new()
            }
        }
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        RbdQueue::new(&self.image, &self.text, options)
            .map(|queue| Box::new(queue) as Box<dyn IoQueue>)
    }

    fn check_unchanged(&self) -> Result<bool> {
        if let Some(snapshot) = self.image.snapshot() {
            return self.has_snapshot(snapshot);
        }
        let size = self
            .image
            .size()
            .map_err(|error| failed("ask the size of the image", &self.text, error))?;
        Ok(size == self.size && !self.live && !is_open_elsewhere(&self.image, &self.text)?)
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> SourceIdentity {
        let immutable = self.image.snapshot().and_then(|snapshot| {
            let (fsid, pool) = (self.cluster.fsid(), self.image.pool().id());
            let image = self.image.id().ok()?;
            Some(format!("rbd:{fsid}/{pool}/{image}@{snapshot}"))
        });
        SourceIdentity {
            kind: "rbd".to_owned(),
            immutable,
        }
    }
}
