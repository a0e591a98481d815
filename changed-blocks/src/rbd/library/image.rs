//! Open images and what is known of them.
//!
//! Owns: opening, closing, and the facts of an image as seen at its snapshot. Must not: move data.

use std::ffi::c_int;
use std::fmt;
use std::ptr;
use std::sync::Arc;

use super::error::{RbdError, check};
use super::functions::{ImageInfo, RawImage};
use super::snapshots::Snapshot;
use super::{Library, Pool, c_string, text_in};

/// How an image is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageName<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id, which it keeps in the trash and under another name.
    Id(&'a str),
}

/// How a snapshot of an image is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotName<'a> {
    /// By its name, for snapshots that a user made.
    Name(&'a str),
    /// By its id, which also finds those in the trash.
    Id(u64),
}

/// What an image is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only: takes no lock from a writer.
    Read,
    /// Reads and writes.
    Write,
}

/// An open image, at a snapshot or at its head; dropping it closes it.
///
/// Any number of threads may use it at once. It never changes its snapshot.
pub struct Image {
    raw: RawImage,
    name: String,
    access: Access,
    snapshot: Option<u64>,
    pool: Pool,
}

// SAFETY: an rbd_image_t may be used by several threads at once (librbd.h); its snapshot, the only setting, is set before
// it is shared.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: opened by rbd_open and closed only here. Everything in flight holds the image, so nothing is.
        // What the close answers changes nothing: writes were flushed by who needs to know.
        let _ = unsafe { (self.library().functions.rbd_close)(self.raw) };
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({:?}, {})", self.pool, self.name)
    }
}

impl Image {
    /// Opens the head of an image, or a snapshot of it.
    ///
    /// # Errors
    /// Where image or snapshot do not exist, or the user may not open them.
    pub fn open(
        pool: &Pool,
        name: ImageName<'_>,
        snapshot: Option<SnapshotName<'_>>,
        access: Access,
    ) -> Result<Self, RbdError> {
        let functions = &pool.library().functions;
        let (shown, c_name, open) = match (name, access) {
            (ImageName::Name(name), Access::Read) => (name, name, functions.rbd_open_read_only),
            (ImageName::Name(name), Access::Write) => (name, name, functions.rbd_open),
            (ImageName::Id(id), Access::Read) => (id, id, functions.rbd_open_by_id_read_only),
            (ImageName::Id(id), Access::Write) => (id, id, functions.rbd_open_by_id),
        };
        let c_name = c_string(c_name)?;
        let mut raw = ptr::null_mut();
        // SAFETY: an open context, a C string that lives during the call, a place for the result, and null for the head.
        let code = unsafe { open(pool.raw(), c_name.as_ptr(), &raw mut raw, ptr::null()) };
        check(code, || format!("open the RBD image {shown}"))?;
        let mut image = Self {
            raw,
            name: shown.to_owned(),
            access,
            snapshot: None,
            pool: pool.clone(),
        };
        if let Some(snapshot) = snapshot {
            let id = match snapshot {
                SnapshotName::Name(name) => image.snapshot_id(name)?,
                SnapshotName::Id(id) => id,
            };
            image.set_snapshot(id)?;
        }
        Ok(image)
    }

    /// The same open image at one of its snapshots: opened once, asked for its snapshots, then set to one of them.
    ///
    /// # Errors
    /// Where it has no such snapshot.
    pub fn at_snapshot(mut self, id: u64) -> Result<Self, RbdError> {
        self.set_snapshot(id)?;
        Ok(self)
    }

    /// Private, so that an image never changes what it shows once it is shared.
    fn set_snapshot(&mut self, id: u64) -> Result<(), RbdError> {
        // SAFETY: an open image that nobody else uses.
        let code = unsafe { (self.library().functions.rbd_snap_set_by_id)(self.raw, id) };
        check(code, || {
            format!("find the snapshot with id {id} of {}", self.name)
        })?;
        self.snapshot = Some(id);
        Ok(())
    }

    /// Id of the snapshot that it is open at; `None` at its head.
    #[must_use]
    pub fn snapshot(&self) -> Option<u64> {
        self.snapshot
    }

    /// The pool it is in.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What it was opened for.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    pub(super) fn raw(&self) -> RawImage {
        self.raw
    }

    pub(super) fn library(&self) -> &Arc<Library> {
        self.pool.library()
    }

    /// Name or id it was opened by, for messages.
    pub(super) fn shown(&self) -> &str {
        &self.name
    }

    /// Size in bytes, at its snapshot.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn size(&self) -> Result<u64, RbdError> {
        self.number("size", self.library().functions.rbd_get_size)
    }

    /// Feature bits (`rbd/features.h`).
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn features(&self) -> Result<u64, RbdError> {
        self.number("features", self.library().functions.rbd_get_features)
    }

    /// Flag bits at its snapshot: 1 the object map is invalid, 2 the fast diff is.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn flags(&self) -> Result<u64, RbdError> {
        self.number("flags", self.library().functions.rbd_get_flags)
    }

    /// Bytes that are put into one object before the next one's turn.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn stripe_unit(&self) -> Result<u64, RbdError> {
        self.number("stripe unit", self.library().functions.rbd_get_stripe_unit)
    }

    /// Objects that take turns; 1 where an image is not striped.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn stripe_count(&self) -> Result<u64, RbdError> {
        self.number(
            "stripe count",
            self.library().functions.rbd_get_stripe_count,
        )
    }

    /// How many of its first bytes may show the parent, at its snapshot; 0 without a parent.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn overlap(&self) -> Result<u64, RbdError> {
        match self.number("overlap", self.library().functions.rbd_get_overlap) {
            Err(error) if error.is_absent() => Ok(0),
            answer => answer,
        }
    }

    fn number(
        &self,
        what: &str,
        ask: unsafe extern "C" fn(RawImage, *mut u64) -> c_int,
    ) -> Result<u64, RbdError> {
        let mut value = 0;
        // SAFETY: an open image and a place for the result.
        let code = unsafe { ask(self.raw, &raw mut value) };
        check(code, || format!("ask for the {what} of {}", self.name))?;
        Ok(value)
    }

    /// Size of its objects in bytes.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn object_size(&self) -> Result<u64, RbdError> {
        let mut info = ImageInfo {
            size: 0,
            obj_size: 0,
            num_objs: 0,
            order: 0,
            block_name_prefix: [0; 24],
            parent_pool: 0,
            parent_name: [0; 96],
        };
        // SAFETY: an open image, and a structure of the header's layout with its size.
        let code = unsafe {
            (self.library().functions.rbd_stat)(self.raw, &raw mut info, size_of::<ImageInfo>())
        };
        check(code, || format!("ask for the layout of {}", self.name))?;
        Ok(info.obj_size)
    }

    /// Id of the image, which no rename changes and no other image of the pool gets.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn id(&self) -> Result<String, RbdError> {
        // Ids of Ceph have at most 24 characters; the header names no limit.
        let mut id = [0_u8; 256];
        // SAFETY: an open image and a buffer with its length.
        let code = unsafe {
            (self.library().functions.rbd_get_id)(self.raw, id.as_mut_ptr().cast(), id.len())
        };
        check(code, || format!("ask for the id of {}", self.name))?;
        Ok(text_in(&id))
    }

    /// Current name of the image.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn name(&self) -> Result<String, RbdError> {
        let mut name = [0_u8; 4096];
        let mut len = name.len();
        // SAFETY: an open image and a buffer with its length.
        let code = unsafe {
            (self.library().functions.rbd_get_name)(
                self.raw,
                name.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        check(code, || format!("ask for the name of {}", self.name))?;
        Ok(text_in(&name))
    }

    /// What somebody noted at the image under `key`; `None` where nobody did. Values of more than 4 KiB are an error.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn metadata(&self, key: &str) -> Result<Option<String>, RbdError> {
        let c_key = c_string(key)?;
        let mut value = [0_u8; 4096];
        let mut len = value.len();
        // SAFETY: an open image, a C string that lives during the call, and a buffer with its length.
        let code = unsafe {
            (self.library().functions.rbd_metadata_get)(
                self.raw,
                c_key.as_ptr(),
                value.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        match check(code, || format!("ask for {key} of {}", self.name)) {
            Ok(_) => Ok(Some(text_in(&value))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All snapshots, ascending by id, those in the trash as well.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, RbdError> {
        super::snapshots::list(self)
    }

    /// Id of a snapshot that a user made.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn snapshot_id(&self, name: &str) -> Result<u64, RbdError> {
        let c_name = c_string(name)?;
        let mut id = 0;
        // SAFETY: an open image, a C string that lives during the call, a place for the result.
        let code = unsafe {
            (self.library().functions.rbd_snap_get_id)(self.raw, c_name.as_ptr(), &raw mut id)
        };
        check(code, || {
            format!("find the snapshot {name} of {}", self.name)
        })?;
        Ok(id)
    }

    /// Waits until every write that was told to be done is on stable storage.
    ///
    /// # Errors
    /// Where the cluster does not answer or refuses.
    pub fn flush(&self) -> Result<(), RbdError> {
        // SAFETY: an open image.
        let code = unsafe { (self.library().functions.rbd_flush)(self.raw) };
        check(code, || format!("flush {}", self.name)).map(drop)
    }
}
