//! The metadata snapshot of a pool, held while tools read it.
//!
//! ```text
//!   lock ─► journal "reserving" ─► reserve + journal "held" ─► tools read ─► release + journal removed ─► unlock
//!           └─ killed anywhere: the lock becomes free, the journal tells the next run whose reservation it finds
//! ```
//!
//! Owns: that there is at most one, that ours is always released, and that nobody else's ever is. Must not: read metadata.
//!
//! A pool has one metadata snapshot, and keeps it over crashes and boots. The two steps that change it are made by a shell that
//! writes the journal too and shares the lock: a kill of this process between the kernel's answer and the journal cannot part them,
//! and the next run waits until it is done.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::mapper::{Pool, Status};
use super::tool::{DMSETUP, SHELL, first_lines};
use crate::source::{SourceError, SourceErrorKind};

/// Runs on volumes of one pool take turns; each holds the lock for as long as the tools read metadata.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// dmsetup ends with 1 where the kernel says no. $1 is dmsetup, $2 the pool, $3 the journal.
const RESERVE: &str = "\"$1\" message -- \"$2\" 0 reserve_metadata_snap
case $? in 0) ;; 1) exit 3 ;; *) exit 5 ;; esac
\"$1\" status -- \"$2\" >>\"$3\" || exit 4";
const RELEASE: &str = "\"$1\" message -- \"$2\" 0 release_metadata_snap || exit 3
: >\"$3\"";
const REFUSED: i32 = 3;
const NOT_NOTED: i32 = 4;

/// The metadata snapshot of a pool, ours until it is released or dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    pool: &'a Pool,
    journal: PathBuf,
    lock: Flock<File>,
    /// Whether there is something to release.
    ours: bool,
}

impl<'a> Reservation<'a> {
    /// Reserves the metadata snapshot of `pool`; what this program did is noted in `folder`.
    ///
    /// # Errors
    /// `Retry` where somebody else holds the snapshot, `FullBackup` where the pool makes none.
    pub(super) fn take(pool: &'a Pool, folder: &Path) -> Result<Self, SourceError> {
        make_folder(folder)?;
        let key = key_of(pool);
        let lock = lock(&folder.join(format!("{key}.lock")), pool)?;
        let mut reservation = Self {
            pool,
            journal: folder.join(format!("{key}.journal")),
            lock,
            ours: false,
        };
        reservation.clear_what_a_killed_run_left()?;
        reservation.reserve()?;
        Ok(reservation)
    }

    /// Gives the snapshot back.
    pub(super) fn release(mut self) -> Result<(), SourceError> {
        self.give_back()
    }

    /// Under the lock no living run of this program holds a snapshot: one that the journal tells of is a killed run's.
    fn clear_what_a_killed_run_left(&mut self) -> Result<(), SourceError> {
        let noted = read_journal(&self.journal)?;
        if noted == Noted::default() {
            return Ok(());
        }
        let status = self.pool.status()?;
        if let Some(unable) = status.unable {
            return Err(self.unable(unable));
        }
        match status.held {
            None => Ok(()),
            Some(held) if noted.held == Some(held) => {
                self.ours = true;
                self.give_back()
            }
            Some(_) => Err(self.held_already(&noted)),
        }
    }

    fn reserve(&mut self) -> Result<(), SourceError> {
        let (pid, boot) = (std::process::id(), boot_id());
        let written = write_durably(
            &self.journal,
            &format!("reserving by pid {pid} in boot {boot}\n"),
        );
        written.map_err(|error| journal_failed(&self.journal, error))?;
        match self.run(RESERVE)? {
            Outcome::Done => self.ours = true,
            Outcome::Failed(Some(REFUSED), complaint) => {
                let _ = fs::remove_file(&self.journal);
                return Err(self.refused(&complaint)?);
            }
            Outcome::Failed(code, complaint) => {
                // In doubt it stays, and the journal with it: another program may have been faster.
                self.ours = code == Some(NOT_NOTED);
                let name = &self.pool.name;
                return Err(retry(format!(
                    "whether the pool {name} made a metadata snapshot is not known: {complaint}"
                )));
            }
        }
        if read_journal(&self.journal)?.held.is_none() {
            let name = &self.pool.name;
            return Err(SourceError::full(format!(
                "the pool {name} shows no metadata snapshot after making one"
            )));
        }
        // A reservation survives a loss of power, so what tells whose it is does too.
        let synced = File::open(&self.journal).and_then(|journal| journal.sync_all());
        synced.map_err(|error| journal_failed(&self.journal, error))
    }

    /// Why the kernel made no snapshot.
    fn refused(&self, complaint: &str) -> Result<SourceError, SourceError> {
        let (name, status) = (&self.pool.name, self.pool.status()?);
        Ok(match status {
            Status {
                unable: Some(unable),
                ..
            } => self.unable(unable),
            Status { held: Some(_), .. } => self.held_already(&Noted::default()),
            _ => SourceError::full(format!(
                "the pool {name} makes no metadata snapshot: {complaint}"
            )),
        })
    }

    /// A pool that answers no message: it would not release either.
    fn unable(&self, why: &str) -> SourceError {
        SourceError::full(format!("the pool {} {why}", self.pool.name))
    }

    fn held_already(&self, noted: &Noted) -> SourceError {
        let name = &self.pool.name;
        let whose = match noted {
            Noted {
                reserving: Some(run),
                held: None,
            } => format!(
                "it may be left over from {run}, which was killed, but that is not certain. If no other program reads the pool"
            ),
            _ => "another program made it. If none is running any more".to_owned(),
        };
        retry(format!(
            "the pool {name} already has a metadata snapshot: {whose}, release it with `dmsetup message {name} 0 release_metadata_snap`"
        ))
    }

    fn give_back(&mut self) -> Result<(), SourceError> {
        if !std::mem::replace(&mut self.ours, false) {
            return Ok(());
        }
        if let Outcome::Failed(_, complaint) = self.run(RELEASE)? {
            // Somebody may have released it by hand.
            if self.pool.status()?.held.is_some() {
                let name = &self.pool.name;
                return Err(retry(format!(
                    "the metadata snapshot of the pool {name} is still held, the next run tries again to release it: {complaint}"
                )));
            }
        }
        // It is empty by now, which says as much.
        let _ = fs::remove_file(&self.journal);
        Ok(())
    }

    /// Runs a script in a shell that a kill of this process does not reach. It shares the lock, so that the next run waits for it.
    fn run(&self, script: &str) -> Result<Outcome, SourceError> {
        let lock = self.lock.try_clone();
        let lock = lock.map_err(|error| SourceError::full("share a lock").because(error))?;
        let mut command = SHELL.limited()?;
        command.stdin(lock);
        command.args(["-c", script, "sh"]).arg(DMSETUP.path()?);
        command.arg(&self.pool.name).arg(&self.journal);
        let output = command.output();
        let output = output.map_err(|error| SourceError::full("start a shell").because(error))?;
        if output.status.success() {
            return Ok(Outcome::Done);
        }
        let complaint = format!("{}: {}", output.status, first_lines(&output.stderr[..]));
        Ok(Outcome::Failed(output.status.code(), complaint))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // The journal stays where this fails, and the next run tries again.
        let _ = self.give_back();
    }
}

/// What became of a script.
enum Outcome {
    Done,
    /// With its exit code, and what it said.
    Failed(Option<i32>, String),
}

/// What the journal says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Noted {
    /// Which run set out to reserve.
    reserving: Option<String>,
    /// The block that it held, once it did.
    held: Option<u64>,
}

fn read_journal(journal: &Path) -> Result<Noted, SourceError> {
    let text = match fs::read_to_string(journal) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Noted::default()),
        Err(error) => return Err(journal_failed(journal, error)),
    };
    Ok(parse_journal(&text))
}

/// A journal that a crash cut says less, never something else: only whole lines count.
fn parse_journal(text: &str) -> Noted {
    let mut lines = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    let run = lines
        .next()
        .and_then(|line| line.strip_prefix("reserving by "));
    let status = lines.next().and_then(|line| Status::parse(line).ok());
    Noted {
        reserving: run.map(str::to_owned),
        held: run.and(status).and_then(|status| status.held),
    }
}

/// Names the pool in the folder: its uuid, or its name where it has none. A uuid may hold anything.
fn key_of(pool: &Pool) -> String {
    let (kind, text) = if pool.uuid.is_empty() {
        ("name", &pool.name)
    } else {
        ("uuid", &pool.uuid)
    };
    let safe = text.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => char::from(byte).to_string(),
        other => format!("_{other:02x}"),
    });
    let safe: String = safe.collect();
    format!("thin-{kind}-{}", safe.get(..MAX_KEY).unwrap_or(&safe))
}

/// A file name holds 255 bytes; a uuid of the device mapper 128, each of which may take three.
const MAX_KEY: usize = 200;

fn make_folder(folder: &Path) -> Result<(), SourceError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| {
        SourceError::full(format!("make the folder {}", folder.display())).because(error)
    })
}

fn lock(path: &Path, pool: &Pool) -> Result<Flock<File>, SourceError> {
    let failed = |error| SourceError::full(format!("lock {}", path.display())).because(error);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < deadline => {
                file = again;
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let name = &pool.name;
                return Err(retry(format!(
                    "other backups have been reading the metadata of the pool {name} for {LOCK_PATIENCE:?}"
                )));
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        std::thread::sleep(LOCK_POLL);
    }
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// For people: which boot a run belonged to.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_end().to_owned()
}

fn journal_failed(journal: &Path, error: io::Error) -> SourceError {
    SourceError::full(format!("keep the journal {}", journal.display())).because(error)
}

fn retry(message: String) -> SourceError {
    SourceError::new(SourceErrorKind::Retry, message)
}

#[cfg(test)]
mod tests;
