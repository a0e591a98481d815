//! Conditions of a status: how they are set and read.
//!
//! Owns: the transition time, which moves only with the status. Must not: know what a condition means.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::kube::api::conditions::Reason;

/// Longest message of a condition that the API server takes.
const MAX_MESSAGE_BYTES: usize = 32 << 10;

/// `True`, `False` or `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// It holds.
    True,
    /// It does not.
    False,
    /// That is not decided yet.
    Unknown,
}

impl Is {
    /// The word in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Sets a condition. Its transition time becomes `now` where its status changes, and stays otherwise.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    (is, reason): (Is, Reason),
    message: &str,
    (now, generation): (Timestamp, Option<i64>),
) {
    let mut message = message.to_owned();
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES)
            .rev()
            .find(|at| message.is_char_boundary(*at))
            .unwrap_or(0);
        message.truncate(end);
    }
    let fresh = Condition {
        type_: kind.to_owned(),
        status: is.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        last_transition_time: Time(now),
        observed_generation: generation,
    };
    match conditions.iter_mut().find(|known| known.type_ == kind) {
        Some(known) if known.status == fresh.status => {
            *known = Condition {
                last_transition_time: known.last_transition_time.clone(),
                ..fresh
            };
        }
        Some(known) => *known = fresh,
        None => conditions.push(fresh),
    }
}

/// The condition of this type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition has this status.
#[must_use]
pub fn is(conditions: &[Condition], kind: &str, status: Is) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == status.as_str())
}

/// Why the condition is as it is.
#[must_use]
pub fn reason(conditions: &[Condition], kind: &str) -> Option<Reason> {
    Reason::parse(&find(conditions, kind)?.reason)
}

/// Since when the condition has its status.
#[must_use]
pub fn since(conditions: &[Condition], kind: &str) -> Option<Timestamp> {
    find(conditions, kind).map(|condition| condition.last_transition_time.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_condition_moves_with_its_status_only() {
        let mut conditions = Vec::new();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let one = (Is::Unknown, Reason::SnapshotPending);
        set(&mut conditions, "A", one, "", (at(1), Some(1)));
        set(&mut conditions, "A", one, "waits", (at(2), Some(1)));
        assert_eq!(since(&conditions, "A"), Some(at(1)));
        let two = (Is::True, Reason::SnapshotTaken);
        set(&mut conditions, "A", two, "", (at(3), Some(1)));
        assert_eq!(since(&conditions, "A"), Some(at(3)));
        assert_eq!(reason(&conditions, "A"), Some(Reason::SnapshotTaken));
        assert_eq!(conditions.len(), 1);
    }
}
