//! What a restore writes: a new image file, an existing file, or a block device.
//!
//! ```text
//!   open (refusals) ──► protect ──► queue, zero ──► settle(first chunk) ──► read_back ──► finish
//!                        │ first chunk zeroed         │ flush, first chunk, flush          │ TARGET.partial renamed
//! ```
//!
//! A target that breaks off before `settle` has zeros where its boot sector or superblock goes, or is still named
//! `TARGET.partial`: nothing mistakes it for the real thing. An existing file is written in place (its owner, mode and
//! links stay) and gets exactly the size of the point; bytes of a device behind the point's size stay as they are.
//!
//! Owns: the order of writes that makes a broken restore harmless, and zeroing. Must not: know points or maps.

mod open;
mod signature;
mod zero;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::buffer::AlignedBuffer;
use super::file::{DeviceFile, io_error};
use super::first_chunk::{FirstChunk, Medium};
use super::queue::{self, IoQueue, QueueOptions};
use super::received::ReceivedDevice;
use super::source::remember;
use crate::{Error, ErrorKind, Result};

/// What may be written, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetOptions {
    /// Overwrite a file that is not empty, or a device that holds something known.
    pub force: bool,
    /// As `force`, for a caller that compares before it writes. A `TARGET.partial` of a broken run is continued.
    pub delta: bool,
    /// Size in bytes of what is restored; a file gets exactly this size.
    pub size: u64,
    /// Bytes of the first chunk, which is written last.
    pub chunk_size: u32,
    /// The directory of the repository, if it is one: nothing in it is a target.
    pub repository_path: Option<PathBuf>,
}

/// An opened target.
#[derive(Debug)]
pub struct Target {
    file: Arc<DeviceFile>,
    path: PathBuf,
    place: Place,
    /// Bytes that may be written: the file or the device.
    capacity: u64,
    first: FirstChunk,
    settled: AtomicBool,
    warnings: Mutex<Vec<String>>,
}

/// Where the bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Device,
    /// A file that was there before.
    Existing,
    /// A new file under a temporary name.
    Partial(PathBuf),
}

impl Target {
    /// Opens a target, or refuses it.
    ///
    /// Always refused: what is mounted, held or open for writing elsewhere, smaller (devices), read-only, inside the
    /// repository, neither file nor block device. Without `force` or `delta` also a file that is not empty and a device
    /// with a known signature. A new file is made sparse as `TARGET.partial`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for refusals; [`ErrorKind::NotFound`], [`ErrorKind::AccessDenied`],
    /// [`ErrorKind::NoSpace`], [`ErrorKind::Io`].
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Self> {
        open::open(path, options)
    }

    /// Takes a block device that somebody else opened for reading and writing, exclusively. `name` is only for messages.
    ///
    /// What it holds is not looked at: whoever passed it on decided that it may be overwritten.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where it is read-only, too small, or passed on for reading; [`ErrorKind::Io`].
    pub fn received(device: &ReceivedDevice, name: &Path, options: &TargetOptions) -> Result<Self> {
        open::received(device, name, options)
    }

    /// Whether this run made the file: ranges never written read as zero.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.first.is_fresh()
    }

    /// Whether it is a block device.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        self.place == Place::Device
    }

    /// Logical block size in bytes.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.file.block_size()
    }

    /// What a person should know, each thing once.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A queue for reading and writing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the wanted engine cannot be had.
    pub fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        let (queue, warning) = queue::open(&self.file, options)?;
        remember(&self.warnings, warning);
        Ok(queue)
    }

    /// Makes the first chunk zero, on the device, before anything else is written.
    ///
    /// Called once before the first write of a restore that covers the first chunk; its bytes, also if they are zeros, then
    /// go to [`Target::settle`] or [`Target::finish`]. A restore of a range behind the first chunk calls it not, and leaves
    /// that chunk alone. Does nothing in a file this run made.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::NoSpace`].
    pub fn protect(&self) -> Result<()> {
        self.first.protect(self)
    }

    /// Makes `[offset, offset + len)` read as zero, by what guarantees that or else by writing zeros; never by a discard.
    /// Skipped in a file this run made: nothing may have been written to the range there.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::NoSpace`], [`ErrorKind::Internal`] for a range past the end.
    pub fn zero(&self, offset: u64, len: u64) -> Result<()> {
        if offset
            .checked_add(len)
            .is_none_or(|end| end > self.capacity)
        {
            return Err(self.misused("zero a range past the end"));
        }
        if self.is_fresh() {
            return Ok(());
        }
        zero::zero(&self.file, self.is_block_device(), offset, len)
    }

    /// Brings everything written to the device, then the first chunk, then that to the device. No queue may have anything
    /// in flight.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::NoSpace`]; [`ErrorKind::Internal`] where the first chunk is given but was not
    /// protected, or was protected and is not given.
    pub fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()> {
        self.first.settle(self, first_chunk)?;
        self.settled.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads from the device, past every cache that direct I/O can pass, in this thread.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] with the offset.
    pub fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let (buffer, range) = self.file.read_now(offset, len)?;
        Ok(buffer[range].to_vec())
    }

    /// Ends the restore: [`Target::settle`] unless that was done, then a new file gets its name, durably.
    ///
    /// # Errors
    /// As `settle`; [`ErrorKind::InvalidRequest`] where a file of the target's name appeared meanwhile, which is kept, as is
    /// `TARGET.partial`.
    pub fn finish(self, first_chunk: Option<&[u8]>) -> Result<()> {
        if !self.settled.load(Ordering::Acquire) {
            self.settle(first_chunk)?;
        }
        match &self.place {
            Place::Partial(partial) => self.rename(partial),
            Place::Device | Place::Existing => Ok(()),
        }
    }

    fn rename(&self, partial: &Path) -> Result<()> {
        let failed = |error| io_error("name the restored file", &self.path, error);
        let flags = RenameFlags::RENAME_NOREPLACE;
        let renamed = match renameat2(AT_FDCWD, partial, AT_FDCWD, &self.path, flags) {
            // Not every file system can refuse to replace; a link can, everywhere but on a few that have no links.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                std::fs::hard_link(partial, &self.path).and_then(|()| std::fs::remove_file(partial))
            }
            other => other.map_err(std::io::Error::from),
        };
        match renamed {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let kept = partial.display();
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "name the restored file: the target appeared meanwhile",
                )
                .object(self.path.display())
                .hint(format!(
                    "the restored data is complete in {kept}: move it where it belongs"
                )));
            }
            other => other.map_err(failed)?,
        }
        let directory = open::parent_of(&self.path);
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    }

    fn misused(&self, message: &str) -> Error {
        Error::new(ErrorKind::Internal, message).object(self.path.display())
    }
}

impl Medium for Target {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn write_start(&self, buffer: AlignedBuffer, len: usize) -> Result<()> {
        self.file.write_now(0, &buffer, len)
    }

    fn flush(&self) -> Result<()> {
        let flushed = self.file.main().sync_all();
        flushed.map_err(|error| io_error("flush target", &self.path, error))
    }
}

#[cfg(test)]
mod tests;
