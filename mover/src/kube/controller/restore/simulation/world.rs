//! A cluster as far as a restore can see it: claims, volumes, one pod, and the controllers that act on them, one small step at a time.
//!
//! Owns: what other controllers do, in the order of the real ones (persistent volume controller, external-provisioner, kubelet). Must
//! not: know how Snaphaul decides.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimStatus, PersistentVolumeSpec, PersistentVolumeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::super::observation::Holder;
use super::super::volume::{self, DELETE};
use crate::kube::api::PodVolumeRestore;
use crate::kube::api::conditions::SUCCEEDED;
use crate::kube::api::restore::{HandoverStep, QuickState, RestoreMode};
use crate::kube::api::transfer::{TransferState, TransferStatus};

pub(super) const SYSTEM: &str = "system";
pub(super) const SHOP: &str = "shop";
pub(super) const CLAIM: &str = "data";

pub(super) type Key = (String, String);

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) restore: PodVolumeRestore,
    pub(super) restore_version: u64,
    pub(super) claims: BTreeMap<Key, PersistentVolumeClaim>,
    pub(super) volumes: BTreeMap<String, PersistentVolume>,
    /// Handles of the storage, and whether it is filled.
    pub(super) disks: BTreeMap<String, bool>,
    pub(super) attached: BTreeMap<String, String>,
    pub(super) holder: Option<Holder>,
    pub(super) agent: bool,
    /// The agent is ready, and hears of no order that it has not begun.
    pub(super) deaf: bool,
    /// A node whose kubelet and agent answer nothing any more.
    pub(super) dead_node: Option<String>,
    /// Whether the volume can be reached from one node only.
    pub(super) bound_to_node: bool,
    /// The driver answers nothing any more: no storage comes, goes, or is detached.
    pub(super) driver_gone: bool,
    pub(super) class_policy: String,
    /// Whether the storage has a snapshot that is the point.
    pub(super) base: bool,
    /// Whether there are objects by which a volume can be made of it.
    pub(super) copy: bool,
    pub(super) user_deleted_claim: bool,
    /// Storage of the user, which is no restore's to delete.
    pub(super) old_disk: Option<String>,
    pub(super) counter: u64,
    pub(super) log: Vec<String>,
}

impl World {
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    pub(super) fn intermediate(&self) -> String {
        format!("snaphaul-{}", self.restore.metadata.uid.as_ref().unwrap())
    }

    pub(super) fn working_claim(&self) -> Option<&PersistentVolumeClaim> {
        self.claims.get(&Self::key(SYSTEM, &self.intermediate()))
    }

    pub(super) fn target(&self) -> Option<&PersistentVolumeClaim> {
        self.claims.get(&Self::key(SHOP, CLAIM))
    }

    pub(super) fn add_claim(&mut self, mut claim: PersistentVolumeClaim) {
        let key = Self::key(
            claim.metadata.namespace.as_ref().unwrap(),
            claim.metadata.name.as_ref().unwrap(),
        );
        if self.claims.contains_key(&key) {
            return;
        }
        let number = self.number();
        claim.metadata.uid = Some(format!("claim-{number}"));
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
        self.claims.insert(key, claim);
    }

    pub(super) fn add_volume(&mut self, mut volume: PersistentVolume) {
        let name = volume.metadata.name.clone().unwrap();
        if self.volumes.contains_key(&name) {
            return;
        }
        volume.metadata.uid = Some(format!("volume-{}", self.number()));
        volume.metadata.resource_version = Some(self.number().to_string());
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeStatus::default()
        });
        self.volumes.insert(name, volume);
    }

    /// Changes a volume; every change is a new version.
    pub(super) fn change(&mut self, name: &str, change: impl FnOnce(&mut PersistentVolume)) {
        let version = self.number().to_string();
        let volume = self.volumes.get_mut(name).unwrap();
        change(volume);
        volume.metadata.resource_version = Some(version);
    }

    /// One step of every controller but Snaphaul's, chosen by `which`. Whether anything changed.
    pub(super) fn step(&mut self, which: u64) -> bool {
        let changed = match which % 9 {
            0 => self.provision(),
            1 | 2 => self.bind(),
            3 => self.delete_storage(),
            4 => self.finalize_claims(),
            5 => self.finalize_volumes(),
            6 => self.run_holder(),
            7 => self.detach(),
            _ => false,
        };
        if changed {
            self.log.push(format!("controller {}", which % 9));
            self.check();
        }
        changed
    }

    fn provision(&mut self) -> bool {
        if self.driver_gone {
            return false;
        }
        let pending = self.claims.values().find(|claim| {
            let spec = claim.spec.as_ref().unwrap();
            spec.volume_name.is_none()
                && spec.data_source_ref.is_none()
                && spec.storage_class_name.as_deref() == Some("fast")
                && claim.metadata.deletion_timestamp.is_none()
                && (spec.data_source.is_none() || self.base && self.copy)
                && !self
                    .volumes
                    .contains_key(&format!("pvc-{}", claim.metadata.uid.as_ref().unwrap()))
        });
        let Some(claim) = pending.cloned() else {
            return false;
        };
        let handle = format!("disk-{}", self.number());
        let is_copy = claim.spec.as_ref().unwrap().data_source.is_some();
        self.disks.insert(handle.clone(), is_copy);
        let policy = self.class_policy.clone();
        self.add_volume(provisioned(&claim, &handle, &policy));
        true
    }

    /// The persistent volume controller: one write.
    fn bind(&mut self) -> bool {
        let names: Vec<String> = self.volumes.keys().cloned().collect();
        names.iter().any(|name| self.bind_volume(name))
    }

    fn bind_volume(&mut self, name: &str) -> bool {
        let volume = self.volumes[name].clone();
        let phase = volume.status.as_ref().unwrap().phase.clone().unwrap();
        let Some(owner) = volume.spec.as_ref().unwrap().claim_ref.clone() else {
            return false;
        };
        let key = Self::key(&owner.namespace.unwrap(), &owner.name.unwrap());
        let claim = self.claims.get(&key).cloned();
        let Some(uid) = owner.uid else {
            // Prepared for a claim by name.
            let Some(claim) = claim else {
                return false;
            };
            self.change(name, |volume| {
                let owner = volume.spec.as_mut().unwrap().claim_ref.as_mut().unwrap();
                owner.uid.clone_from(&claim.metadata.uid);
            });
            return true;
        };
        let claim = claim.filter(|claim| claim.metadata.uid.as_ref() == Some(&uid));
        let Some(claim) = claim else {
            let changed = phase != "Released";
            if changed {
                self.set_phase(name, "Released");
            }
            return changed;
        };
        let named = claim.spec.as_ref().unwrap().volume_name.clone();
        if named.as_ref().is_some_and(|named| named != name) || !fits(&claim, &volume) {
            return false;
        }
        if phase != "Bound" {
            self.set_phase(name, "Bound");
            return true;
        }
        let claim = self.claims.get_mut(&key).unwrap();
        if named.is_none() {
            claim.spec.as_mut().unwrap().volume_name = Some(name.to_owned());
            return true;
        }
        let phase = &mut claim.status.as_mut().unwrap().phase;
        let changed = phase.as_deref() != Some("Bound");
        *phase = Some("Bound".to_owned());
        changed
    }

    fn set_phase(&mut self, name: &str, phase: &str) {
        self.change(name, |volume| {
            volume.status.as_mut().unwrap().phase = Some(phase.to_owned());
        });
    }

    /// external-provisioner: the storage of a released volume goes, then its object.
    fn delete_storage(&mut self) -> bool {
        if self.driver_gone {
            return false;
        }
        let released = self.volumes.iter().find(|(name, volume)| {
            volume.status.as_ref().unwrap().phase.as_deref() == Some("Released")
                && volume::reclaim_policy(volume) == DELETE
                && !self.attached.contains_key(*name)
        });
        let Some((name, volume)) = released.map(|(name, volume)| (name.clone(), volume.clone()))
        else {
            return false;
        };
        let handle = handle_of(&volume);
        if self.disks.contains_key(&handle) {
            self.may_delete_storage(&handle);
            self.disks.remove(&handle);
        } else {
            self.volumes.remove(&name);
        }
        true
    }

    fn may_delete_storage(&self, handle: &str) {
        assert!(
            !self.in_place(),
            "the user's own storage deleted\n{}",
            self.story()
        );
        assert!(
            self.user_deleted_claim
                || self.gives_up()
                || self.is_given_up(handle)
                || self.old_disk.as_deref() == Some(handle),
            "storage {handle} deleted while it is needed\n{}",
            self.story()
        );
    }

    fn in_place(&self) -> bool {
        self.restore.spec.mode == RestoreMode::InPlace
    }

    pub(super) fn gives_up(&self) -> bool {
        let status = self.restore.status.as_ref();
        status.is_some_and(|status| {
            status
                .conditions
                .iter()
                .any(|known| known.type_ == SUCCEEDED && known.status == "False")
        })
    }

    fn finalize_claims(&mut self) -> bool {
        let held = self.holder.is_some();
        let going = self.claims.iter().find(|((namespace, _), claim)| {
            claim.metadata.deletion_timestamp.is_some() && !(held && namespace == SYSTEM)
        });
        let key = going.map(|(key, _)| key.clone());
        key.is_some_and(|key| self.claims.remove(&key).is_some())
    }

    fn finalize_volumes(&mut self) -> bool {
        let going = self.volumes.iter().find(|(name, volume)| {
            volume.metadata.deletion_timestamp.is_some()
                && volume.status.as_ref().unwrap().phase.as_deref() != Some("Bound")
                && !self.attached.contains_key(*name)
        });
        let name = going.map(|(name, _)| name.clone());
        name.is_some_and(|name| self.volumes.remove(&name).is_some())
    }

    /// Scheduler and kubelet: place, attach, ready; or end.
    fn run_holder(&mut self) -> bool {
        let bound = self.working_claim().and_then(|claim| {
            let phase = claim.status.as_ref().unwrap().phase.as_deref();
            (phase == Some("Bound"))
                .then(|| claim.spec.as_ref().unwrap().volume_name.clone().unwrap())
        });
        let dead = self.dead_node.clone();
        let Some(holder) = &mut self.holder else {
            return false;
        };
        if holder.node.is_some() && holder.node == dead {
            // Its kubelet says nothing; after a while the node controller says that it is not ready.
            let changed = holder.ready;
            holder.ready = false;
            return changed;
        }
        if holder.ending {
            self.holder = None;
            return true;
        }
        if self.driver_gone {
            return false;
        }
        let Some(bound) = bound else {
            return false;
        };
        if holder.node.is_none() {
            let node = if dead.as_deref() == Some("n1") {
                "n2"
            } else {
                "n1"
            };
            holder.node = Some(node.to_owned());
            return true;
        }
        let node = holder.node.clone().unwrap();
        if self.attached.insert(bound, node).is_none() {
            return true;
        }
        let changed = !holder.ready;
        holder.ready = true;
        changed
    }

    fn detach(&mut self) -> bool {
        if self.driver_gone || self.holder.is_some() || self.attached.is_empty() {
            return false;
        }
        self.attached.pop_first();
        true
    }

    /// The agent: one write of its part of the status. `outcome`: what becomes of a transfer that runs.
    pub(super) fn run_agent(&mut self, outcome: TransferState) -> bool {
        let Some(status) = &self.restore.status else {
            return false;
        };
        let (Some(order), true) = (status.order.clone(), self.agent_answers()) else {
            return false;
        };
        let running = status
            .transfer
            .as_ref()
            .filter(|known| known.attempt == order.attempt);
        if self.deaf && running.is_none() {
            return false;
        }
        let state = match running.map(|known| known.state) {
            None => TransferState::Running,
            Some(TransferState::Running) if order.stop.is_some() => TransferState::Stopped,
            Some(TransferState::Running) if self.holder.is_none() => TransferState::Interrupted,
            Some(TransferState::Running) => outcome,
            Some(_) => return false,
        };
        if running.is_some() && state == TransferState::Running {
            return false;
        }
        if state == TransferState::Succeeded {
            self.disks.insert(order.volume_handle.clone(), true);
        }
        let transfer = TransferStatus {
            attempt: order.attempt,
            state,
            ..TransferStatus::default()
        };
        self.restore.status.as_mut().unwrap().transfer = Some(transfer);
        self.restore_version += 1;
        self.log.push(format!("agent {state:?}"));
        self.check();
        true
    }

    /// The attempt that no agent has begun.
    pub(super) fn open_attempt(&self) -> Option<i64> {
        let status = self.restore.status.as_ref()?;
        let attempt = status.order.as_ref()?.attempt;
        let known = status.transfer.as_ref().map(|known| known.attempt);
        (known != Some(attempt)).then_some(attempt)
    }

    /// Whether the node of the holder, or of the last order, has a ready agent.
    pub(super) fn work_is_answered(&self) -> bool {
        let status = self.restore.status.as_ref();
        let holder = self.holder.as_ref().and_then(|holder| holder.node.as_ref());
        let node = holder.or(status.and_then(|status| status.node.as_ref()));
        self.agent && (node.is_none() || node != self.dead_node.as_ref())
    }

    /// Whether the agent of the restore's node is ready.
    pub(super) fn agent_answers(&self) -> bool {
        let node = self
            .restore
            .status
            .as_ref()
            .and_then(|status| status.node.as_ref());
        self.agent && (node.is_none() || node != self.dead_node.as_ref())
    }

    pub(super) fn delete_restore(&mut self) {
        self.restore
            .metadata
            .deletion_timestamp
            .get_or_insert(Time(self.now));
        self.restore_version += 1;
    }

    /// What holds at every moment: all storage has a name, and no two objects name the same.
    pub(super) fn check(&self) {
        for handle in self.disks.keys() {
            // An old object that somebody holds back on its way out deletes nothing.
            let is_dying = |volume: &PersistentVolume| {
                self.driver_gone
                    && volume.metadata.deletion_timestamp.is_some()
                    && volume::reclaim_policy(volume) == volume::RETAIN
            };
            let all = self
                .volumes
                .values()
                .filter(|volume| handle_of(volume) == *handle);
            let dying = all.clone().filter(|volume| is_dying(volume)).count();
            let names = all.count();
            assert!(
                names - dying.min(names.saturating_sub(1)) <= if self.in_place() { 2 } else { 1 },
                "{handle} twice\n{}",
                self.story()
            );
            assert!(
                names > 0 || self.recorded(handle),
                "nothing names {handle}\n{}",
                self.story()
            );
        }
    }

    fn recorded(&self, handle: &str) -> bool {
        let status = self.restore.status.as_ref();
        let kept = self
            .restore
            .metadata
            .finalizers
            .as_ref()
            .is_some_and(|all| !all.is_empty());
        kept && status
            .and_then(|status| status.volume.as_ref())
            .is_some_and(|volume| {
                volume.step == HandoverStep::Recreating
                    && volume
                        .object
                        .as_ref()
                        .is_some_and(|object| object.contains(handle))
            })
    }

    /// Whether the volume is to be made of the storage's snapshot.
    pub(super) fn copies(&self) -> bool {
        self.quick() == Some(QuickState::Copying)
    }

    /// How far that is.
    pub(super) fn quick(&self) -> Option<QuickState> {
        let status = self.restore.status.as_ref();
        Some(status?.quick.as_ref()?.state)
    }

    /// Whether the storage is of a copy that was given up.
    fn is_given_up(&self, handle: &str) -> bool {
        let status = self.restore.status.as_ref();
        let known = status.and_then(|status| status.volume.as_ref());
        self.quick() == Some(QuickState::GivenUp)
            && known.is_none_or(|known| known.handle != handle)
    }

    /// Whether the message has these words.
    pub(super) fn says(&self, words: &str) -> bool {
        let status = self.restore.status.as_ref();
        status
            .and_then(|status| status.message.as_ref())
            .is_some_and(|message| message.contains(words))
    }

    pub(super) fn story(&self) -> String {
        format!("{}\n{:#?}", self.log.join("\n"), self.restore.status)
    }
}

pub(super) fn handle_of(volume: &PersistentVolume) -> String {
    volume
        .spec
        .as_ref()
        .unwrap()
        .csi
        .as_ref()
        .unwrap()
        .volume_handle
        .clone()
}

fn fits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (claim, volume) = (claim.spec.as_ref().unwrap(), volume.spec.as_ref().unwrap());
    let storage = |all: &Option<BTreeMap<String, _>>| all.as_ref().unwrap().get("storage").cloned();
    let asked = storage(&claim.resources.as_ref().unwrap().requests).unwrap();
    let there = storage(&volume.capacity).unwrap();
    let bytes = crate::kube::controller::quantity::bytes;
    claim.storage_class_name == volume.storage_class_name
        && claim.volume_mode.as_deref().unwrap_or("Filesystem")
            == volume.volume_mode.as_deref().unwrap_or("Filesystem")
        && bytes(&asked) <= bytes(&there)
        && claim.access_modes.iter().flatten().all(|mode| {
            volume
                .access_modes
                .as_ref()
                .is_some_and(|modes| modes.contains(mode))
        })
}

/// A volume as external-provisioner makes it.
pub(super) fn provisioned(
    claim: &PersistentVolumeClaim,
    handle: &str,
    policy: &str,
) -> PersistentVolume {
    let uid = claim.metadata.uid.as_ref().unwrap();
    let spec = claim.spec.as_ref().unwrap();
    let identity = "storage.kubernetes.io/csiProvisionerIdentity".to_owned();
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(format!("pvc-{uid}")),
            annotations: Some(
                [(
                    "pv.kubernetes.io/provisioned-by".to_owned(),
                    "driver".to_owned(),
                )]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes.clone(),
            capacity: spec.resources.as_ref().unwrap().requests.clone(),
            claim_ref: Some(volume::claim_ref(
                claim.metadata.namespace.as_ref().unwrap(),
                claim.metadata.name.as_ref().unwrap(),
                uid,
            )),
            csi: Some(CSIPersistentVolumeSource {
                driver: "driver".to_owned(),
                volume_handle: handle.to_owned(),
                volume_attributes: Some([(identity, "1".to_owned())].into()),
                ..CSIPersistentVolumeSource::default()
            }),
            persistent_volume_reclaim_policy: Some(policy.to_owned()),
            storage_class_name: Some("fast".to_owned()),
            volume_mode: spec.volume_mode.clone(),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}
