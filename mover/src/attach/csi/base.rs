//! The one snapshot that is kept for each volume and each name that it has in a repository, because the next delta needs it.
//!
//! ```text
//!   STATE/csi/bases/HASH.json       of driver, socket, volume, repository, and name of the volume in there
//! ```
//!
//! Owns: the notes, each replaced whole. Must not: delete a snapshot, or ask a driver. `lock` holds a volume.
//!
//! A socket is known by its canonical path. Notes that were made when it was known as somebody wrote it are found all the same:
//! by what they say, whatever the name of their file.

mod lock;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::{failed, make_folder, sync_folder};
use super::socket;
use super::state::Begun;
use crate::error::{Error, ErrorKind, Result};
pub use lock::VolumeLock;

/// A kept snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBase {
    /// Name of the driver.
    pub driver: String,
    /// Its socket.
    pub socket: PathBuf,
    /// The volume.
    pub volume: String,
    /// The repository.
    pub repository: String,
    /// Name of the volume in there: each has points of its own, and so a base of its own.
    pub name: String,
    /// The snapshot.
    pub snapshot: String,
    /// When it was taken, by the clock of the storage: seconds and nanoseconds. Drivers may give the id of one that is gone to
    /// another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<(i64, i32)>,
}

impl KeptBase {
    /// The snapshot of a run.
    #[must_use]
    pub fn of(begun: &Begun, snapshot: String) -> Self {
        Self {
            driver: begun.driver.clone(),
            socket: begun.socket.clone(),
            volume: begun.volume.clone().unwrap_or_default(),
            repository: begun.repository.clone(),
            name: begun.name.clone(),
            snapshot,
            created: None,
        }
    }

    /// The same, taken at this time of the storage.
    #[must_use]
    pub fn taken_at(mut self, created: Option<(i64, i32)>) -> Self {
        self.created = created;
        self
    }

    /// Whether both are for the same volume, repository and name.
    fn is_beside(&self, other: &Self) -> bool {
        let place = |base: &Self| {
            (
                base.driver.clone(),
                base.socket.clone(),
                base.volume.clone(),
                base.repository.clone(),
                base.name.clone(),
            )
        };
        place(self) == place(other)
    }
}

/// The notes of this machine.
#[derive(Clone, Debug)]
pub struct Bases {
    folder: PathBuf,
    locks: PathBuf,
}

impl Bases {
    /// The notes in these folders.
    #[must_use]
    pub fn at(folder: PathBuf, locks: PathBuf) -> Self {
        Self { folder, locks }
    }

    /// The base of a volume for a repository.
    ///
    /// # Errors
    /// `Io`, `AccessDenied` where the note cannot be read.
    pub fn find(&self, begun: &Begun) -> Result<Option<KeptBase>> {
        let base = KeptBase::of(begun, String::new());
        self.now(&base)
    }

    /// What is noted in the place of a note that was read before; only under the lock of its volume does that stay so.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn now(&self, base: &KeptBase) -> Result<Option<KeptBase>> {
        match read(&self.path(base))? {
            Some(found) => Ok(Some(found)),
            None => Ok(self
                .spelled(base)?
                .into_iter()
                .map(|(_, found)| found)
                .next()),
        }
    }

    /// Every note of a volume for a repository: first what [`find`](Self::find) tells, then those that were made under another
    /// spelling of the socket beside it.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn every(&self, begun: &Begun) -> Result<Vec<KeptBase>> {
        let base = KeptBase::of(begun, String::new());
        let mut every = Vec::from_iter(read(&self.path(&base))?);
        every.extend(self.spelled(&base)?.into_iter().map(|(_, found)| found));
        Ok(every)
    }

    /// Every base.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn all(&self) -> Result<Vec<KeptBase>> {
        let mut bases = Vec::new();
        for path in self.files()? {
            bases.extend(read(&path)?);
        }
        bases.sort_by(|a, b| {
            (&a.volume, &a.repository, &a.name).cmp(&(&b.volume, &b.repository, &b.name))
        });
        Ok(bases)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed(&self.folder, error))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&self.folder, error))?.path();
            if path.extension().is_some_and(|end| end == "json") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// The notes of this place under other names than its own. One that cannot be understood is somebody else's trouble.
    fn spelled(&self, base: &KeptBase) -> Result<Vec<(PathBuf, KeptBase)>> {
        let own = self.path(base);
        let others = self.files()?.into_iter().filter(|path| *path != own);
        let noted = others.filter_map(|path| {
            let found = read(&path).ok().flatten()?;
            Some((path, found))
        });
        Ok(noted.filter(|(_, found)| found.is_beside(base)).collect())
    }

    /// Notes a base, in the place of the one before.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `AccessDenied`.
    pub fn note(&self, base: &KeptBase) -> Result<()> {
        let path = self.path(base);
        let partial = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            make_folder(&self.folder)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(&serde_json::to_vec(base).map_err(io::Error::other)?)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            sync_folder(&self.folder)
        };
        write().map_err(|error| failed(&path, error))?;
        for (other, noted) in self.spelled(base)? {
            if noted.snapshot == base.snapshot {
                remove(&other)?;
            }
        }
        Ok(())
    }

    /// Notes a base if the one before is still `old`: a run that comes late must not take the place of a newer one. Whether it
    /// is noted.
    ///
    /// # Errors
    /// As [`note`](Self::note) and [`find`](Self::find).
    pub fn succeed(&self, base: &KeptBase, old: Option<&str>) -> Result<bool> {
        let present = self.now(base)?.map(|present| present.snapshot);
        // A run may have died after its note, before it wrote that it was done.
        if present.as_ref() == Some(&base.snapshot) {
            return Ok(true);
        }
        if present.as_deref() != old {
            return Ok(false);
        }
        self.note(base).map(|()| true)
    }

    /// Forgets a base that is gone, under whatever name it was noted. What was noted in its place meanwhile stays.
    ///
    /// # Errors
    /// `Io`, `AccessDenied`.
    pub fn forget(&self, base: &KeptBase) -> Result<()> {
        let own = self.path(base);
        let noted = read(&own)?.map(|noted| (own, noted));
        for (path, noted) in noted.into_iter().chain(self.spelled(base)?) {
            if noted.snapshot == base.snapshot {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Forgets the base of a run's volume and repository, if it is this snapshot, which is gone.
    ///
    /// # Errors
    /// `Io`, `AccessDenied`.
    pub fn forget_snapshot(&self, begun: Option<&Begun>, snapshot: &str) -> Result<()> {
        begun.map_or(Ok(()), |begun| {
            self.forget(&KeptBase::of(begun, snapshot.to_owned()))
        })
    }

    /// Ids of drivers are no names of files.
    fn path(&self, base: &KeptBase) -> PathBuf {
        let socket = base.socket.display().to_string();
        let name = hash(&[
            &base.driver,
            &socket,
            &base.volume,
            &base.repository,
            &base.name,
        ]);
        self.folder.join(format!("{name}.json"))
    }
}

fn hash(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        // With its length, so that no two lists run together.
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}

fn read(path: &Path) -> Result<Option<KeptBase>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| failed(path, error))?,
    };
    let base: KeptBase = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(ErrorKind::Io, "understand which base is kept")
            .object(path.display())
            .hint("remove the file; the snapshot that it named has to be deleted by hand")
            .source(error)
    })?;
    let socket = socket::canonical(&base.socket);
    Ok(Some(KeptBase { socket, ..base }))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
