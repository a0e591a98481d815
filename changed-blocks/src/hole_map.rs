//! The holes of a sparse file, asked from its file system.
//!
//! Owns: `SEEK_DATA`/`SEEK_HOLE`. Must not: read data, or use the map for comparing two files: it says what is allocated
//! now, not what changed.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::extent::{ByteLen, Extent};
use crate::scan::stopped;
use crate::source::{Capabilities, ChangedBlocks, ExtentSink, SourceError, Summary};

/// Smallest block of the file systems in use; a file system may report coarser data, which is still sound.
const GRANULARITY: ByteLen = ByteLen(4096);

/// The data ranges of a regular file; one data extent where the file system keeps no map, and for block devices.
///
/// A file system reports as hole only what reads as zero. Data not yet written back counts as data, so the answer needs no
/// sync before it.
#[derive(Debug)]
pub struct HoleMap {
    file: File,
    size: u64,
}

impl HoleMap {
    /// Binds the map to the first `size` bytes of `file`. Seeks move the offset the file shares with its duplicates.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated.
    pub fn new(file: &File, size: u64) -> io::Result<Self> {
        Ok(Self {
            file: file.try_clone()?,
            size,
        })
    }

    /// The next data range at or after `from`, clipped to the size; `None` where only a hole is left.
    fn next_data(&self, from: u64) -> Result<Option<(u64, u64)>, Errno> {
        let Ok(from) = i64::try_from(from) else {
            return Ok(None);
        };
        let data = match lseek(&self.file, from, Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        // A file that was cut between the two calls ends where the data was found.
        let hole = match lseek(&self.file, data, Whence::SeekHole) {
            Ok(hole) => hole,
            Err(Errno::ENXIO) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let (data, hole) = (data.unsigned_abs(), hole.unsigned_abs().min(self.size));
        Ok((data < hole).then_some((data, hole)))
    }
}

impl ChangedBlocks for HoleMap {
    fn capabilities(&self) -> Capabilities {
        Capabilities::without_base("hole-map", GRANULARITY)
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let (mut extents, mut position) = (0, 0);
        while position < self.size {
            let (start, end) = match self.next_data(position) {
                Ok(Some(range)) => range,
                Ok(None) => break,
                // The file system keeps no map. What was not told yet counts as data.
                Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ESPIPE | Errno::ENOTTY) => {
                    (position, self.size)
                }
                Err(errno) => return Err(seek_failed(position, errno)),
            };
            if !sink(Extent::data(start, end - start)) {
                return Err(stopped());
            }
            extents += 1;
            position = end;
        }
        Ok(Summary {
            size: ByteLen(self.size),
            extents,
        })
    }

    fn delta(&mut self, _sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        Err(SourceError::full("a hole map compares with nothing"))
    }
}

fn seek_failed(position: u64, errno: Errno) -> SourceError {
    SourceError::full(format!("look for data after byte {position}")).because(errno.into())
}

#[cfg(test)]
mod tests;
