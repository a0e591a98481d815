//! Restores: from a `PodVolumeRestore` to a claim on a filled volume.
//!
//! ```text
//!   accept ─► expose (working claim, holder) ─► fill (the agent writes) ─► hand over (the volume changes its claim) ─► done
//!      └──────────┴──────────────┴──── give up: everything that was made is taken back ────┴─► cancelled or failed
//! ```
//!
//! Owns: what is made for a restore, in which order it changes hands, and what is taken back. Must not: move data (the agent
//! does), or decide who may restore what by anything but what the points record (`point`).
//!
//! `next` is a pure function: what was observed → the status to write, then the actions to take. Nothing is remembered between two
//! calls but the status, so that a controller that dies between any two actions goes on where it was.

mod act;
pub mod decision;
mod lookup;
mod names;
pub mod next;
pub mod observation;
mod observe;
pub mod point;
#[cfg(test)]
mod simulation;
mod status;
pub mod target;
pub mod volume;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::json;

use super::milestones::{self, Stand};
use super::queue::Again;
use super::watches::{Key, Kind};
use super::{Context, apply};
use crate::error::Result;
use crate::kube::api::{PodVolumeRestore, PodVolumeRestoreStatus};

/// Between two looks, whatever a decision says: what goes wrong must not go wrong a thousand times a second.
const SHORTEST: Duration = Duration::from_millis(200);

/// Looks at one restore and does what is next.
///
/// # Errors
/// What the API server answers; it is looked at again after a pause.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Again> {
    let api = Api::<PodVolumeRestore>::namespaced(context.client.clone(), &key.namespace);
    let Some(restore) = observe::read(api.clone(), &key.name).await? else {
        return Ok(Again::OnChange);
    };
    let uid = restore.uid().unwrap_or_default();
    let status = restore.status.clone().unwrap_or_default();
    if status.phase.unwrap_or_default().is_terminal() {
        if context.slots.release(&uid) {
            context.wake_waiting();
        }
        if restore.finalizers().is_empty() {
            return finished(&api, &restore).await;
        }
    }
    let seen = observe::observe(context, restore).await?;
    let decision = next::next(&seen);
    let written = apply::status(&api, &seen.restore.metadata, &status, &decision.status).await?;
    let mut seen = seen;
    if let Some(written) = written {
        let created = seen.restore.metadata.creation_timestamp.as_ref();
        let stands = (stand(&status), stand(&decision.status));
        milestones::count(&context.telemetry, Kind::Restore, created, stands);
        // The version that the finalizer is changed by.
        seen.restore.metadata = written.metadata;
    }
    for action in decision.actions {
        if let Err(error) = act::act(context, &seen, action).await {
            say(&api, &seen.restore, &error.to_string()).await;
            return Err(error);
        }
    }
    let pause = Duration::try_from(decision.look_again).unwrap_or_default();
    Ok(Again::After(pause.max(SHORTEST)))
}

fn stand(status: &PodVolumeRestoreStatus) -> Stand<'_> {
    Stand {
        phase: status.phase,
        conditions: &status.conditions,
        start: status.start_time.as_ref(),
        end: status.completion_time.as_ref(),
    }
}

/// What keeps the restore from going on, for people. The next look that gets further says something else.
async fn say(api: &Api<PodVolumeRestore>, restore: &PodVolumeRestore, message: &str) {
    let change = json!({"status": {"message": status::shortened(message)}});
    let parameters = kube::api::PatchParams {
        field_manager: Some(apply::FIELD_MANAGER.to_owned()),
        ..kube::api::PatchParams::default()
    };
    let patch = kube::api::Patch::Merge(&change);
    if let Err(error) = api
        .patch_status(&restore.name_any(), &parameters, &patch)
        .await
    {
        tracing::info!(%error, "a message could not be written");
    }
}

/// A restore at its end goes when its time is over.
async fn finished(api: &Api<PodVolumeRestore>, restore: &PodVolumeRestore) -> Result<Again> {
    let ended = restore
        .status
        .as_ref()
        .and_then(|status| status.completion_time.as_ref());
    let (Some(seconds), Some(ended)) = (restore.spec.ttl_seconds_after_finished, ended) else {
        return Ok(Again::OnChange);
    };
    let passed = Timestamp::now()
        .as_second()
        .saturating_sub(ended.0.as_second());
    let left = u64::try_from(seconds.saturating_sub(passed)).unwrap_or(0);
    if left > 0 {
        return Ok(Again::After(Duration::from_secs(left)));
    }
    let uid = restore.uid().unwrap_or_default();
    apply::delete(api, &restore.name_any(), &uid, None).await?;
    Ok(Again::OnChange)
}
