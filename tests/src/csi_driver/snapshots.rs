//! Snapshots: reflinked copies of images.
//!
//! Owns: what the calls of the Controller service say of snapshots. Must not: know groups beyond that a member is not deleted alone.

use csi_proto::csi::list_snapshots_response::Entry;
use csi_proto::csi::{
    self, CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotRequest,
    DeleteSnapshotResponse, GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest,
    ListSnapshotsResponse,
};
use csi_proto::{Status, Timestamp};

use super::controller::{need, page, signed};
use super::core::Job;
use super::faults::Fault;
use super::state::{Snapshot, Source, State, now};
use super::volumes::settle;

pub(super) fn create(
    job: &Job,
    request: &CreateSnapshotRequest,
) -> Result<CreateSnapshotResponse, Status> {
    need(&request.name, "the name")?;
    need(&request.source_volume_id, "the source volume")?;
    let ready = job.fault != Some(Fault::NotReady);
    job.core.store.change(|state| {
        let present = state
            .snapshots
            .iter()
            .find(|(_, snapshot)| snapshot.name == request.name);
        let id = match present {
            Some((_, snapshot)) if snapshot.volume != request.source_volume_id => {
                return Err(Status::already_exists(
                    "the name is that of a snapshot of another volume",
                ));
            }
            Some((id, _)) => id.clone(),
            None => take(job, state, &request.name, &request.source_volume_id, None)?,
        };
        let mut snapshot = csi::Snapshot {
            ready_to_use: ready,
            ..answer(&id, state.snapshot(&id)?)
        };
        if job.fault == Some(Fault::UnknownSize) {
            snapshot.size_bytes = 0;
        }
        if let Some(Fault::OtherSize { bytes }) = job.fault {
            snapshot.size_bytes = signed(bytes);
        }
        if job.fault == Some(Fault::OtherSource) {
            snapshot.source_volume_id.push_str("-other");
        }
        Ok(CreateSnapshotResponse {
            snapshot: Some(snapshot),
        })
    })
}

/// Takes a snapshot and gives its handle.
pub(super) fn take(
    job: &Job,
    state: &mut State,
    name: &str,
    volume: &str,
    group: Option<&str>,
) -> Result<String, Status> {
    let source = state.volume(volume)?;
    settle(&job.core.store, source)?;
    let (content, size) = (source.image.clone(), source.capacity);
    let number = state.number();
    let image = format!("snapshot-{number}");
    job.core.store.create(&image, size, Some(&content))?;
    let id = job.core.handle(state, "snapshot", name);
    let snapshot = Snapshot {
        name: name.to_owned(),
        image,
        volume: volume.to_owned(),
        size,
        created: now(),
        number,
        group: group.map(str::to_owned),
    };
    state.snapshots.insert(id.clone(), snapshot);
    Ok(id)
}

/// A snapshot as answers show it.
pub(super) fn answer(id: &str, snapshot: &Snapshot) -> csi::Snapshot {
    csi::Snapshot {
        size_bytes: signed(snapshot.size),
        snapshot_id: id.to_owned(),
        source_volume_id: snapshot.volume.clone(),
        creation_time: Some(timestamp(snapshot.created)),
        ready_to_use: true,
        group_snapshot_id: snapshot.group.clone().unwrap_or_default(),
    }
}

/// Nanoseconds since 1970 as messages carry them.
pub(super) fn timestamp(nanoseconds: u64) -> Timestamp {
    let (seconds, nanos) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    Timestamp {
        seconds: signed(seconds),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

pub(super) fn delete(
    job: &Job,
    request: &DeleteSnapshotRequest,
) -> Result<DeleteSnapshotResponse, Status> {
    need(&request.snapshot_id, "the snapshot")?;
    let image = job.core.store.change(|state| {
        let Some(snapshot) = state.snapshots.get(&request.snapshot_id) else {
            return Ok(None);
        };
        if snapshot.group.is_some() {
            return Err(Status::invalid_argument(
                "a member of a group is not deleted alone",
            ));
        }
        in_use(state, &request.snapshot_id)?;
        let snapshot = state.snapshots.remove(&request.snapshot_id);
        Ok(snapshot.and_then(|snapshot| {
            if !state.has_change_ids(&snapshot.volume) {
                return Some(snapshot.image);
            }
            state.past.insert(snapshot.change_id(), snapshot);
            None
        }))
    })?;
    if let Some(image) = image {
        job.core.store.remove(&image)?;
    }
    Ok(DeleteSnapshotResponse {})
}

/// Images of clones do not depend on that of their snapshot here; with many drivers they do, so that nobody may rely on it.
pub(super) fn in_use(state: &State, id: &str) -> Result<(), Status> {
    let source = Some(Source::Snapshot(id.to_owned()));
    match state
        .volumes
        .iter()
        .find(|(_, volume)| volume.source == source)
    {
        Some((volume, _)) => Err(Status::failed_precondition(format!(
            "the volume {volume} was made from the snapshot"
        ))),
        None => Ok(()),
    }
}

pub(super) fn list(
    job: &Job,
    request: &ListSnapshotsRequest,
) -> Result<ListSnapshotsResponse, Status> {
    let options = &job.core.options;
    if job.fault == Some(Fault::StaleToken) && !request.starting_token.is_empty() {
        return Err(Status::aborted("the list has changed"));
    }
    let chosen = |wanted: &str, is: &str| wanted.is_empty() || wanted == is || !options.filters;
    let entries = job.core.store.read(|state| {
        let snapshots = state.snapshots.iter().filter(|(id, snapshot)| {
            chosen(&request.snapshot_id, id) && chosen(&request.source_volume_id, &snapshot.volume)
        });
        Ok(snapshots
            .map(|(id, snapshot)| Entry {
                snapshot: Some(answer(id, snapshot)),
            })
            .collect::<Vec<_>>())
    })?;
    let most = match request.max_entries {
        0 => options.page,
        most => most,
    };
    let (mut entries, next_token) = page(entries, &request.starting_token, most)?;
    if job.fault == Some(Fault::OtherTime) {
        let snapshots = entries
            .iter_mut()
            .filter_map(|entry: &mut Entry| entry.snapshot.as_mut());
        for time in snapshots.filter_map(|snapshot| snapshot.creation_time.as_mut()) {
            time.seconds += 3600;
        }
    }
    Ok(ListSnapshotsResponse {
        entries,
        next_token,
    })
}

pub(super) fn get(job: &Job, request: &GetSnapshotRequest) -> Result<GetSnapshotResponse, Status> {
    need(&request.snapshot_id, "the snapshot")?;
    let id = &request.snapshot_id;
    let snapshot = job
        .core
        .store
        .read(|state| Ok(answer(id, state.snapshot(id)?)))?;
    Ok(GetSnapshotResponse {
        snapshot: Some(snapshot),
    })
}
