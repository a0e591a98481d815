//! What is known of a run: the steps it announced, and those that were answered.
//!
//! Owns: the entries of a journal and what they add up to; pure. Must not: do I/O.
//!
//! An entry that announces is written before the call; from then on the thing may exist. One that answers is written after it.

mod entry;

use std::path::PathBuf;

pub use entry::{Begun, Entry, VERSION, WantedSnapshot, WantedVolume};

/// Something that the driver makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Thing<W> {
    /// Never asked for, refused, or gone.
    #[default]
    Absent,
    /// Asked for; whether it exists is not known.
    Wanted(W),
    /// It exists under this id.
    Made(String),
}

/// What the entries add up to: what there is, or may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What the run is.
    pub begun: Option<Begun>,
    /// The snapshot.
    pub snapshot: Thing<WantedSnapshot>,
    /// When it was taken, where the driver says so.
    pub snapshot_created: Option<(i64, i32)>,
    /// How often what may exist was asked for and the driver only failed, since it last said anything.
    pub in_vain: u32,
    /// The volume made from it, or to be restored to.
    pub volume: Thing<WantedVolume>,
    /// The folder.
    pub folder: Option<PathBuf>,
    /// The node that the volume is attached to, maybe.
    pub attached: Option<String>,
    /// Where it is staged, maybe.
    pub staged: Option<PathBuf>,
    /// Where its device is, maybe.
    pub published: Option<PathBuf>,
    /// The snapshot is a base that still has to be noted.
    pub base_wanted: bool,
    /// The snapshot came too late to be a base.
    pub base_superseded: bool,
    /// A device may have been there: before, nothing can have been read, and no point committed.
    pub had_device: bool,
    /// The base before, which has to go.
    pub old_base: Option<String>,
    /// Snapshots that were noted as bases and are none, which have to go.
    pub stale_bases: Vec<String>,
    /// A volume that was handed over.
    pub kept_volume: Option<String>,
}

/// One thing to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Ask for the snapshot again, to know its id.
    FindSnapshot(WantedSnapshot),
    /// Ask for the volume again, to know its id.
    FindVolume(WantedVolume),
    /// Make the device of this volume go.
    Unpublish(String, PathBuf),
    /// Take back that this volume is staged.
    Unstage(String, PathBuf),
    /// Detach this volume from this node.
    Detach(String, String),
    /// Remove the folder.
    RemoveFolder(PathBuf),
    /// Delete the volume.
    DeleteVolume(String),
    /// Note the snapshot as the base.
    NoteBase(String),
    /// Delete the base before.
    DeleteOldBase(String),
    /// Delete a snapshot that was noted as a base and is none.
    DeleteStaleBase(String),
    /// Delete the snapshot.
    DeleteSnapshot(String),
}

impl State {
    /// What a journal adds up to.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut state = Self::default();
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    /// Takes one more entry in.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::AskedInVain => self.in_vain += 1,
            Entry::Begin(begun) => self.begun = Some(begun.clone()),
            Entry::SnapshotWanted(wanted) => self.snapshot = Thing::Wanted(wanted.clone()),
            Entry::SnapshotMade { id, created } => {
                self.snapshot = Thing::Made(id.clone());
                (self.snapshot_created, self.in_vain) = (*created, 0);
            }
            Entry::SnapshotRefused | Entry::SnapshotDeleted => {
                (self.snapshot, self.in_vain) = (Thing::Absent, 0);
            }
            Entry::VolumeWanted(wanted) => self.volume = Thing::Wanted(wanted.clone()),
            Entry::VolumeMade { id } => (self.volume, self.in_vain) = (Thing::Made(id.clone()), 0),
            Entry::VolumeRefused | Entry::VolumeDeleted => {
                (self.volume, self.in_vain) = (Thing::Absent, 0);
            }
            Entry::FolderWanted { path } => self.folder = Some(path.clone()),
            Entry::AttachWanted { node } => self.attached = Some(node.clone()),
            Entry::StageWanted { path } => self.staged = Some(path.clone()),
            Entry::PublishWanted { path } => {
                self.published = Some(path.clone());
                self.had_device = true;
            }
            Entry::Unpublished => self.published = None,
            Entry::Unstaged => self.staged = None,
            Entry::Detached => self.attached = None,
            Entry::FolderRemoved => self.folder = None,
            Entry::VolumeKept => {
                if let Thing::Made(id) = std::mem::take(&mut self.volume) {
                    self.kept_volume = Some(id);
                }
            }
            Entry::KeepBase { old } => {
                self.base_wanted = true;
                self.old_base.clone_from(old);
            }
            Entry::BaseNoted => {
                self.base_wanted = false;
                self.snapshot = Thing::Absent;
            }
            Entry::BaseSuperseded => (self.base_wanted, self.base_superseded) = (false, true),
            Entry::DropBase { old } => self.old_base = Some(old.clone()),
            Entry::OldBaseDeleted => self.old_base = None,
            Entry::StaleBase { id } => self.stale_bases.push(id.clone()),
            Entry::StaleBaseDeleted { id } => self.stale_bases.retain(|stale| stale != id),
        }
    }

    /// What is to be taken back next: the last thing first. `None` where nothing is left.
    ///
    /// What may exist under an unknown id is asked for again before anything that it needs goes. A base is noted before anything
    /// else, because it is the one thing that must not go. The folder comes last: what somebody else put in there keeps it, and
    /// must keep nothing that costs space.
    #[must_use]
    pub fn next_undo(&self) -> Option<Undo> {
        if let (true, Thing::Made(id)) = (self.base_wanted, &self.snapshot) {
            return Some(Undo::NoteBase(id.clone()));
        }
        if let Some(undo) = self.undo_volume() {
            return Some(undo);
        }
        match &self.snapshot {
            Thing::Wanted(wanted) => return Some(Undo::FindSnapshot(wanted.clone())),
            Thing::Made(id) => return Some(Undo::DeleteSnapshot(id.clone())),
            Thing::Absent => {}
        }
        if let Some(id) = &self.old_base {
            return Some(Undo::DeleteOldBase(id.clone()));
        }
        if let Some(id) = self.stale_bases.first() {
            return Some(Undo::DeleteStaleBase(id.clone()));
        }
        self.undo_folder()
    }

    /// What is to be taken back next of the volume and its device; the snapshot stays.
    #[must_use]
    pub fn undo_clone(&self) -> Option<Undo> {
        self.undo_volume().or_else(|| self.undo_folder())
    }

    fn undo_volume(&self) -> Option<Undo> {
        match &self.volume {
            Thing::Wanted(wanted) => Some(Undo::FindVolume(wanted.clone())),
            Thing::Made(id) => {
                let attach = self.undo_attach(id);
                Some(attach.unwrap_or_else(|| Undo::DeleteVolume(id.clone())))
            }
            // What belongs to the user is detached, and stays.
            Thing::Absent => self.undo_attach(self.kept_volume.as_ref()?),
        }
    }

    /// What is to be taken back next before the volume itself.
    fn undo_attach(&self, id: &str) -> Option<Undo> {
        let id = id.to_owned();
        if let Some(path) = &self.published {
            return Some(Undo::Unpublish(id, path.clone()));
        }
        if let Some(path) = &self.staged {
            return Some(Undo::Unstage(id, path.clone()));
        }
        let node = self.attached.as_ref()?;
        Some(Undo::Detach(id, node.clone()))
    }

    fn undo_folder(&self) -> Option<Undo> {
        let folder = self.folder.as_ref()?;
        Some(Undo::RemoveFolder(folder.clone()))
    }
}

#[cfg(test)]
mod tests;
