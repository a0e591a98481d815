//! A new backup: is it valid, and does everything it names exist?
//!
//! Owns: the checks before anything is made, and the snapshot. Must not: make anything before the finalizer is set.

use super::{Step, Verdict};
use crate::kube::api::Phase;
use crate::kube::api::backup::SnapshotStatus;
use crate::kube::api::conditions::{self as kinds, Reason};
use crate::kube::controller::backup::action::Action;
use crate::kube::controller::backup::view::{RepositoryView, Source, SourceView};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::foreign::snapshot::SnapshotDeletion;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Words with which drivers say that a volume has all the snapshots it may have.
const LIMIT_WORDS: [&str; 3] = [
    "ResourceExhausted",
    "snapshot limit",
    "maximum number of snapshots",
];

impl Step<'_> {
    pub(super) fn start(&mut self) {
        if let Some((reason, why)) = self.stop_wanted() {
            self.decide(Verdict::Canceled, reason, &why);
            return;
        }
        self.next.status.phase = Some(Phase::New);
        if !self.is_allowed() || self.source().is_none() {
            return;
        }
        if !self.has_finalizer() {
            self.act(Action::Finalizer(true));
            return;
        }
        self.set(
            kinds::ACCEPTED,
            Is::True,
            Reason::Valid,
            "everything it names exists",
        );
        self.next.status.phase = Some(Phase::Accepted);
        self.next.status.start_time = Some(Time(self.now));
        self.wait("accepted");
        self.look_in(std::time::Duration::ZERO);
    }

    fn is_allowed(&mut self) -> bool {
        let name = &self.backup.spec.repository_ref.name;
        match &self.seen.repository {
            RepositoryView::Ready => return true,
            RepositoryView::NotAllowed => self.refuse(
                Reason::NamespaceNotAllowed,
                &format!("SnapshotRepository {name} does not serve this namespace: its allowedNamespaces selects others"),
            ),
            RepositoryView::Missing => self.refuse_later(
                Reason::NotFound,
                &format!("there is no SnapshotRepository {name}"),
                self.limits.not_found,
            ),
            RepositoryView::NotReady(why) => self.refuse_later(
                Reason::RepositoryNotReady,
                &format!("SnapshotRepository {name} is not ready: {why}"),
                self.limits.snapshot,
            ),
        }
        false
    }

    /// The source; without one it is said why, and decided whether that is final.
    pub(super) fn source(&mut self) -> Option<Source> {
        match &self.seen.source {
            SourceView::Found(source) => return Some((**source).clone()),
            SourceView::Refused(reason, why) => self.refuse(*reason, why),
            SourceView::Missing(what) => {
                self.refuse_later(Reason::NotFound, what, self.limits.not_found);
            }
            SourceView::Unbound(what) => {
                self.refuse_later(Reason::ClaimNotBound, what, self.limits.snapshot);
            }
            SourceView::Unseen => self.wait("looking at the source"),
        }
        None
    }

    fn refuse(&mut self, reason: Reason, why: &str) {
        self.set(kinds::ACCEPTED, Is::False, reason, why);
        self.decide(Verdict::Failed, reason, why);
    }

    /// What is missing may still come: users apply files in any order.
    fn refuse_later(&mut self, reason: Reason, why: &str, limit: std::time::Duration) {
        self.set(kinds::ACCEPTED, Is::False, reason, why);
        let since = conditions::since(&self.next.status.conditions, kinds::ACCEPTED);
        if self.is_over(since.unwrap_or(self.now), limit) {
            self.decide(Verdict::Failed, reason, why);
        } else {
            self.wait(why);
            self.look_in(limit.min(std::time::Duration::from_secs(5)));
        }
    }

    /// Whether the snapshot is there and safe. If not, what leads to it is done.
    pub(super) fn has_snapshot(&mut self) -> bool {
        let taken = conditions::is(
            &self.next.status.conditions,
            kinds::SNAPSHOT_READY,
            Is::True,
        );
        let users = self.backup.spec.source.volume_snapshot.is_some();
        let exists = self
            .seen
            .content
            .as_ref()
            .is_some_and(|content| content.original.is_some() && !content.deleting);
        if taken {
            if !exists {
                let why = "the snapshot was deleted while it was needed";
                self.set(
                    kinds::SNAPSHOT_READY,
                    Is::False,
                    Reason::SnapshotFailed,
                    why,
                );
                self.decide(Verdict::Failed, Reason::SnapshotFailed, why);
            }
            return exists;
        }
        let Some(snapshot) = &self.seen.snapshot else {
            if users {
                self.refuse(
                    Reason::NotFound,
                    "the VolumeSnapshot does not exist any more",
                );
            } else {
                self.order_snapshot();
            }
            return false;
        };
        if !users && !snapshot.ours {
            let why = format!(
                "a VolumeSnapshot {} stands in the way that is not of this backup: delete it",
                snapshot.name
            );
            self.set(
                kinds::SNAPSHOT_READY,
                Is::False,
                Reason::SnapshotFailed,
                &why,
            );
            self.decide(Verdict::Failed, Reason::SnapshotFailed, &why);
            return false;
        }
        if !(snapshot.ready && exists) {
            self.await_snapshot();
            return false;
        }
        self.snapshot_taken(users)
    }

    fn order_snapshot(&mut self) {
        let Some(source) = self.source() else { return };
        self.act(Action::TakeSnapshot {
            claim: source.recorded.claim.clone(),
            class: source.snapshot_class.clone(),
        });
        // Not on the snapshot itself: whoever may write there could say that it is of another volume.
        self.next.status.recorded = Some(source.recorded.to_json());
        self.await_snapshot();
    }

    fn await_snapshot(&mut self) {
        let complaint = self
            .seen
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.error.clone());
        let why = match &complaint {
            Some(error) => format!("waiting for the driver to take the snapshot; it says: {error}"),
            None => "waiting for the driver to take the snapshot".to_owned(),
        };
        self.set(
            kinds::SNAPSHOT_READY,
            Is::Unknown,
            Reason::SnapshotPending,
            &why,
        );
        self.wait(&why);
        let since = conditions::since(&self.next.status.conditions, kinds::SNAPSHOT_READY);
        if !self.is_over(since.unwrap_or(self.now), self.limits.snapshot) {
            return;
        }
        let is_limit = complaint
            .as_ref()
            .is_some_and(|error| LIMIT_WORDS.iter().any(|word| error.contains(word)));
        let reason = if is_limit {
            Reason::SnapshotLimitReached
        } else {
            Reason::SnapshotFailed
        };
        let why = match complaint {
            Some(error) => format!("the driver took no snapshot in time: {error}"),
            None => "the driver took no snapshot in time, and gave no reason".to_owned(),
        };
        self.set(kinds::SNAPSHOT_READY, Is::False, reason, &why);
        self.decide(Verdict::Failed, reason, &why);
    }

    /// From here on a deletion of the VolumeSnapshot, e.g. with its namespace, leaves the driver's snapshot.
    fn snapshot_taken(&mut self, users: bool) -> bool {
        let (Some(snapshot), Some(content)) = (&self.seen.snapshot, &self.seen.content) else {
            return false;
        };
        let SourceView::Found(source) = &self.seen.source else {
            self.wait("looking at the source");
            return false;
        };
        let expected = &source.recorded.volume_handle;
        let taken_of = content.volume_handle.as_ref();
        if taken_of.is_some_and(|handle| !expected.is_empty() && handle != expected) {
            let why = "the snapshot is one of another volume than that of the claim: the claim was made again meanwhile";
            self.set(
                kinds::SNAPSHOT_READY,
                Is::False,
                Reason::SnapshotFailed,
                why,
            );
            self.decide(Verdict::Failed, Reason::SnapshotFailed, why);
            return false;
        }
        let secured = users || content.ours && content.policy == SnapshotDeletion::Retain;
        if !secured {
            let name = content.name.clone();
            self.act(Action::Content {
                name,
                policy: SnapshotDeletion::Retain,
            });
            self.wait("securing the snapshot");
            return false;
        }
        let original = content.original.clone().unwrap_or_default();
        self.next.status.snapshot = Some(SnapshotStatus {
            name: Some(snapshot.name.clone()),
            handle: Some(original.handle),
            driver: Some(original.driver),
            creation_time: snapshot.created.map(Time),
        });
        self.set(
            kinds::SNAPSHOT_READY,
            Is::True,
            Reason::SnapshotTaken,
            "the snapshot is ready",
        );
        true
    }
}
