//! What the controller sees of the world, with things that happen between two of its reads.
//!
//! Owns: observations and settings, as `observe` makes them. Must not: change what is simulated but by its own steps.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::super::super::next::gives_up;
use super::super::super::observation::{Agent, Base, Observation, Settings, Slot};
use super::super::super::point::PointAnswer;
use super::super::world::SYSTEM;
use super::{Play, record};
use crate::kube::api::PodVolumeRestore;
use crate::kube::controller::working_copy::Original;

impl Play {
    pub(super) fn observe(&mut self, roll: &mut impl FnMut(u64) -> u64) -> Observation {
        let restore = self.world.restore.clone();
        let name = self.world.intermediate();
        let working_claim = self.world.working_claim().cloned();
        if roll(3) == 0 {
            self.world.step(roll(9));
        }
        let working_name = self.working_name(&restore, working_claim.as_ref());
        let working_volume = working_name
            .as_ref()
            .and_then(|name| self.world.volumes.get(name))
            .cloned();
        if roll(3) == 0 {
            self.world.step(roll(9));
        }
        let final_volume = self.world.volumes.get(&name).cloned();
        let target = self.world.target().cloned();
        let target_name = target
            .as_ref()
            .and_then(|claim| claim.spec.as_ref().unwrap().volume_name.clone());
        let target_volume = target_name
            .and_then(|name| self.world.volumes.get(&name))
            .cloned();
        let (untaken, cleaning) = self.witness();
        Observation {
            now: self.world.now,
            namespace_terminating: false,
            point: PointAnswer::Found(Box::new(record(restore.spec.mode))),
            class: Some(StorageClass {
                provisioner: "driver".to_owned(),
                reclaim_policy: Some(self.world.class_policy.clone()),
                ..StorageClass::default()
            }),
            base: self.base(),
            slot: Slot::Granted,
            attached_to: [working_name.as_ref(), Some(&name)]
                .into_iter()
                .flatten()
                .filter_map(|name| self.world.attached.get(name).cloned())
                .collect(),
            working_claim,
            working_volume,
            foreign_volume: None,
            final_volume,
            holder: self.world.holder.clone(),
            agent: self.agent(),
            untaken,
            cleaning,
            reachable: self.world.dead_node.is_none() || !self.world.bound_to_node,
            cordoned: Default::default(),
            target,
            target_users: self
                .pod_uses_claim
                .then(|| "pod p".to_owned())
                .into_iter()
                .collect(),
            target_attached_to: Vec::new(),
            target_volume,
            settings: self.settings(),
            restore,
        }
    }

    /// The volume that the status names, or the claim.
    fn working_name(
        &self,
        restore: &PodVolumeRestore,
        claim: Option<&PersistentVolumeClaim>,
    ) -> Option<String> {
        let name = self.world.intermediate();
        let status = restore.status.as_ref();
        let known = status.and_then(|status| status.volume.as_ref());
        let named = claim.and_then(|claim| claim.spec.as_ref().unwrap().volume_name.clone());
        known.map(|known| known.name.clone()).or(named).or_else(|| {
            let claimed = |volume: &&k8s_openapi::api::core::v1::PersistentVolume| {
                let owner = volume.spec.as_ref().unwrap().claim_ref.as_ref();
                owner.is_some_and(|owner| {
                    owner.namespace.as_deref() == Some(SYSTEM) && owner.name.as_ref() == Some(&name)
                })
            };
            let mut volumes = self.world.volumes.values();
            // As `observe`: a volume that its claim does not name yet matters only to who takes everything back.
            let owned = volumes.find(|volume| gives_up(restore) && claimed(volume));
            owned.and_then(|volume| volume.metadata.name.clone())
        })
    }

    fn base(&self) -> Option<Base> {
        self.world.base.then(|| Base {
            original: Original {
                driver: "driver".to_owned(),
                handle: "base".to_owned(),
                ..Original::default()
            },
            restore_size: None,
        })
    }

    fn settings(&self) -> Settings {
        Settings {
            system_namespace: SYSTEM.to_owned(),
            clean_deadline: self.clean_deadline(),
            ..Settings::default()
        }
    }

    /// Where everybody answers in the end, nothing is left to the sweep, which is not simulated here.
    fn clean_deadline(&self) -> SignedDuration {
        if self.world.driver_gone {
            Settings::default().clean_deadline
        } else {
            SignedDuration::from_hours(10_000)
        }
    }

    /// What the controller saw for so long, without a break. An agent that hears of orders waits for a slot.
    fn witness(&mut self) -> (SignedDuration, SignedDuration) {
        let now = self.world.now;
        let ended = gives_up(&self.world.restore);
        let open = self.world.open_attempt();
        let deaf = open.filter(|_| self.world.deaf && !ended && self.agent() == Agent::Ready);
        let begun = self.untaken.filter(|(known, _)| Some(*known) == deaf);
        self.untaken = deaf.map(|attempt| begun.unwrap_or((attempt, now)));
        self.cleaning = ended.then(|| self.cleaning.unwrap_or(now));
        let since = |begun: Option<Timestamp>| begun.map(|begun| now.duration_since(begun));
        let untaken = since(self.untaken.map(|(_, begun)| begun));
        let cleaning = since(self.cleaning);
        (untaken.unwrap_or_default(), cleaning.unwrap_or_default())
    }

    fn agent(&self) -> Agent {
        if self.world.work_is_answered() {
            Agent::Ready
        } else {
            Agent::Gone
        }
    }
}
