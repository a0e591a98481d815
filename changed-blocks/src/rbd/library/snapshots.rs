//! The snapshots of an image.
//!
//! Owns: listing them, with their namespaces. Must not: choose one.

use std::ffi::c_int;
use std::ptr;

use super::error::{RbdError, check};
use super::functions::SnapInfo;
use super::image::Image;
use super::{text, text_in};

/// Most images have fewer; the list grows where one has more.
const FIRST_GUESS: usize = 64;

/// Where a snapshot belongs (`rbd_snap_namespace_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotNamespace {
    /// Made by a user and found by name.
    User,
    /// Of a group of images.
    Group,
    /// Deleted, kept for the clones that need it.
    Trash,
    /// Of mirroring.
    Mirror,
    /// One that this program does not know.
    Other,
}

impl SnapshotNamespace {
    pub(super) fn from_raw(raw: c_int) -> Self {
        match raw {
            0 => Self::User,
            1 => Self::Group,
            2 => Self::Trash,
            3 => Self::Mirror,
            _ => Self::Other,
        }
    }
}

/// A snapshot of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id: no other snapshot of the pool gets it, later ones get higher ones.
    pub id: u64,
    /// Size of the image in it, in bytes.
    pub size: u64,
    /// Its name; random for one in the trash.
    pub name: String,
    /// Where it belongs.
    pub namespace: SnapshotNamespace,
    /// Its name before it went to the trash.
    pub original_name: Option<String>,
}

pub(super) fn list(image: &Image) -> Result<Vec<Snapshot>, RbdError> {
    let functions = &image.library().functions;
    let empty = SnapInfo {
        id: 0,
        size: 0,
        name: ptr::null(),
    };
    let mut raw = vec![empty; FIRST_GUESS];
    loop {
        let mut count = c_int::try_from(raw.len()).unwrap_or(c_int::MAX);
        // SAFETY: an open image and an array with its length.
        let code =
            unsafe { (functions.rbd_snap_list)(image.raw(), raw.as_mut_ptr(), &raw mut count) };
        if code == -nix::libc::ERANGE {
            let wanted = usize::try_from(count).unwrap_or(0);
            raw.resize(wanted.max(raw.len() + 1), empty);
            continue;
        }
        let count = check(code, || format!("list the snapshots of {}", image.shown()))?;
        let count = usize::try_from(count).unwrap_or(0).min(raw.len());
        let found: Vec<(u64, u64, String)> = raw[..count]
            .iter()
            // SAFETY: C strings of the library until the clean-up below.
            .map(|info| (info.id, info.size, unsafe { text(info.name) }))
            .collect();
        // SAFETY: filled by rbd_snap_list, which ended the array with a null name; freed once, not used again.
        unsafe { (functions.rbd_snap_list_end)(raw.as_mut_ptr()) };
        let mut snapshots = Vec::with_capacity(found.len());
        for (id, size, name) in found {
            let namespace = namespace(image, id)?;
            let trashed = namespace == SnapshotNamespace::Trash;
            snapshots.push(Snapshot {
                id,
                size,
                name,
                namespace,
                original_name: trashed.then(|| original_name(image, id)).flatten(),
            });
        }
        snapshots.sort_unstable_by_key(|snapshot| snapshot.id);
        return Ok(snapshots);
    }
}

fn namespace(image: &Image, id: u64) -> Result<SnapshotNamespace, RbdError> {
    let mut raw = -1;
    // SAFETY: an open image and a place for the result.
    let code = unsafe {
        (image.library().functions.rbd_snap_get_namespace_type)(image.raw(), id, &raw mut raw)
    };
    check(code, || {
        format!("ask where the snapshot {id} of {} belongs", image.shown())
    })?;
    Ok(SnapshotNamespace::from_raw(raw))
}

/// For people only, so a failure costs nothing but the name.
fn original_name(image: &Image, id: u64) -> Option<String> {
    let mut name = [0_u8; 4096];
    // SAFETY: an open image and a buffer with its length.
    let code = unsafe {
        (image.library().functions.rbd_snap_get_trash_namespace)(
            image.raw(),
            id,
            name.as_mut_ptr().cast(),
            name.len(),
        )
    };
    (code >= 0).then(|| text_in(&name))
}
