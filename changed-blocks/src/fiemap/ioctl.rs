//! The ioctls behind a map of extents: `FS_IOC_FIEMAP`, and what names a file and its file system for ever.
//!
//! Owns: the kernel's structures and every unsafe block of the crate. Must not: know what a map is for.
//! Layouts and numbers: `linux/fiemap.h`, `linux/fs.h`, and `xfs_fs.h` of xfsprogs.
#![allow(unsafe_code, reason = "an ioctl is a call through a pointer")]

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::c_long;

/// Write dirty pages first: without it an overwrite of shared blocks still shows the old place.
const FIEMAP_FLAG_SYNC: u32 = 1;
/// Extents of one call: 28 KiB, a few hundred calls for the most torn of files.
const EXTENTS: u32 = 512;
/// Data is on the real-time device of an XFS, which counts its places from zero as well.
const FS_XFLAG_REALTIME: u32 = 1;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawExtent {
    /// First byte in the file.
    pub(super) logical: u64,
    /// First byte in the file system's space.
    pub(super) physical: u64,
    /// Length in bytes.
    pub(super) length: u64,
    reserved64: [u64; 2],
    /// `FIEMAP_EXTENT_*`.
    pub(super) flags: u32,
    reserved: [u32; 3],
}

impl RawExtent {
    /// An extent that no kernel answered.
    #[cfg(test)]
    pub(super) fn new(logical: u64, physical: u64, length: u64, flags: u32) -> Self {
        Self {
            logical,
            physical,
            length,
            flags,
            ..Self::default()
        }
    }
}

/// `struct fiemap` without its extents.
#[repr(C)]
#[derive(Default)]
struct Header {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
}

/// `struct fiemap` with room for its extents.
#[repr(C)]
struct Request {
    header: Header,
    extents: [RawExtent; EXTENTS as usize],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    rest: [u32; 6],
}

/// `struct xfs_fsop_geom_v1`.
#[repr(C)]
#[derive(Default)]
struct Geometry {
    sizes: [u32; 8],
    blocks: [u64; 4],
    uuid: [u8; 16],
    rest: [u32; 7],
}

const _: () = assert!(size_of::<RawExtent>() == 56);
const _: () = assert!(size_of::<Header>() == 32);
const _: () = assert!(size_of::<Attributes>() == 28);
const _: () = assert!(size_of::<Geometry>() == 112);

mod call {
    use super::{Attributes, Geometry, Header, c_long};

    nix::ioctl_readwrite!(fiemap, b'f', 11, Header);
    nix::ioctl_read!(generation, b'v', 1, c_long);
    nix::ioctl_read!(attributes, b'X', 31, Attributes);
    nix::ioctl_read!(geometry, b'X', 100, Geometry);
}

/// The memory of one `FS_IOC_FIEMAP`.
pub(super) struct Batch(Box<Request>);

impl Batch {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self(Box::new(Request {
            header: Header::default(),
            extents: [RawExtent::default(); EXTENTS as usize],
        }))
    }

    /// The first extents of `file` inside `[start, start + length)`, after its dirty pages were written; none where
    /// only a hole is left.
    pub(super) fn fill(
        &mut self,
        file: &File,
        start: u64,
        length: u64,
    ) -> Result<&[RawExtent], Errno> {
        self.0.header = Header {
            start,
            length,
            flags: FIEMAP_FLAG_SYNC,
            count: EXTENTS,
            ..Header::default()
        };
        let request: *mut Request = &raw mut *self.0;
        // SAFETY: the descriptor is open; the pointer is to a whole `Request`, which begins with the header, is not
        // used by anybody else during the call, and has room for the `count` extents that the kernel may write.
        unsafe { call::fiemap(file.as_raw_fd(), request.cast::<Header>()) }?;
        Ok(&self.0.extents[..self.0.header.mapped.min(EXTENTS) as usize])
    }

    /// The extent number `index` of the last answer.
    pub(super) fn extent(&self, index: usize) -> Option<RawExtent> {
        let mapped = self.0.header.mapped.min(EXTENTS) as usize;
        self.0.extents[..mapped].get(index).copied()
    }
}

/// The generation of a file's inode number, which tells files apart that had the same number one after another.
pub(super) fn generation(file: &File) -> Result<u32, Errno> {
    let mut value: c_long = 0;
    // SAFETY: the descriptor is open and the pointer is to a whole `long`, of which the kernel writes an `int`.
    unsafe { call::generation(file.as_raw_fd(), &raw mut value) }?;
    let [a, b, c, d, ..] = value.to_ne_bytes();
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

/// Whether the data of a file is on the real-time device.
pub(super) fn is_realtime(file: &File) -> Result<bool, Errno> {
    let mut attributes = Attributes::default();
    // SAFETY: the descriptor is open and the pointer is to a whole `struct fsxattr`.
    unsafe { call::attributes(file.as_raw_fd(), &raw mut attributes) }?;
    Ok(attributes.flags & FS_XFLAG_REALTIME != 0)
}

/// The id of the XFS that holds a file.
pub(super) fn xfs_uuid(file: &File) -> Result<[u8; 16], Errno> {
    let mut geometry = Geometry::default();
    // SAFETY: the descriptor is open and the pointer is to a whole `struct xfs_fsop_geom_v1`.
    unsafe { call::geometry(file.as_raw_fd(), &raw mut geometry) }?;
    Ok(geometry.uuid)
}
