//! The target's own volume is written over.
//!
//! Owns: the second name by which the working claim reaches the volume. Must not: let the storage depend on that name: its policy is
//! Retain from the first moment to the last.

use super::super::decision::{Action, Decision};
use super::super::volume;
use super::{Draft, accept, fill, give_up, left};
use crate::kube::api::Phase;
use crate::kube::api::conditions::{Reason, SUCCEEDED};
use crate::kube::api::restore::HandoverStatus;

pub(super) fn go_on(mut draft: Draft<'_>, filled: bool) -> Decision {
    let seen = draft.seen;
    if filled {
        if give_up::take_back_name(&mut draft) {
            let limit = seen.settings.clean_deadline;
            if draft.lasts((SUCCEEDED, Reason::Binding), limit) && left::is_stuck(&draft) {
                draft.set((SUCCEEDED, Some(true)), Reason::Done, "");
                return left::leave(draft, Phase::Completed);
            }
            draft.set(
                (SUCCEEDED, None),
                Reason::Binding,
                "the volume goes back to its claim",
            );
            return draft.wait();
        }
        draft.set((SUCCEEDED, Some(true)), Reason::Done, "");
        return draft.end(Phase::Completed);
    }
    let claim_uid = seen
        .target
        .as_ref()
        .and_then(|claim| claim.metadata.uid.clone());
    let Some(known) = &draft.status.volume else {
        // The claim may have been made again since the restore was accepted.
        let recorded = draft.status.recorded.clone().unwrap_or_default();
        if let Err((reason, message)) = accept::check_in_place(seen, &recorded) {
            return give_up::begin(draft, reason, &message);
        }
        let namespace = &seen.settings.system_namespace;
        let own = seen.target_volume.as_ref();
        let second = own.and_then(|own| volume::second_name(&seen.restore, namespace, own));
        let Some(second) = second else {
            let message = "the claim has no volume of a CSI driver any more";
            return give_up::begin(draft, Reason::ClaimNotBound, message);
        };
        let handle = second
            .spec
            .as_ref()
            .and_then(|spec| Some(spec.csi.as_ref()?.volume_handle.clone()));
        draft.status.volume = Some(HandoverStatus {
            name: second.metadata.name.clone().unwrap_or_default(),
            handle: handle.unwrap_or_default(),
            reclaim_policy: volume::RETAIN.to_owned(),
            object: serde_json::to_string(&second).ok(),
            claim_uid,
            ..HandoverStatus::default()
        });
        return draft.at_once();
    };
    if known.claim_uid != claim_uid {
        let message = "the claim was deleted while it was being restored";
        return give_up::begin(draft, Reason::TargetRefused, message);
    }
    if seen.final_volume.is_none() && seen.working_claim.is_none() {
        let object = known
            .object
            .as_ref()
            .and_then(|json| serde_json::from_str(json).ok());
        let Some(object) = object else {
            let message = "the record of the volume cannot be read";
            return give_up::begin(draft, Reason::TransferFailed, message);
        };
        draft.act(Action::CreateVolume(Box::new(object)));
        return draft.wait();
    }
    fill::fill(draft)
}
