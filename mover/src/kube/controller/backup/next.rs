//! What is next for a backup: a pure function of the backup, of what was seen, and of the time.
//!
//! ```text
//!   New ─► Accepted: snapshot ─► slot ─► working copy ─► Prepared ─► InProgress ─┐
//!             ▲                                └──── agent lost, again ◄─────────┤
//!             │                                                                  ▼
//!             └── any time: cancel, deadline, failure ─► verdict ─► cleaning ─► Completed, Failed, Canceled
//! ```
//!
//! Owns: the order of everything. Must not: ask or change anything, or read a clock.
//!
//! The verdict is in the status (condition `Succeeded`) before anything is cleaned up, so that a restart cleans on and knows why. A verdict is
//! never revised. What exists is looked at each time: nothing is remembered that the cluster does not show.

mod clean;
mod expose;
mod finished;
mod start;
mod transfer;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::action::Action;
use super::view::Observed;
use crate::kube::api::conditions::{self as kinds, Reason};
use crate::kube::api::{Phase, PodVolumeBackup, PodVolumeBackupStatus};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::events::Note;
use crate::kube::controller::settings::Deadlines;
use crate::kube::controller::sync;

pub use expose::wants_slot;

/// Time after which something that waits is looked at even if nothing changed: deadlines have no event.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The same for what no watch tells: volumes, and the pair of a base, whose labels name no backup.
const LOOK_SOON: Duration = Duration::from_secs(1);

/// What is next.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// The status as it should be; written before the actions are taken.
    pub status: PodVolumeBackupStatus,
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// When to look again if nothing changes.
    pub again: Option<Duration>,
    /// What people should see.
    pub notes: Vec<Note>,
}

/// Why a backup ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The point is committed.
    Succeeded,
    /// It was stopped.
    Canceled,
    /// It cannot be done.
    Failed,
}

/// The verdict of a status, once there is one.
#[must_use]
pub fn verdict(status: &PodVolumeBackupStatus) -> Option<Verdict> {
    let condition = conditions::find(&status.conditions, kinds::SUCCEEDED)?;
    if condition.status == Is::True.as_str() {
        return Some(Verdict::Succeeded);
    }
    if condition.status != Is::False.as_str() {
        return None;
    }
    match Reason::parse(&condition.reason) {
        Some(Reason::Cancelled | Reason::DeadlineExceeded) => Some(Verdict::Canceled),
        _ => Some(Verdict::Failed),
    }
}

/// What is next for `backup`.
#[must_use]
pub fn next(backup: &PodVolumeBackup, seen: &Observed, limits: &Deadlines, now: Timestamp) -> Next {
    let mut step = Step {
        backup,
        seen,
        limits,
        now,
        next: Next {
            status: backup.status.clone().unwrap_or_default(),
            actions: Vec::new(),
            again: None,
            notes: Vec::new(),
        },
    };
    let phase = step.next.status.phase.unwrap_or_default();
    if phase.is_terminal() {
        step.finished();
    } else if phase == Phase::New && sync::is_synced(&backup.metadata) {
        step.elsewhere();
    } else if verdict(&step.next.status).is_some() {
        step.clean();
    } else if phase == Phase::New {
        step.start();
    } else {
        step.work();
    }
    step.next
}

/// One decision in the making.
pub(super) struct Step<'a> {
    pub backup: &'a PodVolumeBackup,
    pub seen: &'a Observed,
    pub limits: &'a Deadlines,
    pub now: Timestamp,
    pub next: Next,
}

impl Step<'_> {
    /// A backup that was made elsewhere, whose point `sync` writes down in a moment: it is never run, whatever it looks like. One that nobody
    /// writes down goes; nothing depends on it.
    fn elsewhere(&mut self) {
        if self.has_finalizer() {
            self.act(Action::Finalizer(false));
        }
        let created = self.backup.metadata.creation_timestamp.as_ref();
        let created = created.map_or(self.now, |time| time.0);
        if self.is_over(created, self.limits.snapshot) {
            self.act(Action::DeleteSelf);
        } else {
            self.look_in(LOOK_AGAIN);
        }
    }

    fn work(&mut self) {
        if self.next.status.order.is_some() {
            self.supervise();
        } else if let Some((reason, why)) = self.stop_wanted() {
            self.decide(Verdict::Canceled, reason, &why);
        } else if self.has_snapshot() {
            self.expose();
        }
    }

    /// Why the user wants it to end, if so.
    pub(super) fn stop_wanted(&self) -> Option<(Reason, String)> {
        if self.backup.spec.cancel == Some(true) {
            return Some((Reason::Cancelled, "cancelled".to_owned()));
        }
        if self.backup.metadata.deletion_timestamp.is_some() {
            return Some((Reason::Cancelled, "deleted before it was done".to_owned()));
        }
        let allowed = u64::try_from(self.backup.spec.active_deadline_seconds?).ok()?;
        let started = self.next.status.start_time.as_ref()?.0;
        self.is_over(started, Duration::from_secs(allowed))
            .then(|| {
                (
                    Reason::DeadlineExceeded,
                    format!("not done within activeDeadlineSeconds ({allowed})"),
                )
            })
    }

    /// Whether so much time has passed since then. If not, it is looked at again when it has.
    pub(super) fn is_over(&self, since: Timestamp, limit: Duration) -> bool {
        elapsed(since, self.now) >= limit
    }

    /// The backup ends, with this as the reason.
    pub(super) fn decide(&mut self, verdict: Verdict, reason: Reason, why: &str) {
        let is = match verdict {
            Verdict::Succeeded => Is::True,
            Verdict::Canceled | Verdict::Failed => Is::False,
        };
        self.set(kinds::SUCCEEDED, is, reason, why);
        if verdict == Verdict::Canceled {
            self.next.status.phase = Some(Phase::Canceling);
        }
        self.say(why);
        self.next.notes.push(match verdict {
            Verdict::Failed => Note::warning(reason, why),
            Verdict::Succeeded | Verdict::Canceled => Note::normal(reason, why),
        });
        // The cleaning begins with the next look, when the verdict is written.
        self.look_in(Duration::ZERO);
    }

    /// Waits, and says for what.
    pub(super) fn wait(&mut self, message: &str) {
        self.say(message);
        self.look_in(LOOK_AGAIN);
    }

    /// The same for what no watch tells of.
    pub(super) fn wait_unwatched(&mut self, message: &str) {
        self.say(message);
        self.look_in(LOOK_SOON);
    }

    pub(super) fn say(&mut self, message: &str) {
        self.next.status.message = Some(message.to_owned());
    }

    pub(super) fn look_in(&mut self, time: Duration) {
        let sooner = self.next.again.map_or(time, |again| again.min(time));
        self.next.again = Some(sooner);
    }

    pub(super) fn set(&mut self, kind: &str, is: Is, reason: Reason, message: &str) {
        conditions::set(
            &mut self.next.status.conditions,
            kind,
            (is, reason),
            message,
            (self.now, self.backup.metadata.generation),
        );
        self.next.status.observed_generation = self.backup.metadata.generation;
    }

    pub(super) fn act(&mut self, action: Action) {
        self.next.actions.push(action);
    }

    pub(super) fn has_finalizer(&self) -> bool {
        let finalizers = self.backup.metadata.finalizers.as_ref();
        finalizers.is_some_and(|all| {
            all.iter()
                .any(|name| name == crate::kube::api::names::FINALIZER)
        })
    }
}

/// Time between two moments: none where the second is earlier.
#[must_use]
pub fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
