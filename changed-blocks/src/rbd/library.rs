//! The binding: librados and librbd loaded at run time, behind types that own what they open.
//!
//! Owns: every call into the C libraries, and all unsafe code of the crate. Must not: decide anything about backups.
//! Source of the ABI: `rados/librados.h` and `rbd/librbd.h` of Ceph 16.2 and 18.2.
#![allow(unsafe_code)]

mod cluster;
mod diff;
mod error;
mod functions;
mod image;
mod in_flight;
mod objects;
mod parent;
mod snapshots;
mod watchers;

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cluster::{Cluster, ClusterOptions, Pool};
pub use diff::{DiffFrom, DiffRange};
pub use error::RbdError;
pub use image::{Access, Image, ImageName, SnapshotName};
pub use objects::Objects;
pub use parent::Parent;
pub use snapshots::{Snapshot, SnapshotNamespace};
pub use watchers::Watcher;

pub(super) use in_flight::{Finished, InFlight, Request, Transfer};

use functions::Functions;

const RADOS_FILE: &str = "librados.so.2";
const RBD_FILE: &str = "librbd.so.1";

/// The two loaded libraries. They stay loaded until the process ends: their threads may outlive every handle.
pub struct Library {
    functions: Functions,
    version: [i32; 3],
    _files: ManuallyDrop<[libloading::Library; 2]>,
}

impl Library {
    /// Loads the libraries from where the dynamic linker looks.
    ///
    /// # Errors
    /// Where one is missing (the text names its Debian package) or lacks a function.
    pub fn load() -> Result<Arc<Self>, RbdError> {
        Self::load_files(RADOS_FILE.into(), RBD_FILE.into())
    }

    /// Loads the libraries from one folder. What they depend on is looked for as the dynamic linker does.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_from(folder: &Path) -> Result<Arc<Self>, RbdError> {
        Self::load_files(folder.join(RADOS_FILE), folder.join(RBD_FILE))
    }

    fn load_files(rados: PathBuf, rbd: PathBuf) -> Result<Arc<Self>, RbdError> {
        // librbd needs librados and takes the one that is loaded, so this order keeps a pair from one folder together.
        let rados = open(rados, "librados2")?;
        let rbd = open(rbd, "librbd1")?;
        // SAFETY: the signatures in `functions` are those of the C headers for these sonames, whose ABI is stable, and
        // the libraries are never unloaded, so the pointers stay valid.
        let functions = unsafe { Functions::find(&rados, &rbd)? };
        let mut version = [0; 3];
        let [major, minor, extra] = &mut version;
        // SAFETY: three valid pointers to int, written during the call only.
        unsafe { (functions.rbd_version)(major, minor, extra) };
        Ok(Arc::new(Self {
            functions,
            version,
            _files: ManuallyDrop::new([rados, rbd]),
        }))
    }

    /// Version of librbd as `MAJOR.MINOR.EXTRA`: that of its interface, not of the Ceph release.
    #[must_use]
    pub fn version(&self) -> String {
        let [major, minor, extra] = self.version;
        format!("{major}.{minor}.{extra}")
    }

    /// Whether a diff can start at a snapshot that has only an id: one in the trash, a group or a mirror.
    #[must_use]
    pub fn diffs_by_id(&self) -> bool {
        self.functions.rbd_diff_iterate3.is_some()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Library(librbd {})", self.version())
    }
}

fn open(file: PathBuf, package: &'static str) -> Result<libloading::Library, RbdError> {
    // SAFETY: loading runs the initialisers of Ceph's libraries, which need nothing from their caller.
    unsafe { libloading::Library::new(&file) }.map_err(|source| RbdError::Missing {
        file,
        package,
        source,
    })
}

/// A C string of `text`.
fn c_string(text: &str) -> Result<CString, RbdError> {
    CString::new(text).map_err(|_| RbdError::Name {
        text: text.to_owned(),
    })
}

/// The text at `text`; empty for a null pointer.
///
/// # Safety
/// `text` is null or points to a C string that lives during the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// The text that C wrote into `buffer` up to its first zero byte.
fn text_in(buffer: &[u8]) -> String {
    let end = buffer.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&buffer[..end.unwrap_or(buffer.len())]).into_owned()
}

#[cfg(test)]
mod tests;
