//! Staging and publishing on the node, and their undoing.
//!
//! Owns: the order of steps, so that a driver that was killed between two can be asked again. Must not: trust its own record
//! where the kernel knows better: what is attached or mounted is looked up each time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use csi_proto::Status;
use csi_proto::csi::{
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};

use super::access::Access;
use super::controller::need;
use super::core::{Core, Job, NODE};
use super::device::{self, Form};
use super::faults::Fault;
use super::state::Volume;
use super::volumes::{ATTACHMENT, check_context};

pub(super) fn stage(
    job: &Job,
    request: &NodeStageVolumeRequest,
) -> Result<NodeStageVolumeResponse, Status> {
    if !job.core.options.stage {
        return Err(Status::unimplemented("volumes are not staged"));
    }
    need(&request.volume_id, "the volume")?;
    need(&request.staging_target_path, "the staging path")?;
    let newer = job.core.options.node_multi_writer;
    let access = Access::read(request.volume_capability.as_ref(), newer)?;
    let path = PathBuf::from(&request.staging_target_path);
    job.core.store.change(|state| {
        let volume = state.volume(&request.volume_id)?;
        check_context(volume, &request.volume_context)?;
        check_attached(
            job,
            volume,
            request.publish_context.get(ATTACHMENT),
            &request.volume_id,
        )?;
        let wanted = (path, access);
        if volume
            .staged
            .as_ref()
            .is_some_and(|staged| *staged != wanted)
        {
            return Err(Status::already_exists(
                "staged at another path or with another capability",
            ));
        }
        if !wanted.0.is_dir() {
            return Err(Status::failed_precondition("the staging path is no folder"));
        }
        let device = device::attach(
            &job.core.store.image(&volume.image),
            form(job.fault.as_ref(), volume, &wanted.1),
        )?;
        if let Some(mount) = &wanted.1.mount {
            device::mount(&device, &wanted.0, mount)?;
        }
        if job.fault == Some(Fault::Litter) {
            let file = wanted.0.join("left-by-the-driver");
            std::fs::write(file, "litter").map_err(|error| Status::internal(error.to_string()))?;
        }
        volume.staged = Some(wanted);
        Ok(NodeStageVolumeResponse {})
    })
}

/// Whether the controller has published the volume here, and the caller brings what it answered.
fn check_attached(
    job: &Job,
    volume: &Volume,
    token: Option<&String>,
    id: &str,
) -> Result<(), Status> {
    if !job.core.options.attach {
        return Ok(());
    }
    if token != Some(&format!("{NODE}:{id}")) {
        return Err(Status::invalid_argument(
            "the publish context is not the one of ControllerPublishVolume",
        ));
    }
    if volume.published.contains_key(NODE) {
        return Ok(());
    }
    Err(Status::failed_precondition(
        "the volume is not published to this node",
    ))
}

pub(super) fn unstage(
    job: &Job,
    request: &NodeUnstageVolumeRequest,
) -> Result<NodeUnstageVolumeResponse, Status> {
    if !job.core.options.stage {
        return Err(Status::unimplemented("volumes are not staged"));
    }
    need(&request.volume_id, "the volume")?;
    need(&request.staging_target_path, "the staging path")?;
    job.core.store.change(|state| {
        let volume = state.volume(&request.volume_id)?;
        let path = Path::new(&request.staging_target_path);
        if volume
            .staged
            .as_ref()
            .is_some_and(|(staged, _)| staged != path)
        {
            return Ok(NodeUnstageVolumeResponse {});
        }
        if !volume.targets.is_empty() {
            return Err(Status::failed_precondition("the volume is still published"));
        }
        device::unmount(path)?;
        device::detach(&job.core.store.image(&volume.image))?;
        volume.staged = None;
        Ok(NodeUnstageVolumeResponse {})
    })
}

pub(super) fn publish(
    job: &Job,
    request: &NodePublishVolumeRequest,
) -> Result<NodePublishVolumeResponse, Status> {
    need(&request.volume_id, "the volume")?;
    need(&request.target_path, "the target path")?;
    let newer = job.core.options.node_multi_writer;
    let access = Access::read(request.volume_capability.as_ref(), newer)?;
    let target = PathBuf::from(&request.target_path);
    job.core.store.change(|state| {
        let volume = state.volume(&request.volume_id)?;
        check_context(volume, &request.volume_context)?;
        check_attached(
            job,
            volume,
            request.publish_context.get(ATTACHMENT),
            &request.volume_id,
        )?;
        check_staged(job, volume, &request.staging_target_path)?;
        let wanted = (access, request.readonly);
        match volume.targets.get(&target) {
            Some(present) if *present != wanted => {
                return Err(Status::already_exists(
                    "published there with other arguments",
                ));
            }
            None if wanted.0.single_target() && !volume.targets.is_empty() => {
                return Err(Status::failed_precondition("published at another path"));
            }
            _ => {}
        }
        if let Some(Fault::LateDevice { ms }) = job.fault {
            appear_later(&job.core, request, ms)?;
        } else {
            let form = form(job.fault.as_ref(), volume, &wanted.0);
            appear(&job.core, volume, &target, &wanted, form)?;
        }
        volume.targets.insert(target, wanted);
        Ok(NodePublishVolumeResponse {})
    })
}

fn check_staged(job: &Job, volume: &Volume, staging: &str) -> Result<(), Status> {
    if !job.core.options.stage {
        return Ok(());
    }
    match &volume.staged {
        Some((path, _)) if path == Path::new(staging) => Ok(()),
        Some(_) => Err(Status::failed_precondition(
            "the volume is staged at another path",
        )),
        None => Err(Status::failed_precondition("the volume is not staged")),
    }
}

fn form(fault: Option<&Fault>, volume: &Volume, access: &Access) -> Form {
    let size = match fault {
        Some(Fault::ShortDevice { bytes }) => Some(volume.capacity.saturating_sub(*bytes)),
        _ => None,
    };
    Form {
        read_only: access.read_only(),
        size,
    }
}

/// Puts the device, or the mounted folder, at the target. A device that was staged is there already.
fn appear(
    core: &Core,
    volume: &Volume,
    target: &Path,
    (access, read_only): &(Access, bool),
    form: Form,
) -> Result<(), Status> {
    let device = device::attach(&core.store.image(&volume.image), form)?;
    match (&access.mount, &volume.staged) {
        (None, _) => device::bind_device(&device, target),
        (Some(_), Some((staging, _))) => device::bind_folder(staging, target, *read_only),
        (Some(mount), None) => {
            std::fs::create_dir_all(target).map_err(|error| Status::internal(error.to_string()))?;
            device::mount(&device, target, mount)
        }
    }
}

/// The fault of a device that is not there yet when the call is answered. One that was unpublished meanwhile stays away.
fn appear_later(
    core: &Arc<Core>,
    request: &NodePublishVolumeRequest,
    ms: u64,
) -> Result<(), Status> {
    let (core, id, target) = (
        Arc::clone(core),
        request.volume_id.clone(),
        PathBuf::from(&request.target_path),
    );
    let thread = std::thread::Builder::new()
        .name("late device".to_owned())
        .spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            let appeared = core.store.change(|state| {
                let volume = state.volume(&id)?;
                volume.targets.get(&target).map_or(Ok(()), |wanted| {
                    appear(
                        &core,
                        volume,
                        &target,
                        wanted,
                        form(None, volume, &wanted.0),
                    )
                })
            });
            if let Err(status) = appeared {
                eprintln!(
                    "the late device {} does not appear: {status}",
                    target.display()
                );
            }
        });
    thread
        .map(drop)
        .map_err(|error| Status::internal(error.to_string()))
}

pub(super) fn unpublish(
    job: &Job,
    request: &NodeUnpublishVolumeRequest,
) -> Result<NodeUnpublishVolumeResponse, Status> {
    need(&request.volume_id, "the volume")?;
    need(&request.target_path, "the target path")?;
    job.core.store.change(|state| {
        let volume = state.volume(&request.volume_id)?;
        let target = Path::new(&request.target_path);
        device::unmount(target)?;
        device::remove_target(target)?;
        volume.targets.remove(target);
        if !job.core.options.stage && volume.targets.is_empty() {
            device::detach(&job.core.store.image(&volume.image))?;
        }
        Ok(NodeUnpublishVolumeResponse {})
    })
}
