//! Finds the point that a restore names: through its backup, or in the repository.
//!
//! Owns: the requests, and what the answers mean. Must not: decide who may have what (`point`).

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::Api;

use super::super::recorded::Recorded;
use super::super::{Context, conditions};
use super::observe::read;
use super::point::{self, Origin, PointAnswer, PointRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::{Bandwidth, RepositoryAccess};
use crate::kube::api::conditions::{READY, Reason};
use crate::kube::api::names::SYNCED;
use crate::kube::api::restore::{RecordedClaim, VolumeMode};
use crate::kube::api::{Phase, PodVolumeBackup, PodVolumeRestore, SnapshotRepository};
use crate::kube::point_tags as tags;
use crate::repository::session::points::{self, Point, PointStatus};

/// The namespace of the restore.
pub(super) struct Asking {
    pub(super) namespace_uid: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// Name of the repository that a restore is from: what it says itself, or its backup. Nothing where neither is there.
pub(super) async fn repository(
    context: &Context,
    restore: &PodVolumeRestore,
) -> Result<Option<String>> {
    if let Some(given) = &restore.spec.repository_ref {
        return Ok(Some(given.name.clone()));
    }
    let Some(name) = &restore.spec.source.backup_name else {
        return Ok(None);
    };
    let namespace = restore.namespace().unwrap_or_default();
    let backups = Api::namespaced(context.client.clone(), &namespace);
    let backup = read::<PodVolumeBackup>(backups, name).await?;
    Ok(backup.map(|backup| backup.spec.repository_ref.name))
}

/// The point that the restore names, or why there is none for it.
pub(super) async fn point(
    context: &Context,
    restore: &PodVolumeRestore,
    asking: &Asking,
) -> Result<PointAnswer> {
    let origin = Origin {
        cluster_uid: context.cluster_uid.clone(),
        namespace: restore.namespace().unwrap_or_default(),
        namespace_uid: asking.namespace_uid.clone(),
    };
    let source = &restore.spec.source;
    let backup = match &source.backup_name {
        None => None,
        Some(name) => {
            let backups = Api::namespaced(context.client.clone(), &origin.namespace);
            let Some(backup) = read::<PodVolumeBackup>(backups, name).await? else {
                let message = format!("there is no PodVolumeBackup {name}");
                return Ok(PointAnswer::not_yet(Reason::NotFound, message));
            };
            Some(backup)
        }
    };
    let given = restore.spec.repository_ref.as_ref();
    let of_backup = backup.as_ref().map(|backup| &backup.spec.repository_ref);
    let Some(name) = given.or(of_backup).map(|reference| reference.name.clone()) else {
        return Ok(PointAnswer::refused(
            Reason::NotFound,
            "no repository is named",
        ));
    };
    let repository = match usable(context, &name, &asking.labels) {
        Ok(repository) => repository,
        Err(answer) => return Ok(answer),
    };
    let grants = &repository.spec.grants;
    if let Some(backup) = backup {
        // The maker of a backup was asked whether he may use its repository; `sync` was not.
        if given.is_none() && backup.labels().contains_key(SYNCED) {
            let message = format!(
                "PodVolumeBackup {} was made by sync: name its repository, {name}, in repositoryRef, which asks whether you may use it",
                backup.name_any()
            );
            return Ok(PointAnswer::refused(Reason::NotFound, message));
        }
        return Ok(of(&backup, &origin, grants));
    }
    let records = records(context, &repository).await?;
    Ok(point::choose(source, &records, &origin, grants))
}

/// The repository, where it is ready and serves the namespace.
fn usable(
    context: &Context,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<std::sync::Arc<SnapshotRepository>, PointAnswer> {
    let Some(repository) = context.stores.repository(name) else {
        let message = format!("there is no SnapshotRepository {name}");
        return Err(PointAnswer::not_yet(Reason::NotFound, message));
    };
    let allowed = repository.spec.allowed_namespaces.as_ref();
    if !super::super::repository::selects(allowed, labels) {
        let message = format!("SnapshotRepository {name} does not serve this namespace");
        return Err(PointAnswer::refused(Reason::NamespaceNotAllowed, message));
    }
    let ready = repository
        .status
        .as_ref()
        .and_then(|status| conditions::find(&status.conditions, READY));
    if ready.is_none_or(|ready| ready.status != "True") {
        let why = ready.map_or("nobody has looked at it yet", |ready| {
            ready.message.as_str()
        });
        let message = format!("SnapshotRepository {name} is not ready: {why}");
        return Err(PointAnswer::not_yet(Reason::RepositoryNotReady, message));
    }
    Ok(repository)
}

/// The point of a backup of this namespace.
fn of(
    backup: &PodVolumeBackup,
    origin: &Origin,
    grants: &[crate::kube::api::repository::Grant],
) -> PointAnswer {
    let name = backup.name_any();
    let status = backup.status.clone().unwrap_or_default();
    match status.phase.unwrap_or_default() {
        Phase::Completed => {}
        phase if phase.is_terminal() => {
            let message = format!("PodVolumeBackup {name} is {phase:?}: it has no point");
            return PointAnswer::refused(Reason::NotFound, message);
        }
        _ => {
            let message = format!("PodVolumeBackup {name} is not completed yet");
            return PointAnswer::not_yet(Reason::NotFound, message);
        }
    }
    let recorded = status
        .order
        .as_ref()
        .and_then(|order| Some((order, Recorded::from_json(order.recorded.as_deref()?)?)));
    let (Some(point), Some((order, recorded))) = (status.point, recorded) else {
        let message = format!(
            "PodVolumeBackup {name} does not say what its claim was: name the point in pointID"
        );
        return PointAnswer::refused(Reason::NotFound, message);
    };
    // The device that was read may have been larger than the volume; its size is the point's.
    let size = status.progress.map_or(0, |progress| progress.total_bytes);
    let size = size.max(order.size_bytes.unwrap_or(0));
    let record = record(
        &recorded,
        (point.id, point.repository_id),
        &order.volume,
        size,
    );
    if !point::may_have(origin, record.origin.as_ref(), grants) {
        let message = format!(
            "the point of {name} was made elsewhere, and no grant of the repository names this namespace"
        );
        return PointAnswer::refused(Reason::PointNotGranted, message);
    }
    PointAnswer::Found(Box::new(record))
}

/// What the repository holds of clusters. Points that people made by the command line are nobody's and left out.
async fn records(context: &Context, repository: &SnapshotRepository) -> Result<Vec<PointRecord>> {
    let access =
        RepositoryAccess::read(&context.client, &context.settings.namespace, repository).await?;
    // The store's client waits, and has a runtime of its own.
    let reading = tokio::task::spawn_blocking(move || -> Result<Vec<PointRecord>> {
        let repository = access.open(Bandwidth::default())?;
        let id = repository.config.repository.to_string();
        let listing = points::list(&repository, None)?;
        Ok(listing
            .points
            .iter()
            .filter_map(|point| of_cluster(point, &id))
            .collect())
    });
    reading
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, "list the points").source(error))?
}

fn of_cluster(point: &Point, repository_id: &str) -> Option<PointRecord> {
    if point.status != PointStatus::Complete {
        return None;
    }
    let manifest = &point.manifest;
    let recorded = Recorded::from_json(&tags::text(&manifest.tags)?)?;
    let size = i64::try_from(manifest.size).ok()?;
    let ids = (point.id().to_string(), repository_id.to_owned());
    let mut record = record(&recorded, ids, &manifest.volume, size);
    // A storage whose clock is ahead shall not move a point into the future.
    let read = manifest.taken_unix_millis();
    let taken = recorded.taken.as_ref().map(|time| time.0.as_millisecond());
    record.taken_unix_millis = taken.map_or(read, |taken| taken.min(read));
    Some(record)
}

fn record(
    recorded: &Recorded,
    (id, repository_id): (String, String),
    volume: &str,
    size: i64,
) -> PointRecord {
    let size_bytes = if size > 0 {
        size
    } else {
        i64::try_from(recorded.size_bytes).unwrap_or(0)
    };
    PointRecord {
        id,
        repository_id,
        taken_unix_millis: 0,
        origin: Some(Origin {
            cluster_uid: recorded.cluster_uid.clone(),
            namespace: recorded.namespace.clone(),
            namespace_uid: recorded.namespace_uid.clone(),
        }),
        claim_name: recorded.claim.clone(),
        claim: RecordedClaim {
            size_bytes,
            storage_class_name: recorded.storage_class_name.clone(),
            volume_mode: Some(match recorded.volume_mode.as_deref() {
                Some("Block") => VolumeMode::Block,
                _ => VolumeMode::Filesystem,
            }),
            access_modes: recorded.access_modes.clone(),
            fs_type: recorded.fs_type.clone(),
            volume: Some(volume.to_owned()),
        },
    }
}
