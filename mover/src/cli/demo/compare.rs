//! Whether two files hold the same bytes.
//!
//! Owns: that comparison, read through the page cache on purpose: by another way than the data path that is on show.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

const BLOCK_BYTES: usize = 1 << 20;

/// Compares both files to their ends; returns how many bytes each holds.
pub(super) fn identical(a: &Path, b: &Path, stop: &StopFlag) -> Result<u64> {
    let (mut file_a, mut file_b) = (open(a)?, open(b)?);
    let (mut block_a, mut block_b) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let mut offset = 0_u64;
    loop {
        stop.check()?;
        let len_a = fill(&mut file_a, &mut block_a).map_err(|error| read_error(a, error))?;
        let len_b = fill(&mut file_b, &mut block_b).map_err(|error| read_error(b, error))?;
        if block_a[..len_a] != block_b[..len_b] {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("compare the restored disk: it differs in the MiB at {offset:#x}"),
            )
            .object(b.display()));
        }
        if len_a == 0 {
            return Ok(offset);
        }
        offset = offset.saturating_add(u64::try_from(len_a).unwrap_or(u64::MAX));
    }
}

/// Reads until the block is full or the file ends.
fn fill(file: &mut File, block: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < block.len() {
        match file.read(&mut block[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| read_error(path, error))
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
        let long = vec![7; BLOCK_BYTES + 5];
        assert_eq!(compare(&long, &long).unwrap(), 1_048_581);
        assert_eq!(compare(b"", b"").unwrap(), 0);
        let mut other = long.clone();
        *other.last_mut().unwrap() = 8;
        assert_eq!(
            compare(&long, &other).unwrap_err().kind(),
            ErrorKind::Internal
        );
        assert!(compare(&long, &long[1..]).is_err());
        assert!(compare(&long[..BLOCK_BYTES], &long).is_err());
    }
}
