//! What can be done for a backup.
//!
//! Owns: the words between `next` and `act`. Must not: do it. Each can be done twice.

use std::collections::BTreeSet;

use crate::kube::controller::working_copy::{ChangeId, Original};
use crate::kube::foreign::snapshot::SnapshotDeletion;

/// One change of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set or remove our finalizer.
    Finalizer(bool),
    /// Order a snapshot of a claim.
    TakeSnapshot {
        /// The claim.
        claim: String,
        /// The class.
        class: Option<String>,
    },
    /// Put our labels on the content of our snapshot, and say what happens to the driver's snapshot when it goes.
    Content {
        /// Its name.
        name: String,
        /// What happens.
        policy: SnapshotDeletion,
    },
    /// Create the content of the working copy.
    CopyContent(Original),
    /// Create the snapshot of the working copy.
    CopySnapshot(Original),
    /// Put a change id on the snapshot of the working copy: the driver wrote it after that was made.
    CopyChangeId(ChangeId),
    /// Create the claim of the working copy.
    Claim {
        /// Storage class.
        class: String,
        /// Access mode.
        access: String,
        /// Bytes.
        size: u64,
    },
    /// Put our label on the volume of the working copy; the storage goes with it.
    Volume {
        /// Its name.
        name: String,
    },
    /// Let a volume that is not ours outlive the claim that it was bound to.
    KeepVolume {
        /// Its name.
        name: String,
    },
    /// Create the pod that opens the device.
    Holder {
        /// Where it may run.
        nodes: BTreeSet<String>,
        /// Whether the claim is read-only for it.
        read_only: bool,
    },
    /// The pod has this node: its claim on others ends.
    Settle(String),
    /// Give the slot back.
    ReleaseSlot,
    /// Delete an object of ours.
    Delete {
        /// Which.
        what: Object,
        /// Its name.
        name: String,
        /// Its UID: another one of the name is not meant.
        uid: String,
        /// Without waiting for a kubelet that may be gone.
        force: bool,
    },
    /// Say what happens to the driver's snapshot of the old base when its content goes.
    BaseContentPolicy {
        /// Name of the content.
        name: String,
        /// What happens.
        policy: SnapshotDeletion,
    },
    /// Create the pair of objects that keeps the snapshot as base.
    Base {
        /// Name of both.
        name: String,
        /// The snapshot.
        original: Original,
        /// Handle of the volume.
        volume_handle: String,
        /// The point it belongs to.
        point: String,
    },
    /// Give the point up: a forget order into the repository.
    Forget {
        /// Its id.
        point: String,
    },
    /// Delete the backup itself.
    DeleteSelf,
}

/// Objects that a backup deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The pod that opens the device.
    Holder,
    /// The claim of the working copy.
    Claim,
    /// The snapshot of the working copy.
    CopySnapshot,
    /// The content of the working copy.
    CopyContent,
    /// Our snapshot in the namespace of the backup.
    Snapshot,
    /// Its content.
    Content,
    /// The snapshot of the old base.
    BaseSnapshot,
    /// The content of the old base.
    BaseContent,
}
