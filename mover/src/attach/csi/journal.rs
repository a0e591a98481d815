//! The journal of a run: one file, one line a step, on the disk before the step is taken.
//!
//! ```text
//!   STATE/csi/sessions/SESSION.jsonl       locked while its run lives; removed when nothing is left of the run
//! ```
//!
//! Owns: the files, their locks, and that a line is on the disk before the call that it announces. Must not: hold a secret, or
//! decide what to take back (`state` does).
//!
//! The lock ends with its process, however that ends: a file that can be locked belongs to a run that is dead.

mod dying;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::socket;
use super::state::{Begun, Entry, State, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::random;

/// A run has a few dozen lines.
const MAX_LEN: u64 = 16 << 20;
const EXTENSION: &str = "jsonl";

/// The journal of a run that lives: ours, or a dead one that is being taken back.
pub struct Journal {
    path: PathBuf,
    file: Flock<File>,
    /// Bytes of whole lines: what lies behind was never acted on, and nothing may follow it.
    len: u64,
    state: State,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What is found at a start.
#[derive(Debug)]
pub enum Found {
    /// A run that died.
    Dead(Box<Journal>),
    /// A journal that cannot be understood, and why.
    Unreadable(PathBuf, String),
}

impl Journal {
    /// Begins a run.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `AccessDenied` where the line cannot be brought to the disk.
    pub fn begin(folder: &Path, begun: Begun) -> Result<Self> {
        make_folder(folder).map_err(|error| failed(folder, error))?;
        let session: String = random::<12>()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let path = folder.join(format!("{session}.{EXTENSION}"));
        let file = create_locked(&path).map_err(|error| failed(&path, error))?;
        let mut journal = Self {
            path,
            file,
            len: 0,
            state: State::default(),
        };
        journal.write(&Entry::Begin(begun))?;
        sync_folder(folder).map_err(|error| failed(folder, error))?;
        Ok(journal)
    }

    /// Name of the run: random, letters and digits.
    #[must_use]
    pub fn session(&self) -> &str {
        self.path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default()
    }

    /// What the entries add up to.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Brings one more entry to the disk.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn write(&mut self, entry: &Entry) -> Result<()> {
        dying::here("before", entry);
        let mut line = serde_json::to_vec(entry).map_err(|error| {
            Error::new(ErrorKind::Internal, "write a line of a journal").source(error)
        })?;
        line.push(b'\n');
        self.append(&line)
            .map_err(|error| failed(&self.path, error))?;
        self.state.apply(entry);
        dying::here("after", entry);
        Ok(())
    }

    /// Brings a line to the disk, or leaves the file as it was: a part of a line in the middle would make all of it useless.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.metadata()?.len() != self.len {
            self.file.set_len(self.len)?;
        }
        let written = self.file.write_all(line);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Where not even that works, the next line tries it again, or whoever finds the file does.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += u64::try_from(line.len()).unwrap_or_default();
        Ok(())
    }

    /// Removes the file: nothing is left of the run.
    ///
    /// # Errors
    /// `Io`; `Internal` where something is left.
    pub fn end(self) -> Result<()> {
        if let Some(left) = self.state.next_undo() {
            let message = format!("forget a run that left something behind: {left:?}");
            return Err(Error::new(ErrorKind::Internal, message).object(self.path.display()));
        }
        // Under the lock, so that nobody takes it for the journal of a dead run.
        fs::remove_file(&self.path).map_err(|error| failed(&self.path, error))
    }
}

/// The journals of dead runs in a folder.
///
/// # Errors
/// `Io`, `AccessDenied` where the folder cannot be read.
pub fn dead(folder: &Path) -> Result<Vec<Found>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(folder, error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if path.extension().is_some_and(|end| end == EXTENSION) {
            found.extend(open_dead(&path)?);
        }
    }
    Ok(found)
}

/// `None` for the journal of a run that lives, or that is gone meanwhile.
fn open_dead(path: &Path) -> Result<Option<Found>> {
    let file = match OpenOptions::new().read(true).append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| failed(path, error))?,
    };
    let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        return Ok(None);
    };
    if !is_at(&file, path) {
        return Ok(None);
    }
    Ok(Some(match read_whole(&file) {
        Ok((state, len)) => Found::Dead(Box::new(Journal {
            path: path.to_owned(),
            file,
            len,
            state,
        })),
        Err(why) => Found::Unreadable(path.to_owned(), why),
    }))
}

/// What the whole lines of a file add up to, and their bytes. A last line without an end was being written when the run died,
/// before what it announces.
fn read_whole(file: &File) -> std::result::Result<(State, u64), String> {
    let mut bytes = Vec::new();
    let mut limited = file.take(MAX_LEN + 1);
    let read = limited.read_to_end(&mut bytes);
    let len = read.map_err(|error| error.to_string())?;
    if u64::try_from(len).map_or(true, |len| len > MAX_LEN) {
        return Err(format!("it has more than {MAX_LEN} bytes"));
    }
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    // The cut may go through a letter of several bytes, so that only whole lines are text.
    bytes.truncate(end.map_or(0, |end| end + 1));
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let len = u64::try_from(bytes.len()).map_err(|error| error.to_string())?;
    Ok((parse(text)?, len))
}

/// Understands the whole lines of a journal.
fn parse(text: &str) -> std::result::Result<State, String> {
    let mut state = State::default();
    for (number, line) in text.lines().enumerate() {
        let entry: Entry = serde_json::from_str(line)
            .map_err(|error| format!("line {} is not understood: {error}", number + 1))?;
        state.apply(&entry);
    }
    match &state.begun {
        Some(begun) if begun.version != VERSION => {
            return Err(format!(
                "it has version {}, written by another version of Snaphaul",
                begun.version
            ));
        }
        _ => {}
    }
    if let Some(begun) = &mut state.begun {
        // Earlier versions knew a socket as somebody had written it.
        begun.socket = socket::canonical(&begun.socket);
    }
    Ok(state)
}

fn create_locked(path: &Path) -> io::Result<Flock<File>> {
    loop {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        // Somebody who cleans up may have seen it between the two, unlocked and empty, and removed it.
        if is_at(&file, path) {
            return Ok(file);
        }
    }
}

/// Whether the name still leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => inode(open) == inode(named),
        _ => false,
    }
}

/// Makes a folder that only its owner can look into, and makes it last: it tells which volumes there are.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    let made: Vec<&Path> = folder.ancestors().take_while(|it| !it.exists()).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // What stands in a folder that is gone after a power cut is gone, too.
    for parent in made.into_iter().filter_map(Path::parent) {
        match sync_folder(parent) {
            // Who may not read a folder may stand in it all the same.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            // The working directory, which a relative path ends at.
            Err(_) if parent.as_os_str().is_empty() => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn failed(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::AccessDenied
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    };
    Error::new(kind, "note what this run makes")
        .object(path.display())
        .hint("--csi-state names a folder on a disk that can be written")
        .source(error)
}

#[cfg(test)]
mod tests;
