//! What a look at the cluster saw, as far as a backup depends on it.
//!
//! Owns: the narrow views. Must not: ask (`observe`) or decide (`next`).

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::attach::csi::profile::Profile;
use crate::kube::api::conditions::Reason;
use crate::kube::controller::recorded::Recorded;
use crate::kube::controller::slots::Slot;
use crate::kube::controller::working_copy::{ChangeId, Original};
use crate::kube::foreign::snapshot::SnapshotDeletion;

/// Everything that one look saw.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Whether the namespace of the backup is being deleted, or the resource's definition is.
    pub going_away: bool,
    /// The repository.
    pub repository: RepositoryView,
    /// What is backed up.
    pub source: SourceView,
    /// The snapshot that is read, in the namespace of the backup.
    pub snapshot: Option<SnapshotView>,
    /// Its content.
    pub content: Option<ContentView>,
    /// The content of the working copy.
    pub copy_content: Option<ContentView>,
    /// The snapshot of the working copy.
    pub copy_snapshot: Option<SnapshotView>,
    /// The claim of the working copy.
    pub claim: Option<ClaimView>,
    /// The volume of that claim, also when the claim is gone.
    pub volume: Option<VolumeView>,
    /// The pod that opens it.
    pub holder: Option<HolderView>,
    /// The content of the base snapshot of this volume and repository.
    pub base_content: Option<ContentView>,
    /// The snapshot of that content.
    pub base_snapshot: Option<SnapshotView>,
    /// A volume of somebody else that the claim of the working copy was bound to.
    pub foreign: Option<ForeignVolume>,
    /// Whether a working copy may be made.
    pub slot: Slot,
    /// For how long the node of the work has been without an agent.
    pub agent_lost: Option<Duration>,
    /// For how long the agent was seen to be ready, to move nothing, and not to take the order.
    pub untaken: Duration,
    /// For how long this process has been cleaning up.
    pub cleaning: Duration,
}

/// The repository, seen from a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RepositoryView {
    /// There is none of this name.
    #[default]
    Missing,
    /// It does not serve the namespace.
    NotAllowed,
    /// It cannot be used yet; why.
    NotReady(String),
    /// It can be used.
    Ready,
}

/// What is backed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SourceView {
    /// Nobody looked.
    #[default]
    Unseen,
    /// What is named does not exist.
    Missing(String),
    /// The claim has no volume yet.
    Unbound(String),
    /// It can never be backed up as it is.
    Refused(Reason, String),
    /// It can be backed up.
    Found(Box<Source>),
}

/// A volume that can be backed up, with everything that was chosen for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// Claim, volume and cluster.
    pub recorded: Recorded,
    /// Class of the snapshot, where one is to be taken.
    pub snapshot_class: Option<String>,
    /// Storage class of the working copy.
    pub clone_class: Option<String>,
    /// What is known of the driver.
    pub profile: Profile,
    /// Name of the volume in the repository.
    pub volume: String,
    /// Nodes with an agent that the volume can be attached to.
    pub nodes: BTreeSet<String>,
    /// Such that take no pods, for they were cordoned.
    pub cordoned: BTreeSet<String>,
}

/// A VolumeSnapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether this backup made it.
    pub ours: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether a volume can be made from it.
    pub ready: bool,
    /// The driver's last complaint.
    pub error: Option<String>,
    /// The moment it shows.
    pub created: Option<Timestamp>,
    /// Least bytes of a volume made from it.
    pub restore_size: Option<u64>,
    /// What the driver takes as a base in place of its handle.
    pub change_id: Option<ChangeId>,
}

/// A VolumeSnapshotContent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContentView {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether our label is on it.
    pub ours: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the driver's snapshot goes with it.
    pub policy: SnapshotDeletion,
    /// The driver's handle of the volume that it is a snapshot of, where it was taken for it.
    pub volume_handle: Option<String>,
    /// What copies of it need; nothing until the snapshot exists.
    pub original: Option<Original>,
    /// Bytes of a volume made from it.
    pub restore_size: Option<u64>,
}

/// A PersistentVolumeClaim of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimView {
    /// Its UID.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has a volume.
    pub bound: bool,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// Whether our label is on it and the storage goes with it.
    pub secured: bool,
}

/// A volume that was not made for the working copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignVolume {
    /// Its name.
    pub name: String,
    /// Whether its storage stays when the claim goes.
    pub kept: bool,
}

/// A holder pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HolderView {
    /// Its UID.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its node, once the scheduler chose.
    pub node: Option<String>,
    /// Whether the device is open.
    pub ready: bool,
    /// What it waits for, in the words of scheduler or kubelet.
    pub complaint: Option<String>,
}
