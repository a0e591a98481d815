//! A filled volume becomes the user's.
//!
//! Owns: the order in which policy, holder, claims and volume objects change. Must not: take anything back (`give_up`).
//!
//! ```text
//!   Filling     policy → Retain · holder gone · detached · working claim gone
//!   Filled      the user's claim exists (Replace: the old one is gone)
//!   Recreating  old object gone → new object, for the user's claim
//!   Created     claim and volume bound
//!   Bound       size · policy as it was
//! ```
//!
//! Invariant: from the moment the volume is filled, a PersistentVolume whose policy is Retain names it, or, in `Recreating`, the status.

use ::kube::ResourceExt as _;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::super::decision::{Action, Decision, ObjectId};
use super::super::{names, target, volume};
use super::{Draft, bound, give_up};
use crate::kube::api::Phase;
use crate::kube::api::conditions::{Reason, SUCCEEDED};
use crate::kube::api::names::{KEPT_OF, RESTORED_POINT};
use crate::kube::api::restore::{HandoverStatus, HandoverStep, RestoreMode};
use crate::kube::controller::quantity;

pub(super) fn go_on(mut draft: Draft<'_>) -> Decision {
    let Some(known) = draft.status.volume.clone() else {
        let message = "the volume was filled, but nothing says which it is";
        return give_up_or_keep(draft, Reason::TransferFailed, message);
    };
    let late = draft.lasts(
        (SUCCEEDED, Reason::Binding),
        draft.seen.settings.bind_deadline,
    );
    let takes_back = known.step < HandoverStep::Bound && !super::past_return(draft.seen);
    if late && takes_back {
        let waited = draft.status.message.clone().unwrap_or_default();
        let message = format!("the volume could not be handed over in time: {waited}");
        return give_up_or_keep(draft, Reason::NoProgress, &message);
    }
    draft.set((SUCCEEDED, None), Reason::Binding, "");
    go_step(draft, known)
}

/// It was to be taken back, but the claim was bound first: so it is done.
pub(super) fn after_all(mut draft: Draft<'_>) -> Decision {
    draft.status.phase = Some(Phase::InProgress);
    draft.set(
        (SUCCEEDED, None),
        Reason::Binding,
        "the claim was bound before the volume could be taken back",
    );
    draft.at_once()
}

fn go_step(draft: Draft<'_>, known: HandoverStatus) -> Decision {
    match known.step {
        HandoverStep::Filling => release(draft, known),
        HandoverStep::Filled => claim(draft, known),
        HandoverStep::Recreating => recreate(draft, &known),
        HandoverStep::Created => bind(draft, &known),
        HandoverStep::Bound => finish(draft, &known),
    }
}

/// It will not succeed. The volume is taken back, unless the claim whose place it was to take is gone: it is then the only copy in this
/// cluster, and stays for a person.
fn give_up_or_keep(mut draft: Draft<'_>, reason: Reason, message: &str) -> Decision {
    let seen = draft.seen;
    if !super::past_return(seen) {
        return give_up::begin(draft, reason, message);
    }
    let object = seen.final_volume.as_ref().or(seen.working_volume.as_ref());
    let Some(object) = object.filter(|object| object.metadata.deletion_timestamp.is_none()) else {
        // Nothing names the storage for the moment: not before it has an object again.
        let known = draft.status.volume.clone().unwrap_or_default();
        let vanished = seen.final_volume.is_none() && seen.working_volume.is_none();
        if vanished && recorded_object(&known).is_none() {
            return nothing_to_keep(draft, reason, message, &known);
        }
        let limit = seen.settings.bind_deadline + seen.settings.clean_deadline;
        let overdue = draft.lasts((SUCCEEDED, Reason::Binding), limit);
        if (seen.working_volume.is_none() || (overdue && seen.final_volume.is_none()))
            && let Some(again) = recreated(&draft, &known)
        {
            draft.act(Action::CreateVolume(Box::new(again)));
        }
        draft.say(message);
        return draft.wait();
    };
    if volume::reclaim_policy(object) != volume::RETAIN {
        let policy = volume::RETAIN.to_owned();
        draft.act(Action::SetReclaimPolicy(ObjectId::of(object), policy));
        return draft.at_once();
    }
    let kept_for = kept_for(seen);
    let is_marked = object.labels().contains_key(KEPT_OF);
    if !is_marked || volume::owner_ref(object) != Some(&kept_for) {
        let owner = Box::new(kept_for);
        draft.act(Action::KeepVolume(ObjectId::of(object), owner));
        return draft.at_once();
    }
    let message = format!(
        "{message}; the restored data stays on PersistentVolume {} (volumeMode {}) with the policy Retain: create a claim {} in this \
         namespace with it as volumeName, or delete it",
        object.name_any(),
        volume::mode_of(object),
        kept_for.name.as_deref().unwrap_or_default(),
    );
    draft.set((SUCCEEDED, Some(false)), reason, &message);
    draft.say(&message);
    draft.act(Action::Event {
        warning: true,
        reason,
        message,
    });
    draft.end(Phase::Failed)
}

/// Neither an object nor a record of it: only the driver may still have the storage. To wait would bring nothing.
fn nothing_to_keep(
    mut draft: Draft<'_>,
    reason: Reason,
    message: &str,
    known: &HandoverStatus,
) -> Decision {
    let message = format!(
        "{message}; no PersistentVolume and no record names the restored data any more: look for the volume {} at its driver",
        known.handle
    );
    draft.set((SUCCEEDED, Some(false)), reason, &message);
    draft.act(Action::Event {
        warning: true,
        reason,
        message,
    });
    draft.end(Phase::Failed)
}

/// A claim that only the namespace's own people can make: the volume waits for it. Without a reference any claim of the cluster could get
/// the volume; with one to a claim that is gone, none; with one to the working claim, the sweep would take it for a leftover.
fn kept_for(seen: &super::super::observation::Observation) -> ObjectReference {
    let namespace = seen.restore.namespace().unwrap_or_default();
    ObjectReference {
        uid: None,
        ..volume::claim_ref(&namespace, &names::intermediate(&seen.restore), "")
    }
}

/// Takes the volume from working claim and holder.
fn release(mut draft: Draft<'_>, mut known: HandoverStatus) -> Decision {
    let seen = draft.seen;
    let Some(working) = &seen.working_volume else {
        let message = format!(
            "PersistentVolume {} was deleted by somebody else",
            known.name
        );
        return give_up_or_keep(draft, Reason::TransferFailed, &message);
    };
    if known.object.is_none() {
        let recorded = draft.status.recorded.clone().unwrap_or_default();
        let object = volume::for_claim(&seen.restore, &recorded, working);
        known.object = object.and_then(|object| serde_json::to_string(&object).ok());
        draft.status.volume = Some(known);
        return draft.at_once();
    }
    if volume::reclaim_policy(working) != volume::RETAIN {
        draft.act(Action::SetReclaimPolicy(
            ObjectId::of(working),
            volume::RETAIN.to_owned(),
        ));
        return draft.at_once();
    }
    if let Some(holder) = &seen.holder {
        draft.say("the holder pod is ending");
        draft.delete_holder(holder);
        return draft.wait();
    }
    if !seen.attached_to.is_empty() {
        let nodes = seen.attached_to.join(", ");
        draft.say(&format!("the volume is being detached from {nodes}"));
        return draft.wait();
    }
    if let Some(claim) = &seen.working_claim {
        draft.say("the working claim is ending");
        draft.act(Action::DeleteClaim(ObjectId::of(claim)));
        return draft.wait();
    }
    known.step = HandoverStep::Filled;
    draft.status.volume = Some(known);
    draft.at_once()
}

/// Sees to it that the user's claim exists and will take no other volume.
fn claim(mut draft: Draft<'_>, mut known: HandoverStatus) -> Decision {
    let seen = draft.seen;
    let existing = seen.target.as_ref();
    if seen.restore.spec.mode == RestoreMode::Replace
        && let Some(old) = existing
        && !super::is_ours(old, &seen.restore)
    {
        return replace(draft, known, old);
    }
    let Some(existing) = existing else {
        let Some(claim) = claim_to_make(&draft, &known) else {
            let message = "the claim was deleted before it could be replaced";
            return give_up_or_keep(draft, Reason::TargetRefused, message);
        };
        draft.say("the claim is being made");
        draft.act(Action::CreateClaim(Box::new(claim)));
        return draft.wait();
    };
    let recorded = draft.status.recorded.clone().unwrap_or_default();
    let usable = super::is_ours(existing, &seen.restore)
        || (target::asks_for(existing, &seen.restore)
            && target::suits(&seen.restore, &recorded, existing));
    if !usable {
        let message = "a claim of the target's name was created meanwhile";
        return give_up_or_keep(draft, Reason::TargetRefused, message);
    }
    if existing.metadata.deletion_timestamp.is_some() {
        let message = "the claim was deleted while it waited for its volume";
        return give_up_or_keep(draft, Reason::TargetRefused, message);
    }
    known.claim_uid = existing.uid();
    known.step = HandoverStep::Recreating;
    draft.status.volume = Some(known);
    draft.at_once()
}

fn claim_to_make(draft: &Draft<'_>, known: &HandoverStatus) -> Option<PersistentVolumeClaim> {
    let recorded = draft.status.recorded.as_ref()?;
    if draft.seen.restore.spec.mode == RestoreMode::Replace {
        let mut claim = replaced_claim(known)?;
        // It grows once it has its volume, so that the file system grows, too.
        claim.spec.as_mut()?.resources = Some(target::request(target::size(recorded)));
        return Some(claim);
    }
    Some(target::new_claim(&draft.seen.restore, recorded))
}

/// The claim that is created again, as it was written down.
fn replaced_claim(known: &HandoverStatus) -> Option<PersistentVolumeClaim> {
    serde_json::from_str(known.claim.as_ref()?).ok()
}

/// The old claim goes once the one that takes its place is written down, and only while nobody uses it.
fn replace(
    mut draft: Draft<'_>,
    mut known: HandoverStatus,
    old: &PersistentVolumeClaim,
) -> Decision {
    let seen = draft.seen;
    let uid = old.uid();
    let other = match &known.replaced_uid {
        Some(replaced) => Some(replaced) != uid.as_ref(),
        // What was asked for is to replace the claim that was there.
        None => created(&old.metadata) > created(&seen.restore.metadata),
    };
    if other {
        let message = "a claim of the target's name was created meanwhile";
        return give_up_or_keep(draft, Reason::TargetRefused, message);
    }
    if old.metadata.deletion_timestamp.is_some() && known.replaced_uid == uid {
        draft.say("the old claim is ending");
        return draft.wait();
    }
    if let Some(user) = seen.target_users.first() {
        let message = format!("the claim came into use by {user}");
        return give_up_or_keep(draft, Reason::TargetRefused, &message);
    }
    if !seen.target_attached_to.is_empty() {
        draft.say("the old volume is being detached");
        return draft.wait();
    }
    if known.replaced_uid.is_none() {
        known.claim = serde_json::to_string(&again(draft.seen, old)).ok();
        known.replaced_uid = uid;
        draft.status.volume = Some(known);
        return draft.at_once();
    }
    draft.say("the old claim is ending");
    draft.act(Action::DeleteClaim(ObjectId::of(old)));
    draft.wait()
}

fn created(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The old claim as it is created again: what users set, on the new volume.
fn again(
    seen: &super::super::observation::Observation,
    old: &PersistentVolumeClaim,
) -> PersistentVolumeClaim {
    let mut annotations = old.metadata.annotations.clone().unwrap_or_default();
    // What binding and provisioning of the old volume left there.
    annotations.retain(|key, _| {
        !key.starts_with("pv.kubernetes.io/")
            && !key.starts_with("volume.kubernetes.io/")
            && !key.starts_with("volume.beta.kubernetes.io/")
    });
    let mut spec = old.spec.clone().unwrap_or_default();
    spec.volume_name = Some(names::intermediate(&seen.restore));
    spec.data_source = None;
    spec.data_source_ref = None;
    spec.selector = None;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: old.metadata.name.clone(),
            namespace: old.metadata.namespace.clone(),
            labels: old.metadata.labels.clone(),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            owner_references: old.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// Deletes the old object of the volume, then creates the new one.
fn recreate(mut draft: Draft<'_>, known: &HandoverStatus) -> Decision {
    let seen = draft.seen;
    if let Some(claim) = lost_claim(&draft, known) {
        return give_up_or_keep(draft, Reason::TargetRefused, claim);
    }
    if let Some(made) = &seen.final_volume {
        debug_assert_eq!(volume::reclaim_policy(made), volume::RETAIN);
        let mut known = known.clone();
        known.step = HandoverStep::Created;
        draft.status.volume = Some(known);
        return draft.at_once();
    }
    if let Some(working) = &seen.working_volume {
        if volume::reclaim_policy(working) != volume::RETAIN {
            // Somebody set it back: the storage would go with the object.
            draft.act(Action::SetReclaimPolicy(
                ObjectId::of(working),
                volume::RETAIN.to_owned(),
            ));
            return draft.at_once();
        }
        draft.say("the volume's old object is ending");
        if working.metadata.deletion_timestamp.is_none() {
            draft.act(Action::DeleteVolume(ObjectId::of(working)));
        }
        return draft.wait();
    }
    let Some(object) = recreated(&draft, known) else {
        let message = "the record of the volume cannot be read";
        return give_up_or_keep(draft, Reason::TransferFailed, message);
    };
    draft.act(Action::CreateVolume(Box::new(object)));
    draft.wait()
}

fn recreated(draft: &Draft<'_>, known: &HandoverStatus) -> Option<PersistentVolume> {
    let mut object = recorded_object(known)?;
    let restore = &draft.seen.restore;
    let namespace = restore.namespace()?;
    // Without a claim it waits for a person's: a reference without a UID is one to whatever has the name.
    let owner = known.claim_uid.as_ref().map_or_else(
        || kept_for(draft.seen),
        |uid| volume::claim_ref(&namespace, &restore.spec.target.name, uid),
    );
    object.spec.as_mut()?.claim_ref = Some(owner);
    Some(object)
}

/// The object as it was written down. The status is no proof: only what a volume of ours can be is made again.
fn recorded_object(known: &HandoverStatus) -> Option<PersistentVolume> {
    let text = known.object.as_ref()?;
    if !volume::is_plain_csi(text, &known.handle) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Why the claim that the volume is meant for is not there any more.
fn lost_claim(draft: &Draft<'_>, known: &HandoverStatus) -> Option<&'static str> {
    let claim = draft.seen.target.as_ref();
    let same = claim.filter(|claim| claim.metadata.uid == known.claim_uid);
    same.is_none_or(|claim| claim.metadata.deletion_timestamp.is_some())
        .then_some("the claim was deleted before it had its volume")
}

fn bind(mut draft: Draft<'_>, known: &HandoverStatus) -> Decision {
    let seen = draft.seen;
    if bound(seen) {
        let bound = seen.target.as_ref().zip(seen.final_volume.as_ref());
        if bound.is_some_and(|(claim, made)| volume::is_bound(made, claim)) {
            let mut known = known.clone();
            known.step = HandoverStep::Bound;
            draft.status.volume = Some(known);
            return draft.at_once();
        }
        return draft.wait();
    }
    if let Some(claim) = lost_claim(&draft, known) {
        return give_up_or_keep(draft, Reason::TargetRefused, claim);
    }
    if seen.final_volume.is_none() {
        // Its policy is Retain until the step is Bound: whoever deleted the object left the storage.
        if let Some(object) = recreated(&draft, known) {
            draft.act(Action::CreateVolume(Box::new(object)));
        }
    } else {
        name_point(&mut draft);
    }
    draft.say("the claim is being bound to the volume");
    draft.wait()
}

/// Also wakes the binding controller, which looks at a claim that waits for a named volume only every 15 seconds or when it changes.
fn name_point(draft: &mut Draft<'_>) {
    let (Some(claim), Some(point)) = (&draft.seen.target, &draft.status.point) else {
        return;
    };
    let known = claim.metadata.annotations.as_ref();
    if known.and_then(|all| all.get(RESTORED_POINT)) != Some(&point.id) {
        let action = Action::NamePoint(ObjectId::of(claim), point.id.clone());
        draft.act(action);
    }
}

/// The claim is the user's from here: what cannot be done is said, not taken back.
fn finish(mut draft: Draft<'_>, known: &HandoverStatus) -> Decision {
    let seen = draft.seen;
    let ours = |made: &&PersistentVolume| volume::owner_uid(made) == known.claim_uid.as_deref();
    let wanted = draft.status.recorded.as_ref().and_then(|recorded| {
        target::bigger_size(&seen.restore, recorded, replaced_claim(known).as_ref())
    });
    let claim = seen
        .target
        .as_ref()
        .filter(|claim| claim.metadata.uid == known.claim_uid);
    let late = draft.lasts((SUCCEEDED, Reason::Binding), seen.settings.bind_deadline);
    let mut message = String::new();
    if let (Some(wanted), Some(claim)) = (wanted, claim)
        && target::requested_bytes(claim) < quantity::bytes(&wanted)
    {
        if !late {
            draft.say("the claim is being made bigger");
            draft.act(Action::ExpandClaim(ObjectId::of(claim), wanted));
            return draft.wait();
        }
        message = "the claim has the size of the point: it could not be made bigger".to_owned();
    }
    if let Some(made) = seen.final_volume.as_ref().filter(ours)
        && volume::reclaim_policy(made) != known.reclaim_policy
    {
        let policy = known.reclaim_policy.clone();
        draft.act(Action::SetReclaimPolicy(ObjectId::of(made), policy));
        return draft.at_once();
    }
    draft.set((SUCCEEDED, Some(true)), Reason::Done, &message);
    draft.end(Phase::Completed)
}
