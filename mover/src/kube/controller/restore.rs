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
use crate::kube::api::names::FINALIZER;
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
        if !restore.finalizers().iter().any(|name| name == FINALIZER) {
            // Those of others are theirs to take away.
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

/// How long a restore at its end stays, where somebody said so and it is not on its way already.
fn time_left(restore: &PodVolumeRestore, now: Timestamp) -> Option<Duration> {
    let status = restore.status.as_ref()?;
    let ended = status.completion_time.as_ref()?.0.as_second();
    let seconds = restore.spec.ttl_seconds_after_finished?;
    if restore.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let passed = now.as_second().saturating_sub(ended);
    let left = u64::try_from(seconds.saturating_sub(passed)).unwrap_or(0);
    Some(Duration::from_secs(left))
}

/// A restore at its end goes when its time is over.
async fn finished(api: &Api<PodVolumeRestore>, restore: &PodVolumeRestore) -> Result<Again> {
    match time_left(restore, Timestamp::now()) {
        None => return Ok(Again::OnChange),
        Some(left) if !left.is_zero() => return Ok(Again::After(left)),
        Some(_) => {}
    }
    let uid = restore.uid().unwrap_or_default();
    apply::delete(api, &restore.name_any(), &uid, None).await?;
    Ok(Again::OnChange)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_restore_that_is_going_already_is_not_looked_at_again() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut restore = PodVolumeRestore::new("r", Default::default());
        assert_eq!(time_left(&restore, at(10)), None);
        restore.status = Some(PodVolumeRestoreStatus {
            completion_time: Some(Time(at(10))),
            ..PodVolumeRestoreStatus::default()
        });
        assert_eq!(time_left(&restore, at(15)), None, "nobody said so");
        restore.spec.ttl_seconds_after_finished = Some(20);
        let left = time_left(&restore, at(15));
        assert_eq!(left, Some(Duration::from_secs(15)));
        assert_eq!(time_left(&restore, at(30)), Some(Duration::ZERO));
        // Somebody else's finalizer keeps it: to ask again and again would not help.
        restore.metadata.deletion_timestamp = Some(Time(at(30)));
        assert_eq!(time_left(&restore, at(40)), None);
    }
}
