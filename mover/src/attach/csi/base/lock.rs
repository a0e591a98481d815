//! The lock on a volume: one run of this machine works on it at a time.
//!
//! Owns: the files that are locked. Must not: know what the run does.
//!
//! A volume is held by the canonical path of its driver's socket, so that whoever writes the path in another way waits, too.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::super::journal::{failed, make_folder};
use super::{Bases, hash};
use crate::error::{Error, ErrorKind, Result};

/// How often a volume that is held is tried again.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Holds a volume: nobody else on this machine takes snapshots of it meanwhile.
pub struct VolumeLock {
    /// Let go of when it is dropped.
    _file: Flock<File>,
}

impl fmt::Debug for VolumeLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeLock")
    }
}

impl Bases {
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
            Ok(file) => Ok(VolumeLock { _file: file }),
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
}
