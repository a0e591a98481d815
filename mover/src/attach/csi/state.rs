//! What is known of a run: the steps it announced, and those that were answered.
//!
//! Owns: the entries of a journal and what they add up to; pure. Must not: do I/O.
//!
//! An entry that announces is written before the call; from then on the thing may exist. One that answers is written after it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Form of the entries. Another number was written by another version, and is left alone.
pub const VERSION: u32 = 1;

/// What a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Form of the entries that follow.
    pub version: u32,
    /// Name of the driver.
    pub driver: String,
    /// Its socket.
    pub socket: PathBuf,
    /// The volume that is backed up; none for one that is being made.
    pub volume: Option<String>,
    /// The repository.
    pub repository: String,
    /// Name of the volume in there.
    pub name: String,
    /// Whether the snapshot is to be the base of the next delta.
    pub keeps_base: bool,
}

/// A volume to be made: all that is needed to ask for the very same again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedVolume {
    /// Its name.
    pub name: String,
    /// The snapshot that it begins with; empty without.
    pub snapshot: Option<String>,
    /// Bytes that it must have at least; 0 where nobody knows.
    pub bytes: i64,
    /// Parameters of its class.
    pub parameters: BTreeMap<String, String>,
    /// Where it must be reachable, where the driver cares.
    pub topology: Option<BTreeMap<String, String>>,
}

/// A snapshot to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedSnapshot {
    /// Its name.
    pub name: String,
    /// Of which volume.
    pub volume: String,
    /// Parameters of its class.
    pub parameters: BTreeMap<String, String>,
}

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Entry {
    /// The first one.
    Begin(Begun),
    /// A snapshot will be asked for.
    SnapshotWanted(WantedSnapshot),
    /// It exists.
    SnapshotMade {
        /// What the driver calls it.
        id: String,
    },
    /// The driver refused, finally.
    SnapshotRefused,
    /// A volume will be asked for.
    VolumeWanted(WantedVolume),
    /// It exists.
    VolumeMade {
        /// What the driver calls it.
        id: String,
    },
    /// The driver refused, finally.
    VolumeRefused,
    /// A folder of ours will be made for it.
    FolderWanted {
        /// Where.
        path: PathBuf,
    },
    /// It will be attached.
    AttachWanted {
        /// To which node.
        node: String,
    },
    /// It will be staged.
    StageWanted {
        /// Where.
        path: PathBuf,
    },
    /// Its device will appear.
    PublishWanted {
        /// Where.
        path: PathBuf,
    },
    /// Its device is gone.
    Unpublished,
    /// It is not staged any more.
    Unstaged,
    /// It is not attached any more.
    Detached,
    /// The folder is gone.
    FolderRemoved,
    /// The volume is gone.
    VolumeDeleted,
    /// The volume belongs to the user from now on.
    VolumeKept,
    /// The point is committed: the snapshot is the base from now on.
    KeepBase {
        /// The base before, which has to go.
        old: Option<String>,
    },
    /// The new base is noted.
    BaseNoted,
    /// A newer base was noted meanwhile: the snapshot goes.
    BaseSuperseded,
    /// The base before goes, and none comes in its place.
    DropBase {
        /// The base before.
        old: String,
    },
    /// The base before is gone.
    OldBaseDeleted,
    /// The snapshot is gone.
    SnapshotDeleted,
}

impl Entry {
    /// The name in the journal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "begin",
            Self::SnapshotWanted(_) => "snapshot-wanted",
            Self::SnapshotMade { .. } => "snapshot-made",
            Self::SnapshotRefused => "snapshot-refused",
            Self::VolumeWanted(_) => "volume-wanted",
            Self::VolumeMade { .. } => "volume-made",
            Self::VolumeRefused => "volume-refused",
            Self::FolderWanted { .. } => "folder-wanted",
            Self::AttachWanted { .. } => "attach-wanted",
            Self::StageWanted { .. } => "stage-wanted",
            Self::PublishWanted { .. } => "publish-wanted",
            Self::Unpublished => "unpublished",
            Self::Unstaged => "unstaged",
            Self::Detached => "detached",
            Self::FolderRemoved => "folder-removed",
            Self::VolumeDeleted => "volume-deleted",
            Self::VolumeKept => "volume-kept",
            Self::KeepBase { .. } => "keep-base",
            Self::BaseNoted => "base-noted",
            Self::BaseSuperseded => "base-superseded",
            Self::DropBase { .. } => "drop-base",
            Self::OldBaseDeleted => "old-base-deleted",
            Self::SnapshotDeleted => "snapshot-deleted",
        }
    }
}

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
            Entry::Begin(begun) => self.begun = Some(begun.clone()),
            Entry::SnapshotWanted(wanted) => self.snapshot = Thing::Wanted(wanted.clone()),
            Entry::SnapshotMade { id } => self.snapshot = Thing::Made(id.clone()),
            Entry::SnapshotRefused | Entry::SnapshotDeleted => self.snapshot = Thing::Absent,
            Entry::VolumeWanted(wanted) => self.volume = Thing::Wanted(wanted.clone()),
            Entry::VolumeMade { id } => self.volume = Thing::Made(id.clone()),
            Entry::VolumeRefused | Entry::VolumeDeleted => self.volume = Thing::Absent,
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
        }
    }

    /// What is to be taken back next: the last thing first. `None` where nothing is left.
    ///
    /// What may exist under an unknown id is asked for again before anything that it needs goes. A base is noted before anything
    /// else, because it is the one thing that must not go.
    #[must_use]
    pub fn next_undo(&self) -> Option<Undo> {
        if let (true, Thing::Made(id)) = (self.base_wanted, &self.snapshot) {
            return Some(Undo::NoteBase(id.clone()));
        }
        if let Some(undo) = self.undo_clone() {
            return Some(undo);
        }
        match &self.snapshot {
            Thing::Wanted(wanted) => return Some(Undo::FindSnapshot(wanted.clone())),
            Thing::Made(id) => return Some(Undo::DeleteSnapshot(id.clone())),
            Thing::Absent => {}
        }
        let old = self.old_base.as_ref();
        old.map(|id| Undo::DeleteOldBase(id.clone()))
    }

    /// What is to be taken back next of the volume and its device; the snapshot stays.
    #[must_use]
    pub fn undo_clone(&self) -> Option<Undo> {
        match &self.volume {
            Thing::Wanted(wanted) => Some(Undo::FindVolume(wanted.clone())),
            Thing::Made(id) => Some(self.undo_volume(id)),
            // What belongs to the user is detached, and stays.
            Thing::Absent => {
                let kept = self.kept_volume.as_ref();
                kept.and_then(|id| self.undo_attach(id)).or_else(|| {
                    let folder = self.folder.as_ref();
                    folder.map(|path| Undo::RemoveFolder(path.clone()))
                })
            }
        }
    }

    fn undo_volume(&self, id: &str) -> Undo {
        self.undo_attach(id)
            .unwrap_or_else(|| Undo::DeleteVolume(id.to_owned()))
    }

    /// What is to be taken back next before the volume itself.
    #[must_use]
    pub fn undo_attach(&self, id: &str) -> Option<Undo> {
        let id = id.to_owned();
        if let Some(path) = &self.published {
            return Some(Undo::Unpublish(id, path.clone()));
        }
        if let Some(path) = &self.staged {
            return Some(Undo::Unstage(id, path.clone()));
        }
        if let Some(node) = &self.attached {
            return Some(Undo::Detach(id, node.clone()));
        }
        let folder = self.folder.as_ref();
        folder.map(|path| Undo::RemoveFolder(path.clone()))
    }
}

#[cfg(test)]
mod tests;
