//! The file of the memory.
//!
//! Owns: where it is, and that it is replaced whole. Must not: know what is in it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::ledger::Ledger;
use crate::error::{Error, ErrorKind, Result};

/// A hundred bytes a volume: more is another file.
const MAX_LEN: u64 = 256 << 20;

/// The folder for state, by the XDG base directory rules; `None` where there is no home for it.
pub(super) fn folder(state_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let state_home = state_home.map(Path::new).filter(|path| path.is_absolute());
    // A home that does not exist is made by nobody who only wanted to keep notes.
    let base = match (state_home, home.map(Path::new)) {
        (Some(path), _) => path.to_owned(),
        (None, Some(home)) if home.is_absolute() && home.is_dir() => home.join(".local/state"),
        _ => return None,
    };
    Some(base.join("snaphaul"))
}

/// Reads the file; an empty ledger where there is none.
///
/// # Errors
/// `Io` where it cannot be read or is none of ours.
pub(super) fn read(path: &Path) -> Result<Ledger> {
    let failed = |what: &str| Error::new(ErrorKind::Io, what).object(path.display());
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(Ledger::default()),
        Err(error) => {
            return Err(failed("read what this machine remembers of the repository").source(error));
        }
    };
    let mut text = String::new();
    file.take(MAX_LEN)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| Ledger::from_json(&text))
        .ok_or_else(|| failed("understand what this machine remembers of the repository"))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Replaces the file. It names volumes, so only its owner can read it.
///
/// # Errors
/// What the system answers.
pub(super) fn write(path: &Path, ledger: &Ledger) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let partial = path.with_extension(format!("{}.tmp", std::process::id()));
    let replace = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(ledger.to_json().map_err(io::Error::other)?.as_bytes())?;
        fs::rename(&partial, path)
    };
    replace().inspect_err(|_| {
        // The part is of no use to anybody; that it stays behind is no second failure.
        let _ = fs::remove_file(&partial);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_is_where_the_rules_say() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let os = |text: &'static str| Some(OsStr::new(text));
        let under_home = Some(home.join(".local/state/snaphaul"));
        assert_eq!(
            folder(os("/state"), os("/none")),
            Some("/state/snaphaul".into())
        );
        assert_eq!(folder(None, Some(home.as_os_str())), under_home);
        assert_eq!(folder(os("relative"), Some(home.as_os_str())), under_home);
        assert_eq!(folder(os(""), os("/nonexistent")), None);
        assert_eq!(folder(None, None), None);
    }

    #[test]
    fn a_file_is_private_and_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/ledger.json");
        assert_eq!(read(&path).unwrap(), Ledger::default());
        write(&path, &Ledger::default()).unwrap();
        write(&path, &Ledger::default()).unwrap();
        assert_eq!(read(&path).unwrap(), Ledger::default());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::write(&path, "else").unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::Io);
    }
}
