//! Calls to the node: devices on this machine.
//!
//! Owns: the requests. Must not: make folders, or look at devices.

use std::path::Path;

use csi_proto::csi;

use super::super::answer::Rpc;
use super::super::secrets::Group;
use super::{Answer, Driver, MadeVolume};
use crate::pipeline::progress::StopFlag;

impl Driver {
    pub(in crate::attach::csi) fn stage(
        &self,
        volume: &MadeVolume,
        path: &Path,
        stop: Option<&StopFlag>,
    ) -> Answer<()> {
        let message = csi::NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: volume.publish.clone(),
            staging_target_path: path.display().to_string(),
            volume_capability: Some(self.abilities.node_capability()),
            secrets: self.caller.secrets.of(Group::NodeStage),
            volume_context: volume.context.clone(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeStage, &volume.id, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_stage_volume(request).await }
        });
        answer.map(drop)
    }

    pub(in crate::attach::csi) fn unstage(&self, id: &str, path: &Path) -> Answer<()> {
        let message = csi::NodeUnstageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: path.display().to_string(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeUnstage, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_unstage_volume(request).await }
        });
        answer.map(drop)
    }

    pub(in crate::attach::csi) fn publish(
        &self,
        volume: &MadeVolume,
        (staged, path): (Option<&Path>, &Path),
        readonly: bool,
        stop: Option<&StopFlag>,
    ) -> Answer<()> {
        let message = csi::NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: volume.publish.clone(),
            staging_target_path: staged
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            target_path: path.display().to_string(),
            volume_capability: Some(self.abilities.node_capability()),
            readonly,
            secrets: self.caller.secrets.of(Group::NodePublish),
            volume_context: volume.context.clone(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodePublish, &volume.id, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_publish_volume(request).await }
        });
        answer.map(drop)
    }

    pub(in crate::attach::csi) fn unpublish(&self, id: &str, path: &Path) -> Answer<()> {
        let message = csi::NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: path.display().to_string(),
        };
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeUnpublish, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.node_unpublish_volume(request).await }
        });
        answer.map(drop)
    }
}
