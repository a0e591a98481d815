//! Takes back what a run made, from what its journal says.
//!
//! Owns: the calls for each step back, and the entry after each. Must not: decide the order (`state` does), or touch anything that
//! the journal does not name.

use std::fs;
use std::io;
use std::path::Path;

use csi_proto::Code;

use super::answer::Purpose;
use super::base::{Bases, KeptBase};
use super::call::CallError;
use super::driver::Driver;
use super::journal::Journal;
use super::state::{Entry, Undo};
use super::working_copy;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// How many names of what a driver left in a folder are told.
const NAMED: usize = 3;

/// Takes everything back, and removes the journal.
///
/// # Errors
/// What the driver answers after all tries: the journal stays, and the next run goes on.
pub(super) fn all(driver: &Driver, bases: &Bases, journal: Journal) -> Result<()> {
    all_unless(driver, bases, journal, None)
}

/// The same, where a stop ends the search for what may exist. Nothing ends what is known to have to go.
///
/// # Errors
/// As [`all`]; `Interrupted`.
pub(super) fn all_unless(
    driver: &Driver,
    bases: &Bases,
    mut journal: Journal,
    stop: Option<&StopFlag>,
) -> Result<()> {
    while let Some(undo) = journal.state().next_undo() {
        tracing::debug!(?undo, "take back");
        one(driver, bases, &mut journal, (undo, new_stop(stop)))?;
    }
    journal.end()
}

/// Takes back everything but the snapshot, which may be the base of a point; the journal goes on to know of it.
///
/// # Errors
/// As [`all`].
pub(super) fn clone(driver: &Driver, bases: &Bases, journal: &mut Journal) -> Result<()> {
    while let Some(undo) = journal.state().undo_clone() {
        tracing::debug!(?undo, "take back");
        one(driver, bases, journal, (undo, None))?;
    }
    Ok(())
}

/// A stop that came before is why things are taken back: it does not end that, too.
fn new_stop(stop: Option<&StopFlag>) -> Option<&StopFlag> {
    stop.filter(|stop| !stop.is_stopped())
}

fn one(
    driver: &Driver,
    bases: &Bases,
    journal: &mut Journal,
    (undo, stop): (Undo, Option<&StopFlag>),
) -> Result<()> {
    let purpose = Purpose::Undo;
    let entry = match undo {
        Undo::FindSnapshot(wanted) => match driver.create_snapshot(&wanted, purpose, stop) {
            Ok(snapshot) => Entry::SnapshotMade {
                id: snapshot.id,
                created: snapshot.created,
            },
            Err(failed) => never_made(failed, Entry::SnapshotRefused)?,
        },
        Undo::FindVolume(wanted) => match driver.create_volume(&wanted, purpose, stop) {
            Ok(volume) => return working_copy::note_volume(journal, &volume),
            Err(failed) => never_made(failed, Entry::VolumeRefused)?,
        },
        Undo::Unpublish(id, path) => {
            driver.unpublish(&id, &path)?;
            remove_target(&path);
            Entry::Unpublished
        }
        Undo::Unstage(id, path) => {
            driver.unstage(&id, &path)?;
            Entry::Unstaged
        }
        Undo::Detach(id, node) => {
            detach(driver, &id, &node)?;
            Entry::Detached
        }
        Undo::RemoveFolder(path) => {
            remove_folder(&path)?;
            Entry::FolderRemoved
        }
        Undo::DeleteVolume(id) => {
            driver.delete_volume(&id)?;
            Entry::VolumeDeleted
        }
        Undo::NoteBase(snapshot) => note_base(bases, journal, snapshot)?,
        Undo::DeleteOldBase(id) => {
            driver.delete_snapshot(&id)?;
            bases.forget_snapshot(journal.state().begun.as_ref(), &id)?;
            Entry::OldBaseDeleted
        }
        Undo::DeleteStaleBase(id) => {
            driver.delete_snapshot(&id)?;
            bases.forget_snapshot(journal.state().begun.as_ref(), &id)?;
            Entry::StaleBaseDeleted { id }
        }
        Undo::DeleteSnapshot(id) => {
            driver.delete_snapshot(&id)?;
            Entry::SnapshotDeleted
        }
    };
    journal.write(&entry)
}

fn note_base(bases: &Bases, journal: &Journal, snapshot: String) -> Result<Entry> {
    let state = journal.state();
    let begun = state
        .begun
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "keep a base of a run that never began"))?;
    let base = KeptBase::of(begun, snapshot).taken_at(state.snapshot_created);
    let is_noted = bases.succeed(&base, state.old_base.as_deref())?;
    Ok(if is_noted {
        Entry::BaseNoted
    } else {
        Entry::BaseSuperseded
    })
}

/// Only where its source is gone, or nothing of its size can be, was it never made: secrets that are missing now were there then,
/// and what is full or out of order now was not.
fn never_made(failed: CallError, entry: Entry) -> Result<Entry> {
    match failed.code {
        Some(Code::NotFound | Code::OutOfRange) => Ok(entry),
        _ => Err(still_unknown(failed.error)),
    }
}

fn still_unknown(error: Error) -> Error {
    let why = error.hint_text().unwrap_or_default();
    let hint = format!(
        "{why}; whether that run made something is known only when the driver answers the same request: run again with the secrets \
         of that run"
    );
    error
        .context("look whether a run made something of which it never heard")
        .hint(hint)
}

/// A driver that does not know the volume any more cannot say that it is detached, and will not ever.
fn detach(driver: &Driver, id: &str, node: &str) -> Result<()> {
    match driver.detach(id, node) {
        Err(failed) if failed.code == Some(Code::NotFound) => {
            tracing::warn!(
                volume = id,
                node,
                "the driver does not know what is attached"
            );
            Ok(())
        }
        other => other.map_err(Error::from),
    }
}

/// The driver removes what it made; an empty file that it left is of no use to anybody. One that stays keeps the folder, which is
/// told, and nothing else.
fn remove_target(path: &Path) {
    let is_empty = |metadata: &fs::Metadata| metadata.is_file() && metadata.len() == 0;
    if fs::symlink_metadata(path).is_ok_and(|metadata| is_empty(&metadata))
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "the driver left a file that cannot be removed");
    }
}

/// Folders only, and empty ones only: whatever else is in there is somebody's, and what is mounted there has content of its own.
fn remove_folder(path: &Path) -> Result<()> {
    let parts = [
        path.join(working_copy::STAGING),
        path.join(working_copy::PUBLISH),
    ];
    // All of them, so that only what cannot go stays.
    let parts = parts.map(|folder| remove_empty(&folder));
    parts.into_iter().collect::<Result<()>>()?;
    remove_empty(path)
}

fn remove_empty(folder: &Path) -> Result<()> {
    let error = match fs::remove_dir(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => error,
    };
    // What is mounted there shows what is on the volume, not what was left.
    let names = (error.kind() == io::ErrorKind::DirectoryNotEmpty).then(|| inside(folder));
    let message = match names.flatten() {
        Some(names) => format!("remove the folder of a device: the driver left {names} in it"),
        None => "remove the folder of a device".to_owned(),
    };
    Err(Error::new(ErrorKind::Io, message)
        .object(folder.display())
        .hint("everything that was made is gone, only this folder is left: unmount or remove what is in it, if nobody needs it")
        .source(error))
}

/// Some names of what is in a folder, as a driver chose them.
fn inside(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let names = entries.map(|entry| format!("{:?}", entry.file_name()));
    let mut names: Vec<String> = names.take(NAMED + 1).collect();
    if names.len() > NAMED {
        names[NAMED] = "more".to_owned();
    }
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::answer::Outcome;
    use super::*;

    #[test]
    fn folders_go_and_what_others_left_in_them_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("f");
        let staging = folder.join(working_copy::STAGING);
        let publish = folder.join(working_copy::PUBLISH);
        let make = || {
            fs::create_dir_all(&staging).unwrap();
            fs::create_dir_all(&publish).unwrap();
        };
        make();
        remove_folder(&folder).unwrap();
        assert!(!folder.exists());
        remove_folder(&folder).unwrap();
        make();
        fs::create_dir_all(staging.join("deep/er")).unwrap();
        fs::write(staging.join("deep/er/note"), "somebody's").unwrap();
        let refused = remove_folder(&folder).unwrap_err();
        assert!(
            refused.message().contains("left \"deep\" in it"),
            "{refused}"
        );
        assert_eq!(refused.object_name(), Some(&*staging.display().to_string()));
        assert_eq!(
            fs::read_to_string(staging.join("deep/er/note")).unwrap(),
            "somebody's"
        );
        assert!(!publish.exists(), "the empty one went");
        for name in ["b", "c", "d"] {
            fs::write(staging.join(name), "").unwrap();
        }
        let refused = remove_folder(&folder).unwrap_err();
        assert!(refused.message().contains(", more in it"), "{refused}");
        fs::remove_dir_all(&staging).unwrap();
        remove_folder(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn the_stop_that_ended_the_run_does_not_end_what_follows() {
        let stop = StopFlag::default();
        assert!(new_stop(Some(&stop)).is_some());
        stop.stop();
        assert!(new_stop(Some(&stop)).is_none());
    }

    #[test]
    fn only_a_source_that_is_gone_says_that_nothing_was_made() {
        for number in 1..=16 {
            let code = Code::from(number);
            let failed = CallError {
                error: Error::new(ErrorKind::AccessDenied, "create").hint("give the secrets"),
                outcome: Outcome::NotDone,
                code: Some(code),
            };
            let is_clear = matches!(code, Code::NotFound | Code::OutOfRange);
            match never_made(failed, Entry::VolumeRefused) {
                Ok(entry) => assert!(is_clear && entry == Entry::VolumeRefused, "{code:?}"),
                Err(error) => {
                    assert!(!is_clear, "{code:?}");
                    let hint = error.hint_text().unwrap();
                    assert!(hint.starts_with("give the secrets; "), "{hint}");
                }
            }
        }
        let stopped = CallError {
            error: Error::new(ErrorKind::Interrupted, "stop").hint("run again"),
            outcome: Outcome::Unknown,
            code: None,
        };
        never_made(stopped, Entry::SnapshotRefused).unwrap_err();
    }
}
