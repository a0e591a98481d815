//! The words of a restore's status: phase, conditions, message.
//!
//! Owns: how they are set, so that a condition's time is that of its last change. Must not: decide when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::kube::api::PodVolumeRestoreStatus;
use crate::kube::api::conditions::Reason;

/// Longest text that a condition or message keeps, in bytes: drivers' words can be long.
const MAX_TEXT_LEN: usize = 1024;

/// Sets a condition; its time changes only where status or reason do.
pub(super) fn set(
    status: &mut PodVolumeRestoreStatus,
    now: Timestamp,
    (kind, holds): (&str, Option<bool>),
    reason: Reason,
    message: &str,
) {
    let value = match holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let message = shortened(message);
    let observed_generation = status.observed_generation;
    let known = status
        .conditions
        .iter_mut()
        .find(|known| known.type_ == kind);
    if let Some(known) = known {
        if known.status != value || known.reason != reason.as_str() {
            known.last_transition_time = Time(now);
        }
        value.clone_into(&mut known.status);
        reason.as_str().clone_into(&mut known.reason);
        known.message = message;
        known.observed_generation = observed_generation;
        return;
    }
    status.conditions.push(Condition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        last_transition_time: Time(now),
        observed_generation,
    });
}

/// The condition of this kind.
pub(super) fn condition<'a>(
    status: &'a PodVolumeRestoreStatus,
    kind: &str,
) -> Option<&'a Condition> {
    status.conditions.iter().find(|known| known.type_ == kind)
}

/// Whether the condition has this reason for at least so long.
pub(super) fn lasts(
    status: &PodVolumeRestoreStatus,
    (kind, reason): (&str, Reason),
    now: Timestamp,
    limit: SignedDuration,
) -> bool {
    condition(status, kind).is_some_and(|known| {
        known.reason == reason.as_str() && now.duration_since(known.last_transition_time.0) >= limit
    })
}

/// At most the length that a status keeps, cut between characters.
pub(super) fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_LEN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
