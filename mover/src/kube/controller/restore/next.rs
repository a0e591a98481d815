//! The next step of a restore.
//!
//! Owns: which of the stages a restore is in. Must not: do anything: the stages decide, `act` carries out.
//!
//! ```text
//!   accept ─► fill ─► hand_over ─► Completed
//!      └────────┴─────────┴──► give_up ─► Canceled, Failed          in_place: fill ─► take back ─► Completed
//! ```
//!
//! The status is the only memory. What a decision relies on is in the status that was *observed*, or in the one that the same decision
//! writes before its actions.

mod accept;
mod fill;
mod give_up;
mod hand_over;
mod in_place;
mod left;
mod quick;

use ::kube::ResourceExt as _;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use super::decision::{Action, Decision};
use super::observation::{Agent, Holder, Observation};
use super::{names, status, target, volume};
use crate::kube::api::conditions::{Reason, SUCCEEDED};
use crate::kube::api::names::FINALIZER;
use crate::kube::api::restore::{HandoverStep, RecordedClaim, RestoreMode};
use crate::kube::api::transfer::{TransferState, TransferStatus};
use crate::kube::api::{Phase, PodVolumeRestore, PodVolumeRestoreStatus};

/// When a wait is looked at again though no watch spoke.
const USUAL_WAIT: SignedDuration = SignedDuration::from_secs(10);
/// The same while volumes change hands or are taken back: neither they nor the claims of users are watched. Only for as long as that
/// takes where nothing is wrong.
const SHORT_WAIT: SignedDuration = SignedDuration::from_secs(1);
const SHORT_WAITS: SignedDuration = SignedDuration::from_mins(1);

/// What is to be done about a restore.
#[must_use]
pub fn next(seen: &Observation) -> Decision {
    let mut draft = Draft::new(seen);
    if draft.phase().is_terminal() {
        return ended(draft);
    }
    if draft.gives_up() {
        if has_volume(seen) {
            return hand_over::after_all(draft);
        }
        return give_up::go_on(draft);
    }
    if let Some(message) = wish_to_stop(seen)
        && !past_return(seen)
    {
        return give_up::begin(draft, Reason::Cancelled, message);
    }
    if !has_finalizer(&seen.restore) {
        if seen.restore.metadata.deletion_timestamp.is_none() {
            draft.act(Action::AddFinalizer);
        }
        return draft.wait();
    }
    if draft.status.recorded.is_none() {
        return accept::accept(draft);
    }
    match (seen.restore.spec.mode, is_filled(&draft.status)) {
        (RestoreMode::InPlace, filled) => in_place::go_on(draft, filled),
        (_, false) => fill::fill(draft),
        (_, true) => hand_over::go_on(draft),
    }
}

/// Whether what was made is being taken back.
#[must_use]
pub fn gives_up(restore: &PodVolumeRestore) -> bool {
    let status = restore.status.as_ref();
    status.is_some_and(|status| {
        status::condition(status, SUCCEEDED).is_some_and(|known| known.status == "False")
    })
}

/// Whether the next step makes the volume, and so needs a place.
#[must_use]
pub fn wants_slot(seen: &Observation) -> bool {
    let status = seen.restore.status.as_ref();
    status.is_some_and(|status| status.recorded.is_some() && !is_filled(status))
        && !gives_up(&seen.restore)
        && seen.working_claim.is_none()
        && seen.holder.is_none()
        && !waits_for_consumer(seen)
}

/// Whether a claim that asks to be filled has no pod yet that says where its volume shall be.
#[must_use]
pub fn waits_for_consumer(seen: &Observation) -> bool {
    let late = seen
        .class
        .as_ref()
        .and_then(|class| class.volume_binding_mode.as_deref());
    let asking = seen
        .target
        .as_ref()
        .filter(|claim| target::asks_for(claim, &seen.restore));
    seen.working_claim.is_none()
        && seen.holder.is_none()
        && late == Some("WaitForFirstConsumer")
        && asking.is_some_and(|claim| target::selected_node(claim).is_none())
}

/// Whether it matters what is attached: when volumes change hands, and where the target's own is in question.
#[must_use]
pub fn wants_attachments(restore: &PodVolumeRestore) -> bool {
    restore.spec.mode != RestoreMode::NewClaim
        || gives_up(restore)
        || restore.status.as_ref().is_some_and(is_filled)
}

/// What the volume is made from: the point's record, or the claim where that exists already.
#[must_use]
pub fn effective(seen: &Observation, recorded: &RecordedClaim) -> RecordedClaim {
    accept::effective(seen, recorded)
}

/// Whether a base could be of use, and so is looked for.
#[must_use]
pub fn wants_base(seen: &Observation) -> bool {
    quick::wants_base(seen)
}

/// Whether the volume is being made of a base.
#[must_use]
pub fn copies(restore: &PodVolumeRestore) -> bool {
    quick::copies(restore)
}

/// A restore at its end needs nothing any more.
fn ended(mut draft: Draft<'_>) -> Decision {
    if has_finalizer(&draft.seen.restore) {
        if quick::was_tried(&draft.seen.restore) {
            draft.act(Action::DropSnapshot);
        }
        draft.act(Action::RemoveFinalizer);
    }
    draft.wait()
}

fn has_finalizer(restore: &PodVolumeRestore) -> bool {
    restore.finalizers().iter().any(|name| name == FINALIZER)
}

/// Why the user wants it to end, if so.
fn wish_to_stop(seen: &Observation) -> Option<&'static str> {
    if seen.restore.spec.cancel == Some(true) {
        Some("cancelled by spec.cancel")
    } else if seen.restore.metadata.deletion_timestamp.is_some() {
        Some("the PodVolumeRestore is being deleted")
    } else {
        None
    }
}

/// Whether going back would take from the user what was there before, or is in use already.
fn past_return(seen: &Observation) -> bool {
    let Some(volume) = seen
        .restore
        .status
        .as_ref()
        .and_then(|status| status.volume.as_ref())
    else {
        return false;
    };
    match volume.step {
        HandoverStep::Bound => true,
        HandoverStep::Created if bound(seen) => true,
        _ => was_replaced(seen) && !seen.namespace_terminating,
    }
}

/// Whether the user's claim has the new volume.
fn bound(seen: &Observation) -> bool {
    let (Some(claim), Some(volume)) = (&seen.target, &seen.final_volume) else {
        return false;
    };
    // The binding controller writes the volume first. A claim that asked for it is the user's: from then on nothing is taken back, and
    // before, a change of the volume meets the version that was observed or fails.
    let taken = target::asks_for(claim, &seen.restore)
        && volume::owner_uid(volume) == claim.metadata.uid.as_deref()
        && volume::phase(volume) == Some("Bound");
    taken || volume::is_bound(volume, claim)
}

/// Whether the user's claim was bound to the filled volume before anything of it was taken back.
fn has_volume(seen: &Observation) -> bool {
    let status = seen.restore.status.as_ref();
    let known = status.and_then(|status| status.volume.as_ref());
    let made = seen.final_volume.as_ref();
    seen.restore.spec.mode != RestoreMode::InPlace
        && known.is_some_and(|known| known.step == HandoverStep::Created)
        && made.is_some_and(|made| volume::reclaim_policy(made) == volume::RETAIN)
        && seen
            .target
            .as_ref()
            .is_some_and(|claim| claim.metadata.deletion_timestamp.is_none())
        && bound(seen)
}

/// Whether the old claim of a `Replace` is gone, or on its way.
fn was_replaced(seen: &Observation) -> bool {
    let status = seen.restore.status.as_ref();
    let replaced = status
        .and_then(|status| status.volume.as_ref())
        .and_then(|volume| volume.replaced_uid.as_ref());
    let Some(replaced) = replaced else {
        return false;
    };
    seen.target.as_ref().is_none_or(|claim| {
        claim.metadata.uid.as_ref() != Some(replaced) || claim.metadata.deletion_timestamp.is_some()
    })
}

/// What the agent answers to the newest order.
fn answer(status: &PodVolumeRestoreStatus) -> Option<&TransferStatus> {
    let order = status.order.as_ref()?;
    let transfer = status.transfer.as_ref()?;
    (transfer.attempt == order.attempt).then_some(transfer)
}

fn is_filled(status: &PodVolumeRestoreStatus) -> bool {
    quick::is_copied(status)
        || answer(status).is_some_and(|answer| answer.state == TransferState::Succeeded)
}

/// A claim that this restore made for the user: it names the new volume. A claim that asked to be filled is the user's.
fn is_ours(claim: &PersistentVolumeClaim, restore: &PodVolumeRestore) -> bool {
    let named = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_ref());
    named == Some(&names::intermediate(restore)) && !target::asks_for(claim, restore)
}

/// A decision while it is made.
struct Draft<'a> {
    seen: &'a Observation,
    status: PodVolumeRestoreStatus,
    actions: Vec<Action>,
}

impl<'a> Draft<'a> {
    fn new(seen: &'a Observation) -> Self {
        let mut status = seen.restore.status.clone().unwrap_or_default();
        status.observed_generation = seen.restore.metadata.generation;
        Self {
            seen,
            status,
            actions: Vec::new(),
        }
    }

    fn phase(&self) -> Phase {
        self.status.phase.unwrap_or_default()
    }

    /// Whether the end is decided and what was made is being taken back.
    fn gives_up(&self) -> bool {
        status::condition(&self.status, SUCCEEDED).is_some_and(|known| known.status == "False")
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn say(&mut self, message: &str) {
        self.status.message = Some(status::shortened(message)).filter(|text| !text.is_empty());
    }

    fn set(&mut self, condition: (&str, Option<bool>), reason: Reason, message: &str) {
        status::set(&mut self.status, self.seen.now, condition, reason, message);
        self.say(message);
    }

    /// Whether the condition has had this reason for longer than allowed.
    fn lasts(&self, condition: (&str, Reason), limit: SignedDuration) -> bool {
        status::lasts(&self.status, condition, self.seen.now, limit)
    }

    /// Deletes the holder; one that does not end, on a node that does not answer, without asking its kubelet.
    fn delete_holder(&mut self, holder: &Holder) {
        let action = Action::DeleteHolder {
            uid: holder.uid.clone(),
            force: holder.ending && self.seen.agent == Agent::Gone,
        };
        self.act(action);
    }

    fn wait(self) -> Decision {
        let begun = status::condition(&self.status, SUCCEEDED);
        let young = begun.is_some_and(|known| {
            self.seen.now.duration_since(known.last_transition_time.0) < SHORT_WAITS
        });
        self.decide(if young { SHORT_WAIT } else { USUAL_WAIT })
    }

    /// To be looked at again as soon as the status is written.
    fn at_once(self) -> Decision {
        self.decide(SignedDuration::ZERO)
    }

    fn decide(self, look_again: SignedDuration) -> Decision {
        Decision {
            status: self.status,
            actions: self.actions,
            look_again,
        }
    }

    fn end(mut self, phase: Phase) -> Decision {
        self.status.phase = Some(phase);
        self.status.completion_time = Some(Time(self.seen.now));
        self.at_once()
    }
}
