//! A volume is made, exposed and filled.
//!
//! Owns: working claim, holder and the orders to agents. Must not: let the volume change its claim.

use std::ops::ControlFlow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::super::decision::{Action, Decision};
use super::super::observation::{Agent, Holder, Slot};
use super::super::{target, volume};
use super::{Draft, answer, give_up, is_ours, quick};
use crate::kube::api::Phase;
use crate::kube::api::backup::AttachStrategy;
use crate::kube::api::conditions::{DEVICE_READY, Reason};
use crate::kube::api::restore::{HandoverStatus, HandoverStep, RestoreMode};
use crate::kube::api::transfer::{TransferOrder, TransferState};
use crate::kube::controller::{attempts, nodes};

/// Between two looks for somebody who came to use a claim that is being written over.
const IN_PLACE_WAIT: SignedDuration = SignedDuration::from_secs(1);

pub(super) fn fill(mut draft: Draft<'_>) -> Decision {
    let seen = draft.seen;
    let begun = seen.working_claim.is_some() || seen.holder.is_some();
    if !begun && came_late(&draft) {
        draft.status.recorded = None;
        return draft.at_once();
    }
    if super::waits_for_consumer(seen) {
        let message = format!(
            "claim {} waits for its first pod: its storage class makes volumes where that is scheduled",
            seen.restore.spec.target.name
        );
        draft.set(
            (DEVICE_READY, Some(false)),
            Reason::WaitingForConsumer,
            &message,
        );
        return draft.wait();
    }
    if !begun && seen.slot != Slot::Granted {
        return without_slot(draft);
    }
    if let Some(message) = lost_target(&draft) {
        return give_up::begin(draft, Reason::TargetRefused, message);
    }
    if seen.foreign_volume.is_none() {
        draft = match quick::go_on(draft) {
            ControlFlow::Break(decision) => return decision,
            ControlFlow::Continue(draft) => draft,
        };
    }
    if seen.working_claim.is_none() {
        return make_claim(draft);
    }
    if let Some(foreign) = &seen.foreign_volume {
        let message = format!(
            "the working claim was bound to PersistentVolume {}, which was there before: nothing was written to it; let free volumes of \
             this storage class name their claims",
            foreign.metadata.name.as_deref().unwrap_or_default()
        );
        return give_up::begin(draft, Reason::ExposeFailed, &message);
    }
    if draft.status.volume.is_none()
        && let Some(working) = &seen.working_volume
    {
        let driver = working.spec.as_ref().and_then(|spec| spec.csi.as_ref());
        let Some(csi) = driver else {
            let message = "the storage class makes volumes without a CSI driver";
            return give_up::begin(draft, Reason::UnsupportedVolume, message);
        };
        draft.status.volume = Some(HandoverStatus {
            name: working.metadata.name.clone().unwrap_or_default(),
            handle: csi.volume_handle.clone(),
            reclaim_policy: volume::reclaim_policy(working).to_owned(),
            working_claim_uid: seen
                .working_claim
                .as_ref()
                .and_then(|claim| claim.metadata.uid.clone()),
            step: HandoverStep::Filling,
            ..HandoverStatus::default()
        });
        return draft.at_once();
    }
    move_data(draft)
}

/// There is no limit to waiting for others, but there is one to waiting for a node.
fn without_slot(mut draft: Draft<'_>) -> Decision {
    let (reason, message) = match draft.seen.slot {
        Slot::Waiting(ahead) => (
            Reason::WaitingForSlot,
            format!("{ahead} volumes are moved first"),
        ),
        _ => (Reason::NoAgent, unreachable(&draft)),
    };
    let limit = draft.seen.settings.expose_deadline;
    if reason == Reason::NoAgent && draft.lasts((DEVICE_READY, reason), limit) {
        return give_up::begin(draft, reason, &message);
    }
    draft.set((DEVICE_READY, Some(false)), reason, &message);
    draft.wait()
}

/// Why there is no node.
fn unreachable(draft: &Draft<'_>) -> String {
    nodes::unreachable(&draft.seen.cordoned)
        .unwrap_or_else(|| "no node with an agent can reach the volume".to_owned())
}

/// Whether a claim that asks to be filled, and for something else than was accepted, was created after the restore.
fn came_late(draft: &Draft<'_>) -> bool {
    let seen = draft.seen;
    let asking = seen
        .target
        .as_ref()
        .filter(|claim| target::asks_for(claim, &seen.restore));
    let recorded = draft.status.recorded.as_ref();
    seen.restore.spec.mode == RestoreMode::NewClaim
        && asking
            .zip(recorded)
            .is_some_and(|(claim, recorded)| !target::suits(&seen.restore, recorded, claim))
}

/// Why the target cannot be had any more: it is not only at the end that this should be found.
fn lost_target(draft: &Draft<'_>) -> Option<&'static str> {
    let seen = draft.seen;
    match (seen.restore.spec.mode, &seen.target) {
        (RestoreMode::NewClaim, Some(_)) if came_late(draft) => Some(
            "the claim was created after the restore had begun, and asks for another volume: create it first",
        ),
        (RestoreMode::NewClaim, Some(claim)) => {
            let ours = is_ours(claim, &seen.restore) || target::asks_for(claim, &seen.restore);
            (!ours).then_some("a claim of the target's name was created meanwhile")
        }
        (RestoreMode::NewClaim, None) => None,
        (_, None) => Some("the claim was deleted"),
        (_, Some(_)) if !seen.target_users.is_empty() => {
            Some("the claim came into use while it was being restored")
        }
        // Its own name: the working claim reaches the volume by a second one.
        (RestoreMode::InPlace, Some(_)) if !seen.target_attached_to.is_empty() => {
            Some("the claim's volume was attached to a node while it was being restored")
        }
        (_, Some(_)) => None,
    }
}

fn make_claim(mut draft: Draft<'_>) -> Decision {
    let seen = draft.seen;
    let known = draft.status.volume.as_ref();
    if seen.restore.spec.mode != RestoreMode::InPlace && known.is_some() {
        let message = "the working claim was deleted by somebody else";
        return give_up::begin(draft, Reason::ExposeFailed, message);
    }
    let Some(recorded) = &draft.status.recorded else {
        return draft.at_once();
    };
    let namespace = &seen.settings.system_namespace;
    let claim = match seen.restore.spec.mode {
        RestoreMode::InPlace => target::second_claim(&seen.restore, recorded, namespace),
        RestoreMode::NewClaim | RestoreMode::Replace => {
            let mut claim = target::working_claim(&seen.restore, recorded, namespace);
            if let Some(asking) = &seen.target
                && target::asks_for(asking, &seen.restore)
            {
                target::follow_consumer(&mut claim, asking);
            }
            claim
        }
    };
    draft.act(Action::CreateClaim(Box::new(claim)));
    if seen.holder.is_none() {
        draft.act(Action::CreateHolder);
    }
    draft.set(
        (DEVICE_READY, Some(false)),
        Reason::Exposing,
        "the volume is being made",
    );
    draft.wait()
}

fn move_data(mut draft: Draft<'_>) -> Decision {
    let lost = draft.seen.agent == Agent::Gone && draft.seen.holder.is_some();
    let Some(order) = &draft.status.order else {
        return if lost {
            without_agent(draft, false)
        } else {
            expose(draft)
        };
    };
    let replaced = draft.seen.holder.as_ref().is_none_or(|holder| {
        let ordered = draft
            .status
            .volume
            .as_ref()
            .and_then(|volume| volume.holder_uid.as_ref());
        holder.ending || Some(&holder.uid) != ordered
    });
    let attempts = draft.seen.settings.attempts;
    let last = order.attempt >= attempts;
    let message = answer(&draft.status).and_then(|answer| answer.message.clone());
    let message = message.unwrap_or_default();
    match answer(&draft.status).map(|answer| answer.state) {
        Some(TransferState::Failed) => give_up::begin(draft, Reason::TransferFailed, &message),
        Some(TransferState::Stopped) => give_up::begin(
            draft,
            Reason::TransferFailed,
            "the agent stopped without an order to",
        ),
        Some(TransferState::Interrupted) if last => {
            let message = format!("given up after {attempts} attempts: {message}");
            give_up::begin(draft, Reason::TransferFailed, &message)
        }
        Some(TransferState::Interrupted) if !lost => match pause_left(&draft, order) {
            Some(left) => {
                draft.say(&format!("another attempt is made soon: {message}"));
                draft.decide(left)
            }
            None => expose(draft),
        },
        _ if lost => without_agent(draft, last),
        _ if replaced && last => {
            let message = format!("the device went away {attempts} times");
            give_up::begin(draft, Reason::ExposeFailed, &message)
        }
        _ if replaced => expose(draft),
        running => watch(draft, running.is_some()),
    }
}

/// What is left of the pause before the next attempt.
fn pause_left(draft: &Draft<'_>, order: &TransferOrder) -> Option<SignedDuration> {
    let pause = attempts::pause_after(order.attempt);
    let pause = SignedDuration::try_from(pause).unwrap_or_default();
    let left = pause - draft.seen.now.duration_since(order.since.as_ref()?.0);
    left.is_positive().then_some(left)
}

/// Waits for a holder whose device can be opened, and orders the transfer on its node.
fn expose(mut draft: Draft<'_>) -> Decision {
    let seen = draft.seen;
    let late = draft.lasts(
        (DEVICE_READY, Reason::Exposing),
        seen.settings.expose_deadline,
    );
    let lost = seen.holder.is_none() && !seen.reachable;
    let (message, ready) = match &seen.holder {
        None if lost => (unreachable(&draft), None),
        None => ("the holder pod is being made".to_owned(), None),
        Some(holder) if holder.ending => ("the old holder pod is ending".to_owned(), None),
        Some(holder) => match (&holder.node, holder.ready) {
            (Some(node), true) => (String::new(), Some((holder, node))),
            _ => (waiting_for(holder), None),
        },
    };
    let Some((holder, node)) = ready else {
        if late {
            let message = format!("the device did not become ready in time: {message}");
            let reason = if lost {
                Reason::NoAgent
            } else {
                Reason::ExposeFailed
            };
            return give_up::begin(draft, reason, &message);
        }
        if seen.holder.is_none() && !lost {
            draft.act(Action::CreateHolder);
        }
        draft.set((DEVICE_READY, Some(false)), Reason::Exposing, &message);
        return draft.wait();
    };
    order(draft, holder, node)
}

fn waiting_for(holder: &Holder) -> String {
    let place = holder.node.as_deref().unwrap_or("no node yet");
    match &holder.trouble {
        Some(trouble) => format!("the holder pod ({place}) is not ready: {trouble}"),
        None => format!("the holder pod ({place}) is not ready yet"),
    }
}

fn order(mut draft: Draft<'_>, holder: &Holder, node: &str) -> Decision {
    let working = draft.seen.working_volume.as_ref();
    let csi = working.and_then(|volume| volume.spec.as_ref()?.csi.as_ref());
    let (Some(csi), Some(known)) = (csi, &mut draft.status.volume) else {
        // The claim is bound before its pod can be ready: this is seen in the next look.
        return draft.wait();
    };
    known.holder_uid = Some(holder.uid.clone());
    let recorded = draft.status.recorded.clone().unwrap_or_default();
    let before = draft.status.order.as_ref().map_or(0, |order| order.attempt);
    draft.status.order = Some(TransferOrder {
        attempt: before + 1,
        strategy: AttachStrategy::Pod,
        volume: recorded.volume.unwrap_or_default(),
        driver: csi.driver.clone(),
        volume_handle: csi.volume_handle.clone(),
        since: Some(Time(draft.seen.now)),
        ..TransferOrder::default()
    });
    draft.status.node = Some(node.to_owned());
    draft.status.phase = Some(Phase::Prepared);
    draft.set((DEVICE_READY, Some(true)), Reason::Exposed, "");
    draft.at_once()
}

/// An agent that comes back goes on with its order. One that does not loses the device, by force if its kubelet does not answer either; once
/// the pod is gone, another is made where the volume can be reached. By then the lost agent has stopped writing by itself.
fn without_agent(mut draft: Draft<'_>, last: bool) -> Decision {
    let limit = draft.seen.settings.agent_deadline;
    let given_up = draft.lasts((DEVICE_READY, Reason::AgentLost), limit);
    let holder = draft.seen.holder.as_ref();
    let node = holder.and_then(|holder| holder.node.clone());
    let node = node.unwrap_or_default();
    let message = format!("the agent of node {node} does not answer");
    if given_up && last {
        let attempts = draft.seen.settings.attempts;
        let message = format!("given up after {attempts} attempts: {message}");
        return give_up::begin(draft, Reason::AgentLost, &message);
    }
    draft.set((DEVICE_READY, Some(false)), Reason::AgentLost, &message);
    if given_up && let Some(holder) = &draft.seen.holder {
        draft.delete_holder(holder);
    }
    draft.wait()
}

/// The agent is ready and moves nothing, and yet does not take the order: the device is made again, and ordered again where that is.
fn without_answer(mut draft: Draft<'_>) -> Decision {
    let attempts = draft.seen.settings.attempts;
    let node = draft.status.node.clone().unwrap_or_default();
    let message = format!(
        "the agent of node {node} is ready and moves nothing, and did not take the order in time"
    );
    let last = draft.status.order.as_ref();
    if last.is_some_and(|order| order.attempt >= attempts) {
        let message = format!("given up after {attempts} attempts: {message}");
        return give_up::begin(draft, Reason::AgentLost, &message);
    }
    draft.set((DEVICE_READY, Some(false)), Reason::AgentLost, &message);
    draft.act(Action::Event {
        warning: true,
        reason: Reason::AgentLost,
        message,
    });
    if let Some(holder) = &draft.seen.holder {
        draft.delete_holder(holder);
    }
    draft.wait()
}

/// A transfer that runs, or an order that nobody has taken yet: an agent does so many at once as it has slots, and whoever waits for one
/// waits for as long as they take.
fn watch(mut draft: Draft<'_>, running: bool) -> Decision {
    let seen = draft.seen;
    if !running && seen.untaken >= seen.settings.progress_deadline {
        return without_answer(draft);
    }
    if !running {
        draft.say("the device is open; waiting for a free slot of the agent");
        draft.set((DEVICE_READY, Some(true)), Reason::Exposed, "");
        return look_out(draft);
    }
    let limit = seen.settings.progress_deadline;
    let moved = answer(&draft.status).and_then(|answer| answer.last_progress.as_ref());
    let moved: Option<Timestamp> = moved.and_then(|text| text.parse().ok());
    let ordered = draft.status.order.as_ref();
    let ordered = ordered
        .and_then(|order| order.since.as_ref())
        .map_or(seen.now, |time| time.0);
    // The time before the order does not count, whatever an old answer says.
    let since = moved.map_or(ordered, |moved| moved.max(ordered));
    if seen.now.duration_since(since) >= limit {
        let message = format!("no progress for {} minutes", minutes(limit));
        return give_up::begin(draft, Reason::NoProgress, &message);
    }
    draft.set((DEVICE_READY, Some(true)), Reason::Exposed, "");
    draft.status.phase = Some(Phase::InProgress);
    look_out(draft)
}

/// Whoever comes to use a claim that is written over is looked for all the time: the API server refuses pods that are new, not those it
/// admitted before it knew of the restore.
fn look_out(draft: Draft<'_>) -> Decision {
    if draft.seen.restore.spec.mode == RestoreMode::InPlace {
        return draft.decide(IN_PLACE_WAIT);
    }
    draft.wait()
}

fn minutes(limit: SignedDuration) -> i64 {
    limit.as_secs().div_euclid(60)
}
