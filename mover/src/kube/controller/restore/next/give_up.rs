//! What was made for a restore that will not succeed is taken back.
//!
//! Owns: the order of it, from whatever state. Must not: touch what the user had before: claims that ask to be filled, the target of
//! `InPlace`, its volume.
//!
//! The storage of the new volume is deleted by its driver, when a released PersistentVolume with the policy Delete says so. A volume
//! that no object names for the moment first gets one again.

use k8s_openapi::api::core::v1::PersistentVolume;

use super::super::decision::{Action, Decision, ObjectId};
use super::super::observation::Agent;
use super::super::{names, volume};
use super::{Draft, answer, is_ours, left};
use crate::kube::api::Phase;
use crate::kube::api::conditions::{Reason, SUCCEEDED};
use crate::kube::api::restore::{HandoverStep, RestoreMode};
use crate::kube::api::transfer::TransferState;

/// Decides that it will not succeed.
pub(super) fn begin(mut draft: Draft<'_>, reason: Reason, message: &str) -> Decision {
    draft.actions.clear();
    draft.status.phase = Some(Phase::Canceling);
    let written =
        draft.seen.restore.spec.mode == RestoreMode::InPlace && draft.status.order.is_some();
    let message = if written {
        &format!("{message}; the claim's data is partly overwritten: restore it again")
    } else {
        message
    };
    draft.set((SUCCEEDED, Some(false)), reason, message);
    if let Some(order) = &mut draft.status.order {
        order.stop = Some(message.to_owned());
    }
    draft.act(Action::Event {
        warning: reason != Reason::Cancelled,
        reason,
        message: message.to_owned(),
    });
    draft.at_once()
}

pub(super) fn go_on(mut draft: Draft<'_>) -> Decision {
    if transfer_runs(&draft) {
        return draft.wait();
    }
    let left = match draft.seen.restore.spec.mode {
        RestoreMode::InPlace => take_back_name(&mut draft),
        RestoreMode::NewClaim | RestoreMode::Replace => take_back_volume(&mut draft),
    };
    let known = super::status::condition(&draft.status, SUCCEEDED);
    let cancelled = known.is_some_and(|known| known.reason == Reason::Cancelled.as_str());
    let phase = if cancelled {
        Phase::Canceled
    } else {
        Phase::Failed
    };
    if !left {
        return draft.end(phase);
    }
    if is_overdue(&draft) && left::is_stuck(&draft) && !is_nameless(&draft) {
        return left::leave(draft, phase);
    }
    draft.wait()
}

/// Whether what was made should have been taken back by now: a controller that was away asked nobody meanwhile.
fn is_overdue(draft: &Draft<'_>) -> bool {
    draft.seen.cleaning >= draft.seen.settings.clean_deadline
}

/// Whether nothing but the status names the storage, or soon nothing will.
fn is_nameless(draft: &Draft<'_>) -> bool {
    let step = draft.status.volume.as_ref().map(|known| known.step);
    let goes = |volume: &PersistentVolume| volume.metadata.deletion_timestamp.is_some();
    draft.seen.restore.spec.mode != RestoreMode::InPlace
        && step == Some(HandoverStep::Recreating)
        && draft.seen.final_volume.is_none()
        && draft.seen.working_volume.as_ref().is_none_or(goes)
}

/// Whether an agent may still write: it is given time to stop before its device goes.
fn transfer_runs(draft: &Draft<'_>) -> bool {
    let seen = draft.seen;
    // An agent that cannot be reached stops by itself before its time is over; only what is the user's has to wait for that.
    let gone = seen.agent == Agent::Gone && seen.restore.spec.mode != RestoreMode::InPlace;
    if draft.status.order.is_none() || seen.holder.is_none() || gone {
        return false;
    }
    let running = answer(&draft.status).is_none_or(|answer| answer.state == TransferState::Running);
    let begun = super::status::condition(&draft.status, SUCCEEDED)
        .map_or(seen.now, |known| known.last_transition_time.0);
    running && seen.now.duration_since(begun) < seen.settings.stop_deadline
}

/// Deletes the holder, then the working claim. Whether one of them is still there.
fn take_back_claim(draft: &mut Draft<'_>) -> bool {
    let seen = draft.seen;
    if let Some(holder) = &seen.holder {
        draft.delete_holder(holder);
        return true;
    }
    if let Some(claim) = &seen.working_claim {
        draft.act(Action::DeleteClaim(ObjectId::of(claim)));
        return true;
    }
    false
}

/// Takes back everything but the storage, which is the user's: the second name of the target's volume goes.
pub(super) fn take_back_name(draft: &mut Draft<'_>) -> bool {
    if take_back_claim(draft) {
        return true;
    }
    let seen = draft.seen;
    let Some(second) = seen.final_volume.as_ref() else {
        return false;
    };
    if volume::reclaim_policy(second) != volume::RETAIN {
        draft.act(Action::SetReclaimPolicy(
            ObjectId::of(second),
            volume::RETAIN.to_owned(),
        ));
    } else if seen.attached_to.is_empty() && second.metadata.deletion_timestamp.is_none() {
        draft.act(Action::DeleteVolume(ObjectId::of(second)));
    }
    true
}

/// Takes back everything with the storage. Whether something is still there.
fn take_back_volume(draft: &mut Draft<'_>) -> bool {
    let seen = draft.seen;
    if let Some(claim) = seen
        .target
        .as_ref()
        .filter(|claim| is_ours(claim, &seen.restore))
    {
        draft.act(Action::DeleteClaim(ObjectId::of(claim)));
        // A pod can keep it for ever. The volume that it never had goes all the same.
        if claim.metadata.deletion_timestamp.is_none() || !is_overdue(draft) {
            return true;
        }
    }
    if let Some(foreign) = &seen.foreign_volume
        && volume::reclaim_policy(foreign) != volume::RETAIN
    {
        let policy = volume::RETAIN.to_owned();
        draft.act(Action::SetReclaimPolicy(ObjectId::of(foreign), policy));
        return true;
    }
    let step = draft.status.volume.as_ref().map(|known| known.step);
    match (&seen.final_volume, &seen.working_volume) {
        (Some(made), _) => take_back_final(draft, made, step),
        // Its object is going already: the storage needs another.
        (None, Some(working))
            if step == Some(HandoverStep::Recreating)
                && working.metadata.deletion_timestamp.is_some() =>
        {
            // Whoever holds the old object back may never let it go: then the storage has two names for a while.
            if is_overdue(draft) {
                name_again(draft);
            }
            true
        }
        (None, Some(working)) => {
            if volume::reclaim_policy(working) == volume::DELETE {
                take_back_claim(draft);
            } else {
                // Not before this: a claim that goes first leaves a volume that nobody deletes.
                let policy = volume::DELETE.to_owned();
                draft.act(Action::SetReclaimPolicy(ObjectId::of(working), policy));
            }
            true
        }
        (None, None) if step == Some(HandoverStep::Recreating) => name_again(draft),
        (None, None) => take_back_claim(draft),
    }
}

/// The storage has no object: it gets one, whose claim is the working claim that is gone.
fn name_again(draft: &mut Draft<'_>) -> bool {
    let known = draft.status.volume.clone().unwrap_or_default();
    let object = known
        .object
        .as_ref()
        .filter(|json| volume::is_plain_csi(json, &known.handle))
        .and_then(|json| serde_json::from_str(json).ok());
    let Some(mut object) = object else {
        return false;
    };
    set_dead_owner(draft, &mut object);
    draft.act(Action::CreateVolume(Box::new(object)));
    true
}

fn set_dead_owner(draft: &Draft<'_>, object: &mut PersistentVolume) {
    if let Some(spec) = &mut object.spec {
        spec.claim_ref = Some(dead_owner(draft));
    }
}

/// A claim that does not exist any more: a volume that belongs to it is released, and its driver deletes the storage.
fn dead_owner(draft: &Draft<'_>) -> k8s_openapi::api::core::v1::ObjectReference {
    let known = draft.status.volume.as_ref();
    // Any UID that is no claim's will do; none at all would be a reference to a claim that may still come.
    let own = draft.seen.restore.metadata.uid.as_deref();
    let uid = known.and_then(|known| known.working_claim_uid.as_deref());
    volume::claim_ref(
        &draft.seen.settings.system_namespace,
        &names::intermediate(&draft.seen.restore),
        uid.filter(|uid| !uid.is_empty())
            .or(own)
            .unwrap_or_default(),
    )
}

fn take_back_final(
    draft: &mut Draft<'_>,
    made: &PersistentVolume,
    step: Option<HandoverStep>,
) -> bool {
    let seen = draft.seen;
    if step != Some(HandoverStep::Created) {
        // First it is written that there is an object: else one would be made again and again for storage that is gone.
        if let Some(known) = &mut draft.status.volume {
            known.step = HandoverStep::Created;
        }
        return true;
    }
    let owner = volume::owner_uid(made);
    let living = seen
        .target
        .as_ref()
        .and_then(|claim| claim.metadata.uid.as_deref());
    if owner.is_none() || owner == living {
        let owner = Box::new(dead_owner(draft));
        draft.act(Action::SetClaimRef(ObjectId::of(made), owner));
    } else if volume::reclaim_policy(made) != volume::DELETE {
        let policy = volume::DELETE.to_owned();
        draft.act(Action::SetReclaimPolicy(ObjectId::of(made), policy));
    }
    true
}
