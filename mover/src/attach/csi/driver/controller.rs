//! Calls to the controller: snapshots and volumes, wherever the driver keeps them.
//!
//! Owns: the requests. Must not: know the order of the calls.

use std::collections::BTreeMap;

use csi_proto::csi;

use super::super::answer::{Purpose, Rpc};
use super::super::secrets::Group;
use super::super::state::{WantedSnapshot, WantedVolume};
use super::abilities::block_in;
use super::{Answer, Driver, MadeSnapshot, MadeVolume};
use crate::pipeline::progress::StopFlag;

impl Driver {
    /// With [`Purpose::Undo`] where it is asked only to know what there is to take back.
    pub(in crate::attach::csi) fn create_snapshot(
        &self,
        wanted: &WantedSnapshot,
        purpose: Purpose,
        stop: Option<&StopFlag>,
    ) -> Answer<MadeSnapshot> {
        let rpc = Rpc::CreateSnapshot;
        let message = csi::CreateSnapshotRequest {
            source_volume_id: wanted.volume.clone(),
            name: wanted.name.clone(),
            secrets: self.caller.secrets.of(Group::Snapshotter),
            parameters: wanted.parameters.clone(),
        };
        let client = self.controller_client();
        let answer = self
            .caller
            .call_for((rpc, purpose), &wanted.volume, stop, || {
                let (mut client, request) = (client.clone(), self.request(message.clone()));
                async move { client.create_snapshot(request).await }
            })?;
        let snapshot = answer.and_then(|answer| answer.snapshot);
        let snapshot = snapshot.filter(|snapshot| !snapshot.snapshot_id.is_empty());
        let snapshot = snapshot.ok_or_else(|| self.unclear(rpc, "snapshot"))?;
        Ok(MadeSnapshot::from(snapshot))
    }

    pub(in crate::attach::csi) fn delete_snapshot(&self, id: &str) -> Answer<()> {
        let message = csi::DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            secrets: self.caller.secrets.of(Group::Snapshotter),
        };
        let client = self.controller_client();
        let answer = self.caller.call(Rpc::DeleteSnapshot, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.delete_snapshot(request).await }
        });
        answer.map(drop)
    }

    /// As [`create_snapshot`](Self::create_snapshot).
    pub(in crate::attach::csi) fn create_volume(
        &self,
        wanted: &WantedVolume,
        purpose: Purpose,
        stop: Option<&StopFlag>,
    ) -> Answer<MadeVolume> {
        use csi::volume_content_source::{SnapshotSource, Type};
        let rpc = Rpc::CreateVolume;
        let source = wanted.snapshot.as_ref().map(|id| csi::VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource {
                snapshot_id: id.clone(),
            })),
        });
        let range = csi::CapacityRange {
            required_bytes: wanted.bytes,
            limit_bytes: 0,
        };
        let place = wanted.topology.as_ref().map(|segments| csi::Topology {
            segments: segments.clone(),
        });
        let mode = wanted
            .mode
            .unwrap_or_else(|| self.abilities.controller_mode());
        let message = csi::CreateVolumeRequest {
            name: wanted.name.clone(),
            capacity_range: (wanted.bytes > 0).then_some(range),
            volume_capabilities: Vec::from([block_in(mode)]),
            parameters: wanted.parameters.clone(),
            secrets: self.caller.secrets.of(Group::Provisioner),
            volume_content_source: source,
            accessibility_requirements: place.map(|place| csi::TopologyRequirement {
                requisite: Vec::from([place.clone()]),
                preferred: Vec::from([place]),
            }),
            mutable_parameters: BTreeMap::new(),
        };
        let client = self.controller_client();
        let object = wanted.snapshot.as_deref().unwrap_or(&wanted.name);
        let answer = self.caller.call_for((rpc, purpose), object, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.create_volume(request).await }
        })?;
        let volume = answer.and_then(|answer| answer.volume);
        let volume = volume.filter(|volume| !volume.volume_id.is_empty());
        let volume = volume.ok_or_else(|| self.unclear(rpc, "volume"))?;
        Ok(MadeVolume::from(volume))
    }

    pub(in crate::attach::csi) fn delete_volume(&self, id: &str) -> Answer<()> {
        let message = csi::DeleteVolumeRequest {
            volume_id: id.to_owned(),
            secrets: self.caller.secrets.of(Group::Provisioner),
        };
        let client = self.controller_client();
        let answer = self.caller.call(Rpc::DeleteVolume, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.delete_volume(request).await }
        });
        answer.map(drop)
    }

    pub(in crate::attach::csi) fn attach(
        &self,
        volume: &mut MadeVolume,
        readonly: bool,
        stop: Option<&StopFlag>,
    ) -> Answer<()> {
        let rpc = Rpc::ControllerPublish;
        let message = csi::ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.node.clone(),
            volume_capability: Some(self.abilities.controller_capability()),
            readonly: readonly && self.abilities.attach_readonly,
            secrets: self.caller.secrets.of(Group::ControllerPublish),
            volume_context: volume.context.clone(),
        };
        let client = self.controller_client();
        let answer = self.caller.call(rpc, &volume.id, stop, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.controller_publish_volume(request).await }
        })?;
        volume.publish = answer
            .map(|answer| answer.publish_context)
            .unwrap_or_default();
        Ok(())
    }

    pub(in crate::attach::csi) fn detach(&self, id: &str, node: &str) -> Answer<()> {
        let message = csi::ControllerUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            node_id: node.to_owned(),
            secrets: self.caller.secrets.of(Group::ControllerPublish),
        };
        let client = self.controller_client();
        let answer = self.caller.call(Rpc::ControllerUnpublish, id, None, || {
            let (mut client, request) = (client.clone(), self.request(message.clone()));
            async move { client.controller_unpublish_volume(request).await }
        });
        answer.map(drop)
    }
}
