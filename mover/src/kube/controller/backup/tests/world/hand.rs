//! What Snaphaul's controller does in the simulated cluster.
//!
//! Owns: one look, what must never be done, and each action. Must not: be kinder than the API server.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{UID, World, content, ready_snapshot};
use crate::kube::api::{PodVolumeBackupStatus, names};
use crate::kube::controller::backup::action::{Action, Object};
use crate::kube::controller::backup::next::{self, Verdict};
use crate::kube::controller::backup::view::*;
use crate::kube::controller::settings::Deadlines;
use crate::kube::controller::slots::Slot;
use crate::kube::controller::working_copy::Original;
use crate::kube::foreign::snapshot::SnapshotDeletion;

impl World {
    pub(super) fn look(&mut self) {
        let Some(backup) = self.backup.clone() else {
            return;
        };
        let mut seen = self.seen.clone();
        let nodes = BTreeSet::from(["n1".to_owned()]);
        if let SourceView::Found(source) = &mut seen.source {
            source.nodes.clone_from(&nodes);
        }
        seen.agent_lost = (!self.agent_up).then_some(Duration::from_secs(120));
        self.witness(&mut seen);
        if next::wants_slot(&backup, &seen) {
            self.slot = true;
            seen.slot = Slot::Granted(nodes);
        }
        let limits = Deadlines::default();
        let decided = next::next(&backup, &seen, &limits, self.now);
        let again = next::next(&backup, &seen, &limits, self.now);
        assert_eq!(decided, again, "the same twice");
        let before = backup.status.clone().unwrap_or_default();
        if let Some(verdict) = next::verdict(&before) {
            assert_eq!(
                next::verdict(&decided.status),
                Some(verdict),
                "a verdict stands"
            );
        }
        if before.phase.unwrap_or_default().is_terminal() {
            assert_eq!(decided.status, before, "nothing changes after the end");
        }
        self.ordered(&before, &decided.status);
        if let Some(backup) = &mut self.backup {
            backup.status = Some(decided.status.clone());
        }
        for action in &decided.actions {
            self.allowed(&before, action);
            self.act(action);
            self.check();
        }
    }

    /// Whether an agent has begun what it was ordered last.
    pub(super) fn taken(&self) -> bool {
        let status = self
            .backup
            .as_ref()
            .and_then(|backup| backup.status.as_ref());
        status.is_some_and(|status| {
            let order = status.order.as_ref().map(|order| order.attempt);
            order.is_some() && status.transfer.as_ref().map(|answer| answer.attempt) == order
        })
    }

    /// What the controller saw for so long, without a break. An agent that hears of orders waits for a slot.
    fn witness(&mut self, seen: &mut Observed) {
        let status = self
            .backup
            .as_ref()
            .and_then(|backup| backup.status.as_ref());
        let ended = status.is_some_and(|status| next::verdict(status).is_some());
        let order = status.and_then(|status| status.order.as_ref());
        let attempt = order.map(|order| order.attempt);
        let deaf = attempt.filter(|_| self.agent_deaf && self.agent_up && !ended && !self.taken());
        let now = self.now;
        let begun = self.untaken.filter(|(known, _)| Some(*known) == deaf);
        self.untaken = deaf.map(|attempt| begun.unwrap_or((attempt, now)));
        self.cleaning = ended.then(|| self.cleaning.unwrap_or(now));
        let since = |begun: Option<Timestamp>| begun.map(|begun| next::elapsed(begun, now));
        seen.untaken = since(self.untaken.map(|(_, begun)| begun)).unwrap_or_default();
        seen.cleaning = since(self.cleaning).unwrap_or_default();
    }

    /// What must never be done.
    fn allowed(&self, before: &PodVolumeBackupStatus, action: &Action) {
        let quiet = matches!(
            action,
            Action::ReleaseSlot | Action::Finalizer(_) | Action::Forget { .. } | Action::DeleteSelf
        );
        if before.phase.unwrap_or_default().is_terminal() {
            assert!(quiet, "after the end: {action:?}");
        }
        let gone = |absent: bool| assert!(absent, "out of order: {action:?}");
        match action {
            Action::Delete { what, uid, .. } => {
                assert!(
                    uid != "u1" && uid != "u2",
                    "the user's snapshot: {action:?}"
                );
                match what {
                    Object::Holder => {}
                    Object::Claim => gone(self.seen.holder.is_none()),
                    Object::CopySnapshot => gone(
                        self.seen.holder.is_none()
                            && self.seen.claim.is_none()
                            && self.seen.volume.is_none(),
                    ),
                    Object::CopyContent => gone(self.seen.copy_snapshot.is_none()),
                    Object::Snapshot => gone(self.seen.copy_content.is_none()),
                    Object::Content => gone(self.seen.snapshot.is_none()),
                    Object::BaseSnapshot | Object::BaseContent => {
                        assert!(
                            before.point.is_some()
                                && next::verdict(before) == Some(Verdict::Succeeded)
                        );
                    }
                }
            }
            Action::Content { name, .. } => assert_ne!(name, "theirs-c"),
            Action::BaseContentPolicy { .. } => {
                assert_eq!(next::verdict(before), Some(Verdict::Succeeded));
                assert!(
                    before.point.is_some(),
                    "the old base goes after the new point"
                );
            }
            Action::TakeSnapshot { .. } | Action::CopyContent(_) | Action::Claim { .. } => {
                let backup = self.backup.as_ref().unwrap();
                let finalizers = backup.metadata.finalizers.clone().unwrap_or_default();
                assert!(
                    finalizers.contains(&names::FINALIZER.to_owned()),
                    "{action:?}"
                );
            }
            _ => {}
        }
    }

    pub(super) fn act(&mut self, action: &Action) {
        let uid = self.uid();
        let name = format!("snaphaul-{UID}");
        match action {
            Action::Finalizer(present) => {
                if let Some(backup) = &mut self.backup {
                    backup.metadata.finalizers = present.then(|| vec![names::FINALIZER.to_owned()]);
                }
                self.remove_if_free();
            }
            Action::TakeSnapshot { .. } => {
                self.seen.snapshot.get_or_insert(SnapshotView {
                    name,
                    uid,
                    ours: true,
                    ..SnapshotView::default()
                });
            }
            Action::Content { name, policy } => {
                if let Some(content) = self.seen.content.as_mut().filter(|c| c.name == *name) {
                    content.ours = true;
                    content.policy = *policy;
                }
            }
            Action::CopyContent(original) => {
                let mut copy = content(&name, &uid, &original.handle, SnapshotDeletion::Retain);
                copy.original = Some(original.clone());
                self.seen.copy_content.get_or_insert(copy);
            }
            Action::CopyChangeId(id) => {
                if let Some(copy) = &mut self.seen.copy_snapshot {
                    copy.change_id = Some(id.clone());
                }
            }
            Action::CopySnapshot(original) => {
                let mut copy = ready_snapshot(&name, &uid, true);
                copy.ready = false;
                copy.change_id.clone_from(&original.change_id);
                self.seen.copy_snapshot.get_or_insert(copy);
            }
            Action::Claim { .. } => {
                self.seen.claim.get_or_insert(ClaimView {
                    uid,
                    ..ClaimView::default()
                });
            }
            Action::Volume { .. } => {
                if let Some(volume) = &mut self.seen.volume {
                    volume.secured = true;
                }
            }
            Action::KeepVolume { .. } => self.seen.foreign.as_mut().unwrap().kept = true,
            Action::Holder { .. } => {
                assert!(self.slot, "a holder without a slot");
                self.seen.holder.get_or_insert(HolderView {
                    uid,
                    ..HolderView::default()
                });
            }
            Action::Settle(_) => {}
            Action::ReleaseSlot => self.slot = false,
            Action::Delete { what, force, .. } => self.delete(*what, *force),
            Action::BaseContentPolicy { policy, .. } => {
                if let Some(content) = &mut self.seen.base_content {
                    content.policy = *policy;
                }
            }
            Action::Base { name, original, .. } => self.base(name, &uid, original),
            Action::Forget { .. } => self.forgotten = true,
            Action::DeleteSelf => panic!("no TTL was set"),
        }
    }

    fn base(&mut self, name: &str, uid: &str, original: &Original) {
        let mut made = content(name, uid, &original.handle, SnapshotDeletion::Retain);
        made.original = Some(original.clone());
        self.seen.base_content.get_or_insert(made);
        let mut made = ready_snapshot(name, uid, false);
        made.change_id.clone_from(&original.change_id);
        self.seen.base_snapshot.get_or_insert(made);
    }

    fn delete(&mut self, what: Object, force: bool) {
        let snapshot = |snapshot: &mut Option<SnapshotView>| {
            if let Some(snapshot) = snapshot {
                snapshot.deleting = true;
            }
        };
        let content = |content: &mut Option<ContentView>| {
            if let Some(content) = content {
                content.deleting = true;
            }
        };
        match what {
            Object::Holder if force => self.seen.holder = None,
            Object::Holder => {
                if let Some(holder) = &mut self.seen.holder {
                    holder.deleting = true;
                    holder.ready = false;
                }
            }
            Object::Claim => {
                if let Some(claim) = &mut self.seen.claim {
                    claim.deleting = true;
                }
            }
            Object::CopySnapshot => snapshot(&mut self.seen.copy_snapshot),
            Object::Snapshot => snapshot(&mut self.seen.snapshot),
            Object::BaseSnapshot => snapshot(&mut self.seen.base_snapshot),
            Object::CopyContent => content(&mut self.seen.copy_content),
            Object::Content => content(&mut self.seen.content),
            Object::BaseContent => content(&mut self.seen.base_content),
        }
    }

    /// What `controller/sweep.rs` does about a backup that has ended, or is gone: all that carries its labels goes, in the same order.
    pub(super) fn sweep(&mut self) {
        if !self.gone() && !self.phase().is_terminal() {
            return;
        }
        if let Some(volume) = &mut self.seen.volume {
            volume.secured = true;
        }
        self.delete(Object::Holder, false);
        self.delete(Object::Claim, false);
        if self.seen.holder.is_some() || self.seen.claim.is_some() || self.seen.volume.is_some() {
            return;
        }
        let based = self.base_handle();
        if let Some(content) = self.seen.content.as_mut().filter(|content| content.ours) {
            let handle = content.original.as_ref().map(|original| &original.handle);
            if handle != based.as_ref() {
                content.policy = SnapshotDeletion::Delete;
            }
            content.deleting = true;
        }
        if self
            .seen
            .snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.ours)
        {
            self.delete(Object::Snapshot, false);
        }
        self.delete(Object::CopySnapshot, false);
        self.delete(Object::CopyContent, false);
        self.check();
    }
}
