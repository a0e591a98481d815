//! The parent of a clone.
//!
//! Owns: asking for it. Must not: open it.

use std::ptr;

use super::error::{RbdError, check};
use super::functions::{LinkedImage, SnapSpec};
use super::image::Image;
use super::snapshots::SnapshotNamespace;
use super::text;

/// The snapshot that a clone shows where it has no objects of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Id of the parent's pool.
    pub pool_id: i64,
    /// Its namespace; empty for the default one.
    pub namespace: String,
    /// Id of the parent image.
    pub image_id: String,
    /// Its name, which says nothing once it is in the trash.
    pub image_name: String,
    /// Whether it is in the trash.
    pub trash: bool,
    /// Id of the snapshot.
    pub snapshot_id: u64,
    /// Where the snapshot belongs.
    pub snapshot_namespace: SnapshotNamespace,
}

impl Image {
    /// The parent at its snapshot; `None` for an image that is no clone, or no longer.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn parent(&self) -> Result<Option<Parent>, RbdError> {
        let functions = &self.library().functions;
        let mut image = LinkedImage {
            pool_id: -1,
            pool_name: ptr::null_mut(),
            pool_namespace: ptr::null_mut(),
            image_id: ptr::null_mut(),
            image_name: ptr::null_mut(),
            trash: 0,
        };
        let mut snapshot = SnapSpec {
            id: 0,
            namespace_type: 0,
            name: ptr::null_mut(),
        };
        // SAFETY: an open image and two structures of the header's layout.
        let code =
            unsafe { (functions.rbd_get_parent)(self.raw(), &raw mut image, &raw mut snapshot) };
        match check(code, || format!("ask for the parent of {}", self.shown())) {
            Ok(_) => {}
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: after success all pointers are C strings that belong to the caller until the clean-up below.
        let parent = unsafe {
            Parent {
                pool_id: image.pool_id,
                namespace: text(image.pool_namespace),
                image_id: text(image.image_id),
                image_name: text(image.image_name),
                trash: image.trash != 0,
                snapshot_id: snapshot.id,
                snapshot_namespace: SnapshotNamespace::from_raw(snapshot.namespace_type),
            }
        };
        // SAFETY: filled by rbd_get_parent, freed once, not used again.
        unsafe {
            (functions.rbd_linked_image_spec_cleanup)(&raw mut image);
            (functions.rbd_snap_spec_cleanup)(&raw mut snapshot);
        }
        Ok(Some(parent))
    }
}
