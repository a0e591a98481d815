//! After the verdict: everything that was made goes, in the order in which it depends on each other.
//!
//! ```text
//!   pod ─► claim ─► its volume ─► copied snapshot ─► copied content ─► base: old out, new in ─► our snapshot ─► its content
//! ```
//!
//! Owns: that order, and who owns the driver's snapshot in the end. Must not: touch a snapshot that the user made, or ever let two contents
//! delete one handle.

use super::{Step, Verdict, verdict};
use crate::attach::csi::profile::BasePolicy;
use crate::kube::api::Phase;
use crate::kube::api::backup::BaseSnapshotPolicy;
use crate::kube::api::conditions::{self as kinds, Reason};
use crate::kube::controller::backup::action::{Action, Object};
use crate::kube::controller::backup::base;
use crate::kube::controller::backup::view::{ContentView, SourceView};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::events::Note;
use crate::kube::controller::owner::object_name;
use crate::kube::foreign::snapshot::SnapshotDeletion;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

impl Step<'_> {
    pub(super) fn clean(&mut self) {
        let succeeded = verdict(&self.next.status) == Some(Verdict::Succeeded);
        self.tell_agent(succeeded);
        let force = self.seen.agent_lost.is_some();
        if self.remove_exposure(force) {
            self.act(Action::ReleaseSlot);
            if self.remove_copy() && (!succeeded || self.swap_base()) && self.remove_snapshot() {
                self.end();
                return;
            }
        }
        // Not since the verdict: a controller that was away meanwhile asked nobody to remove anything.
        if self.seen.cleaning >= self.limits.clean {
            self.leave_behind();
        }
    }

    /// Whoever should remove the rest does not: the backup ends, so that its namespace can go. What is left keeps its labels, by which the
    /// sweep goes on; that it is still there was just seen.
    fn leave_behind(&mut self) {
        let left = self.left().join(", ");
        let waited = self.next.status.message.take().unwrap_or_default();
        // A base that is begun now would be nobody's to complete.
        self.next
            .actions
            .retain(|action| !matches!(action, Action::Base { .. }));
        self.end();
        let why = if left.is_empty() {
            format!("not cleaned up in time: {waited}")
        } else {
            format!("not cleaned up in time, and still there: {left}")
        };
        self.set(kinds::CLEANED, Is::False, Reason::LeftBehind, &why);
        let verdict = self.next.status.message.clone().unwrap_or_default();
        self.say(&format!("{verdict}; {why}"));
        self.next.notes.clear();
        self.next.notes.push(Note::warning(Reason::LeftBehind, why));
    }

    /// What is there of this backup, in words that `kubectl get` understands.
    fn left(&self) -> Vec<String> {
        let seen = self.seen;
        let name = object_name(self.backup.metadata.uid.as_deref().unwrap_or_default());
        let ours = self.backup.spec.source.volume_snapshot.is_none();
        let own = "in the namespace of Snaphaul";
        let here = "in this namespace";
        [
            seen.holder.as_ref().map(|_| format!("pod/{name} {own}")),
            seen.claim
                .as_ref()
                .map(|_| format!("persistentvolumeclaim/{name} {own}")),
            seen.volume
                .as_ref()
                .map(|volume| format!("persistentvolume/{}", volume.name)),
            seen.copy_snapshot
                .as_ref()
                .map(|copy| format!("volumesnapshot/{} {own}", copy.name)),
            seen.copy_content
                .as_ref()
                .map(|copy| format!("volumesnapshotcontent/{}", copy.name)),
            seen.snapshot
                .as_ref()
                .filter(|snapshot| ours && snapshot.ours)
                .map(|snapshot| format!("volumesnapshot/{} {here}", snapshot.name)),
            self.own_content()
                .map(|content| format!("volumesnapshotcontent/{}", content.name)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// An agent that still believes in its order must learn that it is void.
    fn tell_agent(&mut self, succeeded: bool) {
        let Some(order) = self.next.status.order.as_mut() else {
            return;
        };
        if !succeeded && order.stop.is_none() {
            order.stop = Some("TransferFailed: the backup has ended".to_owned());
        }
    }

    fn remove_copy(&mut self) -> bool {
        if let Some(copy) = &self.seen.copy_snapshot {
            let (name, uid) = (copy.name.clone(), copy.uid.clone());
            // One that is going, too: the finalizer of the provisioner is taken away by the same action.
            self.delete(Object::CopySnapshot, name, uid);
            self.wait("cleaning up: waiting for the copied VolumeSnapshot to be deleted");
            return false;
        }
        if let Some(copy) = &self.seen.copy_content {
            let (name, uid) = (copy.name.clone(), copy.uid.clone());
            if !copy.deleting {
                self.delete(Object::CopyContent, name, uid);
            }
            self.wait("cleaning up: waiting for the copied VolumeSnapshotContent to be deleted");
            return false;
        }
        true
    }

    /// Our content, if the snapshot is ours at all: one of its name may be of somebody else.
    fn own_content(&self) -> Option<&ContentView> {
        let users = self.backup.spec.source.volume_snapshot.is_some();
        let snapshot = self.seen.snapshot.as_ref();
        let ours =
            |content: &&ContentView| content.ours || snapshot.is_none_or(|snapshot| snapshot.ours);
        self.seen.content.as_ref().filter(|_| !users).filter(ours)
    }

    fn own_handle(&self) -> Option<String> {
        Some(self.own_content()?.original.as_ref()?.handle.clone())
    }

    /// Whether the base of the volume already is this backup's snapshot.
    fn base_is_ours(&self) -> bool {
        let handle = self
            .next
            .status
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.handle.clone());
        let base = self.seen.base_content.as_ref();
        let of_base = base.and_then(|base| Some(base.original.as_ref()?.handle.clone()));
        handle.is_some() && of_base == handle
    }

    fn keeps_base(&self) -> bool {
        let answer = self.next.status.transfer.as_ref();
        let auto = answer.and_then(|answer| answer.base_needed).unwrap_or(
            matches!(&self.seen.source, SourceView::Found(source) if source.profile.base_snapshot == BasePolicy::Keep),
        );
        match self.backup.spec.base_snapshot_policy {
            BaseSnapshotPolicy::Keep => true,
            BaseSnapshotPolicy::Drop => false,
            BaseSnapshotPolicy::Auto => auto,
        }
    }

    /// Whether the base is what it should be: this snapshot, or none. The point of this backup is recorded: the old one is of no use any more.
    fn swap_base(&mut self) -> bool {
        if self.base_is_ours() {
            let whole = self.seen.base_snapshot.is_some();
            return whole || self.make_base();
        }
        if let Some(old) = self.seen.base_content.clone() {
            self.remove_base(&old);
            return false;
        }
        if let Some(old) = &self.seen.base_snapshot {
            let (name, uid) = (old.name.clone(), old.uid.clone());
            if !old.deleting {
                self.delete(Object::BaseSnapshot, name, uid);
            }
            self.wait_unwatched("waiting for the old base snapshot to be deleted");
            return false;
        }
        if !self.keeps_base() {
            return true;
        }
        match self.own_content() {
            // Until the content is retained, its deletion would take the base with it.
            Some(content) if content.policy != SnapshotDeletion::Retain => {
                // It was marked for deletion before the base was made: it goes, and the next backup reads everything.
                true
            }
            Some(content) if content.original.is_some() && !content.deleting => self.make_base(),
            _ => true,
        }
    }

    fn remove_base(&mut self, old: &ContentView) {
        if old.policy != SnapshotDeletion::Delete {
            self.act(Action::BaseContentPolicy {
                name: old.name.clone(),
                policy: SnapshotDeletion::Delete,
            });
        } else if let Some(snapshot) = &self.seen.base_snapshot {
            if !snapshot.deleting {
                let (name, uid) = (snapshot.name.clone(), snapshot.uid.clone());
                self.delete(Object::BaseSnapshot, name, uid);
            }
        } else if !old.deleting {
            self.delete(Object::BaseContent, old.name.clone(), old.uid.clone());
        }
        self.wait_unwatched("waiting for the old base snapshot to be deleted");
    }

    fn make_base(&mut self) -> bool {
        let order = self.next.status.order.clone().unwrap_or_default();
        let of_base = self
            .seen
            .base_content
            .as_ref()
            .and_then(|base| base.original.clone());
        let own = self
            .own_content()
            .and_then(|content| content.original.clone());
        let (Some(original), Some(point)) = (own.or(of_base), self.next.status.point.clone())
        else {
            return true;
        };
        let repository = &self.backup.spec.repository_ref.name;
        self.act(Action::Base {
            name: base::name(&order.driver, &order.volume_handle, repository),
            original,
            volume_handle: order.volume_handle,
            point: point.id,
        });
        self.wait_unwatched("keeping the snapshot as base of the next backup");
        false
    }

    fn remove_snapshot(&mut self) -> bool {
        if self.backup.spec.source.volume_snapshot.is_some() {
            return true;
        }
        let kept = self.base_is_ours() && self.own_handle().is_some();
        let policy = if kept {
            SnapshotDeletion::Retain
        } else {
            SnapshotDeletion::Delete
        };
        let undecided = self
            .own_content()
            .filter(|content| !content.deleting && (content.policy != policy || !content.ours));
        if let Some(content) = undecided {
            let name = content.name.clone();
            self.act(Action::Content { name, policy });
            self.wait("cleaning up: deciding what becomes of the snapshot");
            return false;
        }
        if let Some(snapshot) = self.seen.snapshot.as_ref().filter(|snapshot| snapshot.ours) {
            let (name, uid) = (snapshot.name.clone(), snapshot.uid.clone());
            if !snapshot.deleting {
                self.delete(Object::Snapshot, name, uid);
            }
            self.wait("cleaning up: waiting for the VolumeSnapshot to be deleted");
            return false;
        }
        if let Some(content) = self.own_content() {
            let (name, uid, deleting) =
                (content.name.clone(), content.uid.clone(), content.deleting);
            if !deleting {
                self.delete(Object::Content, name, uid);
            }
            self.wait("cleaning up: waiting for the driver to delete the snapshot");
            return false;
        }
        true
    }

    fn end(&mut self) {
        let condition = conditions::find(&self.next.status.conditions, kinds::SUCCEEDED);
        let (reason, why) = condition.map_or((Reason::Done, String::new()), |condition| {
            (
                Reason::parse(&condition.reason).unwrap_or(Reason::Done),
                condition.message.clone(),
            )
        });
        let phase = match verdict(&self.next.status) {
            Some(Verdict::Succeeded) => Phase::Completed,
            Some(Verdict::Canceled) => Phase::Canceled,
            _ => Phase::Failed,
        };
        self.next.status.phase = Some(phase);
        self.next.status.completion_time = Some(Time(self.now));
        self.say(&why);
        if phase == Phase::Completed {
            self.next.notes.push(Note::normal(
                reason,
                "backed up; everything temporary is removed",
            ));
        }
        self.next.again = Some(std::time::Duration::ZERO);
    }

    fn delete(&mut self, what: Object, name: String, uid: String) {
        self.act(Action::Delete {
            what,
            name,
            uid,
            force: false,
        });
    }
}
