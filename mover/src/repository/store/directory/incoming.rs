//! An object that is being written and has no name yet.
//!
//! ```text
//!   O_TMPFILE in the target folder (gone with its descriptor)        ──┐
//!   or .incoming/<random>, locked while in use, where there is none  ──┴► write ► fdatasync ► linkat
//! ```
//!
//! Owns: the file without a name, and which of direct I/O and O_TMPFILE this file system supports. Must not: name anything
//! before its data is on disk.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::linkat;

use crate::device::{ALIGNMENT, AlignedBuffer};
use crate::repository::ids::{random, to_hex};

/// Folder for unfinished objects where O_TMPFILE is missing. No object can be named so (`object_name`).
const INCOMING: &str = ".incoming";

/// Bodies below this go through the page cache: a direct write would round most of them up and cut them again.
pub(super) const DIRECT_FROM: usize = 64 * 1024;

/// Bytes copied at a time when a body is not aligned.
const COPY_LEN: usize = 1024 * 1024;

/// An unfinished object on a file system without locks is abandoned after this.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Writes bodies into files without a name. What the file system refuses once is not asked again.
#[derive(Debug)]
pub(super) struct Writer {
    direct: AtomicBool,
    unnamed: AtomicBool,
}

/// One written file; without a call of [`Incoming::link`] nothing of it stays.
#[derive(Debug)]
pub(super) struct Incoming {
    file: File,
    /// Set where the file has a temporary name.
    temporary: Option<PathBuf>,
}

impl Writer {
    pub(super) fn new() -> Self {
        // Unnamed files are linked through /proc, which a bare chroot may lack.
        Self::with(true, Path::new("/proc/self/fd").exists())
    }

    pub(super) fn with(direct: bool, unnamed: bool) -> Self {
        Self {
            direct: AtomicBool::new(direct),
            unnamed: AtomicBool::new(unnamed),
        }
    }

    /// Writes `body` into a new file in the file system of `folder`.
    pub(super) fn write(&self, root: &Path, folder: &Path, body: &Bytes) -> io::Result<Incoming> {
        if body.len() >= DIRECT_FROM && self.direct.load(Ordering::Relaxed) {
            let written = self
                .open(root, folder, OFlag::O_DIRECT)
                .and_then(|incoming| {
                    write_direct(&incoming.file, body)?;
                    Ok(incoming)
                });
            match written {
                // tmpfs of older kernels, some FUSE file systems, sectors above 4 KiB.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                    if self.direct.swap(false, Ordering::Relaxed) {
                        tracing::warn!(folder = %folder.display(), "direct I/O is refused; writing through the page cache");
                    }
                }
                written => return written,
            }
        }
        let incoming = self.open(root, folder, OFlag::empty())?;
        incoming.file.write_all_at(body, 0)?;
        Ok(incoming)
    }

    fn open(&self, root: &Path, folder: &Path, extra: OFlag) -> io::Result<Incoming> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | extra;
        if self.unnamed.load(Ordering::Relaxed) {
            let unnamed = |folder: &Path| open(folder, flags | OFlag::O_TMPFILE, file_mode());
            match unnamed(folder).or_else(|errno| match errno {
                // What ext4 says of a folder that was removed a moment ago (`ext4_new_inode`); the root stays.
                Errno::EPERM => unnamed(root),
                errno => Err(errno),
            }) {
                Ok(file) => {
                    return Ok(Incoming {
                        file: File::from(file),
                        temporary: None,
                    });
                }
                // EISDIR: the file system ignores the flag and sees an open of a directory for writing.
                Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {
                    self.unnamed.store(false, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        open_temporary(&root.join(INCOMING), flags)
    }
}

impl Incoming {
    /// Makes the data survive a power cut. Called once: a second try after a failure would not tell the truth.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives the file its name, unless that is taken (`EEXIST`).
    pub(super) fn link(&self, path: &Path) -> Result<(), Errno> {
        match &self.temporary {
            None => {
                let descriptor = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(
                    AT_FDCWD,
                    descriptor.as_str(),
                    AT_FDCWD,
                    path,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )
            }
            Some(temporary) => linkat(AT_FDCWD, temporary, AT_FDCWD, path, AtFlags::empty()),
        }
    }

    /// Whether a temporary name was taken away by somebody who thought its owner dead.
    pub(super) fn is_gone(&self) -> bool {
        self.temporary.is_some() && fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Left over at worst: `remove_abandoned` takes it away at the next start.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// For owner and group as far as the umask allows; others could not read the volumes either.
fn file_mode() -> Mode {
    Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP
}

/// Makes a folder that, as the files in it, is closed to others.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o770).create(folder)
}

fn open_temporary(incoming: &Path, flags: OFlag) -> io::Result<Incoming> {
    let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL;
    loop {
        let temporary = incoming.join(to_hex(&random::<16>()));
        match open(&temporary, flags, file_mode()) {
            Ok(file) => {
                let file = File::from(file);
                // A cleaner that came in between holds the lock and removes the file: `is_gone` notices that. On file
                // systems without locks age alone protects it.
                let _ = file.try_lock();
                return Ok(Incoming {
                    file,
                    temporary: Some(temporary),
                });
            }
            Err(Errno::ENOENT) => match make_folder(incoming) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            },
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Removes temporary files that no process holds any more, as far as this user may.
pub(super) fn remove_abandoned(root: &Path) {
    let Ok(entries) = fs::read_dir(root.join(INCOMING)) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let abandoned = match file.try_lock() {
            Ok(()) => true,
            Err(fs::TryLockError::WouldBlock) => false,
            Err(fs::TryLockError::Error(_)) => is_old(&file),
        };
        if abandoned && fs::remove_file(&path).is_ok() {
            tracing::debug!(file = %path.display(), "removed what a killed process left");
        }
    }
}

fn is_old(file: &File) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED_AFTER))
}

/// Writes straight from `body` where it is aligned, else through an aligned copy; the tail is rounded up and cut off again.
fn write_direct(file: &File, body: &Bytes) -> io::Result<()> {
    let whole = body.len() - body.len() % ALIGNMENT;
    if body.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        write_aligned(file, &body[..whole], 0)?;
        if whole < body.len() {
            write_copied(file, &body[whole..], whole)?;
        }
    } else {
        for (index, part) in body.chunks(COPY_LEN).enumerate() {
            write_copied(file, part, index * COPY_LEN)?;
        }
    }
    if whole < body.len() {
        file.set_len(body.len() as u64)?;
    }
    Ok(())
}

fn write_copied(file: &File, part: &[u8], offset: usize) -> io::Result<()> {
    let len = part.len().next_multiple_of(ALIGNMENT);
    let mut copy = AlignedBuffer::new(len);
    copy[..part.len()].copy_from_slice(part);
    write_aligned(file, &copy[..len], offset)
}

/// Repeats short writes from the last aligned byte.
fn write_aligned(file: &File, bytes: &[u8], offset: usize) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], (offset + done) as u64) {
            Ok(written) if written == bytes.len() - done => return Ok(()),
            // Less than a sector at once: the file system is full, or the device fails.
            Ok(written) if written < ALIGNMENT => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written - written % ALIGNMENT,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
