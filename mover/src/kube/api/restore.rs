//! `PodVolumeRestore`: one point into one claim.
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

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup::{AttachStrategy, PointStatus, Progress};
use super::transfer::{TransferOrder, TransferStatus};
use super::{NameRef, Phase};

/// Writes a recovery point into a claim of this namespace.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "snaphaul.dev",
    version = "v1alpha1",
    kind = "PodVolumeRestore",
    plural = "podvolumerestores",
    shortname = "svr",
    category = "snaphaul",
    namespaced,
    status = "PodVolumeRestoreStatus",
    derive = "PartialEq",
    doc = "Writes a recovery point into a claim of this namespace.",
    selectable = ".status.node",
    selectable = ".status.phase",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.target.name"),
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
    validation = Rule::new("self.source == oldSelf.source && has(self.repositoryRef) == has(oldSelf.repositoryRef) && (!has(self.repositoryRef) || self.repositoryRef == oldSelf.repositoryRef) && self.mode == oldSelf.mode && self.target == oldSelf.target && self.attachStrategy == oldSelf.attachStrategy && self.quickPolicy == oldSelf.quickPolicy")
        .message("only cancel and ttlSecondsAfterFinished can be changed: create another PodVolumeRestore"),
    validation = Rule::new("has(self.source.backupName) || has(self.repositoryRef)").message("repositoryRef is needed unless the source is a backupName"),
    validation = Rule::new("self.mode == 'NewClaim' || !(has(self.target.storageClassName) || has(self.target.resources) || has(self.target.volumeMode) || has(self.target.accessModes))")
        .message("InPlace and Replace take the claim as it is: only target.name can be set"),
    validation = Rule::new("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)").message("a cancelled restore cannot be continued: create another one")
)]
pub struct PodVolumeRestoreSpec {
    /// Which point.
    pub source: RestoreSource,
    /// The SnapshotRepository that holds it. Absent: that of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_ref: Option<NameRef>,
    /// What happens to the claim.
    #[serde(default)]
    pub mode: RestoreMode,
    /// The claim that is filled.
    pub target: TargetClaim,
    /// How the volume becomes a device.
    #[serde(default)]
    pub attach_strategy: AttachStrategy,
    /// Mode NewClaim: whether the volume may be made of the storage's own snapshot, where that is the point and is still there, instead of
    /// being transferred.
    #[serde(default)]
    pub quick_policy: QuickPolicy,
    /// Seconds after its end at which this object is deleted. The claim stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Stops the restore and takes back what it made. Cannot be unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
}

/// Which point: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.backupName), has(self.pointID), has(self.volume)].filter(set, set).size() == 1")
        .message("exactly one of backupName, pointID and volume must be set")
)]
pub struct RestoreSource {
    /// A completed PodVolumeBackup of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub backup_name: Option<String>,
    /// A point by its id, as `status.point.id` of a PodVolumeBackup or `snaphaul points` shows it.
    #[serde(default, rename = "pointID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 64), regex(pattern = "^[0-9a-f]+(-[0-9a-f]*)?$"))]
    pub point_id: Option<String>,
    /// The newest point of a volume, or the newest at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSource>,
}

/// Times of RFC 3339 in the years that every client can read.
const TIME: &str = r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// A volume by the claim it was backed up as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSource {
    /// Name of the claim, which need not exist any more.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// The newest point that is not younger, e.g. `2026-01-31T06:00:00Z`. Absent: the newest.
    // Stricter than date-time: an API server admits times that clients cannot read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TIME))]
    pub as_of: Option<Time>,
}

/// What happens to the claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestoreMode {
    /// It is created. Refused where it exists.
    #[default]
    NewClaim,
    /// Its volume is written over: only a claim of volumeMode Block that no pod uses.
    InPlace,
    /// It is deleted and created again on a new volume, once that is complete: only a claim that no pod uses.
    Replace,
}

/// Whether a volume may be made of the storage's own snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QuickPolicy {
    /// Never: the data comes from the repository, as a drill wants it.
    #[default]
    Never,
    /// Where the base snapshot is the point, the storage class makes volumes with its driver, and deletes them with their claim. Otherwise, and
    /// where the storage takes too long, the point is transferred. For drivers whose volumes do not depend on the snapshot that they were made
    /// of: others refuse to delete that snapshot as long as the restored volume is there, and later backups of its source wait for it.
    Auto,
}

/// The claim that is filled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetClaim {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Storage class. Absent: the recorded one, where it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Block or Filesystem. Absent: the recorded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<VolumeMode>,
    /// Access modes. Absent: the recorded ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 4),
        inner(regex(pattern = "^(ReadWriteOnce|ReadOnlyMany|ReadWriteMany|ReadWriteOncePod)$"))
    )]
    pub access_modes: Option<Vec<String>>,
    /// Size. Absent: the recorded one; a bigger one makes the file system grow too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<TargetResources>,
    /// Labels of the new claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of the new claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// How pods see a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeMode {
    /// As a device.
    Block,
    /// As a mounted file system.
    Filesystem,
}

/// What the claim asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetResources {
    /// As in a claim.
    pub requests: StorageRequest,
}

/// The size that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("type(self.storage) == int ? self.storage > 0 : quantity(self.storage).isGreaterThan(quantity('0'))")
        .message("storage must be a size above 0, e.g. 10Gi")
)]
pub struct StorageRequest {
    /// E.g. `10Gi`.
    pub storage: Quantity,
}

/// How far a restore is and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodVolumeRestoreStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `Accepted`, `DeviceReady`, `Succeeded`: what programs decide by.
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
    /// The point that is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<PointStatus>,
    /// What the point records of its claim, as far as the target is made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedClaim>,
    /// The volume that is being filled, noted before it changes hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<HandoverStatus>,
    /// How far the copy of the storage's own snapshot is, where one was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick: Option<QuickStatus>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What a person should know or do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the controller asks of the agent on `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<TransferOrder>,
    /// What that agent answers. Written by it alone, like `progress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferStatus>,
}

/// A volume that the storage makes of its own snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuickStatus {
    /// How far it is.
    pub state: QuickState,
    /// When it began.
    pub since: Time,
    /// The driver's handle of the snapshot.
    pub snapshot_handle: String,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QuickState {
    /// The storage makes the volume.
    Copying,
    /// It did: nothing is transferred.
    Copied,
    /// It did not: the point is transferred.
    GivenUp,
}

/// The claim of a point, as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedClaim {
    /// Exact bytes of the volume.
    pub size_bytes: i64,
    /// Its storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// `Block` or `Filesystem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<VolumeMode>,
    /// Its access modes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// File system on it, as its volume said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<String>,
    /// Name of the volume in the repository: `CLUSTER/NAMESPACE/CLAIM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
}

/// A volume on its way to the user's claim. Every step can be taken up again from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandoverStatus {
    /// Name of the PersistentVolume.
    pub name: String,
    /// The driver's handle.
    pub handle: String,
    /// The reclaim policy it gets back in the end.
    pub reclaim_policy: String,
    /// UID of the object that was deleted to be created again, once it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_uid: Option<String>,
    /// How far the hand-over is. What a step allows happens after it was written, never before.
    #[serde(default)]
    pub step: HandoverStep,
    /// UID of the working claim in the system namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_claim_uid: Option<String>,
    /// UID of the holder pod that the newest order is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder_uid: Option<String>,
    /// UID of the user's claim that the volume goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// The PersistentVolume that is created in the end, as JSON: while no object names the volume, this does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Replace: the claim that is created again, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

/// How far a hand-over is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum HandoverStep {
    /// The volume belongs to the working claim and is being filled.
    #[default]
    Filling,
    /// It is filled, and belongs to nobody's claim any more; its reclaim policy is Retain.
    Filled,
    /// Its PersistentVolume is deleted and created again: `object` is what names it in between.
    Recreating,
    /// The new PersistentVolume was seen and waits for the claim.
    Created,
    /// The claim is bound to it. Nothing is taken back any more.
    Bound,
}
