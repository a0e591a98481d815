//! From a new restore to one that may begin.
//!
//! Owns: what is checked before anything is made. Must not: make anything.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use super::super::decision::{Action, Decision};
use super::super::observation::Observation;
use super::super::point::{PointAnswer, PointRecord};
use super::super::target;
use super::{Draft, give_up};
use crate::kube::api::Phase;
use crate::kube::api::backup::PointStatus;
use crate::kube::api::conditions::{ACCEPTED, Reason};
use crate::kube::api::restore::{RecordedClaim, RestoreMode, VolumeMode};
use crate::kube::controller::quantity;

/// Between two looks for what is missing: a repository may have to be listed for it. More often at first, when it is being made.
const LOOKUP_WAIT: SignedDuration = SignedDuration::from_secs(30);
const FIRST_LOOKUP_WAIT: SignedDuration = SignedDuration::from_secs(10);
const FIRST_LOOKUPS: SignedDuration = SignedDuration::from_mins(5);

pub(super) fn accept(mut draft: Draft<'_>) -> Decision {
    draft.status.phase.get_or_insert(Phase::New);
    let seen = draft.seen;
    let point = match &seen.point {
        PointAnswer::NotAsked => return draft.wait(),
        PointAnswer::Refused {
            reason,
            message,
            may_change,
        } => return refused(draft, *reason, message, *may_change),
        PointAnswer::Found(point) => point,
    };
    let recorded = effective(seen, &point.claim);
    if let Err((reason, message)) = check(seen, &recorded) {
        return refused(draft, reason, &message, false);
    }
    if seen.restore.spec.mode != RestoreMode::NewClaim
        && let Some(node) = seen.target_attached_to.first()
    {
        // What a pod that has just ended leaves for a moment.
        let message = format!("the claim's volume is attached to node {node}");
        return refused(draft, Reason::TargetRefused, &message, true);
    }
    take(&mut draft, point, recorded);
    draft.at_once()
}

fn take(draft: &mut Draft<'_>, point: &PointRecord, recorded: RecordedClaim) {
    draft.status.start_time.get_or_insert(Time(draft.seen.now));
    draft.status.phase = Some(Phase::Accepted);
    draft.status.point = Some(PointStatus {
        id: point.id.clone(),
        repository_id: point.repository_id.clone(),
    });
    draft.status.recorded = Some(recorded);
    draft.set((ACCEPTED, Some(true)), Reason::Valid, "");
}

/// What is missing may come, but not for ever; a claim that asks to be filled waits as long as it exists.
fn refused(mut draft: Draft<'_>, reason: Reason, message: &str, may_change: bool) -> Decision {
    let seen = draft.seen;
    let limit = seen.settings.expose_deadline;
    let waited = draft.lasts((ACCEPTED, reason), limit);
    let claim_waits = asking(seen).is_some();
    if !may_change || (waited && !claim_waits) {
        draft.set((ACCEPTED, Some(false)), reason, message);
        return give_up::begin(draft, reason, message);
    }
    if super::status::condition(&draft.status, ACCEPTED)
        .is_none_or(|known| known.message != message)
    {
        draft.act(Action::Event {
            warning: true,
            reason,
            message: message.to_owned(),
        });
    }
    draft.set((ACCEPTED, Some(false)), reason, message);
    let pause = if draft.lasts((ACCEPTED, reason), FIRST_LOOKUPS) {
        LOOKUP_WAIT
    } else {
        FIRST_LOOKUP_WAIT
    };
    draft.decide(pause)
}

/// The target, where it is a claim that asks to be filled by this restore.
fn asking(seen: &Observation) -> Option<&PersistentVolumeClaim> {
    let claim = seen.target.as_ref()?;
    target::asks_for(claim, &seen.restore).then_some(claim)
}

/// What the volume is made from: the point's record, or the claim where that exists already.
pub(super) fn effective(seen: &Observation, recorded: &RecordedClaim) -> RecordedClaim {
    let existing = match seen.restore.spec.mode {
        RestoreMode::NewClaim => asking(seen),
        RestoreMode::Replace | RestoreMode::InPlace => seen.target.as_ref(),
    };
    target::as_claimed(recorded, existing)
}

fn check(seen: &Observation, recorded: &RecordedClaim) -> Result<(), target::Refusal> {
    let refused = |message: String| Err((Reason::TargetRefused, message));
    let name = &seen.restore.spec.target.name;
    match (seen.restore.spec.mode, &seen.target) {
        (RestoreMode::NewClaim, None) => {}
        (RestoreMode::NewClaim, Some(claim)) if target::asks_for(claim, &seen.restore) => {
            check_asking(seen, claim, recorded)?;
        }
        (RestoreMode::NewClaim, Some(_)) => {
            return refused(format!(
                "claim {name} exists: choose another name, or mode Replace or InPlace"
            ));
        }
        (_, None) => return Err((Reason::NotFound, format!("there is no claim {name}"))),
        (mode, Some(_)) => {
            if let Some(user) = seen.target_users.first() {
                return refused(format!("claim {name} is in use by {user}"));
            }
            if mode == RestoreMode::InPlace {
                return check_in_place(seen, recorded);
            }
        }
    }
    let replaced = seen
        .target
        .as_ref()
        .filter(|_| seen.restore.spec.mode == RestoreMode::Replace);
    target::check(&seen.restore, recorded, seen.class.as_ref(), replaced)
}

/// A claim that asks to be filled decides itself what it is; a target that says otherwise is a mistake.
fn check_asking(
    seen: &Observation,
    claim: &PersistentVolumeClaim,
    recorded: &RecordedClaim,
) -> Result<(), target::Refusal> {
    let wanted = &seen.restore.spec.target;
    let class = wanted.storage_class_name.as_ref();
    let differs = class.is_some_and(|class| Some(class) != recorded.storage_class_name.as_ref())
        || wanted
            .volume_mode
            .is_some_and(|mode| Some(mode) != recorded.volume_mode)
        || wanted
            .access_modes
            .as_ref()
            .is_some_and(|modes| *modes != recorded.access_modes);
    if differs {
        let message = format!("target and claim {} ask for different volumes", wanted.name);
        return Err((Reason::TargetRefused, message));
    }
    let asked = target::requested_bytes(claim).unwrap_or(0);
    let size = i128::from(recorded.size_bytes);
    if i128::from(asked) > size {
        let message = format!(
            "claim {} asks for {asked} bytes, the point's volume has {size}: ask for that, and let the claim grow afterwards",
            wanted.name
        );
        return Err((Reason::TargetRefused, message));
    }
    Ok(())
}

pub(super) fn check_in_place(
    seen: &Observation,
    recorded: &RecordedClaim,
) -> Result<(), target::Refusal> {
    let refused = |message: String| Err((Reason::TargetRefused, message));
    let name = &seen.restore.spec.target.name;
    if recorded.volume_mode != Some(VolumeMode::Block) {
        return refused(format!(
            "claim {name} is a file system: only one of volumeMode Block can be written over, use mode Replace"
        ));
    }
    let Some(spec) = seen
        .target_volume
        .as_ref()
        .and_then(|volume| volume.spec.as_ref())
    else {
        let message = format!("claim {name} is not bound to a volume");
        return Err((Reason::ClaimNotBound, message));
    };
    if spec.csi.is_none() {
        let message = format!("claim {name} is bound to a volume without a CSI driver");
        return Err((Reason::UnsupportedVolume, message));
    }
    let capacity = spec.capacity.as_ref().and_then(|all| all.get("storage"));
    let capacity = capacity.and_then(quantity::bytes).unwrap_or(0);
    if i128::from(capacity) < i128::from(recorded.size_bytes) {
        return refused(format!(
            "claim {name} has {capacity} bytes, the point's volume {}",
            recorded.size_bytes
        ));
    }
    Ok(())
}
