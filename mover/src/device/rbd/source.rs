//! An image, best a snapshot of one, as the source of a backup.
//!
//! Owns: when an image counts as live, and what names it. Must not: read data other than through its queue.

use std::sync::{Arc, Mutex, PoisonError};

use changed_blocks::rbd::{
    self, Access, Cluster, Image, ImageName, RbdOptions, RbdSource, SnapshotName,
};
use changed_blocks::{ChangedBlocks, Scan};

use super::super::queue::{IoQueue, QueueOptions};
use super::super::source::{DeltaSources, SourceDevice, SourceIdentity, SourceOptions, Unusable};
use super::queue::RbdQueue;
use super::{failed, open, parse};
use crate::{Error, ErrorKind, Result};

/// What ceph-csi notes at images that it encrypts (`internal/rbd/encryption.go`).
const ENCRYPTED: &str = "rbd.csi.ceph.com/encrypted";

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
    /// ceph-csi encrypts it.
    encrypted: bool,
    /// Of the head of an image, before anything of it was told or read; see `Image::digest_of_versions`.
    versions: Mutex<Option<u64>>,
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
        let encrypted = image
            .metadata(ENCRYPTED)
            .map_err(|error| failed("ask whether the image is encrypted", text, error))?
            .is_some_and(|state| !state.is_empty());
        Ok(Self {
            text: text.to_owned(),
            cluster,
            image,
            size,
            block_size: 512,
            live,
            encrypted,
            versions: Mutex::default(),
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

impl RbdVolume {
    /// Remembers what the head of an image was like before it is looked at. Somebody may open it, write and be gone before the
    /// end; what that leaves is the versions of objects.
    fn remember_versions(&self) -> Result<()> {
        if self.image.snapshot().is_some() || self.live {
            return Ok(());
        }
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if versions.is_none() {
            *versions = Some(self.ask_versions()?);
        }
        Ok(())
    }

    /// Whether who opens the head now sees size and parent as we do: ours is not told that it was resized or flattened.
    fn is_as_opened(&self) -> Result<bool> {
        let ask = |error| failed("look at the image again", &self.text, error);
        let id = self.image.id().map_err(ask)?;
        let name = ImageName::Id(&id);
        let now = Image::open(self.image.pool(), name, None, Access::Read).map_err(ask)?;
        let shape = |image: &Image| Ok((image.size()?, image.parent()?, image.overlap()?));
        Ok(shape(&now).map_err(ask)? == shape(&self.image).map_err(ask)?)
    }

    fn ask_versions(&self) -> Result<u64> {
        let digest = self.image.digest_of_versions();
        digest.map_err(|error| failed("ask whether the image is written", &self.text, error))
    }
}

/// What is read of a snapshot that is gone is no mix of moments, which might be accepted, but zeros that were data.
fn still_frozen(is_there: bool, text: &str) -> Result<bool> {
    if is_there {
        return Ok(true);
    }
    let message = "trust what was read: the snapshot was deleted while it was read";
    Err(Error::new(ErrorKind::SourceChanged, message)
        .object(text)
        .hint("take another one, keep it until the backup is done, and back that up"))
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

    fn delta_sources(&self) -> DeltaSources {
        if let Err(error) = self.remember_versions() {
            return DeltaSources::none(Unusable {
                name: rbd::NAME,
                reason: error.to_string(),
                is_fault: true,
            });
        }
        match RbdSource::of_image(Arc::clone(&self.image), RbdOptions::default()) {
            Ok(source) => DeltaSources::one(Box::new(source)),
            Err(error) => DeltaSources::none(Unusable::new(rbd::NAME, &error, true)),
        }
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        self.remember_versions()?;
        RbdQueue::new(&self.image, &self.text, options)
            .map(|queue| Box::new(queue) as Box<dyn IoQueue>)
    }

    fn check_unchanged(&self) -> Result<bool> {
        if let Some(snapshot) = self.image.snapshot() {
            let is_there = self.has_snapshot(snapshot)?;
            return still_frozen(is_there, &self.text);
        }
        if self.live || is_open_elsewhere(&self.image, &self.text)? {
            return Ok(false);
        }
        let before = *self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        match before {
            // Nothing was read.
            None => Ok(true),
            Some(before) => Ok(self.ask_versions()? == before && self.is_as_opened()?),
        }
    }

    fn warnings(&self) -> Vec<String> {
        if !self.encrypted {
            return Vec::new();
        }
        Vec::from([
            "ceph-csi encrypts this image: the point holds ciphertext, not what the volume's device shows"
                .to_owned(),
        ])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_was_deleted_is_an_error_of_its_own() {
        assert!(still_frozen(true, "rbd:p/i@s").unwrap());
        let error = still_frozen(false, "rbd:p/i@s").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceChanged);
        assert!(error.to_string().contains("was deleted while it was read"));
        assert!(error.hint_text().unwrap().contains("take another one"));
    }
}
