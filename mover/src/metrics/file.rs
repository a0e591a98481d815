//! The file that a collector reads.
//!
//! Owns: replacing it whole. Must not: know what is in it.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Writes `text` to `path` so that a reader sees the old text or the new one, never a part.
///
/// # Errors
/// `Io`, with the path.
pub fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let partial = partial_path(path);
    let write = || {
        let mut file = fs::File::create(&partial)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // The part is of no use to anybody; that it stays behind is no second failure.
        let _ = fs::remove_file(&partial);
        Error::new(ErrorKind::Io, "write the metrics file")
            .object(path.display())
            .source(error)
    })
}

/// Beside the file, so that the rename stays on one file system; not `*.prom`, which a collector would read.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.prom");
        write_atomically(&path, "old").unwrap();
        write_atomically(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomically(&folder.path().join("no/run.prom"), "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.object_name().unwrap().ends_with("no/run.prom"));
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomically(&folder.path().join("taken"), "x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
