//! What a request is about: names, handles, paths; what is locked for it; which secrets it brings.
//!
//! Owns: reading requests for the record, the faults and the locks. Must not: judge them.

use std::collections::BTreeMap;

use csi_proto::csi::volume_content_source::Type;
use csi_proto::csi::{self, VolumeContentSource};
use serde::{Deserialize, Serialize};

/// What the record keeps of a request. Empty where the request has no such field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// The name that makes the call idempotent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Handle of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume: String,
    /// Handle of the snapshot; of a new volume, what it is made from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snapshot: String,
    /// Handle of the base of a delta.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Staging path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub staging: String,
    /// Target path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Number of the access mode, 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: i32,
    /// How many bytes a new volume must have at least, where the request says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Whether `readonly` was set.
    #[serde(skip_serializing_if = "is_false")]
    pub readonly: bool,
    /// Offset in bytes at which a stream of metadata is to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// How many ranges a message of metadata may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_results: Option<i32>,
    /// Parameters, of the class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Names of the secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

impl Subject {
    /// Everything that an order can be about.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        let words = [
            &self.name,
            &self.volume,
            &self.snapshot,
            &self.base,
            &self.node,
            &self.staging,
            &self.target,
        ];
        words
            .into_iter()
            .map(String::as_str)
            .filter(|word| !word.is_empty())
    }

    /// What only one call at a time may touch. Any number of volumes may be made from one snapshot, and any number of streams
    /// read it, so neither locks it.
    #[must_use]
    pub fn keys(&self, call: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut lock = |kind: &str, word: &str| {
            if !word.is_empty() {
                keys.push(format!("{kind} {word}"));
            }
        };
        match call {
            "CreateVolume" => lock("volume named", &self.name),
            "CreateSnapshot" | "CreateVolumeGroupSnapshot" => {
                lock("snapshot named", &self.name);
                lock("volume", &self.volume);
            }
            "DeleteSnapshot" => lock("snapshot", &self.snapshot),
            "ListSnapshots" | "GetSnapshot" | "GetMetadataAllocated" | "GetMetadataDelta" => {}
            _ => lock("volume", &self.volume),
        }
        keys
    }
}

/// A request of some call.
pub(super) trait Describe: Send + 'static {
    /// Name of the call.
    const CALL: &'static str;

    /// What it is about.
    fn subject(&self) -> Subject;

    /// The secrets, where the call has a field for them.
    fn secrets(&self) -> Option<&BTreeMap<String, String>> {
        None
    }
}

fn source(content: Option<&VolumeContentSource>) -> (String, String) {
    match content.and_then(|content| content.r#type.as_ref()) {
        Some(Type::Snapshot(from)) => (from.snapshot_id.clone(), String::new()),
        Some(Type::Volume(from)) => (String::new(), from.volume_id.clone()),
        None => (String::new(), String::new()),
    }
}

fn mode(capability: Option<&csi::VolumeCapability>) -> i32 {
    let access = capability.and_then(|capability| capability.access_mode.as_ref());
    access.map_or(0, |access| access.mode)
}

/// `describe!(Message, "Call", |request| {fields of Subject})`, with `secrets` last where the message has them.
macro_rules! describe {
    ($message:ty, $call:literal, |$request:ident| {$($field:ident: $value:expr),* $(,)?}) => {
        impl Describe for $message {
            const CALL: &'static str = $call;
            fn subject(&self) -> Subject {
                let $request = self;
                Subject { $($field: $value,)* ..Subject::default() }
            }
        }
    };
    ($message:ty, $call:literal, |$request:ident| {$($field:ident: $value:expr),* $(,)?}, secrets) => {
        impl Describe for $message {
            const CALL: &'static str = $call;
            fn subject(&self) -> Subject {
                let $request = self;
                let secrets = $request.secrets.keys().cloned().collect();
                Subject { $($field: $value,)* secrets, ..Subject::default() }
            }
            fn secrets(&self) -> Option<&BTreeMap<String, String>> {
                Some(&self.secrets)
            }
        }
    };
}

pub(super) use describe;

describe!(csi::GetPluginInfoRequest, "GetPluginInfo", |_r| {});
describe!(
    csi::GetPluginCapabilitiesRequest,
    "GetPluginCapabilities",
    |_r| {}
);
describe!(csi::ProbeRequest, "Probe", |_r| {});
describe!(
    csi::ControllerGetCapabilitiesRequest,
    "ControllerGetCapabilities",
    |_r| {}
);
describe!(
    csi::GroupControllerGetCapabilitiesRequest,
    "GroupControllerGetCapabilities",
    |_r| {}
);
describe!(
    csi::NodeGetCapabilitiesRequest,
    "NodeGetCapabilities",
    |_r| {}
);
describe!(csi::NodeGetInfoRequest, "NodeGetInfo", |_r| {});
describe!(csi::ListVolumesRequest, "ListVolumes", |_r| {});
describe!(csi::ControllerGetVolumeRequest, "ControllerGetVolume", |r| { volume: r.volume_id.clone() });
describe!(csi::GetCapacityRequest, "GetCapacity", |_r| {});
describe!(csi::CreateVolumeRequest, "CreateVolume", |r| {
    name: r.name.clone(),
    snapshot: source(r.volume_content_source.as_ref()).0,
    volume: source(r.volume_content_source.as_ref()).1,
    mode: mode(r.volume_capabilities.first()),
    bytes: r.capacity_range.as_ref().map(|range| range.required_bytes),
    parameters: r.parameters.clone(),
}, secrets);
describe!(csi::DeleteVolumeRequest, "DeleteVolume", |r| { volume: r.volume_id.clone() }, secrets);
describe!(csi::ControllerPublishVolumeRequest, "ControllerPublishVolume", |r| {
    volume: r.volume_id.clone(),
    node: r.node_id.clone(),
    mode: mode(r.volume_capability.as_ref()),
    readonly: r.readonly,
}, secrets);
describe!(csi::ControllerUnpublishVolumeRequest, "ControllerUnpublishVolume", |r| {
    volume: r.volume_id.clone(),
    node: r.node_id.clone(),
}, secrets);
describe!(csi::ValidateVolumeCapabilitiesRequest, "ValidateVolumeCapabilities", |r| { volume: r.volume_id.clone() }, secrets);
describe!(csi::ControllerExpandVolumeRequest, "ControllerExpandVolume", |r| { volume: r.volume_id.clone() }, secrets);
describe!(csi::CreateSnapshotRequest, "CreateSnapshot", |r| {
    name: r.name.clone(),
    volume: r.source_volume_id.clone(),
    parameters: r.parameters.clone(),
}, secrets);
describe!(csi::DeleteSnapshotRequest, "DeleteSnapshot", |r| { snapshot: r.snapshot_id.clone() }, secrets);
describe!(csi::ListSnapshotsRequest, "ListSnapshots", |r| {
    volume: r.source_volume_id.clone(),
    snapshot: r.snapshot_id.clone(),
}, secrets);
describe!(csi::GetSnapshotRequest, "GetSnapshot", |r| { snapshot: r.snapshot_id.clone() }, secrets);
describe!(csi::CreateVolumeGroupSnapshotRequest, "CreateVolumeGroupSnapshot", |r| {
    name: r.name.clone(),
    volume: r.source_volume_ids.join(" "),
    parameters: r.parameters.clone(),
}, secrets);
describe!(csi::DeleteVolumeGroupSnapshotRequest, "DeleteVolumeGroupSnapshot", |r| {
    snapshot: r.group_snapshot_id.clone(),
}, secrets);
describe!(csi::GetVolumeGroupSnapshotRequest, "GetVolumeGroupSnapshot", |r| {
    snapshot: r.group_snapshot_id.clone(),
}, secrets);
describe!(csi::NodeStageVolumeRequest, "NodeStageVolume", |r| {
    volume: r.volume_id.clone(),
    staging: r.staging_target_path.clone(),
    mode: mode(r.volume_capability.as_ref()),
}, secrets);
describe!(csi::NodeUnstageVolumeRequest, "NodeUnstageVolume", |r| {
    volume: r.volume_id.clone(),
    staging: r.staging_target_path.clone(),
});
describe!(csi::NodePublishVolumeRequest, "NodePublishVolume", |r| {
    volume: r.volume_id.clone(),
    staging: r.staging_target_path.clone(),
    target: r.target_path.clone(),
    mode: mode(r.volume_capability.as_ref()),
    readonly: r.readonly,
}, secrets);
describe!(csi::NodeUnpublishVolumeRequest, "NodeUnpublishVolume", |r| {
    volume: r.volume_id.clone(),
    target: r.target_path.clone(),
});
describe!(csi::NodeGetVolumeStatsRequest, "NodeGetVolumeStats", |r| {
    volume: r.volume_id.clone(),
    target: r.volume_path.clone(),
});
describe!(csi::NodeExpandVolumeRequest, "NodeExpandVolume", |r| {
    volume: r.volume_id.clone(),
    target: r.volume_path.clone(),
}, secrets);
describe!(csi::GetMetadataAllocatedRequest, "GetMetadataAllocated", |r| {
    snapshot: r.snapshot_id.clone(),
    offset: Some(r.starting_offset),
    max_results: Some(r.max_results),
}, secrets);
describe!(csi::GetMetadataDeltaRequest, "GetMetadataDelta", |r| {
    base: r.base_snapshot_id.clone(),
    snapshot: r.target_snapshot_id.clone(),
    offset: Some(r.starting_offset),
    max_results: Some(r.max_results),
}, secrets);
