//! Which targets are refused, and how the others are opened.
//!
//! Owns: every refusal. Must not: write to what is there, except the size of a file that is to be overwritten.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use nix::libc;

use super::super::file::{DeviceFile, Direction, io_error};
use super::super::first_chunk::{Before, FirstChunk};
use super::super::received::ReceivedDevice;
use super::super::{occupancy, system};
use super::{Place, Target, TargetOptions, signature};
use crate::{Error, ErrorKind, Result};

pub(super) fn open(path: &Path, options: &TargetOptions) -> Result<Target> {
    refuse_inside_repository(path, options)?;
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => open_device(path, options),
        Ok(metadata) if metadata.is_file() => open_existing(path, &metadata, options),
        Ok(_) => Err(refused(path, "it is neither a file nor a block device")
            .hint("give a file, a block device, or - for stdout")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => open_new(path, options),
        Err(error) => Err(io_error("open target", path, error)),
    }
}

fn open_device(path: &Path, options: &TargetOptions) -> Result<Target> {
    let failed = |error| open_failed(path, error);
    let key = system::file_key(path).map_err(failed)?;
    refuse_used(path, key)?;
    let device = occupancy::open_exclusive(path, OpenOptions::new().read(true).write(true))
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => refused(path, "in use by the system or another program"),
            // The kernel answers EACCES, as if it were for lack of permission.
            _ if is_read_only(path) => refused(path, "it is read-only").source(error),
            _ => open_failed(path, error),
        })?;
    // Some devices can be opened for writing all the same, and fail at the first write.
    if is_read_only(path) {
        return Err(refused(path, "it is read-only"));
    }
    let capacity = system::block_device_size(&device).map_err(failed)?;
    if capacity < options.size {
        let size = options.size;
        return Err(refused(
            path,
            &format!("its {capacity} bytes are fewer than the {size} needed"),
        )
        .hint("give a device at least as large as the volume was"));
    }
    let file = DeviceFile::open(device, path, Direction::Write)?;
    if !options.force
        && !options.delta
        && let Some(content) = signature::find(&file, capacity)?
    {
        return Err(refused(path, &format!("it holds {content}")).hint(OVERWRITE_HINT));
    }
    Ok(target(file, path, Place::Device, capacity, options))
}

pub(super) fn received(
    device: &ReceivedDevice,
    name: &Path,
    options: &TargetOptions,
) -> Result<Target> {
    let failed = |error| io_error("use the received target", name, error);
    if !device.is_writable() {
        return Err(refused(name, "it was passed on for reading"));
    }
    let (main, buffered) = device.descriptors().map_err(failed)?;
    if system::block_device_read_only(&buffered).map_err(failed)? {
        return Err(refused(name, "it is read-only"));
    }
    let capacity = system::block_device_size(&buffered).map_err(failed)?;
    if capacity < options.size {
        let size = options.size;
        return Err(refused(
            name,
            &format!("its {capacity} bytes are fewer than the {size} needed"),
        ));
    }
    let file = DeviceFile::of_descriptors(main, buffered, name)?;
    Ok(target(file, name, Place::Device, capacity, options))
}

fn open_existing(path: &Path, metadata: &Metadata, options: &TargetOptions) -> Result<Target> {
    if metadata.len() > 0 && !options.force && !options.delta {
        return Err(refused(path, "the file exists and is not empty").hint(OVERWRITE_HINT));
    }
    let failed = |error| open_failed(path, error);
    let key = system::file_key(path).map_err(failed)?;
    refuse_used(path, key)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    lock(&file, path)?;
    file.set_len(options.size).map_err(failed)?;
    let file = DeviceFile::open(file, path, Direction::Write)?;
    Ok(target(file, path, Place::Existing, options.size, options))
}

fn open_new(path: &Path, options: &TargetOptions) -> Result<Target> {
    let Some(name) = path.file_name().filter(|_| !path.is_symlink()) else {
        return Err(refused(
            path,
            "it is a link that leads nowhere, or no file name",
        ));
    };
    let folder = parent_of(path);
    if !folder.is_dir() {
        let make = format!(
            "make the directory `{}`, or give another TARGET",
            folder.display()
        );
        return Err(
            Error::new(ErrorKind::NotFound, "find the directory of the target")
                .object(path.display())
                .hint(make),
        );
    }
    let mut partial_name = name.to_owned();
    partial_name.push(".partial");
    let partial = path.with_file_name(partial_name);
    let failed = |error| open_failed(&partial, error);
    let stale = open_stale(&partial)?;
    let (file, before) = match stale.filter(|_| options.delta) {
        Some(file) => (file, Before::Something),
        None => (create(&partial)?, Before::Nothing),
    };
    file.set_len(options.size).map_err(failed)?;
    let file = DeviceFile::open(file, &partial, Direction::Write)?;
    let mut target = target(file, path, Place::Partial(partial), options.size, options);
    target.first = first_chunk(options, before);
    Ok(target)
}

/// What an earlier run left behind, locked; `None` where there is nothing.
fn open_stale(partial: &Path) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    match options.open(partial) {
        Ok(file) => {
            let metadata = file
                .metadata()
                .map_err(|error| open_failed(partial, error))?;
            if !metadata.is_file() {
                return Err(refused(partial, "it is in the way of a new file"));
            }
            lock(&file, partial)?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(open_failed(partial, error)),
    }
}

/// A new, locked file in place of what an earlier run left behind, whose lock the caller holds or has just released.
fn create(partial: &Path) -> Result<File> {
    let failed = |error| open_failed(partial, error);
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(partial)
        .map_err(failed)?;
    lock(&file, partial)?;
    Ok(file)
}

/// Keeps a second restore away from a file. The lock ends with the descriptor, also after a kill.
fn lock(file: &File, path: &Path) -> Result<()> {
    let busy = |locked: &_| matches!(locked, Err(TryLockError::WouldBlock));
    match occupancy::patiently(|| file.try_lock(), busy) {
        Err(TryLockError::WouldBlock) => Err(refused(path, "another program has it locked")
            .hint("wait for the restore that writes it, or stop it")),
        // A file system without locks keeps nobody away.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

fn target(
    file: DeviceFile,
    path: &Path,
    place: Place,
    capacity: u64,
    options: &TargetOptions,
) -> Target {
    let warnings = file.fallback().map(str::to_owned).into_iter().collect();
    Target {
        file: Arc::new(file),
        path: path.to_owned(),
        place,
        capacity,
        first: first_chunk(options, Before::Something),
        settled: AtomicBool::new(false),
        warnings: Mutex::new(warnings),
    }
}

fn first_chunk(options: &TargetOptions, before: Before) -> FirstChunk {
    let len = options.size.min(u64::from(options.chunk_size));
    FirstChunk::new(usize::try_from(len).expect("at most a chunk"), before)
}

fn is_read_only(path: &Path) -> bool {
    File::open(path)
        .and_then(|device| system::block_device_read_only(&device))
        .unwrap_or(false)
}

fn refuse_used(path: &Path, key: system::FileKey) -> Result<()> {
    match occupancy::user(key) {
        Some(user) => Err(refused(path, &user).hint("unmount or release it first")),
        None => Ok(()),
    }
}

fn refuse_inside_repository(path: &Path, options: &TargetOptions) -> Result<()> {
    let Some(repository) = options.repository_path.as_ref() else {
        return Ok(());
    };
    // What cannot be resolved is not there, and then nothing is inside it.
    let Ok(repository) = repository.canonicalize() else {
        return Ok(());
    };
    let inside = |path: PathBuf| path.starts_with(&repository);
    if path.canonicalize().is_ok_and(inside) || parent_of(path).canonicalize().is_ok_and(inside) {
        return Err(refused(path, "it lies in the repository").hint("restore to another place"));
    }
    Ok(())
}

/// The directory that holds the name of `path`.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

const OVERWRITE_HINT: &str =
    "--force overwrites it, --delta writes only what differs; both destroy what is there";

fn refused(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("refuse target: {why}")).object(path.display())
}

fn open_failed(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => refused(path, "it is read-only").source(error),
        io::ErrorKind::ExecutableFileBusy => refused(path, "it is being executed").source(error),
        _ => io_error("open target", path, error),
    }
}
