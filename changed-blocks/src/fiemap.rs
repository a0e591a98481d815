//! Two reflinked files compared by the places of their blocks, without reading either.
//!
//! ```text
//!   base    [place 1][place 2][hole   ][place 3]      identity must be what the parent recorded
//!   target  [place 1][place 9][place 7][hole   ]
//!   delta             data     data     zero
//! ```
//!
//! Owns: the source `fiemap` and the rules under which it may answer. Must not: read data, or believe that equal places
//! mean equal bytes on file systems where they do not.
//!
//! Equal place, equal bytes holds on XFS and btrfs, because blocks that two files share are never written in place. A map
//! can change without any write (defragmentation, balance, deduplication), so both maps are read twice before and once
//! while they are compared: base, target, base, target. If all readings agree there was an instant at which both were
//! true, and a place that both files had at one instant held one content.

use std::fs::File;
use std::path::Path;

use crate::extent::ByteLen;
use crate::fiemap::compare::{Fingerprint, compare, fingerprint};
use crate::fiemap::file::MappedFile;
use crate::fiemap::map::{Extents, Pieces};
use crate::hole_map::HoleMap;
use crate::identity::Identity;
use crate::source::{
    Base, Capabilities, ChangedBlocks, ExtentSink, Precision, SourceError, Summary, Trust,
};

mod compare;
mod file;
mod ioctl;
mod map;

/// Name of the source, in records as well.
pub const NAME: &str = "fiemap";
/// Readings of both maps until two in a row must agree: a balance moves a file once, not on and on.
const READINGS: usize = 6;

/// The extents of a file on XFS or btrfs, and how they differ from those of the file that it was reflinked from.
#[derive(Debug)]
pub struct Fiemap {
    target: MappedFile,
    size: u64,
    base: Option<MappedFile>,
}

impl Fiemap {
    /// Binds the source to the first `size` bytes of `file`, which nobody writes any more.
    ///
    /// # Errors
    /// `FullBackup` where it is no regular file on XFS or btrfs.
    pub fn new(file: &File, size: u64) -> Result<Self, SourceError> {
        let file = file.try_clone().map_err(|error| {
            SourceError::full("take another descriptor of the file").because(error)
        })?;
        Ok(Self {
            target: MappedFile::new(file)?,
            size,
            base: None,
        })
    }

    /// Whether `file` lies where files share blocks, so that [`new`](Self::new) should not fail.
    #[must_use]
    pub fn may_be(file: &File) -> bool {
        file::may_share_blocks(file)
    }

    /// Reads both maps until two readings in a row agree.
    fn settled_maps(
        &self,
        base: &MappedFile,
        end: u64,
    ) -> Result<(Fingerprint, Fingerprint), SourceError> {
        let mut last = None;
        for _ in 0..READINGS {
            let maps = (
                fingerprint(pieces(base, end))?,
                fingerprint(pieces(&self.target, end))?,
            );
            if last == Some(maps) {
                return Ok(maps);
            }
            last = Some(maps);
        }
        Err(moving())
    }
}

impl ChangedBlocks for Fiemap {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: NAME,
            granularity: self.target.block(),
            // Blocks that were moved or rewritten with the same content count as changed.
            precision: Precision::Superset,
            needs_base: true,
            zero_extents: true,
            discard_unstable: false,
            trust: Trust::Verified,
        }
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.target.identity().clone())
    }

    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        self.base = None;
        let path = base.named.ok_or_else(|| {
            SourceError::full(format!(
                "nothing says where the file of {} is now: name it with --base",
                base.point
            ))
        })?;
        let file = MappedFile::open(Path::new(path))?;
        if let Some(reason) = file.apart_from(&self.target) {
            return Err(SourceError::full(format!("{path}: {reason}")));
        }
        if base.record.source() != NAME {
            return Err(SourceError::full(format!(
                "{} keeps a record of {}, which does not name a file",
                base.point,
                base.record.source()
            )));
        }
        if let Some(difference) = file.identity().difference(base.record) {
            return Err(SourceError::full(format!(
                "{path} is not what {} was made from, or was changed since: {difference}",
                base.point
            )));
        }
        self.base = Some(file);
        Ok(())
    }

    fn goes_back(&self, base: &Identity) -> Option<String> {
        file::goes_back(self.target.identity(), base)
    }

    /// Asked as a hole map, whose answer every file system gives and keeps right while pages are dirty.
    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        HoleMap::new(self.target.file(), self.size)
            .map_err(|error| {
                SourceError::full("take another descriptor of the file").because(error)
            })?
            .allocated(sink)
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let base = self
            .base
            .as_ref()
            .ok_or_else(|| SourceError::full("no base to compare the map of extents with"))?;
        let end = self.size.min(self.target.size()).min(base.size());
        let maps = self.settled_maps(base, end)?;
        let compared = compare(pieces(base, end), pieces(&self.target, end), end, sink)?;
        if compared.maps != maps {
            return Err(moving());
        }
        base.is_unchanged("base")?;
        self.target.is_unchanged("target")?;
        Ok(Summary {
            size: ByteLen(self.size),
            extents: compared.extents,
        })
    }
}

fn pieces(file: &MappedFile, end: u64) -> Pieces<Extents<'_>> {
    Pieces::new(Extents::new(file.file(), end), end)
}

fn moving() -> SourceError {
    SourceError::full(
        "the file system moves blocks of the base or the target (balance, defragmentation, deduplication)",
    )
}
