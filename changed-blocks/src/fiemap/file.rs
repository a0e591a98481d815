//! A file whose map can be compared: on a file system that shares blocks, and named for ever.
//!
//! Owns: which file systems will do, and the facts that name a file. Must not: read maps.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use nix::sys::statfs::{self, fstatfs};
use nix::sys::statvfs::fstatvfs;

use crate::extent::ByteLen;
use crate::fiemap::{NAME, ioctl};
use crate::identity::Identity;
use crate::source::SourceError;

/// Files are stamped by a clock that stands still for one tick, 10 ms on the slowest kernels: two changes in it get the
/// same stamp. A stamp twice as old names one state.
const SETTLED: Duration = Duration::from_millis(20);

/// A regular file on XFS or btrfs.
#[derive(Debug)]
pub(super) struct MappedFile {
    file: File,
    identity: Identity,
    device: u64,
    realtime: bool,
    block: ByteLen,
    size: u64,
}

impl MappedFile {
    /// Opens the file at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let mut options = OpenOptions::new();
        // Without waiting for a writer where the path is a pipe.
        options
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_CLOEXEC.bits());
        let file = options.open(path).map_err(|error| {
            SourceError::full(format!("open the base {}", path.display())).because(error)
        })?;
        Self::new(file)
    }

    /// Takes the facts of an open file, after its dirty pages were written: who holds a page mapped that is dirty already
    /// changes it without a new stamp; once it was written, the next change gets one.
    pub(super) fn new(file: File) -> Result<Self, SourceError> {
        if !state(&file)?.is_file() {
            return Err(SourceError::full(
                "only files have a map of extents to compare, not devices",
            ));
        }
        file.sync_data()
            .map_err(|error| SourceError::full("write the file's dirty pages").because(error))?;
        let metadata = settled(&file)?;
        let system = fstatfs(&file)
            .map_err(|errno| SourceError::full("ask for the file system").because(errno.into()))?;
        let volume = volume(&file, system.filesystem_type())?;
        let realtime = match system.filesystem_type() {
            statfs::XFS_SUPER_MAGIC => ioctl::is_realtime(&file).map_err(|errno| {
                SourceError::full("ask for the attributes of the file").because(errno.into())
            })?,
            _ => false,
        };
        Ok(Self {
            identity: identity(&file, &metadata, &volume)?,
            device: metadata.dev(),
            realtime,
            block: ByteLen(metadata.blksize().max(512)),
            size: metadata.len(),
            file,
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn block(&self) -> ByteLen {
        self.block
    }

    /// Why the places of this file and of `other` cannot be compared.
    pub(super) fn apart_from(&self, other: &Self) -> Option<&'static str> {
        if self.device != other.device {
            return Some("the base is on another file system or subvolume: they share no blocks");
        }
        (self.realtime != other.realtime)
            .then_some("one of both is on the real-time device: they share no blocks")
    }

    /// Asks again for what names the file: an error where it is another state by now.
    pub(super) fn is_unchanged(&self, what: &str) -> Result<(), SourceError> {
        let again = Self::new(self.file.try_clone().map_err(|error| {
            SourceError::full(format!("look at the {what} again")).because(error)
        })?)?;
        match again.identity.difference(&self.identity) {
            None => Ok(()),
            Some(change) => Err(SourceError::full(format!(
                "the {what} was changed meanwhile: {change}"
            ))),
        }
    }
}

/// Whether the file system of `file` is one whose files share blocks; `false` where it does not say.
pub(super) fn may_share_blocks(file: &File) -> bool {
    let kinds = [statfs::XFS_SUPER_MAGIC, statfs::BTRFS_SUPER_MAGIC];
    fstatfs(file).is_ok_and(|system| kinds.contains(&system.filesystem_type()))
}

/// The facts of a file as soon as its stamps name one state.
fn settled(file: &File) -> Result<Metadata, SourceError> {
    let first = state(file)?;
    let stamp = u64::try_from(first.ctime()).ok().and_then(|seconds| {
        let nanos = u32::try_from(first.ctime_nsec()).ok()?;
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
    });
    let age = stamp.and_then(|stamp| SystemTime::now().duration_since(stamp).ok());
    let Some(wait) = age.and_then(|age| SETTLED.checked_sub(age)) else {
        return Ok(first);
    };
    std::thread::sleep(wait);
    state(file)
}

fn state(file: &File) -> Result<Metadata, SourceError> {
    file.metadata()
        .map_err(|error| SourceError::full("ask for the state of the file").because(error))
}

/// What names the file system, and on btrfs the subvolume, wherever it is mounted.
fn volume(file: &File, system: statfs::FsType) -> Result<String, SourceError> {
    match system {
        // The id that statvfs gives is the device number there, which the next boot may give to another.
        statfs::XFS_SUPER_MAGIC => ioctl::xfs_uuid(file)
            .map(|uuid| format!("xfs-{:032x}", u128::from_be_bytes(uuid)))
            .map_err(|errno| SourceError::full("ask for the id of the XFS").because(errno.into())),
        // Made of the file system's id and the subvolume's number.
        statfs::BTRFS_SUPER_MAGIC => fstatvfs(file)
            .map(|system| format!("btrfs-{:016x}", system.filesystem_id()))
            .map_err(|errno| {
                SourceError::full("ask for the id of the btrfs").because(errno.into())
            }),
        other => Err(SourceError::full(format!(
            "files on {} share no blocks whose places could be compared: that needs XFS or btrfs",
            name(other)
        ))),
    }
}

fn name(system: statfs::FsType) -> String {
    match system {
        statfs::EXT4_SUPER_MAGIC => "ext4".to_owned(),
        statfs::TMPFS_MAGIC => "tmpfs".to_owned(),
        statfs::OVERLAYFS_SUPER_MAGIC => "overlayfs".to_owned(),
        statfs::NFS_SUPER_MAGIC => "NFS".to_owned(),
        statfs::FUSE_SUPER_MAGIC => "FUSE".to_owned(),
        other => format!("a file system of type {:#x}", other.0),
    }
}

fn identity(file: &File, metadata: &Metadata, volume: &str) -> Result<Identity, SourceError> {
    let record = Identity::new(NAME)
        .with("volume", volume)
        .with("ino", metadata.ino())
        .with("size", metadata.len())
        .with("ctime", stamp(metadata.ctime(), metadata.ctime_nsec()))
        .with("mtime", stamp(metadata.mtime(), metadata.mtime_nsec()));
    if let Ok(generation) = ioctl::generation(file) {
        return Ok(record.with("generation", generation));
    }
    let born = metadata.created().ok();
    let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    match born {
        Some(born) => Ok(record.with(
            "born",
            format!("{}.{:09}", born.as_secs(), born.subsec_nanos()),
        )),
        None => Err(SourceError::full(
            "the file system tells neither generation nor birth of the file, so that nothing names it for ever",
        )),
    }
}

fn stamp(seconds: i64, nanos: i64) -> String {
    format!("{seconds}.{nanos:09}")
}

/// Why `target` is an older state than `base`: it was touched for the last time before the base was.
pub(super) fn goes_back(target: &Identity, base: &Identity) -> Option<String> {
    let touched = |record: &Identity| {
        let (seconds, nanos) = record.fact("ctime")?.split_once('.')?;
        Some((seconds.parse::<i64>().ok()?, nanos.parse::<u32>().ok()?))
    };
    let is_older = base.source() == NAME && touched(target)? < touched(base)?;
    is_older.then(|| "the file is older than the one before".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_goes_back() {
        let record = |seconds, nanos| Identity::new(NAME).with("ctime", stamp(seconds, nanos));
        let base = record(1_700_000_010, 5);
        assert!(goes_back(&record(1_700_000_009, 999_999_999), &base).is_some());
        assert!(goes_back(&record(1_700_000_010, 4), &base).is_some());
        for later in [
            (1_700_000_010, 5),
            (1_700_000_010, 1_000),
            (1_700_000_011, 0),
        ] {
            assert_eq!(goes_back(&record(later.0, later.1), &base), None);
        }
        assert_eq!(goes_back(&base, &Identity::new(NAME)), None);
        assert_eq!(
            goes_back(&base, &Identity::new("rbd").with("ctime", "9.0")),
            None
        );
    }
}
