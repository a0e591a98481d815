//! The Node service: volumes as devices and folders of this machine.
//!
//! Owns: what its calls do. Must not: run commands; `device` does.

use csi_proto::csi::node_server::Node;
use csi_proto::csi::node_service_capability::rpc::Type as RpcType;
use csi_proto::csi::node_service_capability::{Rpc, Type};
use csi_proto::csi::volume_usage::Unit;
use csi_proto::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeUsage,
};
use tonic::{Request, Response, Status};

use super::Service;
use super::controller::{need, signed};
use super::core::{Job, NODE};
use super::device;
use super::node_state;
use super::state::internal;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Node for Service {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Answer<NodeStageVolumeResponse> {
        self.0.run(request, node_state::stage).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        self.0.run(request, node_state::unstage).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        self.0.run(request, node_state::publish).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        self.0.run(request, node_state::unpublish).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        self.0.run(request, stats).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Answer<NodeExpandVolumeResponse> {
        self.0.run(request, expand).await
    }

    async fn node_get_capabilities(
        &self,
        request: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        self.0.run(request, capabilities).await
    }

    async fn node_get_info(
        &self,
        request: Request<NodeGetInfoRequest>,
    ) -> Answer<NodeGetInfoResponse> {
        self.0
            .run(request, |_, _| {
                Ok(NodeGetInfoResponse {
                    node_id: NODE.to_owned(),
                    ..NodeGetInfoResponse::default()
                })
            })
            .await
    }
}

fn capabilities(
    job: &Job,
    _request: &NodeGetCapabilitiesRequest,
) -> Result<NodeGetCapabilitiesResponse, Status> {
    let mut calls = vec![RpcType::GetVolumeStats, RpcType::ExpandVolume];
    if job.core.options.node_multi_writer {
        calls.push(RpcType::SingleNodeMultiWriter);
    }
    if job.core.options.stage {
        calls.push(RpcType::StageUnstageVolume);
    }
    let capability = |call: RpcType| NodeServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: call.into(),
        })),
    };
    Ok(NodeGetCapabilitiesResponse {
        capabilities: calls.into_iter().map(capability).collect(),
    })
}

fn stats(
    job: &Job,
    request: &NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse, Status> {
    need(&request.volume_id, "the volume")?;
    need(&request.volume_path, "the path of the volume")?;
    let volume = job
        .core
        .store
        .read(|state| state.volume(&request.volume_id).cloned())?;
    let path = std::path::Path::new(&request.volume_path);
    let staged = volume
        .staged
        .as_ref()
        .filter(|(staged, _)| staged == path)
        .map(|(_, access)| access);
    let Some(access) = staged.or_else(|| volume.targets.get(path).map(|(access, _)| access)) else {
        return Err(Status::not_found(format!(
            "the volume is not at {}",
            path.display()
        )));
    };
    let mut usage = VolumeUsage {
        total: signed(volume.capacity),
        unit: Unit::Bytes.into(),
        ..VolumeUsage::default()
    };
    if access.mount.is_some() {
        let facts = nix::sys::statvfs::statvfs(path).map_err(|error| internal(error.into()))?;
        usage.total = signed(facts.blocks() * facts.fragment_size());
        usage.available = signed(facts.blocks_available() * facts.fragment_size());
        usage.used = usage.total - signed(facts.blocks_free() * facts.fragment_size());
    }
    Ok(NodeGetVolumeStatsResponse { usage: vec![usage] })
}

fn expand(
    job: &Job,
    request: &NodeExpandVolumeRequest,
) -> Result<NodeExpandVolumeResponse, Status> {
    need(&request.volume_id, "the volume")?;
    need(&request.volume_path, "the path of the volume")?;
    let volume = job
        .core
        .store
        .read(|state| state.volume(&request.volume_id).cloned())?;
    let path = std::path::Path::new(&request.volume_path);
    let known = volume.targets.contains_key(path)
        || volume
            .staged
            .as_ref()
            .is_some_and(|(staged, _)| staged == path);
    if !known {
        return Err(Status::not_found(format!(
            "the volume is not at {}",
            path.display()
        )));
    }
    let image = job.core.store.image(&volume.image);
    device::grow(&image)?;
    if let Some((_, access)) = &volume.staged
        && let Some(mount) = &access.mount
    {
        device::grow_mounted(&image, path, &mount.fs_type)?;
    }
    Ok(NodeExpandVolumeResponse {
        capacity_bytes: signed(volume.capacity),
    })
}
