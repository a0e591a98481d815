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
    /// It tells how large one volume is.
    pub get_volume: bool,
    /// It tells which volumes there are, and how large.
    pub list_volumes: bool,
    /// Its controller tells volumes that one pod may write from those that several may.
    pub controller_multi_writer: bool,
    /// Its node does. The specification has one such capability for each, and a mode may be used only where it is declared.
    pub node_multi_writer: bool,
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
                rpc::Type::GetVolume => self.get_volume = true,
                rpc::Type::ListVolumes => self.list_volumes = true,
                rpc::Type::SingleNodeMultiWriter => self.controller_multi_writer = true,
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
                rpc::Type::SingleNodeMultiWriter => self.node_multi_writer = true,
                _ => {}
            }
        }
    }

    /// The number of the access mode that the controller is asked for. It changes with what the driver can do.
    pub(in crate::attach::csi) fn controller_mode(&self) -> i32 {
        mode_of_one_node(self.controller_multi_writer)
    }

    /// How calls to the controller say that a volume is used.
    pub(super) fn controller_capability(&self) -> csi::VolumeCapability {
        block_in(self.controller_mode())
    }

    /// How calls to the node say it. Where only one of the two services knows the newer modes, each is told the one that it knows:
    /// a driver with the newer ones must take the older one everywhere.
    pub(super) fn node_capability(&self) -> csi::VolumeCapability {
        block_in(mode_of_one_node(self.node_multi_writer))
    }
}

/// On one node: the mode that Kubernetes asks for ReadWriteOnce.
fn mode_of_one_node(knows_newer_modes: bool) -> i32 {
    use csi::volume_capability::access_mode::Mode;
    let mode = if knows_newer_modes {
        Mode::SingleNodeMultiWriter
    } else {
        Mode::SingleNodeWriter
    };
    mode.into()
}

/// A block device in this access mode.
pub(super) fn block_in(mode: i32) -> csi::VolumeCapability {
    use csi::volume_capability::{AccessMode, AccessType, BlockVolume};
    csi::VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        access_mode: Some(AccessMode { mode }),
    }
}

#[cfg(test)]
mod tests {
    use csi::volume_capability::access_mode::Mode;

    use super::*;

    fn of_controller(what: &[csi::controller_service_capability::rpc::Type]) -> Abilities {
        use csi::controller_service_capability::{Rpc, Type};
        let mut abilities = Abilities::default();
        let one = |kind: &csi::controller_service_capability::rpc::Type| {
            let r#type = i32::from(*kind);
            csi::ControllerServiceCapability {
                r#type: Some(Type::Rpc(Rpc { r#type })),
            }
        };
        abilities.take_controller(&csi::ControllerGetCapabilitiesResponse {
            capabilities: what.iter().map(one).collect(),
        });
        abilities
    }

    fn with_node(mut abilities: Abilities) -> Abilities {
        use csi::node_service_capability::{Rpc, Type, rpc};
        let r#type = i32::from(rpc::Type::SingleNodeMultiWriter);
        abilities.take_node(&csi::NodeGetCapabilitiesResponse {
            capabilities: Vec::from([csi::NodeServiceCapability {
                r#type: Some(Type::Rpc(Rpc { r#type })),
            }]),
        });
        abilities
    }

    fn modes(abilities: &Abilities) -> [Mode; 2] {
        [
            abilities.controller_capability(),
            abilities.node_capability(),
        ]
        .map(|capability| capability.access_mode.unwrap().mode())
    }

    #[test]
    fn each_service_is_told_a_mode_that_it_declares() {
        use csi::controller_service_capability::rpc::Type;
        let (old, new) = (Mode::SingleNodeWriter, Mode::SingleNodeMultiWriter);
        let controller = || of_controller(&[Type::SingleNodeMultiWriter]);
        assert_eq!(modes(&Abilities::default()), [old, old]);
        assert_eq!(modes(&controller()), [new, old]);
        assert_eq!(modes(&with_node(Abilities::default())), [old, new]);
        assert_eq!(modes(&with_node(controller())), [new, new]);
    }
}
