//! RBD images as sources and targets, through librbd and without a kernel device.
//!
//! ```text
//!   rbd:POOL/IMAGE@SNAP ──► RbdVolume (source) ─┐
//!                                               ├─► RbdQueue ──► librbd, asynchronous, as deep as there are buffers
//!   rbd:POOL/IMAGE      ──► RbdTarget ──────────┘
//! ```
//!
//! Owns: what an image is to the pipelines, and which images are refused. Must not: bind librbd (`changed_blocks::rbd` does).

mod queue;
mod source;
mod target;

use std::sync::Arc;

use changed_blocks::rbd::{Access, Cluster, ClusterOptions, Image, Library, RbdError, RbdName};

use crate::{Error, ErrorKind, Result};

pub use source::RbdVolume;
pub use target::RbdTarget;

/// Whether a SOURCE or TARGET is meant as an image, right or wrong.
#[must_use]
pub fn is_meant(text: &str) -> bool {
    RbdName::is_meant(text)
}

/// The image that a name stands for, without its snapshot: the volume's name where none is given.
///
/// # Errors
/// `InvalidRequest` for a name that cannot be understood.
pub fn image_of(text: &str) -> Result<String> {
    let name = parse(text)?;
    Ok(match name.image {
        changed_blocks::rbd::NamedImage::Name(name) => name,
        changed_blocks::rbd::NamedImage::Id(id) => id,
    })
}

/// Whether a name is the handle of a snapshot of ceph-csi: an image of its own for each snapshot, so that its name is no volume's.
#[must_use]
pub fn is_snapshot_handle(text: &str) -> bool {
    RbdName::is_snapshot_handle(text)
}

fn parse(text: &str) -> Result<RbdName> {
    text.parse().map_err(|error| {
        Error::new(ErrorKind::InvalidRequest, "understand the name of an image")
            .object(text)
            .source(error)
    })
}

/// Connects as `CEPH_ARGS` and `CEPH_CONF` say, and opens the image.
fn open(text: &str, name: &RbdName, access: Access) -> Result<(Cluster, Arc<Image>)> {
    let cluster = Library::load()
        .and_then(|library| Cluster::connect(&library, &ClusterOptions::from_environment()))
        .map_err(|error| failed("reach the Ceph cluster", text, error))?;
    let image = name
        .open(&cluster, access)
        .map_err(|error| failed("open the image", text, error))?;
    Ok((cluster, image))
}

/// An error of Ceph by what a person can do about it.
fn failed(what: &str, object: &str, error: RbdError) -> Error {
    let (kind, hint) = match &error {
        RbdError::Missing { .. } | RbdError::TooOld { .. } => (
            ErrorKind::InvalidRequest,
            "install librbd of Ceph 16 or newer, or map the image and give its device",
        ),
        RbdError::Name { .. } => (ErrorKind::InvalidRequest, "check the name"),
        _ if error.is_absent() => (
            ErrorKind::NotFound,
            "check pool, image and snapshot with `rbd ls` and `rbd snap ls`; a cluster is found by CEPH_CONF and CEPH_ARGS",
        ),
        _ if error.errno().is_some_and(|errno| {
            matches!(errno, nix::errno::Errno::EPERM | nix::errno::Errno::EACCES)
        }) =>
        {
            (
                ErrorKind::AccessDenied,
                "check the user in CEPH_ARGS and its capabilities",
            )
        }
        _ => (
            ErrorKind::Io,
            "check that monitors and OSDs answer: `ceph -s`",
        ),
    };
    Error::new(kind, what)
        .object(object)
        .hint(hint)
        .source(error)
}
