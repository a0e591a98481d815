//! The one snapshot that is kept for each volume and each name that it has in a repository, because the next delta needs it.
//!
//! ```text
//!   STATE/csi/bases/HASH.json       of driver, socket, volume, repository, and name of the volume in there
//! ```
//!
//! Owns: the notes, each replaced whole, and the lock on a volume. Must not: delete a snapshot.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::journal::{failed, make_folder, sync_folder};
use super::state::Begun;
use crate::error::{Error, ErrorKind, Result};

/// How often a volume that is held is tried again.
const LOOK: Duration = Duration::from_millis(50);

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
        }
    }
}

/// The notes of this machine.
#[derive(Clone, Debug)]
pub struct Bases {
    folder: PathBuf,
    locks: PathBuf,
}

/// Holds a volume: nobody else on this machine takes snapshots of it meanwhile.
pub struct VolumeLock(#[allow(dead_code, reason = "held until it is dropped")] Flock<File>);

impl fmt::Debug for VolumeLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeLock")
    }
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
        read(&self.path(base))
    }

    /// Every base.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn all(&self) -> Result<Vec<KeptBase>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed(&self.folder, error))?,
        };
        let mut bases = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&self.folder, error))?.path();
            if path.extension().is_some_and(|end| end == "json") {
                bases.extend(read(&path)?);
            }
        }
        bases.sort_by(|a, b| {
            (&a.volume, &a.repository, &a.name).cmp(&(&b.volume, &b.repository, &b.name))
        });
        Ok(bases)
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
        write().map_err(|error| failed(&path, error))
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

    /// Forgets a base that is gone.
    ///
    /// # Errors
    /// `Io`, `AccessDenied`.
    pub fn forget(&self, base: &KeptBase) -> Result<()> {
        let path = self.path(base);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        }
    }

    /// Forgets the base of a run's volume and repository, if it is this snapshot, which is gone.
    ///
    /// # Errors
    /// `Io`, `AccessDenied`.
    pub fn forget_snapshot(&self, begun: Option<&Begun>, snapshot: &str) -> Result<()> {
        let noted = begun.map(|begun| self.find(begun)).transpose()?.flatten();
        match noted.filter(|base| base.snapshot == snapshot) {
            Some(base) => self.forget(&base),
            None => Ok(()),
        }
    }

    /// Takes hold of a volume.
    ///
    /// # Errors
    /// `Unavailable` while another run holds it.
    pub fn lock(&self, driver: &str, socket: &Path, volume: &str) -> Result<VolumeLock> {
        let name = hash(&[driver, &socket.display().to_string(), volume]);
        let path = self.locks.join(name);
        let open = || {
            make_folder(&self.locks)?;
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
        };
        let file = open().map_err(|error| failed(&path, error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(VolumeLock(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Error::new(
                ErrorKind::Unavailable,
                "work on a volume that another run of this machine works on",
            )
            .object(volume)
            .hint("run again when it has ended")),
            Err((_, errno)) => Err(failed(&path, errno.into())),
        }
    }

    /// Takes hold of a volume as soon as it is free: whoever cleans up may have it for a moment.
    ///
    /// # Errors
    /// `Unavailable` while another run holds it for longer than `patience`.
    pub fn lock_within(
        &self,
        (driver, socket, volume): (&str, &Path, &str),
        patience: Duration,
    ) -> Result<VolumeLock> {
        let started = Instant::now();
        loop {
            match self.lock(driver, socket, volume) {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && started.elapsed() < patience =>
                {
                    std::thread::sleep(LOOK);
                }
                lock => return lock,
            }
        }
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
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Error::new(ErrorKind::Io, "understand which base is kept")
            .object(path.display())
            .hint("remove the file; the snapshot that it named has to be deleted by hand")
            .source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(volume: &str, repository: &str) -> KeptBase {
        KeptBase {
            driver: "d".to_owned(),
            socket: "/s".into(),
            volume: volume.to_owned(),
            repository: repository.to_owned(),
            name: String::new(),
            snapshot: format!("{volume}-{repository}"),
        }
    }

    fn begun(volume: &str, repository: &str) -> Begun {
        Begun {
            version: 1,
            driver: "d".to_owned(),
            socket: "/s".into(),
            volume: Some(volume.to_owned()),
            repository: repository.to_owned(),
            name: String::new(),
            keeps_base: true,
        }
    }

    #[test]
    fn there_is_one_for_each_volume_and_repository() {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
        assert_eq!(bases.all().unwrap(), []);
        let ids = [("v/../1", "r"), ("v/../1", "s"), ("v", "/../1r")];
        for (volume, repository) in ids {
            bases.note(&base("old", "r")).unwrap();
            bases.note(&base(volume, repository)).unwrap();
        }
        assert_eq!(bases.all().unwrap().len(), 4);
        for (volume, repository) in ids {
            let found = bases.find(&begun(volume, repository)).unwrap();
            assert_eq!(found, Some(base(volume, repository)));
        }
        bases.forget(&base("v", "/../1r")).unwrap();
        bases.forget(&base("v", "/../1r")).unwrap();
        assert_eq!(bases.find(&begun("v", "/../1r")).unwrap(), None);
    }

    #[test]
    fn each_name_of_a_volume_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
        let named = |name: &str| Begun {
            name: name.to_owned(),
            ..begun("v", "r")
        };
        for name in ["a", "b"] {
            let kept = KeptBase::of(&named(name), format!("s-{name}"));
            bases.note(&kept).unwrap();
        }
        for name in ["a", "b"] {
            let found = bases.find(&named(name)).unwrap().unwrap();
            assert_eq!(found.snapshot, format!("s-{name}"));
        }
    }

    #[test]
    fn who_comes_late_does_not_take_the_place_of_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
        let of = |snapshot: &str| KeptBase::of(&begun("v", "r"), snapshot.to_owned());
        assert!(bases.succeed(&of("s1"), None).unwrap());
        assert!(bases.succeed(&of("s2"), Some("s1")).unwrap());
        // The same again, because it died in between.
        assert!(bases.succeed(&of("s2"), Some("s1")).unwrap());
        assert!(!bases.succeed(&of("late"), Some("s1")).unwrap());
        assert!(!bases.succeed(&of("late"), None).unwrap());
        let noted = bases.find(&begun("v", "r")).unwrap().unwrap();
        assert_eq!(noted.snapshot, "s2");
    }

    #[test]
    fn a_volume_that_is_held_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
        let subject = ("d", Path::new("/s"), "v");
        let held = bases.lock(subject.0, subject.1, subject.2).unwrap();
        let refused = bases.lock_within(subject, LOOK).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| bases.lock_within(subject, Duration::from_secs(60)));
            drop(held);
            waits.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_volume_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let bases = Bases::at(folder.path().join("b"), folder.path().join("l"));
        let held = bases.lock("d", Path::new("/s"), "v").unwrap();
        let refused = bases.lock("d", Path::new("/s"), "v").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        bases.lock("d", Path::new("/s"), "w").unwrap();
        drop(held);
        bases.lock("d", Path::new("/s"), "v").unwrap();
    }
}
