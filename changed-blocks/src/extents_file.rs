//! Extents that somebody else found out, from a file: `extents:FILE`.
//!
//! ```text
//!   {"offset":0,"length":65536,"kind":"data"}
//!   {"offset":1048576,"length":4096,"kind":"zero"}
//!   {"complete":true,"size":4194304,"base_point":"…"}      base_point null: everything allocated, not a delta
//! ```
//!
//! Owns: the source and what binds a list to a point. Must not: hold the list: it is read from the disk for each answer.
//! Nothing shows that the list is right but the samples every delta gets; it is used only when it is asked for.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::extent::ByteLen;
use crate::source::{
    Base, Capabilities, ChangedBlocks, ExtentSink, Precision, SourceError, Summary, Trust,
};

mod lines;

pub use lines::{End, read};

/// Name of the source.
pub const NAME: &str = "extents";

/// A list of extents in a file.
#[derive(Debug)]
pub struct ExtentsFile {
    file: File,
    size: ByteLen,
    end: End,
    bound: bool,
}

impl ExtentsFile {
    /// Opens the list at `path` about a target of `size` bytes, and reads it once to know that it is whole.
    ///
    /// # Errors
    /// `FullBackup` where it cannot be read, with the number of the first line that is not sound.
    pub fn open(path: &Path, size: u64) -> Result<Self, SourceError> {
        let refuse = |error: SourceError| SourceError {
            message: format!("{}: {}", path.display(), error.message),
            ..error
        };
        Self::open_named(path, ByteLen(size)).map_err(refuse)
    }

    fn open_named(path: &Path, size: ByteLen) -> Result<Self, SourceError> {
        let failed = |error| SourceError::full("open the list of extents").because(error);
        // Without waiting for a writer where the path is a pipe.
        let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(flags.bits()).open(path);
        let file = file.map_err(failed)?;
        // It is read more than once.
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(SourceError::full("a list of extents must be a file"));
        }
        let end = read(BufReader::new(&file), size, &mut |_| true)?;
        Ok(Self {
            file,
            size,
            end,
            bound: false,
        })
    }

    /// The point since which the listed extents changed; `None` where the list is of everything allocated.
    #[must_use]
    pub fn base_point(&self) -> Option<&str> {
        self.end.base_point.as_deref()
    }

    fn answer(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        self.file
            .rewind()
            .map_err(|error| SourceError::full("read the list of extents again").because(error))?;
        let end = read(BufReader::new(&self.file), self.size, sink)?;
        if end != self.end {
            return Err(SourceError::full(
                "the list of extents was changed while it was used",
            ));
        }
        Ok(Summary {
            size: end.size,
            extents: end.extents,
        })
    }
}

impl ChangedBlocks for ExtentsFile {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: NAME,
            // Whoever wrote the list may have counted in bytes.
            granularity: ByteLen(1),
            precision: Precision::Unknown,
            needs_base: false,
            zero_extents: true,
            discard_unstable: false,
            trust: Trust::Unverified,
        }
    }

    /// A list names its base by the point alone, so the record is not looked at.
    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        self.bound = false;
        match self.base_point() {
            None => Err(SourceError::full(
                "the list of extents is of everything allocated: its base_point is null",
            )),
            Some(point) if point != base.point => Err(SourceError::full(format!(
                "the list of extents is since point {point}, the parent is {}: make it anew, or build on that point with --parent",
                base.point
            ))),
            Some(_) => {
                self.bound = true;
                Ok(())
            }
        }
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        match self.base_point() {
            None => self.answer(sink),
            Some(point) => Err(SourceError::full(format!(
                "the list of extents is of changes since point {point}, not of everything allocated"
            ))),
        }
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        if !self.bound {
            return Err(SourceError::full(
                "the list of extents is not bound to a base",
            ));
        }
        self.answer(sink)
    }
}

#[cfg(test)]
mod tests;
