//! Volumes, and which node may use them.
//!
//! Owns: what the calls of the Controller service say of volumes. Must not: attach devices.

use std::collections::BTreeMap;

use csi_proto::Status;
use csi_proto::csi::controller_get_volume_response as get_status;
use csi_proto::csi::list_volumes_response::{Entry, VolumeStatus};
use csi_proto::csi::validate_volume_capabilities_response::Confirmed;
use csi_proto::csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use csi_proto::csi::{
    self, CapacityRange, ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateVolumeRequest, CreateVolumeResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, ListVolumesRequest, ListVolumesResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, VolumeContentSource,
};

use super::access::Access;
use super::controller::{need, page, signed};
use super::core::{Job, NODE};
use super::device;
use super::faults::Fault;
use super::state::{Source, State, Store, Volume};

/// Where the request names no size.
const DEFAULT_SIZE: u64 = 64 << 20;
/// Devices have sectors of this size.
const SECTOR: u64 = 512;
/// Proves to the node that the controller has published the volume there.
pub(super) const ATTACHMENT: &str = "attachment";
/// Must come back with every later call for the volume.
const CONTEXT: &str = "volume-name";

pub(super) fn create(
    job: &Job,
    request: &CreateVolumeRequest,
) -> Result<CreateVolumeResponse, Status> {
    need(&request.name, "the name")?;
    if request.volume_capabilities.is_empty() {
        return Err(Status::invalid_argument("volume_capabilities are missing"));
    }
    // A request that was answered before is answered again, whatever is declared by now.
    let accesses = request.volume_capabilities.iter();
    let accesses = accesses.map(|capability| Access::read(Some(capability), true));
    let accesses: Vec<Access> = accesses.collect::<Result<_, _>>()?;
    let mut source = read_source(request.volume_content_source.as_ref())?;
    let asked = source.clone();
    if job.fault == Some(Fault::IgnoreSource) {
        source = None;
    }
    let mut volume = job.core.store.change(|state| {
        let present = state
            .volumes
            .iter()
            .find(|(_, volume)| volume.name == request.name);
        if let Some((id, volume)) = present {
            let same = volume.source == source
                && volume.parameters == request.parameters
                && volume.accesses == accesses;
            if !same || !fits(volume.capacity, request.capacity_range.as_ref())? {
                return Err(Status::already_exists(
                    "the name is that of a volume that is not like this one",
                ));
            }
            return Ok(answer(id, volume));
        }
        for capability in &request.volume_capabilities {
            Access::read(Some(capability), job.core.options.controller_multi_writer)?;
        }
        let volume = Volume {
            accesses,
            ..make(job, state, request, source)?
        };
        let id = job.core.handle(state, "volume", &request.name);
        let made = answer(&id, &volume);
        state.volumes.insert(id, volume);
        Ok(made)
    })?;
    if job.fault == Some(Fault::UnknownSize) {
        volume.capacity_bytes = 0;
    }
    if let (Some(Fault::OtherSource), Some(Source::Snapshot(id))) = (&job.fault, &asked) {
        volume.volume_id = job
            .core
            .store
            .read(|state| state.snapshot(id).map(|snapshot| snapshot.volume.clone()))?;
    }
    Ok(CreateVolumeResponse {
        volume: Some(volume),
    })
}

fn make(
    job: &Job,
    state: &mut State,
    request: &CreateVolumeRequest,
    source: Option<Source>,
) -> Result<Volume, Status> {
    let store = &job.core.store;
    let (content, least) = match &source {
        None => (None, 0),
        Some(Source::Snapshot(id)) => state
            .snapshot(id)
            .map(|snapshot| (Some(snapshot.image.clone()), snapshot.size))?,
        Some(Source::Volume(id)) => {
            let volume = state.volume(id)?;
            settle(store, volume)?;
            (Some(volume.image.clone()), volume.capacity)
        }
    };
    let capacity = size(request.capacity_range.as_ref(), least)?;
    let image = format!("volume-{}", state.number());
    store.create(&image, capacity, content.as_deref())?;
    Ok(Volume {
        name: request.name.clone(),
        image,
        capacity,
        source,
        parameters: request.parameters.clone(),
        accesses: Vec::new(),
        published: BTreeMap::new(),
        staged: None,
        targets: BTreeMap::new(),
    })
}

/// Brings everything that was written to a volume into its image.
pub(super) fn settle(store: &Store, volume: &Volume) -> Result<(), Status> {
    let mounted = volume
        .staged
        .as_ref()
        .filter(|(_, access)| access.mount.is_some())
        .map(|(path, _)| path.as_path());
    device::flush(&store.image(&volume.image), mounted)
}

fn read_source(source: Option<&VolumeContentSource>) -> Result<Option<Source>, Status> {
    let Some(source) = source else {
        return Ok(None);
    };
    let source = match &source.r#type {
        None => return Err(Status::invalid_argument("the content source has no type")),
        Some(Type::Snapshot(from)) => Source::Snapshot(from.snapshot_id.clone()),
        Some(Type::Volume(from)) => Source::Volume(from.volume_id.clone()),
    };
    let (Source::Snapshot(id) | Source::Volume(id)) = &source;
    need(id, "the id of the content source")?;
    Ok(Some(source))
}

/// The bounds of a range; 0 is none.
fn bounds(range: Option<&CapacityRange>) -> Result<(u64, u64), Status> {
    let Some(range) = range else {
        return Ok((0, 0));
    };
    let (required, limit) = (
        u64::try_from(range.required_bytes),
        u64::try_from(range.limit_bytes),
    );
    let (Ok(required), Ok(limit)) = (required, limit) else {
        return Err(Status::invalid_argument("a capacity below zero"));
    };
    if limit != 0 && limit < required {
        return Err(Status::invalid_argument(
            "the limit is below what is required",
        ));
    }
    Ok((required, limit))
}

fn fits(capacity: u64, range: Option<&CapacityRange>) -> Result<bool, Status> {
    let (required, limit) = bounds(range)?;
    Ok(capacity >= required
        && (limit == 0 || capacity <= limit)
        && (required == 0 || capacity - required < SECTOR))
}

/// A size in whole sectors within the range, and not below that of the source.
fn size(range: Option<&CapacityRange>, least: u64) -> Result<u64, Status> {
    let (required, limit) = bounds(range)?;
    if required != 0 && required < least {
        return Err(Status::out_of_range(format!(
            "the source has {least} bytes"
        )));
    }
    let wanted = match (required.max(least), limit) {
        (0, 0) => DEFAULT_SIZE,
        (0, limit) => limit.min(DEFAULT_SIZE) / SECTOR * SECTOR,
        (wanted, _) => wanted.next_multiple_of(SECTOR),
    };
    if wanted == 0 || (limit != 0 && wanted > limit) {
        return Err(Status::out_of_range("no size in whole sectors fits"));
    }
    Ok(wanted)
}

fn answer(id: &str, volume: &Volume) -> csi::Volume {
    let source = volume.source.as_ref().map(|source| match source {
        Source::Snapshot(id) => Type::Snapshot(SnapshotSource {
            snapshot_id: id.clone(),
        }),
        Source::Volume(id) => Type::Volume(VolumeSource {
            volume_id: id.clone(),
        }),
    });
    csi::Volume {
        capacity_bytes: signed(volume.capacity),
        volume_id: id.to_owned(),
        volume_context: context(volume),
        content_source: source.map(|source| VolumeContentSource {
            r#type: Some(source),
        }),
        accessible_topology: Vec::new(),
    }
}

fn context(volume: &Volume) -> BTreeMap<String, String> {
    BTreeMap::from([(CONTEXT.to_owned(), volume.name.clone())])
}

/// What the provisioner and the kubelet add to a context, as every driver in a cluster must bear.
const OF_KUBERNETES: [&str; 2] = ["storage.kubernetes.io/", "csi.storage.k8s.io/"];

/// Refuses a call that does not bring the context of the volume; one without any context is that of a volume that somebody
/// made known by hand.
pub(super) fn check_context(
    volume: &Volume,
    given: &BTreeMap<String, String>,
) -> Result<(), Status> {
    let mut given = given.clone();
    given.retain(|key, _| !OF_KUBERNETES.iter().any(|prefix| key.starts_with(prefix)));
    if given.is_empty() || given == context(volume) {
        return Ok(());
    }
    Err(Status::invalid_argument(
        "the volume context is another one than CreateVolume gave",
    ))
}

pub(super) fn delete(
    job: &Job,
    request: &DeleteVolumeRequest,
) -> Result<DeleteVolumeResponse, Status> {
    need(&request.volume_id, "the volume")?;
    let images = job.core.store.change(|state| {
        let Some(volume) = state.volumes.get(&request.volume_id) else {
            return Ok(Vec::new());
        };
        if volume.staged.is_some() || !volume.targets.is_empty() || !volume.published.is_empty() {
            return Err(Status::failed_precondition("the volume is in use"));
        }
        let volume = state.volumes.remove(&request.volume_id);
        let past = state
            .past
            .extract_if(.., |_, snapshot| snapshot.volume == request.volume_id)
            .map(|(_, snapshot)| snapshot.image);
        Ok(volume
            .map(|volume| volume.image)
            .into_iter()
            .chain(past)
            .collect())
    })?;
    for image in images {
        job.core.store.remove(&image)?;
    }
    Ok(DeleteVolumeResponse {})
}

pub(super) fn publish(
    job: &Job,
    request: &ControllerPublishVolumeRequest,
) -> Result<ControllerPublishVolumeResponse, Status> {
    supported(job)?;
    need(&request.volume_id, "the volume")?;
    need(&request.node_id, "the node")?;
    let newer = job.core.options.controller_multi_writer;
    let access = Access::read(request.volume_capability.as_ref(), newer)?;
    job.core.store.change(|state| {
        let volume = state.volume(&request.volume_id)?;
        check_context(volume, &request.volume_context)?;
        if request.node_id != NODE {
            return Err(Status::not_found(format!(
                "there is no node {}",
                request.node_id
            )));
        }
        let wanted = (access, request.readonly);
        if volume
            .published
            .get(NODE)
            .is_some_and(|published| *published != wanted)
        {
            return Err(Status::already_exists(
                "published there with another capability",
            ));
        }
        volume.published.insert(NODE.to_owned(), wanted);
        Ok(())
    })?;
    let publish_context = BTreeMap::from([(
        ATTACHMENT.to_owned(),
        format!("{NODE}:{}", request.volume_id),
    )]);
    Ok(ControllerPublishVolumeResponse { publish_context })
}

pub(super) fn unpublish(
    job: &Job,
    request: &ControllerUnpublishVolumeRequest,
) -> Result<ControllerUnpublishVolumeResponse, Status> {
    supported(job)?;
    need(&request.volume_id, "the volume")?;
    job.core.store.change(|state| {
        let Some(volume) = state.volumes.get_mut(&request.volume_id) else {
            return Ok(());
        };
        if volume.staged.is_some() || !volume.targets.is_empty() {
            return Err(Status::failed_precondition(
                "the volume is staged or published on the node",
            ));
        }
        volume
            .published
            .retain(|node, _| !request.node_id.is_empty() && *node != request.node_id);
        Ok(())
    })?;
    Ok(ControllerUnpublishVolumeResponse {})
}

fn supported(job: &Job) -> Result<(), Status> {
    if job.core.options.attach {
        Ok(())
    } else {
        Err(Status::unimplemented("volumes are not attached"))
    }
}

pub(super) fn validate(
    job: &Job,
    request: &ValidateVolumeCapabilitiesRequest,
) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
    need(&request.volume_id, "the volume")?;
    if request.volume_capabilities.is_empty() {
        return Err(Status::invalid_argument("volume_capabilities are missing"));
    }
    job.core
        .store
        .read(|state| state.volume(&request.volume_id).map(drop))?;
    for capability in &request.volume_capabilities {
        let newer = job.core.options.controller_multi_writer;
        if let Err(status) = Access::read(Some(capability), newer) {
            let message = status.message().to_owned();
            return Ok(ValidateVolumeCapabilitiesResponse {
                confirmed: None,
                message,
            });
        }
    }
    let confirmed = Confirmed {
        volume_context: request.volume_context.clone(),
        volume_capabilities: request.volume_capabilities.clone(),
        parameters: request.parameters.clone(),
        mutable_parameters: request.mutable_parameters.clone(),
    };
    Ok(ValidateVolumeCapabilitiesResponse {
        confirmed: Some(confirmed),
        message: String::new(),
    })
}

pub(super) fn get(
    job: &Job,
    request: &ControllerGetVolumeRequest,
) -> Result<ControllerGetVolumeResponse, Status> {
    if !job.core.options.get_volume {
        return Err(Status::unimplemented("volumes are told in lists only"));
    }
    need(&request.volume_id, "the volume")?;
    job.core.store.read(|state| {
        let Some(volume) = state.volumes.get(&request.volume_id) else {
            return Err(Status::not_found("there is no such volume"));
        };
        let status = get_status::VolumeStatus {
            published_node_ids: volume.published.keys().cloned().collect(),
        };
        Ok(ControllerGetVolumeResponse {
            volume: Some(told(job, &request.volume_id, volume)),
            status: Some(status),
        })
    })
}

/// A volume as it is told of, whose size a fault may hide.
fn told(job: &Job, id: &str, volume: &Volume) -> csi::Volume {
    let mut told = answer(id, volume);
    match job.fault {
        Some(Fault::UnknownSize) => told.capacity_bytes = 0,
        Some(Fault::OtherSize { bytes }) => told.capacity_bytes = signed(bytes),
        _ => {}
    }
    told
}

pub(super) fn list(job: &Job, request: &ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
    let entries = job.core.store.read(|state| {
        let entry = |(id, volume): (&String, &Volume)| Entry {
            volume: Some(told(job, id, volume)),
            status: Some(VolumeStatus {
                published_node_ids: volume.published.keys().cloned().collect(),
            }),
        };
        Ok(state.volumes.iter().map(entry).collect())
    })?;
    let (entries, next_token) = page(entries, &request.starting_token, request.max_entries)?;
    Ok(ListVolumesResponse {
        entries,
        next_token,
    })
}

pub(super) fn expand(
    job: &Job,
    request: &ControllerExpandVolumeRequest,
) -> Result<ControllerExpandVolumeResponse, Status> {
    need(&request.volume_id, "the volume")?;
    if request.capacity_range.is_none() {
        return Err(Status::invalid_argument("the capacity range is missing"));
    }
    job.core.store.change(|state| {
        let volume = state.volume(&request.volume_id)?;
        let (required, limit) = bounds(request.capacity_range.as_ref())?;
        if limit != 0 && limit < volume.capacity {
            return Err(Status::out_of_range("volumes do not shrink"));
        }
        if required > volume.capacity {
            let capacity = size(request.capacity_range.as_ref(), 0)?;
            job.core.store.create(&volume.image, capacity, None)?;
            volume.capacity = capacity;
        }
        Ok(ControllerExpandVolumeResponse {
            capacity_bytes: signed(volume.capacity),
            node_expansion_required: volume.staged.is_some(),
        })
    })
}
