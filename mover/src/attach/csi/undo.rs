//! Takes back what a run made, from what its journal says.
//!
//! Owns: the calls for each step back, the entry after each, and when a search is given up. Must not: decide the order (`state`
//! does), look for what may exist (`search` does), or touch anything that the journal does not name.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use csi_proto::Code;

use super::base::{Bases, KeptBase};
use super::driver::Driver;
use super::journal::Journal;
use super::search::{self, Search};
use super::state::{Entry, State, Thing, Undo, WantedSnapshot, WantedVolume};
use super::sweep;
use super::working_copy;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// How many names of what a driver left in a folder are told.
const NAMED: usize = 3;
/// How often runs ask in vain for what may exist before they give it up.
const IN_VAIN: u32 = 3;

/// How things are taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back<'a> {
    pub driver: &'a Driver,
    pub bases: &'a Bases,
    /// Ends the search for what may exist. Nothing ends what is known to have to go.
    pub stop: Option<&'a StopFlag>,
    /// Whether a search in vain counts: whoever only passes by does not bring the end of the search nearer.
    pub counts: bool,
    /// Whether a folder that stays is told, and no error: it costs nothing, and keeps nobody from working.
    pub tells_folders: bool,
    /// Whether the run ends now. Of the snapshot of one that died, somebody may have made a volume to rescue what is in it.
    pub is_own: bool,
}

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
    journal: Journal,
    stop: Option<&StopFlag>,
) -> Result<()> {
    let back = Back {
        driver,
        bases,
        stop,
        counts: true,
        tells_folders: false,
        is_own: true,
    };
    // The first search of a run is never its last.
    back.all(journal).map(drop)
}

/// Takes back everything but the snapshot, which may be the base of a point; the journal goes on to know of it.
///
/// # Errors
/// As [`all`].
pub(super) fn clone(driver: &Driver, bases: &Bases, journal: &mut Journal) -> Result<()> {
    let back = Back {
        driver,
        bases,
        stop: None,
        counts: true,
        tells_folders: false,
        is_own: true,
    };
    back.clone_of(journal).map(drop)
}

/// A stop that came before is why things are taken back: it does not end that, too.
fn new_stop(stop: Option<&StopFlag>) -> Option<&StopFlag> {
    stop.filter(|stop| !stop.is_stopped())
}

impl Back<'_> {
    /// As [`all`]. What was given up is told.
    pub(super) fn all(&self, mut journal: Journal) -> Result<Vec<String>> {
        let mut told = Vec::new();
        while let Some(undo) = journal.state().next_undo() {
            tracing::debug!(?undo, "take back");
            if self.step(&mut journal, undo, &mut told)?.is_break() {
                return Ok(told);
            }
        }
        journal.end()?;
        Ok(told)
    }

    /// As [`clone`]. What was given up is told.
    pub(super) fn clone_of(&self, journal: &mut Journal) -> Result<Vec<String>> {
        let mut told = Vec::new();
        while let Some(undo) = journal.state().undo_clone() {
            tracing::debug!(?undo, "take back");
            if self.step(journal, undo, &mut told)?.is_break() {
                break;
            }
        }
        Ok(told)
    }

    /// One step. The folder is the last one: where it stays the journal does, and the next run tries again.
    fn step(
        &self,
        journal: &mut Journal,
        undo: Undo,
        told: &mut Vec<String>,
    ) -> Result<ControlFlow<()>> {
        let is_told = self.tells_folders && matches!(undo, Undo::RemoveFolder(_));
        match self.one(journal, undo) {
            Err(error) if is_told => {
                told.push(format!(
                    "a folder of run {} stays: {}",
                    journal.session(),
                    sweep::with_causes(&error)
                ));
                Ok(ControlFlow::Break(()))
            }
            more => {
                told.extend(more?);
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn one(&self, journal: &mut Journal, undo: Undo) -> Result<Option<String>> {
        match undo {
            Undo::FindSnapshot(wanted) => self.find_snapshot(journal, &wanted),
            Undo::FindVolume(wanted) => self.find_volume(journal, &wanted),
            known => {
                let entry = take_back(self.driver, self.bases, journal, known)?;
                journal.write(&entry).map(|()| None)
            }
        }
    }

    fn find_snapshot(
        &self,
        journal: &mut Journal,
        wanted: &WantedSnapshot,
    ) -> Result<Option<String>> {
        let known = known(self.driver, self.bases, journal.state());
        let entry = match search::snapshot(self.driver, wanted, &known, new_stop(self.stop))? {
            Search::There(snapshot) => Entry::SnapshotMade {
                id: snapshot.id,
                created: snapshot.created,
            },
            Search::Never => Entry::SnapshotRefused,
            Search::InVain(error) => {
                return self.in_vain(journal, (&wanted.name, &Entry::SnapshotRefused), error);
            }
        };
        journal.write(&entry).map(|()| None)
    }

    fn find_volume(&self, journal: &mut Journal, wanted: &WantedVolume) -> Result<Option<String>> {
        let own = match &journal.state().snapshot {
            Thing::Made(id) if self.is_own => Some(id.clone()),
            Thing::Made(_) | Thing::Absent | Thing::Wanted(_) => None,
        };
        match search::volume(self.driver, wanted, own.as_deref(), new_stop(self.stop))? {
            Search::There(volume) => working_copy::note_volume(journal, &volume)?,
            Search::Never => journal.write(&Entry::VolumeRefused)?,
            Search::InVain(error) => {
                return self.in_vain(journal, (&wanted.name, &Entry::VolumeRefused), error);
            }
        }
        Ok(None)
    }

    /// Nobody waits for ever for a driver that says nothing of use: after some runs it is taken at its word.
    fn in_vain(
        &self,
        journal: &mut Journal,
        (name, given_up): (&str, &Entry),
        error: Error,
    ) -> Result<Option<String>> {
        if !self.counts {
            return Err(error);
        }
        let asked = journal.state().in_vain + 1;
        if asked >= IN_VAIN {
            let told = format!(
                "an earlier run may have made {name}, and the driver was asked {asked} times in vain: that is given up; if the storage \
                 system has something by this name, delete it there"
            );
            tracing::warn!(name, error = sweep::with_causes(&error), "given up");
            return journal.write(given_up).map(|()| Some(told));
        }
        journal.write(&Entry::AskedInVain)?;
        let why = error.hint_text().unwrap_or_default();
        let hint = match IN_VAIN - asked {
            1 => format!("{why}; the next run gives that up"),
            more => format!("{why}; {more} more runs ask"),
        };
        Err(error.hint(hint))
    }
}

/// The snapshots of which something is known: none of them can be the one that a run never heard of.
fn known(driver: &Driver, bases: &Bases, state: &State) -> BTreeSet<String> {
    // Notes that cannot be read leave their snapshots among those that may be it. Another driver may give the same id.
    let noted = bases.all().unwrap_or_default().into_iter();
    let of_driver = noted.filter(|base| base.driver == driver.name);
    let mut known: BTreeSet<String> = of_driver.map(|base| base.snapshot).collect();
    known.extend(state.old_base.clone());
    known.extend(state.stale_bases.iter().cloned());
    known
}

fn take_back(driver: &Driver, bases: &Bases, journal: &Journal, undo: Undo) -> Result<Entry> {
    Ok(match undo {
        // Asked for before, by whoever is on the way back.
        Undo::FindSnapshot(_) | Undo::FindVolume(_) => {
            let message = "take back what was not found";
            return Err(Error::new(ErrorKind::Internal, message));
        }
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
    })
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
}
