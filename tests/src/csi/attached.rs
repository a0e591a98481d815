//! A volume that a test holds as a device, the way the kubelet would.
//!
//! Owns: the two folders and the order of the calls. Must not: attach what the product is to attach.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use csi_proto::csi::{NodePublishVolumeRequest, NodeStageVolumeRequest, Volume, VolumeCapability};

use crate::csi::Plugin;
use crate::csi::client::{Client, block};

/// A staged and published volume. [`Attached::detach`] reports errors; dropping it only tries.
#[derive(Debug)]
pub struct Attached {
    client: Client,
    volume: String,
    staging: PathBuf,
    target: PathBuf,
    folder: PathBuf,
    staged: bool,
    held: bool,
}

impl Attached {
    /// Stages and publishes as raw block. The name is that of a folder below the kubelet's.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn block(plugin: &dyn Plugin, name: &str, volume: &Volume) -> Result<Self> {
        Self::new(plugin, name, volume, &block(), BTreeMap::new())
    }

    /// Stages and publishes with a capability and the context that ControllerPublishVolume gave.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn new(
        plugin: &dyn Plugin,
        name: &str,
        volume: &Volume,
        capability: &VolumeCapability,
        publish_context: BTreeMap<String, String>,
    ) -> Result<Self> {
        let folder = plugin.kubelet().join(name);
        let (staging, target) = (folder.join("staging"), folder.join("target"));
        std::fs::create_dir_all(&staging)?;
        let mut attached = Self {
            client: plugin.client()?,
            volume: volume.volume_id.clone(),
            staging,
            target,
            folder,
            staged: true,
            held: true,
        };
        let staged = attached.client.stage(NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: attached.staging.display().to_string(),
            volume_capability: Some(capability.clone()),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        });
        // A driver without staging has no staging path either.
        attached.staged = !is_unimplemented(&staged);
        if attached.staged {
            staged?;
        }
        let staging = if attached.staged {
            attached.staging.display().to_string()
        } else {
            String::new()
        };
        let published = attached.client.publish(NodePublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context,
            staging_target_path: staging,
            target_path: attached.target.display().to_string(),
            volume_capability: Some(capability.clone()),
            volume_context: volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        });
        if let Err(status) = published {
            let _ = attached.release();
            return Err(status.into());
        }
        Ok(attached)
    }

    /// The device, or the folder of a mounted volume.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Unpublishes, unstages and removes the folders.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn detach(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        self.held = false;
        self.client.unpublish(&self.volume, &self.target)?;
        if self.staged {
            self.client.unstage(&self.volume, &self.staging)?;
        }
        std::fs::remove_dir_all(&self.folder).context("remove the folder of the volume")
    }
}

fn is_unimplemented(answer: &std::result::Result<(), csi_proto::Status>) -> bool {
    answer
        .as_ref()
        .is_err_and(|status| status.code() == csi_proto::Code::Unimplemented)
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.held {
            let _ = self.release();
        }
    }
}
