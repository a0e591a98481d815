//! `PodVolumeBackup` in the controller: one look at one backup.
//!
//! ```text
//!   observe ─► next (pure) ─► status ─► actions, in order ─► when to look again
//! ```
//!
//! Owns: that order. The status comes first: a verdict must be on record before what it is about is cleaned up. Must not: move data.

pub mod action;
pub mod base;
pub mod choice;
pub mod next;
pub mod view;

mod act;
mod observe;
mod source;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::{Resource as _, ResourceExt as _};

use super::milestones::{self, Stand};
use super::owner::Owner;
use super::queue::Again;
use super::watches::{Key, Kind};
use super::{Context, apply, volumes};
use crate::error::Result;
use crate::kube::api::{PodVolumeBackup, PodVolumeBackupStatus};
use crate::kube::controller::backup::next::Next;

/// Least time until an object is looked at again, however urgent: a mistake must not become a storm of requests.
const SHORTEST: Duration = Duration::from_millis(200);

/// Looks at one backup and does what is next.
///
/// # Errors
/// What the API server or the repository answers; it is looked at again after a pause.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Again> {
    let backups = Api::<PodVolumeBackup>::namespaced(context.client.clone(), &key.namespace);
    let Some(backup) = observe::read(backups.clone(), &key.name).await? else {
        gone(context, key);
        return Ok(Again::OnChange);
    };
    let seen = observe::observe(context, &backup).await?;
    let decided = next::next(
        &backup,
        &seen,
        &context.settings.deadlines,
        Timestamp::now(),
    );
    let old = backup.status.clone().unwrap_or_default();
    let mut current = backup.clone();
    if let Some(written) = apply::status(&backups, backup.meta(), &old, &decided.status).await? {
        current = written;
        announce(context, &current, &old, &decided);
    }
    for note in &decided.notes {
        context.events.send(&current, note).await;
    }
    for action in &decided.actions {
        act::act(context, &current, action).await?;
    }
    // What was done changes what is seen: most of it comes back as an event of a watch, the rest is looked at soon.
    Ok(match decided.again {
        Some(pause) => Again::After(pause.max(SHORTEST)),
        None => Again::OnChange,
    })
}

/// Whose intermediates those of this backup are.
fn owner_of(backup: &PodVolumeBackup) -> Owner {
    Owner {
        kind: Kind::Backup.as_str().to_owned(),
        namespace: backup.namespace().unwrap_or_default(),
        name: backup.name_any(),
        uid: backup.uid().unwrap_or_default(),
    }
}

/// A backup without a finalizer had nothing but perhaps a place in the queue, which its UID would name: the sweep takes it back.
fn gone(_context: &Context, key: &Key) {
    tracing::debug!(
        namespace = key.namespace,
        name = key.name,
        "the backup is gone"
    );
}

fn announce(
    context: &Context,
    backup: &PodVolumeBackup,
    before: &PodVolumeBackupStatus,
    decided: &Next,
) {
    let phase = decided.status.phase.unwrap_or_default();
    let created = backup.metadata.creation_timestamp.as_ref();
    let stands = (stand(before), stand(&decided.status));
    milestones::count(&context.telemetry, Kind::Backup, created, stands);
    if before.phase == Some(phase) || !phase.is_terminal() {
        return;
    }
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    tracing::info!(namespace, name, ?phase, "the backup has ended");
    if let (true, Some((volume, state))) = (
        context.settings.per_volume_metrics,
        volumes::of_backup(backup),
    ) {
        context.telemetry.volume(&volume, state);
    }
}

fn stand(status: &PodVolumeBackupStatus) -> Stand<'_> {
    Stand {
        phase: status.phase,
        conditions: &status.conditions,
        start: status.start_time.as_ref(),
        end: status.completion_time.as_ref(),
    }
}

#[cfg(test)]
mod tests;
