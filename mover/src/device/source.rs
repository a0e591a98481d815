//! What a backup reads: a block device or an image file, never written.
//!
//! ```text
//!   path ──► refused? (mounted, held, written by others) ──► Source ──► hole map, queue ──► unchanged at the end?
//! ```
//!
//! Owns: the rules for live sources, and the trait the pipelines read through. Must not: decide what a change means for a
//! point.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use changed_blocks::{ChangedBlocks, Fiemap, HoleMap, Scan, SourceError, Thin, fiemap, thin};
use nix::libc;

use super::file::{DeviceFile, Direction, io_error};
use super::occupancy;
use super::queue::{self, IoQueue, QueueOptions};
use super::received::ReceivedDevice;
use super::system;
use crate::{Error, ErrorKind, Result};

/// How a source may be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Read a block device although it is mounted or held by somebody else.
    pub allow_live: bool,
}

/// What is known about where the bytes of a source come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    /// `file` or `block`.
    pub kind: String,
    /// Names an immutable snapshot; `None` for files and plain devices, which anybody may write between two runs.
    pub immutable: Option<String>,
}

/// Somebody who says what changed, and may move to a thread of its own.
pub type Blocks = Box<dyn ChangedBlocks + Send>;

/// Who can be asked what changed since an earlier state of a volume, and who cannot.
#[derive(Default)]
pub struct DeltaSources {
    /// Best first.
    pub found: Vec<Blocks>,
    /// Those that volumes of this kind may have, and that this one has not or that do not answer.
    pub unusable: Vec<Unusable>,
}

impl DeltaSources {
    /// One that can be asked.
    #[must_use]
    pub fn one(source: Blocks) -> Self {
        Self {
            found: Vec::from([source]),
            unusable: Vec::new(),
        }
    }

    /// The only one there could be cannot be asked.
    #[must_use]
    pub fn none(unusable: Unusable) -> Self {
        Self {
            found: Vec::new(),
            unusable: Vec::from([unusable]),
        }
    }
}

impl fmt::Debug for DeltaSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found: Vec<_> = self.found.iter().map(|one| one.capabilities()).collect();
        f.debug_struct("DeltaSources")
            .field("found", &found)
            .field("unusable", &self.unusable)
            .finish()
    }
}

/// A source of changed blocks that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its name.
    pub name: &'static str,
    /// Why not.
    pub reason: String,
    /// Whether this volume should have it, so that a person should know. Else it is only of another kind.
    pub is_fault: bool,
}

impl Unusable {
    /// Of an error that opening the source gave.
    #[must_use]
    pub fn new(name: &'static str, error: &SourceError, is_fault: bool) -> Self {
        Self {
            name,
            reason: error.with_cause(),
            is_fault,
        }
    }
}

/// Something a backup can read. [`Source`] is the real one.
pub trait SourceDevice: Send + Sync + fmt::Debug {
    /// Path or other name, for messages.
    fn name(&self) -> String;
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Logical block size in bytes.
    fn block_size(&self) -> u32;
    /// Says which ranges may hold anything but zeros.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the source cannot be asked.
    fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>>;
    /// Whether [`hole_map`](Self::hole_map) knows more than that everything may hold data.
    fn has_hole_map(&self) -> bool {
        false
    }
    /// Sources that can say what changed since an earlier state of this volume, and those that cannot be asked, with the reason.
    fn delta_sources(&self) -> DeltaSources {
        DeltaSources::default()
    }
    /// A queue for reading.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no engine can be had.
    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>>;
    /// Whether the source is still what it was when it was opened, as far as that can be told.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it can no longer be asked.
    fn check_unchanged(&self) -> Result<bool>;
    /// What a person should know, each thing once.
    fn warnings(&self) -> Vec<String>;
    /// Where the bytes come from.
    fn identity(&self) -> SourceIdentity;
}

/// An opened file or block device.
#[derive(Debug)]
pub struct Source {
    file: Arc<DeviceFile>,
    size: u64,
    /// Size and times of a regular file; `None` for a block device.
    state: Option<FileState>,
    /// Opened with `allow_live` while somebody else could write to it.
    live: bool,
    warnings: Mutex<Vec<String>>,
}

/// What changes when somebody writes to a regular file.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Source {
    /// Opens a regular file, after what others wrote to it has reached its disk, or a block device that nobody else uses.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for anything else, an empty device, and, without `allow_live`, a block device that is
    /// mounted, held or open for writing; [`ErrorKind::NotFound`], [`ErrorKind::AccessDenied`], [`ErrorKind::Io`].
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self> {
        let failed = |error| io_error("open source", path, error);
        // Before opening: to open a FIFO would wait for its writer.
        let kind = match fs::metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NotFound, "find source")
                    .object(path.display())
                    .hint("check the path of SOURCE: an image file or a block device that exists")
                    .source(error));
            }
            Err(error) => return Err(failed(error)),
        };
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::new(ErrorKind::InvalidRequest, "refuse source")
                .object(path.display())
                .hint("give an image file or a block device"));
        }
        let buffered = File::open(path).map_err(failed)?;
        let metadata = buffered.metadata().map_err(failed)?;
        if metadata.file_type().is_block_device() {
            Self::open_block_device(buffered, path, *options)
        } else {
            flush(&buffered).map_err(|error| io_error("flush source", path, error))?;
            let metadata = buffered.metadata().map_err(failed)?;
            let state = FileState::of(&metadata);
            Self::new(buffered, path, state.size, Some(state), false)
        }
    }

    /// Takes a block device that somebody else opened for reading. `name` is only for messages.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where the device is empty, mounted, held or open for writing, as far as that can be seen;
    /// [`ErrorKind::Io`].
    pub fn received(device: &ReceivedDevice, name: &Path) -> Result<Self> {
        let failed = |error| io_error("use the received source", name, error);
        let (main, buffered) = device.descriptors().map_err(failed)?;
        let key = system::open_file_key(&buffered).map_err(failed)?;
        if let Some(user) = occupancy::user(key) {
            return Err(
                Error::new(ErrorKind::InvalidRequest, format!("refuse source: {user}"))
                    .object(name.display())
                    .hint("the working copy of a snapshot belongs to its backup alone"),
            );
        }
        let size = system::block_device_size(&buffered).map_err(failed)?;
        if size == 0 {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "refuse source: the device is empty",
            )
            .object(name.display()));
        }
        Ok(Self {
            file: Arc::new(DeviceFile::of_descriptors(main, buffered, name)?),
            size,
            state: None,
            live: false,
            warnings: Mutex::default(),
        })
    }

    fn open_block_device(buffered: File, path: &Path, options: SourceOptions) -> Result<Self> {
        let failed = |error| io_error("open source", path, error);
        let user = device_user(&buffered, path).map_err(failed)?;
        if let Some(user) = user.as_ref().filter(|_| !options.allow_live) {
            return Err(Error::new(ErrorKind::InvalidRequest, format!("refuse source: {user}"))
                .object(path.display())
                .hint("back up a snapshot of it, unmount it, or accept a fuzzy point with --allow-live"));
        }
        let size = system::block_device_size(&buffered).map_err(failed)?;
        if size == 0 {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "refuse source: the device is empty",
            )
            .object(path.display()));
        }
        Self::new(buffered, path, size, None, user.is_some())
    }

    fn new(
        buffered: File,
        path: &Path,
        size: u64,
        state: Option<FileState>,
        live: bool,
    ) -> Result<Self> {
        let file = DeviceFile::open(buffered, path, Direction::Read)?;
        let warnings = file.fallback().map(str::to_owned).into_iter().collect();
        let warnings = Mutex::new(warnings);
        Ok(Self {
            file: Arc::new(file),
            size,
            state,
            live,
            warnings,
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is a block device.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        self.state.is_none()
    }

    /// Logical block size in bytes.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.file.block_size()
    }

    /// The data ranges of a file, everything of a block device.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the descriptor cannot be duplicated.
    pub fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>> {
        if self.is_block_device() {
            return Ok(Box::new(Scan::new(self.size)));
        }
        let map = HoleMap::new(self.file.buffered(), self.size)
            .map_err(|error| io_error("read the hole map", self.path(), error))?;
        Ok(Box::new(map))
    }

    /// A queue for reading. Several may be open at once.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the wanted engine cannot be had.
    pub fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        let (queue, warning) = queue::open(&self.file, options)?;
        remember(&self.warnings, warning);
        Ok(queue)
    }

    /// Compares size and times of a file with those at opening. A block device has no times: its size is compared, and one
    /// that somebody else can write to counts as changed.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the source can no longer be asked.
    pub fn check_unchanged(&self) -> Result<bool> {
        let failed = |error| io_error("look at source again", self.path(), error);
        let file = self.file.buffered();
        if let Some(state) = &self.state {
            return Ok(FileState::of(&file.metadata().map_err(failed)?) == *state);
        }
        let size = system::block_device_size(file).map_err(failed)?;
        // Without the exclusive probe, which another backup's probe could fail for a moment.
        let key = system::open_file_key(file).map_err(failed)?;
        Ok(size == self.size && !self.live && occupancy::user(key).is_none())
    }

    /// What a person should know, each thing once: page cache instead of direct I/O, threads instead of io_uring.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl SourceDevice for Source {
    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn size(&self) -> u64 {
        self.size()
    }

    fn block_size(&self) -> u32 {
        self.block_size()
    }

    fn has_hole_map(&self) -> bool {
        !self.is_block_device()
    }

    fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>> {
        self.hole_map()
    }

    /// A file may be a reflink of the one before, a block device a thin snapshot.
    fn delta_sources(&self) -> DeltaSources {
        let (name, may_be, found) = if self.is_block_device() {
            let found = Thin::open(self.path(), Path::new(thin::DEFAULT_FOLDER));
            let may_be = found.is_err() && Thin::may_be(self.path());
            (
                thin::NAME,
                may_be,
                found.map(|thin| Box::new(thin) as Blocks),
            )
        } else {
            let file = self.file.buffered();
            let found = Fiemap::new(file, self.size);
            let may_be = found.is_err() && Fiemap::may_be(file);
            (
                fiemap::NAME,
                may_be,
                found.map(|map| Box::new(map) as Blocks),
            )
        };
        match found {
            Ok(source) => DeltaSources::one(source),
            Err(error) => DeltaSources::none(Unusable::new(name, &error, may_be)),
        }
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        self.queue(options)
    }

    fn check_unchanged(&self) -> Result<bool> {
        self.check_unchanged()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings()
    }

    fn identity(&self) -> SourceIdentity {
        let kind = if self.is_block_device() {
            "block"
        } else {
            "file"
        };
        SourceIdentity {
            kind: kind.to_owned(),
            immutable: None,
        }
    }
}

/// Keeps a warning unless it was said before.
pub(super) fn remember(warnings: &Mutex<Vec<String>>, warning: Option<String>) {
    let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(warning) = warning.filter(|warning| !warnings.contains(warning)) {
        warnings.push(warning);
    }
}

/// Who else uses a block device, if anybody.
fn device_user(device: &File, path: &Path) -> io::Result<Option<String>> {
    if let Some(user) = occupancy::user(system::open_file_key(device)?) {
        return Ok(Some(user));
    }
    match occupancy::open_exclusive(path, OpenOptions::new().read(true)) {
        // Closed at once: to hold it would keep others from attaching or checking what we only read.
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            Ok(Some("in use by the system or another program".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// Brings what others wrote through the page cache to the disk, where direct reads see it.
fn flush(file: &File) -> io::Result<()> {
    match file.sync_data() {
        // Read-only media and file systems without sync have nothing to flush.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::EROFS | libc::ENOSYS | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
