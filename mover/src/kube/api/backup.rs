//! `PodVolumeBackup`: one volume, once.
//!
//! Owns: its fields, rules and defaults. Must not: act on them.

#![expect(
    clippy::duplicated_attributes,
    reason = "printed columns are attributes that share words"
)]
#![expect(
    unreachable_pub,
    reason = "the derive of the schema generates what nobody names"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::transfer::{TransferOrder, TransferStatus};
use super::{NameRef, Phase};

/// Stores one volume of this namespace as a recovery point, from a snapshot that is taken for it or that exists.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "snaphaul.dev",
    version = "v1alpha1",
    kind = "PodVolumeBackup",
    plural = "podvolumebackups",
    shortname = "svb",
    category = "snaphaul",
    namespaced,
    status = "PodVolumeBackupStatus",
    derive = "PartialEq",
    doc = "Stores one volume of this namespace as a recovery point, from a snapshot that is taken for it or that exists.",
    selectable = ".status.node",
    selectable = ".status.phase",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Point", type_ = "string", json_path = ".status.point.id"),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        format = "int64",
        json_path = ".status.progress.bytesDone"
    ),
    printcolumn(
        name = "Total",
        type_ = "integer",
        format = "int64",
        json_path = ".status.progress.totalBytes"
    ),
    printcolumn(
        name = "Repository",
        type_ = "string",
        json_path = ".spec.repositoryRef.name"
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.node",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = "1"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.source == oldSelf.source && self.repositoryRef == oldSelf.repositoryRef && has(self.volumeSnapshotClassName) == has(oldSelf.volumeSnapshotClassName) && (!has(self.volumeSnapshotClassName) || self.volumeSnapshotClassName == oldSelf.volumeSnapshotClassName) && self.parentPolicy == oldSelf.parentPolicy && self.changedBlocksPolicy == oldSelf.changedBlocksPolicy && self.attachStrategy == oldSelf.attachStrategy && self.baseSnapshotPolicy == oldSelf.baseSnapshotPolicy && has(self.activeDeadlineSeconds) == has(oldSelf.activeDeadlineSeconds) && (!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds)")
        .message("only cancel, deletionPolicy and ttlSecondsAfterFinished can be changed: create another PodVolumeBackup"),
    validation = Rule::new("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)").message("a cancelled backup cannot be continued: create another one")
)]
pub struct PodVolumeBackupSpec {
    /// What is backed up.
    pub source: BackupSource,
    /// The SnapshotRepository that takes the point.
    pub repository_ref: NameRef,
    /// Snapshot class to use. Absent: the one of the driver's profile, its annotated default, or its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub volume_snapshot_class_name: Option<String>,
    /// Whether the volume's newest point is built on.
    #[serde(default)]
    pub parent_policy: ParentPolicy,
    /// Who is asked what changed.
    #[serde(default)]
    pub changed_blocks_policy: ChangedBlocksPolicy,
    /// How the snapshot becomes a device.
    #[serde(default)]
    pub attach_strategy: AttachStrategy,
    /// Whether the snapshot stays until the next backup, so that the driver can say what changed since.
    #[serde(default)]
    pub base_snapshot_policy: BaseSnapshotPolicy,
    /// What happens to the point when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Seconds after which the backup is given up, however far it is. Absent: as long as it makes progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds after its end at which this object is deleted; the point follows deletionPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Stops the backup and takes back what it made. Cannot be unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
}

/// What is backed up: exactly one of these, of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.persistentVolumeClaim), has(self.pod), has(self.volumeSnapshot)].filter(set, set).size() == 1")
        .message("exactly one of persistentVolumeClaim, pod and volumeSnapshot must be set")
)]
pub struct BackupSource {
    /// A claim of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<NameRef>,
    /// The claim behind a volume of a pod of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodVolume>,
    /// A VolumeSnapshot of this namespace. It is read, never changed or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot: Option<NameRef>,
}

/// A volume of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodVolume {
    /// Name of the pod.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of the volume in the pod's `spec.volumes`.
    #[schemars(length(min = 1, max = 63))]
    pub volume: String,
}

/// Whether a point builds on the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ParentPolicy {
    /// On the volume's newest point, where it has one.
    #[default]
    Auto,
    /// On none: everything allocated is read.
    None,
}

/// Who is asked what changed since the parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChangedBlocksPolicy {
    /// The best source that is sound for the volume.
    #[default]
    Auto,
    /// Nobody: everything is read and compared.
    Scan,
}

/// How a snapshot becomes a device of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AttachStrategy {
    /// What the driver's profile says.
    #[default]
    Auto,
    /// A small pod makes the kubelet attach it and hands the open device over.
    Pod,
    /// The agent calls the driver on its node. Only for drivers without attachment.
    #[serde(rename = "CSI")]
    Csi,
    /// The agent reads the storage itself, e.g. an RBD image.
    Direct,
}

/// Whether the snapshot of a point stays until the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BaseSnapshotPolicy {
    /// Where the driver needs it to say what changed.
    #[default]
    Auto,
    /// Always.
    Keep,
    /// Never; the next backup reads everything that is allocated.
    Drop,
}

/// What happens to the point when its PodVolumeBackup is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Nothing: the point stays restorable.
    #[default]
    Retain,
    /// It is forgotten. It can be restored until garbage collection has run.
    Delete,
}

/// How far a backup is and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodVolumeBackupStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `Accepted`, `SnapshotReady`, `DeviceReady`, `Succeeded`: what programs decide by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When the work began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The node whose agent does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The snapshot that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotStatus>,
    /// What the point will record of claim, volume and cluster, as JSON, from when the snapshot is ordered until `order` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// The point that was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<PointStatus>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Bytes of the volume that were new to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental_bytes: Option<i64>,
    /// Who said what changed, and why this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_blocks: Option<ChangedBlocksStatus>,
    /// What a person should know or do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the controller asks of the agent on `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<TransferOrder>,
    /// What that agent answers. Written by it alone, like `progress`, `point`, `incrementalBytes` and `changedBlocks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferStatus>,
}

/// The snapshot that is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// Name of the VolumeSnapshot in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The driver's handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The CSI driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The moment the volume was frozen at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
}

/// A recovery point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PointStatus {
    /// Id of the point.
    pub id: String,
    /// Id of the repository that holds it.
    #[serde(rename = "repositoryID")]
    pub repository_id: String,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Bytes that the work is about.
    pub total_bytes: i64,
    /// Bytes that are done.
    pub bytes_done: i64,
}

/// Who said what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedBlocksStatus {
    /// The source, e.g. `csi`, `rbd`, `scan`.
    pub source: String,
    /// Why this one.
    pub reason: String,
}
