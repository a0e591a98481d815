//! What a driver says that it can do.
//!
//! Owns: which of its words matter here. Must not: ask it.

use csi_proto::csi;

/// What a driver can do, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It has a controller.
    pub controller: bool,
    /// It cares where volumes are made.
    pub topology: bool,
    /// It tells what changed between snapshots.
    pub snapshot_metadata: bool,
    /// It takes snapshots of several volumes at one moment.
    pub group_snapshots: bool,
    /// It makes volumes.
    pub volumes: bool,
    /// It makes snapshots, and volumes of them.
    pub snapshots: bool,
    /// It tells which snapshots there are.
    pub list_snapshots: bool,
    /// Volumes are attached before they are staged.
    pub attach: bool,
    /// They can be attached for reading only.
    pub attach_readonly: bool,
    /// Volumes are staged before their device appears.
    pub stage: bool,
    /// It tells volumes that one pod, or several, may write.
    pub multi_writer: bool,
}

impl Abilities {
    pub(super) fn take_plugin(&mut self, answer: &csi::GetPluginCapabilitiesResponse) {
        use csi::plugin_capability::{Type, service};
        for capability in &answer.capabilities {
            let Some(Type::Service(service)) = &capability.r#type else {
                continue;
            };
            match service.r#type() {
                service::Type::ControllerService => self.controller = true,
                service::Type::VolumeAccessibilityConstraints => self.topology = true,
                service::Type::GroupControllerService => self.group_snapshots = true,
                service::Type::SnapshotMetadataService => self.snapshot_metadata = true,
                service::Type::Unknown => {}
            }
        }
    }

    pub(super) fn take_controller(&mut self, answer: &csi::ControllerGetCapabilitiesResponse) {
        use csi::controller_service_capability::{Type, rpc};
        for capability in &answer.capabilities {
            let Some(Type::Rpc(rpc)) = &capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                rpc::Type::CreateDeleteVolume => self.volumes = true,
                rpc::Type::CreateDeleteSnapshot => self.snapshots = true,
                rpc::Type::ListSnapshots => self.list_snapshots = true,
                rpc::Type::PublishUnpublishVolume => self.attach = true,
                rpc::Type::PublishReadonly => self.attach_readonly = true,
                rpc::Type::SingleNodeMultiWriter => self.multi_writer = true,
                _ => {}
            }
        }
    }

    pub(super) fn take_node(&mut self, answer: &csi::NodeGetCapabilitiesResponse) {
        use csi::node_service_capability::{Type, rpc};
        for capability in &answer.capabilities {
            let Some(Type::Rpc(rpc)) = &capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                rpc::Type::StageUnstageVolume => self.stage = true,
                rpc::Type::SingleNodeMultiWriter => self.multi_writer = true,
                _ => {}
            }
        }
    }
}
