//! What the device mapper says of a thin device and of its pool.
//!
//! ```text
//!   path ─ stat ─► major:minor ─ dmsetup table ─► `thin POOL ID [ORIGIN]` ─► `thin-pool METADATA DATA BLOCK …`
//! ```
//!
//! Owns: that walk, and the lines of the kernel's Documentation/admin-guide/device-mapper/thin-provisioning.rst. Must not: change
//! a device. LVM is not asked: its ids are in the uuids of the devices that it makes, and a base need not be active.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, makedev, minor};

use super::tag::decimal;
use super::tool::DMSETUP;
use crate::source::{SourceError, SourceErrorKind};

/// Unit of every size in a table.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    major: u64,
    minor: u64,
}

impl Number {
    /// Of the block device at `path`.
    pub(super) fn of(path: &Path) -> Result<Self, SourceError> {
        let unreadable = |error| {
            let message = format!("look at {}", path.display());
            SourceError::new(SourceErrorKind::GiveUp, message).because(error)
        };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.file_type().is_block_device() {
            return Err(not_thin(path, "is not a block device"));
        }
        Ok(Self {
            major: major(metadata.rdev()),
            minor: minor(metadata.rdev()),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Self {
            major: decimal(major)?,
            minor: decimal(minor)?,
        })
    }

    /// A line that sysfs keeps of the device; empty where it keeps none.
    fn fact(self, name: &str) -> Result<String, SourceError> {
        let path = format!("/sys/dev/block/{}:{}/{name}", self.major, self.minor);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(SourceError::full(format!("read {path}")).because(error)),
        }
    }

    /// The line of the device's only target: its length in sectors, and the words of its table.
    fn table(self) -> Result<(u64, Vec<String>), SourceError> {
        let [major, minor] = [self.major, self.minor].map(|number| number.to_string());
        let answer = DMSETUP.ask(&["table", "--major", &major, "--minor", &minor])?;
        let mut lines = answer
            .lines()
            .map(|line| line.split_ascii_whitespace().map(str::to_owned));
        let (Some(mut line), None) = (lines.next(), lines.next()) else {
            return Err(strange(&answer));
        };
        match (
            line.next().as_deref(),
            line.next().as_deref().and_then(decimal),
        ) {
            (Some("0"), Some(sectors)) => Ok((sectors, line.collect())),
            _ => Err(strange(&answer)),
        }
    }

    /// A node that opens the device.
    fn node(self) -> Result<PathBuf, SourceError> {
        let uevent = self.fact("uevent")?;
        let name = uevent
            .lines()
            .find_map(|line| line.strip_prefix("DEVNAME="));
        let named = name.map(|name| Path::new("/dev").join(name));
        let mapped = Path::new("/dev/mapper").join(self.fact("dm/name")?);
        let expected = makedev(self.major, self.minor);
        let mut candidates = named.into_iter().chain([mapped]);
        let node = candidates.find(|path| {
            let metadata = fs::metadata(path);
            metadata
                .is_ok_and(|found| found.file_type().is_block_device() && found.rdev() == expected)
        });
        node.ok_or_else(|| {
            SourceError::full(format!(
                "no node in /dev for the device {}:{}",
                self.major, self.minor
            ))
        })
    }
}

/// An active thin device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// The uuid that its maker gave it, of LVM `LVM-` and the uuids of volume group and volume; empty where it has none.
    pub(super) uuid: String,
    pub(super) thin_id: u64,
    pub(super) size: u64,
    pub(super) origin: Option<Origin>,
    pool: Number,
}

/// The device that shows through where a thin device maps nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Empty where nothing names it.
    pub(super) uuid: String,
    pub(super) read_only: bool,
}

impl Device {
    /// The thin device at `path`.
    pub(super) fn at(path: &Path) -> Result<Self, SourceError> {
        let number = Number::of(path)?;
        if number.fact("dm/name")?.is_empty() {
            return Err(not_thin(path, "is no device of the device mapper"));
        }
        let (sectors, words) = number.table()?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let (pool, thin_id, origin) = match words[..] {
            ["thin", pool, thin_id] => (pool, thin_id, None),
            ["thin", pool, thin_id, origin] => (pool, thin_id, Some(origin)),
            _ => return Err(not_thin(path, "is not a thin device")),
        };
        let number_in = |text| Number::parse(text).ok_or_else(|| strange(&words.join(" ")));
        let origin = origin
            .map(|origin| Origin::at(number_in(origin)?))
            .transpose()?;
        Ok(Self {
            uuid: number.fact("dm/uuid")?,
            thin_id: decimal(thin_id).ok_or_else(|| strange(&words.join(" ")))?,
            size: bytes(sectors)?,
            origin,
            pool: number_in(pool)?,
        })
    }

    /// Its pool.
    pub(super) fn pool(&self) -> Result<Pool, SourceError> {
        Pool::at(self.pool)
    }
}

/// Whether the device at `path` is a thin device, or a device of the device mapper whose table cannot be read.
pub(super) fn may_be_thin(path: &Path) -> bool {
    let Ok(number) = Number::of(path) else {
        return false;
    };
    let is_mapped = number.fact("dm/name").is_ok_and(|name| !name.is_empty());
    let is_thin = |(_, words): (u64, Vec<String>)| words.first().is_some_and(|word| word == "thin");
    is_mapped && number.table().map_or(true, is_thin)
}

impl Origin {
    fn at(number: Number) -> Result<Self, SourceError> {
        Ok(Self {
            uuid: number.fact("dm/uuid")?,
            read_only: number.fact("ro")? == "1",
        })
    }
}

/// An active pool of thin devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) name: String,
    /// The uuid that its maker gave it; empty where it has none.
    pub(super) uuid: String,
    /// A node of the device that holds the metadata.
    pub(super) metadata: PathBuf,
    pub(super) block_bytes: u64,
}

impl Pool {
    fn at(number: Number) -> Result<Self, SourceError> {
        let (_, words) = number.table()?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let ["thin-pool", metadata, _, block, ..] = words[..] else {
            return Err(strange(&words.join(" ")));
        };
        let metadata = Number::parse(metadata).ok_or_else(|| strange(&words.join(" ")))?;
        let block = decimal(block).filter(|sectors| *sectors > 0);
        Ok(Self {
            name: number.fact("dm/name")?,
            uuid: number.fact("dm/uuid")?,
            metadata: metadata.node()?,
            block_bytes: bytes(block.ok_or_else(|| strange(&words.join(" ")))?)?,
        })
    }

    /// What the pool is doing now.
    pub(super) fn status(&self) -> Result<Status, SourceError> {
        Status::parse(&DMSETUP.ask(&["status", "--", &self.name])?)
    }
}

/// The status line of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// Block of the metadata snapshot that is reserved, of which there is at most one.
    pub(super) held: Option<u64>,
    /// Why the pool makes no metadata snapshot.
    pub(super) unable: Option<&'static str>,
}

impl Status {
    /// Of `0 LENGTH thin-pool TRANSACTION METADATA DATA HELD MODE … CHECK …`.
    pub(super) fn parse(line: &str) -> Result<Self, SourceError> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let unable = match words[..] {
            [_, _, "thin-pool", "Fail", ..] => {
                return Ok(Self {
                    held: None,
                    unable: Some("has failed"),
                });
            }
            [_, _, "thin-pool", _, _, _, _, _, _, _, "needs_check", ..] => {
                Some("needs a check of its metadata (lvconvert --repair, or thin_check)")
            }
            [
                _,
                _,
                "thin-pool",
                _,
                _,
                _,
                _,
                "rw" | "out_of_data_space",
                ..,
            ] => None,
            [_, _, "thin-pool", _, _, _, _, "ro", ..] => Some(
                "is read-only: its metadata space may be used up (lvextend --poolmetadatasize)",
            ),
            _ => return Err(strange(line)),
        };
        let held = match words.get(6).copied() {
            Some("-") => None,
            Some(block) => Some(decimal(block).ok_or_else(|| strange(line))?),
            None => return Err(strange(line)),
        };
        Ok(Self { held, unable })
    }
}

fn bytes(sectors: u64) -> Result<u64, SourceError> {
    let bytes = sectors.checked_mul(SECTOR_BYTES);
    bytes.ok_or_else(|| strange(&format!("{sectors} sectors")))
}

fn not_thin(path: &Path, why: &str) -> SourceError {
    SourceError::full(format!("{} {why}", path.display()))
}

fn strange(line: &str) -> SourceError {
    SourceError::full(format!(
        "understand the device mapper: {:?}",
        line.trim_end()
    ))
}

#[cfg(test)]
mod tests;
