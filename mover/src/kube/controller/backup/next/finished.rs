//! A backup that has ended: its deletion, and what becomes of its point.
//!
//! Owns: finalizer, deletionPolicy and TTL of terminal backups. Must not: touch data unless the policy says Delete.

use std::time::Duration;

use super::{Step, elapsed};
use crate::kube::api::Phase;
use crate::kube::api::backup::DeletionPolicy;
use crate::kube::api::conditions::Reason;
use crate::kube::controller::backup::action::Action;
use crate::kube::controller::backup::view::RepositoryView;
use crate::kube::controller::events::Note;
use crate::kube::controller::sync;

impl Step<'_> {
    pub(super) fn finished(&mut self) {
        self.act(Action::ReleaseSlot);
        let owns_point = self.backup.spec.deletion_policy == DeletionPolicy::Delete
            && self.next.status.phase == Some(Phase::Completed)
            && self.next.status.point.is_some()
            && !sync::is_granted(&self.backup.metadata);
        if self.backup.metadata.deletion_timestamp.is_some() {
            if self.has_finalizer() {
                if owns_point {
                    self.forget();
                }
                self.act(Action::Finalizer(false));
            }
            return;
        }
        if self.has_finalizer() != owns_point {
            self.act(Action::Finalizer(owns_point));
        }
        self.expire();
    }

    /// Gives the point up, unless that would hold up what is going away anyway: then it stays, as with Retain.
    fn forget(&mut self) {
        let Some(point) = self.next.status.point.clone() else {
            return;
        };
        let deleted = self.backup.metadata.deletion_timestamp.as_ref();
        let waited = deleted.map_or(Duration::ZERO, |time| elapsed(time.0, self.now));
        let why = if self.seen.going_away {
            "its namespace or the resource definition is being deleted"
        } else if self.seen.repository == RepositoryView::Missing {
            "its SnapshotRepository does not exist any more"
        } else if waited >= self.limits.unreachable {
            "its repository could not be reached for too long"
        } else {
            self.act(Action::Forget { point: point.id });
            return;
        };
        self.next.notes.push(Note::warning(
            Reason::Done,
            format!("the point {} stays: {why}", point.id),
        ));
    }

    fn expire(&mut self) {
        let ttl = self.backup.spec.ttl_seconds_after_finished;
        let (Some(seconds), Some(end)) = (ttl, &self.next.status.completion_time) else {
            return;
        };
        let ttl = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let age = elapsed(end.0, self.now);
        if age >= ttl {
            self.act(Action::DeleteSelf);
        } else {
            self.look_in(ttl - age);
        }
    }
}
