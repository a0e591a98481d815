//! From a snapshot to an open device on a node.
//!
//! Owns: slot, working copy, holder, and the first and later orders. Must not: choose the node.

use super::{Step, Verdict};
use crate::attach::csi::profile::{BasePolicy, CloneAccess};
use crate::kube::api::backup::{AttachStrategy, BaseSnapshotPolicy};
use crate::kube::api::conditions::{self as kinds, Reason};
use crate::kube::api::transfer::TransferOrder;
use crate::kube::api::{Phase, PodVolumeBackup};
use crate::kube::controller::attempts;
use crate::kube::controller::backup::action::{Action, Object};
use crate::kube::controller::backup::view::{Observed, Source, SourceView};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::nodes;
use crate::kube::controller::owner::object_name;
use crate::kube::controller::recorded::Recorded;
use crate::kube::controller::slots::Slot;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whether the backup is at the point where a slot is asked for.
#[must_use]
pub fn wants_slot(backup: &PodVolumeBackup, seen: &Observed) -> bool {
    let Some(status) = &backup.status else {
        return false;
    };
    status.phase == Some(Phase::Accepted)
        && super::verdict(status).is_none()
        && backup.spec.cancel != Some(true)
        && backup.metadata.deletion_timestamp.is_none()
        && seen.snapshot.as_ref().is_none_or(|snapshot| snapshot.ready)
        && seen
            .content
            .as_ref()
            .is_some_and(|content| content.original.is_some() && !content.deleting)
}

impl Step<'_> {
    pub(super) fn expose(&mut self) {
        if self.is_lost() && !self.is_retracted() {
            return;
        }
        let SourceView::Found(source) = &self.seen.source else {
            let why = "looking at the source";
            self.set(kinds::DEVICE_READY, Is::False, Reason::Exposing, why);
            self.wait(why);
            self.fail_late(&match &self.seen.source {
                SourceView::Missing(why)
                | SourceView::Unbound(why)
                | SourceView::Refused(_, why) => why.clone(),
                _ => "the source cannot be seen".to_owned(),
            });
            return;
        };
        let source = (**source).clone();
        match &self.seen.slot {
            Slot::Granted(nodes) => {
                let nodes = nodes.clone();
                self.make_copy(&source, &nodes);
            }
            Slot::Waiting { ahead } => {
                let why =
                    format!("waiting for a free slot: {ahead} other volumes are served first");
                self.set(
                    kinds::DEVICE_READY,
                    Is::Unknown,
                    Reason::WaitingForSlot,
                    &why,
                );
                self.wait(&why);
            }
            Slot::NoNode => {
                let why = nodes::unreachable(&source.cordoned).unwrap_or_else(|| {
                    "no node that the volume can be attached to has a ready agent".to_owned()
                });
                self.set(kinds::DEVICE_READY, Is::False, Reason::NoAgent, &why);
                self.wait(&why);
                self.fail_late(&why);
            }
            Slot::NotAsked => self.wait("waiting for a free slot"),
        }
    }

    fn make_copy(&mut self, source: &Source, nodes: &std::collections::BTreeSet<String>) {
        if self.has_foreign_volume() {
            return;
        }
        let Some(original) = self.seen.content.as_ref().and_then(|c| c.original.clone()) else {
            return;
        };
        let Some(class) = source.clone_class.clone() else {
            let why = "no storage class for the working copy could be found: name one in the driver's profile (cloneStorageClassName)";
            self.decide(Verdict::Failed, Reason::ExposeFailed, why);
            return;
        };
        let mut waits = "waiting for the working copy";
        if self.seen.copy_content.is_none() {
            self.act(Action::CopyContent(original.clone()));
        }
        let copy_ready = self
            .seen
            .copy_snapshot
            .as_ref()
            .is_some_and(|copy| copy.ready);
        if self.seen.copy_snapshot.is_none() {
            self.act(Action::CopySnapshot(original));
        } else if copy_ready && self.seen.claim.is_none() {
            self.act(Action::Claim {
                class,
                access: source.profile.clone_access_mode.as_str().to_owned(),
                size: self.copy_size(source),
            });
        }
        // The claim may wait for its first consumer: the pod comes before the claim is bound.
        if self
            .seen
            .claim
            .as_ref()
            .is_some_and(|claim| !claim.deleting)
        {
            waits = "waiting for the pod that opens the working copy";
            if self.seen.holder.is_none() {
                self.act(Action::Holder {
                    nodes: nodes.clone(),
                    read_only: source.profile.clone_access_mode == CloneAccess::ReadOnlyMany,
                });
            }
        }
        if let Some(volume) = self.seen.volume.as_ref().filter(|volume| !volume.secured) {
            let name = volume.name.clone();
            self.act(Action::Volume { name });
        }
        let Some(holder) = self.seen.holder.as_ref() else {
            self.exposing(waits);
            return;
        };
        let (node, ready, complaint) =
            (holder.node.clone(), holder.ready, holder.complaint.clone());
        if let Some(node) = &node {
            self.act(Action::Settle(node.clone()));
        }
        match node {
            // A pod whose claim has no volume that we know of has the device of somebody else.
            Some(node) if ready && !holder.deleting && self.seen.volume.is_some() => {
                if self.has_change_id() {
                    self.give_order(source, node);
                }
            }
            _ => self.exposing(&match complaint {
                Some(complaint) => format!("{waits}: {complaint}"),
                None => waits.to_owned(),
            }),
        }
    }

    /// Whether the agent finds the driver's change id, if there is one, where it looks: on the snapshot of the working copy.
    fn has_change_id(&mut self) -> bool {
        let content = self.seen.content.as_ref();
        let wanted = content.and_then(|content| content.original.as_ref()?.change_id.clone());
        let copy = self.seen.copy_snapshot.as_ref();
        let there = copy.and_then(|copy| copy.change_id.clone());
        let Some(late) = wanted.filter(|wanted| there.as_ref() != Some(wanted)) else {
            return true;
        };
        self.act(Action::CopyChangeId(late));
        self.exposing("copying the change id of the snapshot");
        self.look_in(std::time::Duration::ZERO);
        false
    }

    /// Whether the claim was bound to a volume of somebody else, which ends the backup.
    fn has_foreign_volume(&mut self) -> bool {
        let Some(foreign) = &self.seen.foreign else {
            return false;
        };
        let why = format!(
            "the claim of the working copy was bound to PersistentVolume {}, which was there before: it was neither read nor changed; \
             let free volumes of this storage class name their claims, or give the class another name",
            foreign.name
        );
        self.decide(Verdict::Failed, Reason::ExposeFailed, &why);
        true
    }

    fn exposing(&mut self, why: &str) {
        self.set(kinds::DEVICE_READY, Is::False, Reason::Exposing, why);
        self.wait(why);
        self.fail_late(why);
    }

    /// The device did not come up in time.
    fn fail_late(&mut self, why: &str) {
        let since = conditions::find(&self.next.status.conditions, kinds::DEVICE_READY)
            .filter(|condition| condition.status == Is::False.as_str())
            .map(|condition| condition.last_transition_time.0);
        if self.is_over(since.unwrap_or(self.now), self.limits.expose) {
            self.decide(
                Verdict::Failed,
                Reason::ExposeFailed,
                &format!("not in time: {why}"),
            );
        }
    }

    fn copy_size(&self, source: &Source) -> u64 {
        let of_snapshot = self
            .seen
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.restore_size);
        let of_content = self
            .seen
            .content
            .as_ref()
            .and_then(|content| content.restore_size);
        of_snapshot
            .or(of_content)
            .unwrap_or(0)
            .max(source.recorded.size_bytes)
    }

    fn give_order(&mut self, source: &Source, node: String) {
        let attempt = self
            .next
            .status
            .order
            .as_ref()
            .map_or(0, |order| order.attempt)
            + 1;
        let original = self
            .seen
            .content
            .as_ref()
            .and_then(|c| c.original.clone())
            .unwrap_or_default();
        let base = self
            .seen
            .base_content
            .as_ref()
            .filter(|base| !base.deleting);
        let uses_base = self.backup.spec.base_snapshot_policy != BaseSnapshotPolicy::Drop;
        let base = base.filter(|_| uses_base);
        let snapshot = self.next.status.snapshot.as_ref();
        let recorded = Recorded {
            taken: snapshot.and_then(|snapshot| snapshot.creation_time.clone()),
            ..source.recorded.clone()
        };
        self.next.status.order = Some(TransferOrder {
            attempt,
            strategy: AttachStrategy::Pod,
            volume: source.volume.clone(),
            driver: original.driver,
            volume_handle: source.recorded.volume_handle.clone(),
            snapshot_handle: Some(original.handle),
            snapshot_name: self.backup.metadata.uid.as_deref().map(object_name),
            base_name: base.map(|base| base.name.clone()),
            base_handle: base.and_then(|base| Some(base.original.as_ref()?.handle.clone())),
            change_id_annotation: source.profile.change_id_annotation.clone(),
            snapshot_metadata_service_name: source.profile.snapshot_metadata_service_name.clone(),
            keeps_base: Some(source.profile.base_snapshot == BasePolicy::Keep),
            // The working copy may be larger than the volume. A smaller one lacks its end, and the agent refuses it.
            size_bytes: i64::try_from(source.recorded.size_bytes)
                .ok()
                .filter(|size| *size > 0),
            recorded: Some(recorded.to_json()),
            since: Some(Time(self.now)),
            stop: None,
        });
        self.next.status.recorded = None;
        self.next.status.node = Some(node);
        self.next.status.phase = Some(Phase::Prepared);
        let why = "the device is open; waiting for the agent";
        self.set(kinds::DEVICE_READY, Is::True, Reason::Exposed, why);
        self.wait(why);
    }

    /// The agent that had the order is gone, or its device: what was exposed goes before it is exposed again.
    pub(super) fn lose(&mut self, why: &str) {
        let attempt = self
            .next
            .status
            .order
            .as_ref()
            .map_or(0, |order| order.attempt);
        if attempt >= attempts::MOST {
            let why = format!("given up after {attempt} attempts; the last: {why}");
            self.decide(Verdict::Failed, Reason::TransferFailed, &why);
            return;
        }
        self.next.status.phase = Some(Phase::Accepted);
        self.set(kinds::DEVICE_READY, Is::False, Reason::AgentLost, why);
        self.say(why);
        self.next
            .notes
            .push(crate::kube::controller::events::Note::warning(
                Reason::AgentLost,
                why,
            ));
        self.look_in(std::time::Duration::ZERO);
    }

    fn is_lost(&self) -> bool {
        conditions::reason(&self.next.status.conditions, kinds::DEVICE_READY)
            == Some(Reason::AgentLost)
    }

    /// Whether pod, claim and volume of the lost attempt are gone. If not, they go.
    fn is_retracted(&mut self) -> bool {
        let force = self.seen.agent_lost.is_some();
        if self.remove_exposure(force) {
            self.set(
                kinds::DEVICE_READY,
                Is::False,
                Reason::Exposing,
                "making the device again",
            );
            self.next.status.node = None;
            // The node may be gone for good: a place is asked for anew, on any node.
            self.act(Action::ReleaseSlot);
            self.look_in(std::time::Duration::ZERO);
        } else {
            let why = self.next.status.message.clone().unwrap_or_default();
            self.fail_late(&why);
        }
        false
    }

    /// Removes pod, claim and volume, in this order, one at a time; whether all are gone.
    pub(super) fn remove_exposure(&mut self, force: bool) -> bool {
        let name = object_name(self.backup.metadata.uid.as_deref().unwrap_or_default());
        let delete = |what, uid: &str, force| Action::Delete {
            what,
            name: name.clone(),
            uid: uid.to_owned(),
            force,
        };
        if let Some(holder) = &self.seen.holder {
            if !holder.deleting || force {
                self.act(delete(Object::Holder, &holder.uid, force));
            }
            self.wait("cleaning up: waiting for the pod that opened the device to end");
            return false;
        }
        if let Some(volume) = self.seen.volume.as_ref().filter(|volume| !volume.secured) {
            self.act(Action::Volume {
                name: volume.name.clone(),
            });
            self.wait("cleaning up: marking the working copy for deletion");
            return false;
        }
        if let Some(foreign) = self.seen.foreign.as_ref().filter(|foreign| !foreign.kept) {
            self.act(Action::KeepVolume {
                name: foreign.name.clone(),
            });
            self.wait("cleaning up: keeping a volume that is not ours");
            return false;
        }
        if let Some(claim) = &self.seen.claim {
            if !claim.deleting {
                self.act(delete(Object::Claim, &claim.uid, false));
            }
            self.wait("cleaning up: waiting for the working copy to be deleted");
            return false;
        }
        if let Some(volume) = &self.seen.volume {
            let why = format!(
                "cleaning up: waiting for PersistentVolume {} to be deleted",
                volume.name
            );
            self.wait_unwatched(&why);
            return false;
        }
        true
    }
}
