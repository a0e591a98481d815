//! What could not be taken back in time is left behind, by name.
//!
//! Owns: when nothing more can be done here, and the words about it. Must not: leave anything that no object names, or that the sweep does
//! not find: working claims, holders and second names carry labels, and other volumes name a claim of ours.

use ::kube::ResourceExt as _;

use super::super::decision::{Action, Decision};
use super::super::names;
use super::{Draft, is_ours};
use crate::kube::api::Phase;
use crate::kube::api::conditions::{CLEANED, Reason};

/// Whether everything that can be asked for was asked for already: others do not answer.
pub(super) fn is_stuck(draft: &Draft<'_>) -> bool {
    let seen = draft.seen;
    let written = seen.restore.status.as_ref();
    let same = written.is_some_and(|known| known.volume == draft.status.volume);
    let asked = |action: &Action| match action {
        Action::DeleteHolder { uid, .. } => seen
            .holder
            .as_ref()
            .is_some_and(|holder| holder.ending && holder.uid == *uid),
        Action::DeleteClaim(id) => [&seen.working_claim, &seen.target]
            .into_iter()
            .flatten()
            .any(|claim| {
                claim.metadata.uid.as_ref() == Some(&id.uid)
                    && claim.metadata.deletion_timestamp.is_some()
            }),
        _ => false,
    };
    same && draft.actions.iter().all(asked)
}

/// Ends, although something is still there.
pub(super) fn leave(mut draft: Draft<'_>, phase: Phase) -> Decision {
    let message = format!(
        "not cleaned up in time, and still there: {}",
        all(&draft).join(", ")
    );
    let before = draft.status.message.clone().unwrap_or_default();
    draft.set((CLEANED, Some(false)), Reason::LeftBehind, &message);
    if !before.is_empty() {
        draft.say(&format!("{before}; {message}"));
    }
    draft.act(Action::Event {
        warning: true,
        reason: Reason::LeftBehind,
        message,
    });
    draft.end(phase)
}

/// What is there of this restore, in words that `kubectl get` understands.
fn all(draft: &Draft<'_>) -> Vec<String> {
    let seen = draft.seen;
    let name = names::intermediate(&seen.restore);
    let own = "in the namespace of Snaphaul";
    let volume = |volume: &k8s_openapi::api::core::v1::PersistentVolume| {
        format!("persistentvolume/{}", volume.name_any())
    };
    let target = seen.target.as_ref();
    let target = target.filter(|claim| is_ours(claim, &seen.restore));
    [
        seen.holder.as_ref().map(|_| format!("pod/{name} {own}")),
        seen.working_claim
            .as_ref()
            .map(|_| format!("persistentvolumeclaim/{name} {own}")),
        target.map(|claim| {
            format!(
                "persistentvolumeclaim/{} in this namespace",
                claim.name_any()
            )
        }),
        seen.working_volume.as_ref().map(volume),
        seen.final_volume.as_ref().map(volume),
    ]
    .into_iter()
    .flatten()
    .collect()
}
