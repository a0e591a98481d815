//! A point as a PodVolumeBackup that has ended.
//!
//! Owns: what the resource and its status say. Must not: send them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::held::recorded;
use super::name_of;
use super::plan::Wanted;
use crate::kube::api::backup::{
    AttachStrategy, BackupSource, ChangedBlocksStatus, PodVolumeBackupSpec, PointStatus, Progress,
    SnapshotStatus,
};
use crate::kube::api::conditions::{ACCEPTED, Reason, SUCCEEDED};
use crate::kube::api::transfer::TransferOrder;
use crate::kube::api::{NameRef, Phase, PodVolumeBackup, PodVolumeBackupStatus, names};
use crate::kube::controller::conditions::{self, Is};
use crate::repository::session::points::Point;

/// The repository of a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'a> {
    /// Name of its SnapshotRepository.
    pub name: &'a str,
    /// Its id.
    pub id: &'a str,
}

/// The resource, marked as one that is never run; nothing where the point does not say what its claim was.
pub(super) fn object(
    wanted: &Wanted,
    point: &Point,
    holder: Holder<'_>,
) -> Option<PodVolumeBackup> {
    let (recorded, _) = recorded(point)?;
    let whose = if wanted.granted {
        names::SYNCED_GRANTED
    } else {
        names::SYNCED_OWN
    };
    let labels = [
        (names::SYNCED, whose),
        (names::SYNCED_REPOSITORY, holder.id),
        (names::VELERO_EXCLUDE, "true"),
        ("app.kubernetes.io/managed-by", names::MANAGER),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let reference = |name: &str| NameRef {
        name: name.to_owned(),
    };
    let spec = PodVolumeBackupSpec {
        source: BackupSource {
            persistent_volume_claim: Some(reference(&recorded.claim)),
            ..BackupSource::default()
        },
        repository_ref: reference(holder.name),
        ..default_spec()
    };
    Some(PodVolumeBackup {
        metadata: ObjectMeta {
            name: Some(name_of(&wanted.point)),
            namespace: Some(wanted.namespace.clone()),
            labels: Some(BTreeMap::from(labels)),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    })
}

fn default_spec() -> PodVolumeBackupSpec {
    PodVolumeBackupSpec {
        source: BackupSource::default(),
        repository_ref: NameRef::default(),
        volume_snapshot_class_name: None,
        parent_policy: Default::default(),
        changed_blocks_policy: Default::default(),
        attach_strategy: Default::default(),
        base_snapshot_policy: Default::default(),
        deletion_policy: Default::default(),
        active_deadline_seconds: None,
        ttl_seconds_after_finished: None,
        cancel: None,
    }
}

/// The status that a backup of this point has at its end. Written in one request, phase included.
pub(super) fn status(
    point: &Point,
    holder: Holder<'_>,
    (now, generation): (Timestamp, Option<i64>),
) -> Option<PodVolumeBackupStatus> {
    let (recorded, text) = recorded(point)?;
    let manifest = &point.manifest;
    let size = i64::try_from(manifest.size).ok()?;
    let ended = millis(manifest.created_unix_millis);
    let taken = recorded.taken.clone();
    let message = format!("sync found the point in SnapshotRepository {}", holder.name);
    let mut status = PodVolumeBackupStatus {
        observed_generation: generation,
        phase: Some(Phase::Completed),
        start_time: taken.clone().or_else(|| ended.clone()),
        completion_time: ended,
        snapshot: Some(SnapshotStatus {
            driver: Some(recorded.driver.clone()).filter(|driver| !driver.is_empty()),
            creation_time: taken,
            ..SnapshotStatus::default()
        }),
        point: Some(PointStatus {
            id: point.id().to_string(),
            repository_id: holder.id.to_owned(),
        }),
        progress: Some(Progress {
            total_bytes: size,
            bytes_done: size,
        }),
        incremental_bytes: i64::try_from(manifest.stats.new).ok(),
        changed_blocks: Some(ChangedBlocksStatus {
            source: manifest.changed_blocks.clone(),
            reason: manifest.changed_blocks_reason.clone(),
        })
        .filter(|changed| !changed.source.is_empty()),
        message: Some(message.clone()),
        // What restores by the name of a backup read of it.
        order: Some(TransferOrder {
            attempt: 1,
            strategy: AttachStrategy::Pod,
            volume: manifest.volume.clone(),
            driver: recorded.driver,
            volume_handle: recorded.volume_handle,
            size_bytes: Some(size),
            recorded: Some(text),
            ..TransferOrder::default()
        }),
        ..PodVolumeBackupStatus::default()
    };
    for (kind, reason) in [(ACCEPTED, Reason::Valid), (SUCCEEDED, Reason::Done)] {
        let (reason, at) = ((Is::True, reason), (now, generation));
        conditions::set(&mut status.conditions, kind, reason, &message, at);
    }
    Some(status)
}

fn millis(millis: i64) -> Option<Time> {
    Timestamp::from_millisecond(millis).ok().map(Time)
}
