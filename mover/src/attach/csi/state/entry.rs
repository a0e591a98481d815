//! The lines of a journal.
//!
//! Owns: their form, and the list of their names. Must not: know what they add up to (`state` does).

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
    /// How it is to be used, by the number of the access mode; none in journals of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<i32>,
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
        /// When it was taken, by the clock of the storage: seconds and nanoseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        created: Option<(i64, i32)>,
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
    /// What may exist was asked for again, and the driver only failed.
    AskedInVain,
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
    /// A snapshot that was noted as a base and is none: it will be deleted.
    StaleBase {
        /// What the driver calls it.
        id: String,
    },
    /// It is gone.
    StaleBaseDeleted {
        /// What the driver calls it.
        id: String,
    },
}

/// Gives every kind of line its name once, so that no list of names can miss one.
macro_rules! names {
    ($($kind:pat => $name:literal,)*) => {
        impl Entry {
            /// The name of every kind of line.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The name in the journal.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $($kind => $name,)*
                }
            }
        }
    };
}

names! {
    Self::Begin(_) => "begin",
    Self::SnapshotWanted(_) => "snapshot-wanted",
    Self::SnapshotMade { .. } => "snapshot-made",
    Self::SnapshotRefused => "snapshot-refused",
    Self::VolumeWanted(_) => "volume-wanted",
    Self::VolumeMade { .. } => "volume-made",
    Self::VolumeRefused => "volume-refused",
    Self::AskedInVain => "asked-in-vain",
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
    Self::StaleBase { .. } => "stale-base",
    Self::StaleBaseDeleted { .. } => "stale-base-deleted",
}
