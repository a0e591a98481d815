//! What a decision about a restore is made from.
//!
//! Owns: the facts and what they mean. Must not: fetch them (`observe`), or decide (`next`).
//!
//! Everything here was read from the API server itself, no cache: an object that is absent here does not exist.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::point::PointAnswer;
use crate::kube::api::PodVolumeRestore;
use crate::kube::controller::working_copy::Original;

/// Everything that is known about one restore at one moment.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The moment, in whole seconds, as the API server keeps times.
    pub now: Timestamp,
    /// The restore itself.
    pub restore: PodVolumeRestore,
    /// Whether its namespace is being deleted: nothing can be created there.
    pub namespace_terminating: bool,
    /// The point, looked up while the status has none.
    pub point: PointAnswer,
    /// The storage class that the working claim gets, where it exists.
    pub class: Option<StorageClass>,
    /// The base snapshot that is the point, looked for where a volume could be made of it.
    pub base: Option<Base>,
    /// Whether a volume may be exposed now.
    pub slot: Slot,
    /// The claim in the system namespace that the volume is made through.
    pub working_claim: Option<PersistentVolumeClaim>,
    /// The volume of that claim: by the status, by the claim, or by its own reference to the claim.
    pub working_volume: Option<PersistentVolume>,
    /// A volume of somebody else that the working claim was bound to.
    pub foreign_volume: Option<PersistentVolume>,
    /// The volume under the name that the user's claim gets it by.
    pub final_volume: Option<PersistentVolume>,
    /// Nodes that one of these two volumes is attached to, as the VolumeAttachments say.
    pub attached_to: Vec<String>,
    /// The pod that opens the device.
    pub holder: Option<Holder>,
    /// Whether the agent of the work's node is ready.
    pub agent: Agent,
    /// For how long that agent was seen to be ready, to move nothing, and not to take the order.
    pub untaken: SignedDuration,
    /// For how long this process has been taking back what was made.
    pub cleaning: SignedDuration,
    /// Whether any node with a ready agent can reach the volume.
    pub reachable: bool,
    /// Nodes with such an agent that take no pods, for they were cordoned.
    pub cordoned: BTreeSet<String>,
    /// The claim of the target's name in the user's namespace.
    pub target: Option<PersistentVolumeClaim>,
    /// Pods that have not ended and name the target.
    pub target_users: Vec<String>,
    /// Nodes that the target's own volume is attached to.
    pub target_attached_to: Vec<String>,
    /// The target's volume, where both say that they are bound.
    pub target_volume: Option<PersistentVolume>,
    /// What holds for every restore.
    pub settings: Settings,
}

/// A base snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// What copies of it need.
    pub original: Original,
    /// Least bytes of a volume made of it, where they are known.
    pub restore_size: Option<u64>,
}

/// Whether a volume may be exposed now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// It may, or is already.
    #[default]
    Granted,
    /// So many others come first.
    Waiting(usize),
    /// No node that could reach the volume has an agent.
    NoNode,
}

/// The pod that opens the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its UID.
    pub uid: String,
    /// Where it was scheduled.
    pub node: Option<String>,
    /// Whether the device can be opened.
    pub ready: bool,
    /// Whether it is being deleted or has ended.
    pub ending: bool,
    /// Why it is not ready, in the words of scheduler or kubelet.
    pub trouble: Option<String>,
}

/// The agent of the node that the work is on: that of the holder, once it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agent {
    /// It works.
    #[default]
    Ready,
    /// Its pod is gone or not ready.
    Gone,
}

/// What holds for every restore.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where working claims and holders live.
    pub system_namespace: String,
    /// Until the device must be open.
    pub expose_deadline: SignedDuration,
    /// Without progress of a transfer.
    pub progress_deadline: SignedDuration,
    /// Until a volume must be detached and bound to the user's claim.
    pub bind_deadline: SignedDuration,
    /// Until the agent of a node that does not answer is given up.
    pub agent_deadline: SignedDuration,
    /// How long a transfer is given to stop before its device is taken away.
    pub stop_deadline: SignedDuration,
    /// Until what cannot be taken back is left behind.
    pub clean_deadline: SignedDuration,
    /// Attempts of one transfer.
    pub attempts: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            system_namespace: "snaphaul-system".to_owned(),
            expose_deadline: SignedDuration::from_mins(30),
            progress_deadline: SignedDuration::from_mins(15),
            bind_deadline: SignedDuration::from_mins(30),
            agent_deadline: SignedDuration::from_mins(5),
            stop_deadline: SignedDuration::from_mins(1),
            clean_deadline: SignedDuration::from_hours(1),
            attempts: crate::kube::controller::attempts::MOST,
        }
    }
}
