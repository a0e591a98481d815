//! Whether two files hold the same bytes.
//!
//! Owns: that comparison, read through the page cache on purpose: by another way than the data path that is on show. Where
//! both files have a hole, nothing is read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::unistd::{Whence, lseek};

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

const BLOCK_BYTES: u64 = 1 << 20;

/// Compares both files to their ends; returns how many bytes of each had to be read.
pub(super) fn identical(a: &Path, b: &Path, stop: &StopFlag) -> Result<u64> {
    let (mut side_a, mut side_b) = (Side::open(a)?, Side::open(b)?);
    if side_a.len != side_b.len {
        let message = format!(
            "compare the restored disk: it has {} bytes, not {}",
            side_b.len, side_a.len
        );
        return Err(Error::new(ErrorKind::Internal, message).object(b.display()));
    }
    let (mut offset, mut read) = (0_u64, 0_u64);
    while offset < side_a.len {
        stop.check()?;
        let len = BLOCK_BYTES.min(side_a.len - offset);
        if side_a.has_data(offset, len) || side_b.has_data(offset, len) {
            if side_a.read(offset, len)? != side_b.read(offset, len)? {
                let message =
                    format!("compare the restored disk: it differs in the MiB at {offset:#x}");
                return Err(Error::new(ErrorKind::Internal, message).object(b.display()));
            }
            read += len;
        }
        offset += len;
    }
    Ok(read)
}

/// One of the files.
struct Side<'a> {
    path: &'a Path,
    file: File,
    len: u64,
    /// Everything before it, from where it was asked for last, is a hole.
    next_data: u64,
    block: Vec<u8>,
}

impl<'a> Side<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|error| read_error(path, error))?;
        Ok(Self {
            path,
            file,
            len,
            next_data: 0,
            block: Vec::new(),
        })
    }

    /// Whether the range may hold anything but a hole. Ranges are asked for in ascending order.
    fn has_data(&mut self, offset: u64, len: u64) -> bool {
        if self.next_data < offset {
            self.next_data = self.find_data(offset);
        }
        self.next_data < offset + len
    }

    /// The first data at or after `offset`; whatever the file system cannot tell counts as data.
    fn find_data(&self, offset: u64) -> u64 {
        let Ok(from) = i64::try_from(offset) else {
            return offset;
        };
        match lseek(&self.file, from, Whence::SeekData) {
            Ok(found) => u64::try_from(found).unwrap_or(offset),
            Err(nix::errno::Errno::ENXIO) => self.len,
            Err(_) => offset,
        }
    }

    fn read(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        self.block
            .resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        let result = self.file.read_exact_at(&mut self.block, offset);
        result.map_err(|error| read_error(self.path, error))?;
        Ok(&self.block)
    }
}

fn read_error(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "read a disk to compare it")
        .object(path.display())
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(a: &[u8], b: &[u8]) -> Result<u64> {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        std::fs::write(&paths[0], a).unwrap();
        std::fs::write(&paths[1], b).unwrap();
        identical(&paths[0], &paths[1], &StopFlag::default())
    }

    #[test]
    fn any_difference_is_found() {
        let long = vec![7; (1 << 20) + 5];
        assert_eq!(compare(&long, &long).unwrap(), 1_048_581);
        assert_eq!(compare(b"", b"").unwrap(), 0);
        let mut other = long.clone();
        *other.last_mut().unwrap() = 8;
        assert_eq!(
            compare(&long, &other).unwrap_err().kind(),
            ErrorKind::Internal
        );
        assert!(compare(&long, &long[1..]).is_err());
        assert!(compare(&long[..1 << 20], &long).is_err());
    }

    #[test]
    fn holes_are_zeros_and_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        let sparse = |path: &Path, at: u64, byte: u8| {
            let file = File::create(path).unwrap();
            file.set_len(64 << 20).unwrap();
            file.write_all_at(&[byte; 4096], at).unwrap();
        };
        let stop = StopFlag::default();
        sparse(&paths[0], 5 << 20, 0);
        sparse(&paths[1], 40 << 20, 0);
        let read = identical(&paths[0], &paths[1], &stop).unwrap();
        assert!(read <= 64 << 20, "{read}");
        sparse(&paths[1], 63 << 20, 1);
        assert!(
            identical(&paths[0], &paths[1], &stop).is_err(),
            "data in one, a hole in the other"
        );
    }
}
