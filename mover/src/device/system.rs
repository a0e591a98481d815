//! The kernel calls std does not have: block device ioctls and `statx`.
//!
//! Owns: their unsafe wrappers. Must not: decide anything.

#![expect(unsafe_code, reason = "ioctl and statx write through pointers")]

use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

/// Request codes of `include/uapi/linux/fs.h`.
mod request {
    #![allow(
        unreachable_pub,
        missing_docs,
        reason = "the macros make public functions"
    )]

    use nix::{ioctl_read, ioctl_read_bad, ioctl_write_ptr_bad, libc, request_code_none};

    ioctl_read!(blkgetsize64, 0x12, 114, u64);
    ioctl_read_bad!(blksszget, request_code_none!(0x12, 104), libc::c_int);
    ioctl_read_bad!(blkroget, request_code_none!(0x12, 94), libc::c_int);
    ioctl_write_ptr_bad!(blkzeroout, request_code_none!(0x12, 127), [u64; 2]);
}

/// Size of a block device in bytes.
pub(super) fn block_device_size(device: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 to `size`, which lives through the call.
    unsafe { request::blkgetsize64(device.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// Logical block size of a block device in bytes.
pub(super) fn block_device_sector(device: &File) -> io::Result<u32> {
    let mut sector: c_int = 0;
    // SAFETY: BLKSSZGET writes one int to `sector`, which lives through the call.
    unsafe { request::blksszget(device.as_raw_fd(), &raw mut sector) }?;
    u32::try_from(sector).map_err(io::Error::other)
}

/// Whether a block device is marked read-only.
pub(super) fn block_device_read_only(device: &File) -> io::Result<bool> {
    let mut read_only: c_int = 0;
    // SAFETY: BLKROGET writes one int to `read_only`, which lives through the call.
    unsafe { request::blkroget(device.as_raw_fd(), &raw mut read_only) }?;
    Ok(read_only != 0)
}

/// Makes a range of a block device read as zero, by whatever the device guarantees or else by writing. Never a discard.
///
/// Both numbers must be multiples of the logical block size.
pub(super) fn block_device_zero_out(device: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: BLKZEROOUT reads two u64 from `range`, which lives through the call.
    unsafe { request::blkzeroout(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// What direct I/O on a regular file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectAlignment {
    /// The file cannot be read directly.
    Refused,
    /// Alignment of memory and of offset and length, in bytes.
    Needs { memory: u32, offset: u32 },
    /// The kernel or the file system does not say.
    Unknown,
}

/// Asks `statx` for `STATX_DIOALIGN` (Linux 6.1).
pub(super) fn direct_alignment(file: &File) -> io::Result<DirectAlignment> {
    let answer = statx(
        file.as_raw_fd(),
        c"",
        libc::AT_EMPTY_PATH,
        libc::STATX_DIOALIGN,
    )?;
    Ok(if answer.stx_mask & libc::STATX_DIOALIGN == 0 {
        DirectAlignment::Unknown
    } else if answer.stx_dio_offset_align == 0 {
        DirectAlignment::Refused
    } else {
        DirectAlignment::Needs {
            memory: answer.stx_dio_mem_align,
            offset: answer.stx_dio_offset_align,
        }
    })
}

/// Names a file or device whatever path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKey {
    /// A block device by its number.
    Device { major: u32, minor: u32 },
    /// Anything else by the file system it is on and its inode.
    File { major: u32, minor: u32, inode: u64 },
}

/// The key of what `path` leads to, from what the kernel has cached: a dead network file system does not hang it.
pub(super) fn file_key(path: &Path) -> io::Result<FileKey> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    statx(
        libc::AT_FDCWD,
        &path,
        libc::AT_STATX_DONT_SYNC,
        libc::STATX_BASIC_STATS,
    )
    .map(key_of)
}

/// The key of an open file.
pub(super) fn open_file_key(file: &File) -> io::Result<FileKey> {
    statx(
        file.as_raw_fd(),
        c"",
        libc::AT_EMPTY_PATH,
        libc::STATX_BASIC_STATS,
    )
    .map(key_of)
}

fn key_of(answer: libc::statx) -> FileKey {
    if u32::from(answer.stx_mode) & libc::S_IFMT == libc::S_IFBLK {
        FileKey::Device {
            major: answer.stx_rdev_major,
            minor: answer.stx_rdev_minor,
        }
    } else {
        FileKey::File {
            major: answer.stx_dev_major,
            minor: answer.stx_dev_minor,
            inode: answer.stx_ino,
        }
    }
}

fn statx(directory: RawFd, path: &CStr, flags: c_int, mask: u32) -> io::Result<libc::statx> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` ends in NUL and statx writes at most one `struct statx` to `answer`; both live through the call.
    let result = unsafe { libc::statx(directory, path.as_ptr(), flags, mask, answer.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every byte was zeroed before, and zeros are a valid `struct statx` of plain numbers.
    Ok(unsafe { answer.assume_init() })
}
