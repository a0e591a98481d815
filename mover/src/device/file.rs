//! One opened file or block device: a descriptor that bypasses the page cache, and a buffered one for what is not aligned.
//!
//! ```text
//!   |<------------- whole units: direct descriptor ------------->|<- tail: buffered ->|
//! ```
//!
//! Owns: the descriptors, the unit, and the choice of buffered I/O where direct I/O is refused. Must not: queue requests.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;

use super::buffer::{ALIGNMENT, AlignedBuffer};
use super::system::{self, DirectAlignment};
use crate::{Error, ErrorKind, Result};

/// Unit of direct I/O where nobody says: the largest logical block size in use.
const UNKNOWN_UNIT: u32 = 4096;

/// An opened file or block device of a known size.
#[derive(Debug)]
pub(super) struct DeviceFile {
    path: PathBuf,
    main: File,
    /// Holds what was taken at open time (exclusive use, locks) and serves the unaligned tail.
    buffered: File,
    unit: u32,
    block_size: u32,
    fallback: Option<String>,
}

/// Direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl DeviceFile {
    /// Adds a direct descriptor to `buffered`, which was opened for `direction` (writing includes reading).
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the device does not tell its geometry or cannot be opened a second time.
    pub(super) fn open(buffered: File, path: &Path, direction: Direction) -> Result<Self> {
        let failed = |error: io::Error| io_error("open for direct access", path, error);
        let (unit, block_size) = geometry(&buffered).map_err(failed)?;
        let direct = unit.and_then(|unit| open_direct(&buffered, path, direction, unit));
        let (main, unit, fallback) = match direct {
            Ok((main, unit)) => (main, unit, None),
            Err(Refusal::Direct) => {
                let main = buffered.try_clone().map_err(failed)?;
                let name = path.display();
                let warning =
                    format!("{name} refuses direct I/O: read and written through the page cache");
                (main, 1, Some(warning))
            }
            Err(Refusal::Failed(error)) => return Err(failed(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            main,
            buffered,
            unit,
            block_size,
            fallback,
        })
    }

    /// Takes two descriptors of one block device, of which `main` bypasses the page cache. Nothing is opened: whoever may not open
    /// the device can still use it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the device does not tell its geometry.
    pub(super) fn of_descriptors(main: File, buffered: File, path: &Path) -> Result<Self> {
        let failed = |error: io::Error| io_error("use the received device", path, error);
        let sector = system::block_device_sector(&buffered).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            main,
            buffered,
            unit: sector,
            block_size: sector,
            fallback: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor for whole units.
    pub(super) fn main(&self) -> &File {
        &self.main
    }

    /// The descriptor for everything but bulk data.
    pub(super) fn buffered(&self) -> &File {
        &self.buffered
    }

    /// Offsets and lengths on the main descriptor are multiples of this; 1 where it goes through the page cache.
    pub(super) fn unit(&self) -> u32 {
        self.unit
    }

    /// Logical block size in bytes.
    pub(super) fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Why the page cache is used, where it is.
    pub(super) fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Splits `[offset, offset + len)` at the last unit border: what the main descriptor takes, and the tail.
    pub(super) fn split(&self, offset: u64, len: usize) -> (usize, usize) {
        let unit = u64::from(self.unit);
        if !offset.is_multiple_of(unit) {
            return (0, len);
        }
        let unit = usize::try_from(self.unit).expect("a unit fits the address space");
        (len - len % unit, len % unit)
    }

    /// Reads exactly `range` of `buffer` from `offset` through the buffered descriptor, fresh from the device.
    pub(super) fn read_buffered(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.forget_cached(offset, bytes.len());
        self.buffered.read_exact_at(bytes, offset)?;
        self.forget_cached(offset, bytes.len());
        Ok(())
    }

    /// Writes `bytes` at `offset` through the buffered descriptor, down to the device.
    ///
    /// A page left dirty could later be written back over what a direct write put beside the tail.
    pub(super) fn write_buffered(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.buffered.write_all_at(bytes, offset)?;
        self.buffered.sync_data()?;
        self.forget_cached(offset, bytes.len());
        Ok(())
    }

    /// Reads `[offset, offset + len)` in this thread, past the page cache where that is possible.
    pub(super) fn read_now(
        &self,
        offset: u64,
        len: usize,
    ) -> Result<(AlignedBuffer, Range<usize>)> {
        let mut buffer = AlignedBuffer::new(len);
        let (aligned, tail) = self.split(offset, len);
        let middle = offset + aligned as u64;
        self.main
            .read_exact_at(&mut buffer[..aligned], offset)
            .and_then(|()| match tail {
                0 => Ok(()),
                _ => self.read_buffered(middle, &mut buffer[aligned..len]),
            })
            .map_err(|error| transfer_error(Direction::Read, &self.path, offset, len, error))?;
        Ok((buffer, 0..len))
    }

    /// Writes `len` bytes of `buffer` at `offset` in this thread, past the page cache where that is possible.
    pub(super) fn write_now(&self, offset: u64, buffer: &AlignedBuffer, len: usize) -> Result<()> {
        let (aligned, tail) = self.split(offset, len);
        let middle = offset + aligned as u64;
        self.main
            .write_all_at(&buffer[..aligned], offset)
            .and_then(|()| match tail {
                0 => Ok(()),
                _ => self.write_buffered(middle, &buffer[aligned..len]),
            })
            .map_err(|error| transfer_error(Direction::Write, &self.path, offset, len, error))
    }

    /// Drops what the page cache holds of a range, so that bulk data never pushes out what the machine works with. Dirty
    /// pages start on their way to the device instead.
    pub(super) fn forget_cached(&self, offset: u64, len: usize) {
        if let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) {
            // Advice: a file system that takes none keeps its pages.
            let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            let _ = posix_fadvise(&self.buffered, offset, len, advice);
        }
    }
}

enum Refusal {
    /// Direct I/O is not to be had here.
    Direct,
    Failed(io::Error),
}

/// Unit of direct I/O, or that there is none, and the logical block size.
fn geometry(file: &File) -> io::Result<(std::result::Result<u32, Refusal>, u32)> {
    if file.metadata()?.file_type().is_block_device() {
        let sector = system::block_device_sector(file)?;
        return Ok((Ok(sector), sector));
    }
    // Kernels and sandboxes without statx say nothing, as file systems without direct I/O alignment do.
    let unit = match system::direct_alignment(file).unwrap_or(DirectAlignment::Unknown) {
        DirectAlignment::Refused => Err(Refusal::Direct),
        DirectAlignment::Needs { memory, .. } if u64::from(memory) > ALIGNMENT as u64 => {
            Err(Refusal::Direct)
        }
        DirectAlignment::Needs { offset, .. } => Ok(offset),
        DirectAlignment::Unknown => Ok(UNKNOWN_UNIT),
    };
    let block_size = unit.as_ref().map_or(UNKNOWN_UNIT, |unit| *unit);
    Ok((unit, block_size))
}

/// Opens what `buffered` has open once more with `O_DIRECT`, and proves by a read that it is more than a promise.
fn open_direct(
    buffered: &File,
    path: &Path,
    direction: Direction,
    unit: u32,
) -> std::result::Result<(File, u32), Refusal> {
    let mut options = OpenOptions::new();
    options.read(true).write(direction == Direction::Write);
    options.custom_flags(libc::O_DIRECT | libc::O_CLOEXEC);
    // Through the descriptor: the path may lead elsewhere by now.
    let descriptor = PathBuf::from(format!("/proc/self/fd/{}", buffered.as_raw_fd()));
    let opened = match options.open(descriptor) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => reopen(buffered, path, &options),
        other => other,
    };
    let main = opened.map_err(refusal)?;
    let mut probe =
        AlignedBuffer::new(usize::try_from(unit).expect("a unit fits the address space"));
    match main.read_at(&mut probe, 0) {
        Err(error) if is_refusal(&error) => Err(Refusal::Direct),
        // Anything else comes back, with its offset, when the place is really read.
        _ => Ok((main, unit)),
    }
}

/// Where `/proc` is not mounted: by path, as long as it is still the same file.
fn reopen(buffered: &File, path: &Path, options: &OpenOptions) -> io::Result<File> {
    let file = options.open(path)?;
    if system::open_file_key(&file)? == system::open_file_key(buffered)? {
        Ok(file)
    } else {
        Err(io::Error::other(
            "the path leads to another file than a moment ago",
        ))
    }
}

fn refusal(error: io::Error) -> Refusal {
    if is_refusal(&error) {
        Refusal::Direct
    } else {
        Refusal::Failed(error)
    }
}

/// Whether an error says that direct I/O is not supported (open(2): EINVAL; some file systems say EOPNOTSUPP).
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// The error of an operation on a whole file or device.
pub(super) fn io_error(action: &str, path: &Path, cause: io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        io::ErrorKind::PermissionDenied => ErrorKind::AccessDenied,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    };
    Error::new(kind, action)
        .object(path.display())
        .source(cause)
}

/// The error of one transfer: it names device and byte offset.
pub(super) fn transfer_error(
    direction: Direction,
    path: &Path,
    offset: u64,
    len: usize,
    cause: io::Error,
) -> Error {
    let verb = match direction {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    let error = |kind| {
        Error::new(kind, format!("{verb} {len} bytes at offset {offset}")).object(path.display())
    };
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error(ErrorKind::NoSpace)
            .hint("free space where the target lies, then run again")
            .source(cause),
        io::ErrorKind::UnexpectedEof => error(ErrorKind::Io)
            .hint("it ends before this offset: it became smaller after it was opened")
            .source(cause),
        _ => error(ErrorKind::Io).source(cause),
    }
}

#[cfg(test)]
mod tests;
