//! The GroupController service: snapshots of several volumes at one moment.
//!
//! All images are taken under the lock of the state; nothing else keeps writers out, which is enough for tests that stand still.

use std::collections::BTreeSet;

use csi_proto::csi::group_controller_server::GroupController;
use csi_proto::csi::group_controller_service_capability::rpc::Type as RpcType;
use csi_proto::csi::group_controller_service_capability::{Rpc, Type};
use csi_proto::csi::{
    CreateVolumeGroupSnapshotRequest, CreateVolumeGroupSnapshotResponse,
    DeleteVolumeGroupSnapshotRequest, DeleteVolumeGroupSnapshotResponse,
    GetVolumeGroupSnapshotRequest, GetVolumeGroupSnapshotResponse,
    GroupControllerGetCapabilitiesRequest, GroupControllerGetCapabilitiesResponse,
    GroupControllerServiceCapability, VolumeGroupSnapshot,
};
use tonic::{Request, Response, Status};

use super::Service;
use super::controller::need;
use super::core::Job;
use super::snapshots::{answer, in_use, take, timestamp};
use super::state::{Group, State, now};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GroupController for Service {
    async fn group_controller_get_capabilities(
        &self,
        request: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<GroupControllerGetCapabilitiesResponse> {
        self.0.run(request, capabilities).await
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<CreateVolumeGroupSnapshotResponse> {
        self.0.run(request, create).await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<DeleteVolumeGroupSnapshotResponse> {
        self.0.run(request, delete).await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Answer<GetVolumeGroupSnapshotResponse> {
        self.0.run(request, get).await
    }
}

fn capabilities(
    _job: &Job,
    _request: &GroupControllerGetCapabilitiesRequest,
) -> Result<GroupControllerGetCapabilitiesResponse, Status> {
    let all = Rpc {
        r#type: RpcType::CreateDeleteGetVolumeGroupSnapshot.into(),
    };
    let capability = GroupControllerServiceCapability {
        r#type: Some(Type::Rpc(all)),
    };
    Ok(GroupControllerGetCapabilitiesResponse {
        capabilities: vec![capability],
    })
}

fn create(
    job: &Job,
    request: &CreateVolumeGroupSnapshotRequest,
) -> Result<CreateVolumeGroupSnapshotResponse, Status> {
    need(&request.name, "the name")?;
    if request.source_volume_ids.is_empty() {
        return Err(Status::invalid_argument("source_volume_ids are missing"));
    }
    job.core.store.change(|state| {
        let present = state
            .groups
            .iter()
            .find(|(_, group)| group.name == request.name)
            .map(|(id, _)| id.clone());
        let id = match present {
            Some(id) => {
                let wanted: BTreeSet<&str> = request
                    .source_volume_ids
                    .iter()
                    .map(String::as_str)
                    .collect();
                let members = state
                    .snapshots
                    .values()
                    .filter(|snapshot| snapshot.group.as_ref() == Some(&id));
                if members
                    .map(|snapshot| snapshot.volume.as_str())
                    .collect::<BTreeSet<_>>()
                    != wanted
                {
                    return Err(Status::already_exists(
                        "the name is that of a group of other volumes",
                    ));
                }
                id
            }
            None => take_all(job, state, request)?,
        };
        Ok(CreateVolumeGroupSnapshotResponse {
            group_snapshot: Some(group_answer(state, &id)?),
        })
    })
}

fn take_all(
    job: &Job,
    state: &mut State,
    request: &CreateVolumeGroupSnapshotRequest,
) -> Result<String, Status> {
    let id = job.core.handle(state, "group", &request.name);
    let mut snapshots = BTreeSet::new();
    for volume in &request.source_volume_ids {
        let name = format!("{}/{volume}", request.name);
        snapshots.insert(take(job, state, &name, volume, Some(&id))?);
    }
    state.groups.insert(
        id.clone(),
        Group {
            name: request.name.clone(),
            snapshots,
            created: now(),
        },
    );
    Ok(id)
}

fn group_answer(state: &State, id: &str) -> Result<VolumeGroupSnapshot, Status> {
    let group = state
        .groups
        .get(id)
        .ok_or_else(|| Status::not_found(format!("there is no group {id}")))?;
    let members = group
        .snapshots
        .iter()
        .map(|member| Ok(answer(member, state.snapshot(member)?)));
    Ok(VolumeGroupSnapshot {
        group_snapshot_id: id.to_owned(),
        snapshots: members.collect::<Result<_, Status>>()?,
        creation_time: Some(timestamp(group.created)),
        ready_to_use: true,
    })
}

/// Whether the request names exactly the members, where it names any.
fn check_members(group: &Group, named: &[String]) -> Result<(), Status> {
    let named: BTreeSet<_> = named.iter().cloned().collect();
    if named.is_empty() || named == group.snapshots {
        return Ok(());
    }
    Err(Status::invalid_argument(
        "the snapshots are not those of the group",
    ))
}

fn delete(
    job: &Job,
    request: &DeleteVolumeGroupSnapshotRequest,
) -> Result<DeleteVolumeGroupSnapshotResponse, Status> {
    need(&request.group_snapshot_id, "the group")?;
    let images = job.core.store.change(|state| {
        let Some(group) = state.groups.remove(&request.group_snapshot_id) else {
            return Ok(Vec::new());
        };
        check_members(&group, &request.snapshot_ids)?;
        for id in &group.snapshots {
            in_use(state, id)?;
        }
        let gone = group
            .snapshots
            .iter()
            .filter_map(|id| state.snapshots.remove(id));
        Ok(gone.map(|snapshot| snapshot.image).collect())
    })?;
    for image in images {
        job.core.store.remove(&image)?;
    }
    Ok(DeleteVolumeGroupSnapshotResponse {})
}

fn get(
    job: &Job,
    request: &GetVolumeGroupSnapshotRequest,
) -> Result<GetVolumeGroupSnapshotResponse, Status> {
    need(&request.group_snapshot_id, "the group")?;
    let group = job.core.store.read(|state| {
        if let Some(group) = state.groups.get(&request.group_snapshot_id) {
            check_members(group, &request.snapshot_ids)?;
        }
        group_answer(state, &request.group_snapshot_id)
    })?;
    Ok(GetVolumeGroupSnapshotResponse {
        group_snapshot: Some(group),
    })
}
