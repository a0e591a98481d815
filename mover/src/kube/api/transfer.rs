//! What controller and agent say to each other through the status of a backup or restore.
//!
//! Owns: the order and the answer. Must not: be needed by users, who read phase, conditions and message.
//!
//! The controller writes the order, the agent of `status.node` the answer, and neither the other's. An answer to another attempt than the
//! order's is of an agent that was given up, and counts for nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup::AttachStrategy;

/// What an agent is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferOrder {
    /// Counts orders of this object, from 1. A new one takes the work away from whoever has the old one.
    pub attempt: i64,
    /// How the device is reached; never `Auto`.
    pub strategy: AttachStrategy,
    /// Name of the volume in the repository: `CLUSTER/NAMESPACE/CLAIM`.
    pub volume: String,
    /// The CSI driver.
    pub driver: String,
    /// The driver's handle of the volume that is backed up, or of the one that is filled.
    pub volume_handle: String,
    /// Backup: handle of the snapshot that the device was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// Backup: the VolumeSnapshot in the system namespace that owns this handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_name: Option<String>,
    /// Backup: the VolumeSnapshot in the system namespace that is the base of the last point, where one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_name: Option<String>,
    /// Backup: handle of that base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_handle: Option<String>,
    /// Backup, of the driver's profile: annotation of the VolumeSnapshot with what the driver takes as a base in place of a handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_id_annotation: Option<String>,
    /// Backup, of the driver's profile: name of its SnapshotMetadataService. Absent: that of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_metadata_service_name: Option<String>,
    /// Backup, of the driver's profile: whether the snapshot stays for the next delta, where the service does not say. Absent: it
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_base: Option<bool>,
    /// Bytes of the device at least, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Backup: what the point records of claim, volume and cluster, as JSON. Restore: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// When the order was given, or changed to a stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why the agent should stop now. Absent: it should not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

/// What an agent answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferStatus {
    /// The attempt of the order that is answered.
    pub attempt: i64,
    /// Where it stands.
    pub state: TransferState,
    /// Kind of the error, in the words of the command line's results, e.g. `no_space`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
    /// What a person should know: the reason, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether the snapshot must stay for the next delta, as the source of changed blocks says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_needed: Option<bool>,
    /// Last time the agent moved bytes, RFC 3339; the controller's deadline for progress looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress: Option<String>,
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransferState {
    /// The agent has taken the order and works.
    #[default]
    Running,
    /// The point is committed, or the volume is filled and flushed.
    Succeeded,
    /// It failed; another try would fail the same way.
    Failed,
    /// It failed in a way that another attempt may not: the device went away, the agent drained.
    Interrupted,
    /// It stopped because the order said so. Nothing was committed.
    Stopped,
}
