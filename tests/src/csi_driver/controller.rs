//! The Controller service: which call does what, and which calls there are.

use csi_proto::csi::controller_server::Controller;
use csi_proto::csi::controller_service_capability::rpc::Type as RpcType;
use csi_proto::csi::controller_service_capability::{Rpc, Type};
use csi_proto::csi::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use tonic::{Request, Response, Status};

use super::core::Job;
use super::{Service, snapshots, volumes};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Controller for Service {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Answer<CreateVolumeResponse> {
        self.0.run(request, volumes::create).await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Answer<DeleteVolumeResponse> {
        self.0.run(request, volumes::delete).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        self.0.run(request, volumes::publish).await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        self.0.run(request, volumes::unpublish).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        self.0.run(request, volumes::validate).await
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Answer<ListVolumesResponse> {
        self.0.run(request, volumes::list).await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Answer<GetCapacityResponse> {
        self.0.run(request, capacity).await
    }

    async fn controller_get_capabilities(
        &self,
        request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        self.0.run(request, capabilities).await
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        self.0.run(request, snapshots::create).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        self.0.run(request, snapshots::delete).await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Answer<ListSnapshotsResponse> {
        self.0.run(request, snapshots::list).await
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Answer<GetSnapshotResponse> {
        self.0.run(request, snapshots::get).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        self.0.run(request, volumes::expand).await
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        self.0.run(request, volumes::get).await
    }
}

fn capacity(job: &Job, _request: &GetCapacityRequest) -> Result<GetCapacityResponse, Status> {
    let free = job.core.store.free()?;
    Ok(GetCapacityResponse {
        available_capacity: i64::try_from(free).unwrap_or(i64::MAX),
        ..GetCapacityResponse::default()
    })
}

fn capabilities(
    job: &Job,
    _request: &ControllerGetCapabilitiesRequest,
) -> Result<ControllerGetCapabilitiesResponse, Status> {
    let mut calls = vec![
        RpcType::CreateDeleteVolume,
        RpcType::ListVolumes,
        RpcType::GetCapacity,
        RpcType::CreateDeleteSnapshot,
        RpcType::ListSnapshots,
        RpcType::GetSnapshot,
        RpcType::CloneVolume,
        RpcType::ExpandVolume,
    ];
    if job.core.options.get_volume {
        calls.push(RpcType::GetVolume);
    }
    if job.core.options.controller_multi_writer {
        calls.push(RpcType::SingleNodeMultiWriter);
    }
    if job.core.options.attach {
        calls.extend([
            RpcType::PublishUnpublishVolume,
            RpcType::PublishReadonly,
            RpcType::ListVolumesPublishedNodes,
        ]);
    }
    let capability = |call: RpcType| ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: call.into(),
        })),
    };
    Ok(ControllerGetCapabilitiesResponse {
        capabilities: calls.into_iter().map(capability).collect(),
    })
}

/// One page of `entries`: those from the token on, at most `max` unless that is 0, and the token of the next page.
pub(super) fn page<T>(entries: Vec<T>, token: &str, max: i32) -> Result<(Vec<T>, String), Status> {
    let max =
        usize::try_from(max).map_err(|_| Status::invalid_argument("max_entries is negative"))?;
    let begin = match token {
        "" => 0,
        token => token
            .parse()
            .ok()
            .filter(|begin| *begin < entries.len())
            .ok_or_else(|| Status::aborted("no such token"))?,
    };
    let count = entries.len();
    let take = if max == 0 { count } else { max };
    let page: Vec<T> = entries.into_iter().skip(begin).take(take).collect();
    let end = begin + page.len();
    Ok((
        page,
        if end < count {
            end.to_string()
        } else {
            String::new()
        },
    ))
}

/// Refuses a request without something that it needs.
pub(super) fn need(value: &str, what: &str) -> Result<(), Status> {
    if value.is_empty() {
        Err(Status::invalid_argument(format!("{what} is missing")))
    } else {
        Ok(())
    }
}

/// Bytes as messages carry them.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
