//! What a new status tells of the way of a backup or restore: steps that it has behind it, deadlines that it missed, its end.
//!
//! Owns: reading that from two statuses. Must not: decide anything by it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::backup::next::elapsed;
use super::conditions::{self, Is};
use super::telemetry::{Deadline, Phase, Telemetry};
use super::watches::Kind;
use crate::kube::api;
use crate::kube::api::conditions::{ACCEPTED, DEVICE_READY, Reason, SNAPSHOT_READY, SUCCEEDED};

/// The conditions that end a step, in their order.
const STEPS: [(&str, Phase); 4] = [
    (ACCEPTED, Phase::Accept),
    (SNAPSHOT_READY, Phase::Snapshot),
    (DEVICE_READY, Phase::Expose),
    (SUCCEEDED, Phase::Transfer),
];

/// What backups and restores have in common in their status.
#[derive(Clone, Copy, Debug)]
pub struct Stand<'a> {
    /// Phase, for people.
    pub phase: Option<api::Phase>,
    /// Conditions.
    pub conditions: &'a [Condition],
    /// When the work began.
    pub start: Option<&'a Time>,
    /// When it ended.
    pub end: Option<&'a Time>,
}

impl Stand<'_> {
    fn has_ended(&self) -> bool {
        self.phase.is_some_and(api::Phase::is_terminal)
    }
}

/// Counts what came between two statuses of an object that was created then.
pub fn count(
    telemetry: &Telemetry,
    kind: Kind,
    created: Option<&Time>,
    (old, new): (Stand<'_>, Stand<'_>),
) {
    for (phase, time) in passed(created, (old, new)) {
        telemetry.passed(kind, phase, time);
    }
    if let Some(deadline) = missed(old.conditions, new.conditions) {
        telemetry.missed(kind, deadline);
    }
    if let (true, false, Some(phase)) = (new.has_ended(), old.has_ended(), new.phase) {
        let time = match (new.start, new.end) {
            (Some(start), Some(end)) => elapsed(start.0, end.0),
            _ => Duration::ZERO,
        };
        telemetry.finished(kind, &format!("{phase:?}"), time);
    }
}

/// Steps that ended, and how long they took.
fn passed(created: Option<&Time>, (old, new): (Stand<'_>, Stand<'_>)) -> Vec<(Phase, Duration)> {
    let mut steps = Vec::new();
    let mut begin = created.map(|time| time.0);
    for (kind, phase) in STEPS {
        if !conditions::is(new.conditions, kind, Is::True) {
            continue;
        }
        let end = conditions::since(new.conditions, kind);
        if !conditions::is(old.conditions, kind, Is::True) {
            steps.extend(between(begin, end).map(|time| (phase, time)));
        }
        begin = end;
    }
    if new.has_ended() && !old.has_ended() {
        let decided = conditions::since(new.conditions, SUCCEEDED);
        let time = between(decided, new.end.map(|time| time.0));
        steps.extend(time.map(|time| (Phase::Clean, time)));
    }
    steps
}

fn between(begin: Option<Timestamp>, end: Option<Timestamp>) -> Option<Duration> {
    Some(elapsed(begin?, end?))
}

/// The deadline that a verdict is about, where one was just reached.
fn missed(old: &[Condition], new: &[Condition]) -> Option<Deadline> {
    if conditions::is(old, SUCCEEDED, Is::False) || !conditions::is(new, SUCCEEDED, Is::False) {
        return None;
    }
    match conditions::reason(new, SUCCEEDED)? {
        Reason::SnapshotFailed | Reason::SnapshotLimitReached => Some(Deadline::Snapshot),
        Reason::ExposeFailed => Some(Deadline::Expose),
        Reason::NoProgress => Some(Deadline::Progress),
        Reason::DeadlineExceeded => Some(Deadline::Active),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn with(steps: &[(&str, Is, Reason, i64)]) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (kind, is, reason, second) in steps {
            conditions::set(
                &mut conditions,
                kind,
                (*is, *reason),
                "",
                (at(*second), None),
            );
        }
        conditions
    }

    fn stand<'a>(
        conditions: &'a [Condition],
        phase: api::Phase,
        end: Option<&'a Time>,
    ) -> Stand<'a> {
        Stand {
            phase: Some(phase),
            conditions,
            start: None,
            end,
        }
    }

    #[test]
    fn a_step_is_counted_once_from_the_end_of_the_one_before() {
        let accepted = (ACCEPTED, Is::True, Reason::Valid, 3);
        let snapshot = (SNAPSHOT_READY, Is::True, Reason::SnapshotTaken, 10);
        let created = Time(at(1));
        let one = with(&[accepted]);
        let two = with(&[accepted, snapshot]);
        let three = with(&[accepted, snapshot, (SUCCEEDED, Is::True, Reason::Done, 50)]);
        let phase = api::Phase::InProgress;
        let steps = |old: &[Condition], new: &[Condition]| {
            passed(
                Some(&created),
                (stand(old, phase, None), stand(new, phase, None)),
            )
        };
        let seconds = Duration::from_secs;
        assert_eq!(steps(&[], &one), [(Phase::Accept, seconds(2))]);
        assert_eq!(steps(&one, &two), [(Phase::Snapshot, seconds(7))]);
        assert_eq!(steps(&two, &two), []);
        // A restore has no snapshot; what a look skipped is counted with what follows.
        assert_eq!(steps(&two, &three), [(Phase::Transfer, seconds(40))]);
        let end = Time(at(55));
        let ended = stand(&three, api::Phase::Completed, Some(&end));
        let before = stand(&three, phase, None);
        assert_eq!(
            passed(Some(&created), (before, ended)),
            [(Phase::Clean, seconds(5))]
        );
    }

    #[test]
    fn a_missed_deadline_is_counted_with_its_verdict() {
        let late = with(&[(SUCCEEDED, Is::False, Reason::NoProgress, 3)]);
        let moving = with(&[(SUCCEEDED, Is::Unknown, Reason::Moving, 1)]);
        assert_eq!(missed(&moving, &late), Some(Deadline::Progress));
        assert_eq!(missed(&late, &late), None);
        let cancelled = with(&[(SUCCEEDED, Is::False, Reason::Cancelled, 3)]);
        assert_eq!(missed(&moving, &cancelled), None);
    }
}
