//! Making a range read as zero for certain.
//!
//! ```text
//!   |edge|<------------- whole blocks ------------->|edge|
//!   write  BLKZEROOUT · punch hole · zero range · write   write
//! ```
//!
//! Owns: the choice of the way. Must not: discard: a device may keep, lose or invent what was discarded.

use std::io;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::super::buffer::{ALIGNMENT, AlignedBuffer};
use super::super::file::{DeviceFile, io_error};
use super::super::system;
use crate::Result;

/// Bytes of zeros written at once where nothing better works.
const WRITE_LEN: usize = 1 << 20;

pub(super) fn zero(file: &DeviceFile, block_device: bool, offset: u64, len: u64) -> Result<()> {
    let end = offset + len;
    let unit = if block_device {
        u64::from(file.block_size())
    } else {
        ALIGNMENT as u64
    };
    let first = offset.next_multiple_of(unit).min(end);
    let last = (end - end % unit).max(first);
    write_zeros(file, offset, first - offset)?;
    if first < last {
        let done = if block_device {
            system::block_device_zero_out(file.main(), first, last - first)
        } else {
            free(file, first, last - first)
        };
        match done {
            Err(error) if is_unsupported(&error) => write_zeros(file, first, last - first),
            other => other.map_err(|error| io_error("zero the target", file.path(), error)),
        }?;
    }
    write_zeros(file, last, end - last)
}

/// Turns whole blocks of a file into a hole, or into blocks marked as zero.
fn free(file: &DeviceFile, offset: u64, len: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    let len = i64::try_from(len).map_err(io::Error::other)?;
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let punch = fallocate(
        file.main(),
        keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE,
        offset,
        len,
    );
    match punch {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => fallocate(
            file.main(),
            keep | FallocateFlags::FALLOC_FL_ZERO_RANGE,
            offset,
            len,
        ),
        other => other,
    }
    .map_err(io::Error::from)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ENOTTY)
    )
}

pub(super) fn write_zeros(file: &DeviceFile, mut offset: u64, mut len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let step = usize::try_from(len).unwrap_or(WRITE_LEN).min(WRITE_LEN);
    let zeros = AlignedBuffer::new(step);
    while len > 0 {
        let now = usize::try_from(len).unwrap_or(step).min(step);
        file.write_now(offset, &zeros, now)?;
        offset += now as u64;
        len -= now as u64;
    }
    Ok(())
}
