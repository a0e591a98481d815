//! Capabilities of volumes, in the form in which they are compared and kept.
//!
//! Owns: validation of `VolumeCapability`. Must not: know volumes.

use csi_proto::Status;
use csi_proto::csi::VolumeCapability;
use csi_proto::csi::volume_capability::AccessType;
use csi_proto::csi::volume_capability::access_mode::Mode;
use serde::{Deserialize, Serialize};

/// One way to access a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    /// None for raw block.
    pub(super) mount: Option<Mount>,
    /// Number of the access mode.
    mode: i32,
}

/// How it is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mount {
    /// Kind of file system, `ext4` where the request has none.
    pub(super) fs_type: String,
    pub(super) flags: Vec<String>,
}

impl Access {
    /// Reads a capability; it must have an access type and a known mode, and one of the newer two only where the service that
    /// is asked declares them.
    pub(super) fn read(
        capability: Option<&VolumeCapability>,
        knows_newer_modes: bool,
    ) -> Result<Self, Status> {
        let capability = capability
            .ok_or_else(|| Status::invalid_argument("the volume capability is missing"))?;
        let mode = capability
            .access_mode
            .as_ref()
            .map_or(0, |access| access.mode);
        let newer = [Mode::SingleNodeSingleWriter, Mode::SingleNodeMultiWriter];
        let known = Mode::try_from(mode).unwrap_or(Mode::Unknown);
        if known == Mode::Unknown || (newer.contains(&known) && !knows_newer_modes) {
            return Err(Status::invalid_argument(format!(
                "{mode} is no access mode"
            )));
        }
        let mount = match &capability.access_type {
            None => return Err(Status::invalid_argument("the access type is missing")),
            Some(AccessType::Block(_)) => None,
            Some(AccessType::Mount(mount)) => Some(Mount {
                fs_type: if mount.fs_type.is_empty() {
                    "ext4".to_owned()
                } else {
                    mount.fs_type.clone()
                },
                flags: mount.mount_flags.clone(),
            }),
        };
        Ok(Self { mount, mode })
    }

    /// Whether nobody may write.
    pub(super) fn read_only(&self) -> bool {
        matches!(
            Mode::try_from(self.mode),
            Ok(Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly)
        )
    }

    /// Whether a node may have it at one target only.
    pub(super) fn single_target(&self) -> bool {
        let single = [
            Mode::SingleNodeWriter,
            Mode::SingleNodeReaderOnly,
            Mode::SingleNodeSingleWriter,
        ];
        Mode::try_from(self.mode).is_ok_and(|mode| single.contains(&mode))
    }
}
