//! What is to be done about a restore.
//!
//! Owns: the actions, each of which can be repeated. Must not: decide (`next`) or carry out (`act`).

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::SignedDuration;

use crate::kube::api::PodVolumeRestoreStatus;
use crate::kube::api::conditions::Reason;
use crate::kube::controller::working_copy::Original;

/// What is to be done: first the status is written, then the actions are taken in their order, up to the first that fails.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The status, complete. The agent's fields are as observed, and not written.
    pub status: PodVolumeRestoreStatus,
    /// What follows once the status is written.
    pub actions: Vec<Action>,
    /// When to look again, though nothing was seen to change.
    pub look_again: SignedDuration,
}

/// One request to the API server. Each names the object by what was observed, so that a decision that was overtaken does nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Keeps the restore until it is done or taken back.
    AddFinalizer,
    /// Lets the restore go.
    RemoveFinalizer,
    /// Creates a claim; one that exists is left as it is.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Deletes a claim.
    DeleteClaim(ObjectId),
    /// Asks for a bigger size.
    ExpandClaim(ObjectId, Quantity),
    /// Writes into the user's claim which point it was filled from.
    NamePoint(ObjectId, String),
    /// Creates a content and a snapshot of a snapshot that exists, in the system namespace, for the working claim to be made of.
    CopySnapshot(Box<Original>),
    /// Deletes these two, which the driver's snapshot survives.
    DropSnapshot,
    /// Creates the pod that opens the working claim's device.
    CreateHolder,
    /// Deletes it.
    DeleteHolder {
        /// Its UID.
        uid: String,
        /// Without waiting for a kubelet that may be gone.
        force: bool,
    },
    /// Creates a PersistentVolume; one that exists is left as it is.
    CreateVolume(Box<PersistentVolume>),
    /// Deletes the object of a PersistentVolume, only in the version that was observed.
    DeleteVolume(ObjectId),
    /// Sets what happens to the storage when the claim goes.
    SetReclaimPolicy(ObjectId, String),
    /// Sets whom a volume belongs to.
    SetClaimRef(ObjectId, Box<ObjectReference>),
    /// Keeps a volume for a person: sets whom it waits for, and marks it, so that nobody takes it for a leftover.
    KeepVolume(ObjectId, Box<ObjectReference>),
    /// Tells people.
    Event {
        /// Whether it is worth a look.
        warning: bool,
        /// Why.
        reason: Reason,
        /// A sentence.
        message: String,
    },
}

/// One object, and no other of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectId {
    /// Empty for a PersistentVolume.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version, where an action must not happen to another.
    pub resource_version: String,
}

impl ObjectId {
    /// Of an object that was observed.
    #[must_use]
    pub fn of<K: ::kube::ResourceExt>(object: &K) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version().unwrap_or_default(),
        }
    }
}
