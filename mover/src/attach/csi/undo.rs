//! Takes back what a run made, from what its journal says.
//!
//! Owns: the calls for each step back, and the entry after each. Must not: decide the order (`state` does), or touch anything that
//! the journal does not name.

use std::fs;
use std::io;
use std::path::Path;

use csi_proto::Code;

use super::answer::Outcome;
use super::base::{Bases, KeptBase};
use super::call::CallError;
use super::driver::Driver;
use super::journal::{self, Journal};
use super::state::{Entry, Undo};
use crate::error::{Error, ErrorKind, Result};

/// Takes everything back, and removes the journal.
///
/// # Errors
/// What the driver answers after all tries: the journal stays, and the next run goes on.
pub(super) fn all(driver: &Driver, bases: &Bases, mut journal: Journal) -> Result<()> {
    while let Some(undo) = journal.state().next_undo() {
        tracing::debug!(?undo, "take back");
        one(driver, bases, &mut journal, undo)?;
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
        one(driver, bases, journal, undo)?;
    }
    Ok(())
}

/// Takes back what stands before the volume itself: device, stage, attachment, folder.
///
/// # Errors
/// As [`all`].
pub(super) fn attachment(
    driver: &Driver,
    bases: &Bases,
    journal: &mut Journal,
    volume: &str,
) -> Result<()> {
    while let Some(undo) = journal.state().undo_attach(volume) {
        one(driver, bases, journal, undo)?;
    }
    Ok(())
}

fn one(driver: &Driver, bases: &Bases, journal: &mut Journal, undo: Undo) -> Result<()> {
    let entry = match undo {
        Undo::FindSnapshot(wanted) => match driver.create_snapshot(&wanted, None) {
            Ok(snapshot) => Entry::SnapshotMade { id: snapshot.id },
            Err(failed) => never_made(failed, Entry::SnapshotRefused)?,
        },
        Undo::FindVolume(wanted) => match driver.create_volume(&wanted, None) {
            Ok(volume) => Entry::VolumeMade { id: volume.id },
            Err(failed) => never_made(failed, Entry::VolumeRefused)?,
        },
        Undo::Unpublish(id, path) => {
            driver.unpublish(&id, &path)?;
            remove_target(&path)?;
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
        Undo::NoteBase(snapshot) => {
            let begun = journal.state().begun.clone();
            let begun = begun.ok_or_else(|| {
                Error::new(ErrorKind::Internal, "keep a base of a run that never began")
            })?;
            let old = journal.state().old_base.clone();
            if bases.succeed(&KeptBase::of(&begun, snapshot), old.as_deref())? {
                Entry::BaseNoted
            } else {
                Entry::BaseSuperseded
            }
        }
        Undo::DeleteOldBase(id) => {
            driver.delete_snapshot(&id)?;
            bases.forget_snapshot(journal.state().begun.as_ref(), &id)?;
            Entry::OldBaseDeleted
        }
        Undo::DeleteSnapshot(id) => {
            driver.delete_snapshot(&id)?;
            Entry::SnapshotDeleted
        }
    };
    journal.write(&entry)
}

/// A final refusal of the same request says that it made nothing. Where even that is not clear, the driver had its time: what it
/// says about space will not be another thing at the next start.
fn never_made(failed: CallError, entry: Entry) -> Result<Entry> {
    let is_final =
        failed.outcome == Outcome::NotDone || failed.code == Some(Code::ResourceExhausted);
    if is_final {
        Ok(entry)
    } else {
        Err(failed.error)
    }
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

/// The driver removes what it made; an empty file that it left is of no use to anybody.
fn remove_target(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {
            fs::remove_file(path).map_err(|error| journal::failed(path, error))
        }
        _ => Ok(()),
    }
}

/// Folders only, and empty ones only: whatever else is in there is somebody's.
fn remove_folder(path: &Path) -> Result<()> {
    for folder in [
        path.join(super::working_copy::STAGING),
        path.join(super::working_copy::PUBLISH),
        path.to_owned(),
    ] {
        match fs::remove_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::new(ErrorKind::Io, "remove the folder of a device")
                    .object(folder.display())
                    .hint("the driver left something in there: look what it is, and unmount or remove it")
                    .source(error));
            }
        }
    }
    Ok(())
}
