//! Quick restore: a volume is made of the live base snapshot, where that is the point, and nothing is transferred.
//!
//! ```text
//!   offered ─► Copying: content, snapshot and claim of the copy ─► bound ─► Copied ─► hand_over, as if it had been filled
//!                 └── late, or the base is gone ─► GivenUp: all of it goes ─► fill, as without a base
//! ```
//!
//! Owns: when it is tried, done, and given up. Must not: touch the base, or show it to another namespace: the copy has a content and a
//! snapshot of its own in the system namespace, which keep the driver's snapshot, and only the volume made of them changes hands.

use std::ops::ControlFlow;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::decision::{Action, Decision, ObjectId};
use super::super::observation::{Base, Observation};
use super::super::{target, volume};
use super::Draft;
use crate::kube::api::Phase;
use crate::kube::api::conditions::{DEVICE_READY, Reason};
use crate::kube::api::restore::{
    HandoverStatus, HandoverStep, QuickPolicy, QuickState, QuickStatus, RecordedClaim, RestoreMode,
};
use crate::kube::api::{PodVolumeRestore, PodVolumeRestoreStatus};

/// Part of the time for exposing after which the copy counts as too slow.
const SHARE: i32 = 3;

/// Whether the volume was made of the snapshot.
pub(super) fn is_copied(status: &PodVolumeRestoreStatus) -> bool {
    state(status) == Some(QuickState::Copied)
}

fn state(status: &PodVolumeRestoreStatus) -> Option<QuickState> {
    status.quick.as_ref().map(|quick| quick.state)
}

/// Whether a base could be of use, and so is looked for.
pub(super) fn wants_base(seen: &Observation) -> bool {
    let status = seen.restore.status.clone().unwrap_or_default();
    let open = match state(&status) {
        None => seen.restore.spec.quick_policy == QuickPolicy::Auto && seen.holder.is_none(),
        Some(state) => state == QuickState::Copying,
    };
    open && !super::waits_for_consumer(seen)
        && seen.restore.spec.mode == RestoreMode::NewClaim
        && status.recorded.is_some()
        && status.volume.is_none()
        && status.order.is_none()
        && seen.working_claim.is_none()
}

/// Whether anything of it may be there that has to go with the restore.
pub(super) fn was_tried(restore: &PodVolumeRestore) -> bool {
    let status = restore.status.as_ref();
    status.is_some_and(|status| status.quick.is_some())
}

/// Whether the volume is being made of a base.
pub(super) fn copies(restore: &PodVolumeRestore) -> bool {
    let status = restore.status.as_ref();
    status.is_some_and(|status| state(status) == Some(QuickState::Copying))
}

/// What is next, unless the volume is to be filled.
pub(super) fn go_on(mut draft: Draft<'_>) -> ControlFlow<Decision, Draft<'_>> {
    match state(&draft.status) {
        None => match offer(&draft) {
            Some(base) => {
                draft.status.quick = Some(QuickStatus {
                    state: QuickState::Copying,
                    since: Time(draft.seen.now),
                    message: None,
                    snapshot_handle: base.original.handle.clone(),
                });
                ControlFlow::Break(draft.at_once())
            }
            None => ControlFlow::Continue(draft),
        },
        Some(QuickState::Copying) => ControlFlow::Break(copy(draft)),
        Some(QuickState::GivenUp) => clear(draft),
        Some(QuickState::Copied) => ControlFlow::Continue(draft),
    }
}

/// The base, where a volume like the one that is wanted can be made of it.
fn offer<'a>(draft: &Draft<'a>) -> Option<&'a Base> {
    let seen = draft.seen;
    let (base, class) = (seen.base.as_ref()?, seen.class.as_ref()?);
    let recorded = draft.status.recorded.as_ref()?;
    let size = u64::try_from(recorded.size_bytes).ok()?;
    // With another policy a volume that comes after it was given up would stay.
    let goes = class.reclaim_policy.as_deref().unwrap_or(volume::DELETE) == volume::DELETE;
    let fits = base.restore_size.is_none_or(|least| least <= size);
    let wanted = wants_base(seen) && goes && fits && class.provisioner == base.original.driver;
    wanted.then_some(base)
}

fn is_copy(claim: &PersistentVolumeClaim) -> bool {
    let spec = claim.spec.as_ref();
    spec.is_some_and(|spec| spec.data_source.is_some())
}

fn copy(mut draft: Draft<'_>) -> Decision {
    let seen = draft.seen;
    if is_done(&mut draft) {
        draft.status.phase = Some(Phase::InProgress);
        set(&mut draft, QuickState::Copied, None);
        draft.act(Action::DropSnapshot);
        draft
            .say("the volume was made of the snapshot of the point: nothing had to be transferred");
        return draft.at_once();
    }
    let since = draft
        .status
        .quick
        .as_ref()
        .map_or(seen.now, |quick| quick.since.0);
    let late = seen.now.duration_since(since) >= seen.settings.expose_deadline / SHARE;
    if late {
        return give_up(draft, "the storage made no volume of the snapshot in time");
    }
    if seen.working_claim.is_none() {
        let handle = draft
            .status
            .quick
            .as_ref()
            .map(|quick| &quick.snapshot_handle);
        let base = seen
            .base
            .as_ref()
            .filter(|base| Some(&base.original.handle) == handle);
        let (Some(base), Some(recorded)) = (base, draft.status.recorded.clone()) else {
            return give_up(draft, "the base snapshot went away");
        };
        let claim = claim(seen, &recorded);
        draft.act(Action::CopySnapshot(Box::new(base.original.clone())));
        draft.act(Action::CreateClaim(Box::new(claim)));
    }
    // Where volumes are made for the first pod, there must be one.
    let class = seen.class.as_ref();
    let binding = class.and_then(|class| class.volume_binding_mode.as_deref());
    if binding == Some("WaitForFirstConsumer") && seen.holder.is_none() {
        draft.act(Action::CreateHolder);
    }
    draft.set(
        (DEVICE_READY, Some(false)),
        Reason::Exposing,
        "the volume is being made of the snapshot of the point",
    );
    draft.wait()
}

fn claim(seen: &Observation, recorded: &RecordedClaim) -> PersistentVolumeClaim {
    let system = &seen.settings.system_namespace;
    let mut claim = target::working_claim(&seen.restore, recorded, system);
    if let Some(asking) = &seen.target
        && target::asks_for(asking, &seen.restore)
    {
        target::follow_consumer(&mut claim, asking);
    }
    target::of_snapshot(&mut claim);
    claim
}

/// Whether the claim of the copy has its volume, which is noted then.
fn is_done(draft: &mut Draft<'_>) -> bool {
    let seen = draft.seen;
    let (Some(claim), Some(working)) = (&seen.working_claim, &seen.working_volume) else {
        return false;
    };
    let csi = working.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let (Some(csi), true) = (csi, is_copy(claim) && volume::is_bound(working, claim)) else {
        return false;
    };
    draft.status.volume = Some(HandoverStatus {
        name: working.metadata.name.clone().unwrap_or_default(),
        handle: csi.volume_handle.clone(),
        reclaim_policy: volume::reclaim_policy(working).to_owned(),
        working_claim_uid: claim.metadata.uid.clone(),
        step: HandoverStep::Filling,
        ..HandoverStatus::default()
    });
    true
}

fn set(draft: &mut Draft<'_>, state: QuickState, message: Option<&str>) {
    if let Some(quick) = &mut draft.status.quick {
        quick.state = state;
        quick.message = message.map(str::to_owned);
    }
}

fn give_up<'a>(mut draft: Draft<'a>, why: &str) -> Decision {
    set(&mut draft, QuickState::GivenUp, Some(why));
    let message = format!("the point is transferred: {why}");
    // Another status, so that the time for exposing begins anew.
    draft.set((DEVICE_READY, None), Reason::Exposing, &message);
    draft.at_once()
}

/// What was made for the copy goes, before the volume is made that is filled.
fn clear(mut draft: Draft<'_>) -> ControlFlow<Decision, Draft<'_>> {
    let seen = draft.seen;
    let Some(claim) = seen.working_claim.as_ref().filter(|claim| is_copy(claim)) else {
        return ControlFlow::Continue(draft);
    };
    if let Some(holder) = &seen.holder {
        draft.delete_holder(holder);
    }
    // The snapshot goes at the end: while a claim is to be made of it, the snapshot controller keeps it, and looks again only much later.
    draft.act(Action::DeleteClaim(ObjectId::of(claim)));
    draft.say("the volume that was to be made of the snapshot is taken back");
    ControlFlow::Break(draft.wait())
}
