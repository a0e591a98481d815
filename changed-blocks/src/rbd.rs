//! Ceph RBD through librbd, which is loaded at run time.
//!
//! ```text
//!   librados.so.2 + librbd.so.1 ──► Library ──► Cluster ──► Pool ──► Image ──► source (diff windows)
//!                                                                     └──────► AioQueue (reads and writes)
//! ```
//!
//! Owns: names and handles of images, the binding, the queue, the source. Must not: be needed to link, or know
//! repositories. A machine without librbd runs everything else.

pub mod cross_check;
pub mod csi_handle;
pub mod library;
pub mod name;
pub mod queue;
pub mod source;

pub use csi_handle::{CsiHandle, CsiHandleError};
pub use library::{
    Access, Cluster, ClusterOptions, Image, ImageName, Library, Parent, Pool, RbdError, Snapshot,
    SnapshotName, SnapshotNamespace, Watcher,
};
pub use name::{NamedImage, NamedPool, NamedSnapshot, RbdName, RbdNameError};
pub use queue::{AioQueue, Done};
pub use source::{NAME, RbdOptions, RbdSource};
