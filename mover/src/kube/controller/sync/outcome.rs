//! What a look brought, in the status of its repository.
//!
//! Owns: `status.sync`, the condition `Synced`, and what people are told. Must not: read a clock, or speak to anybody.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::error::Error;
use crate::kube::api::SnapshotRepositoryStatus as Status;
use crate::kube::api::conditions::{Reason, SYNCED};
use crate::kube::api::repository::{Sync, SyncStatus};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::events::Note;
use crate::kube::controller::maintenance::outcome::Moment;
use crate::kube::controller::repository::explained;

/// What a look did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Resources that were made.
    pub created: usize,
    /// Resources that were removed.
    pub removed: usize,
    /// Resources that are there now.
    pub backups: usize,
    /// Points that no namespace may see.
    pub unserved: usize,
    /// Points without a resource because of a bound, or because somebody else's has its name.
    pub omitted: usize,
    /// What was offered.
    pub offered: BTreeSet<String>,
    /// What could not be done, and why: the first of it.
    pub failure: Option<String>,
    /// Whether more is to be done at once.
    pub more: bool,
}

/// The status after a look, and what people are told.
#[must_use]
pub(super) fn after(
    old: &Status,
    mode: Sync,
    done: &Result<Done, Error>,
    at: Moment,
) -> (Status, Option<Note>) {
    let mut status = old.clone();
    if mode == Sync::None {
        status.sync = None;
        status.conditions.retain(|known| known.type_ != SYNCED);
        return (status, None);
    }
    let (is, reason, message) = match done {
        Err(error) => (Is::False, Reason::SyncFailed, explained(error)),
        Ok(done) => {
            note_down(&mut status, done, at);
            match &done.failure {
                Some(why) => (
                    Is::False,
                    Reason::SyncFailed,
                    format!("{}; {why}", told(done)),
                ),
                None if done.more => (Is::Unknown, Reason::Syncing, told(done)),
                None => (Is::True, Reason::PointsSynced, told(done)),
            }
        }
    };
    let was_failed = conditions::is(&old.conditions, SYNCED, Is::False);
    let when = (at.now, at.generation);
    conditions::set(&mut status.conditions, SYNCED, (is, reason), &message, when);
    let note = if is == Is::False {
        (!was_failed).then(|| Note::warning(reason, message))
    } else {
        let changed = done
            .as_ref()
            .is_ok_and(|done| done.created + done.removed > 0);
        changed.then(|| Note::normal(reason, message))
    };
    (status, note)
}

fn note_down(status: &mut Status, done: &Done, at: Moment) {
    let old = status.sync.clone().unwrap_or_default();
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut new = SyncStatus {
        changed: old.changed.clone(),
        backups: count(done.backups),
        unserved_points: count(done.unserved),
        omitted_points: count(done.omitted),
        offered: done.offered.iter().cloned().collect(),
    };
    if new != old || new.changed.is_none() {
        new.changed = Some(Time(at.now));
    }
    status.sync = Some(new);
}

fn told(done: &Done) -> String {
    let mut text = format!("{} PodVolumeBackups are there", done.backups);
    if done.created + done.removed > 0 {
        text = format!(
            "{text}: {} were made, {} removed",
            done.created, done.removed
        );
    }
    if done.unserved > 0 {
        text = format!(
            "{text}; {} points are of namespaces that do not exist here, are not allowed, or that no grant names",
            done.unserved
        );
    }
    if done.omitted > 0 {
        text = format!(
            "{text}; {} points have none, because there would be too many or another resource has the name",
            done.omitted
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::error::ErrorKind;

    fn at(second: i64) -> Moment {
        Moment {
            now: Timestamp::from_second(second).unwrap(),
            generation: Some(1),
        }
    }

    #[test]
    fn a_look_that_changes_nothing_writes_nothing() {
        let done = Done {
            created: 2,
            backups: 2,
            offered: BTreeSet::from(["a".to_owned()]),
            ..Done::default()
        };
        let (first, note) = after(&Status::default(), Sync::All, &Ok(done.clone()), at(1));
        assert!(note.is_some_and(|note| !note.warning));
        let again = Ok(Done { created: 0, ..done });
        let (second, note) = after(&first, Sync::All, &again, at(2));
        assert_eq!((&second.sync, note), (&first.sync, None));
        let (third, _) = after(&second, Sync::All, &again, at(3));
        assert_eq!(third, second);
    }

    #[test]
    fn a_failure_is_told_once_and_keeps_what_was_offered() {
        let done = Ok(Done {
            offered: BTreeSet::from(["a".to_owned()]),
            ..Done::default()
        });
        let (good, _) = after(&Status::default(), Sync::Latest, &done, at(1));
        let error = || Err(Error::new(ErrorKind::Unavailable, "list objects"));
        let (bad, note) = after(&good, Sync::Latest, &error(), at(2));
        assert!(note.is_some_and(|note| note.warning && note.reason == Reason::SyncFailed));
        assert_eq!(bad.sync, good.sync);
        assert!(conditions::is(&bad.conditions, SYNCED, Is::False));
        assert_eq!(
            after(&bad, Sync::Latest, &error(), at(3)),
            (bad.clone(), None)
        );
        // Nothing asked for, nothing said, and nothing remembered.
        let (off, note) = after(&bad, Sync::None, &Ok(Done::default()), at(4));
        assert_eq!((off, note), (Status::default(), None));
    }
}
