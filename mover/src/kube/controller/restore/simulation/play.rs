//! One run: steps of the world, of Snaphaul's controller, and of users and failures.
//!
//! Owns: the controller's loop as `act` has it: read, decide, write the status, act; reads and writes may be far apart.

mod observe;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::super::decision::{Action, ObjectId};
use super::super::next::next;
use super::super::observation::Holder;
use super::super::point::PointRecord;
use super::super::target;
use super::super::volume::DELETE;
use super::world::{CLAIM, SHOP, World, provisioned};
use crate::kube::api::names::{FINALIZER, KEPT_OF};
use crate::kube::api::restore::{RecordedClaim, RestoreMode, VolumeMode};
use crate::kube::api::transfer::TransferState;
use crate::kube::api::{PodVolumeRestore, PodVolumeRestoreSpec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Completed,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Crash,
    Cancel,
    Delete,
    TransferFails,
    ForeignClaim,
    ClaimDeleted,
    Evicted,
    AgentLost,
    Late,
    PodUsesClaim,
    NodeDies,
    /// The agent is ready and hears of no order for a while.
    Deaf,
    /// No controller leads for hours.
    Away,
    /// The base goes, and no volume is made of it any more.
    BaseGoes,
}

impl Fault {
    pub(super) const ALL: &'static [Self] = &[
        Self::Crash,
        Self::Cancel,
        Self::Delete,
        Self::TransferFails,
        Self::ForeignClaim,
        Self::ClaimDeleted,
        Self::Evicted,
        Self::AgentLost,
        Self::Late,
        Self::PodUsesClaim,
        Self::NodeDies,
        Self::Deaf,
        Self::Away,
    ];
}

pub(super) struct Play {
    pub(super) world: World,
    faults: Vec<Fault>,
    pod_uses_claim: bool,
    removed: bool,
    /// Since when this controller saw the attempt not taken.
    untaken: Option<(i64, Timestamp)>,
    /// Since when it saw that the restore is taken back.
    cleaning: Option<Timestamp>,
}

const SIZE: i64 = 1 << 30;

impl Play {
    pub(super) fn new(mode: RestoreMode, asking: bool, policy: &str, faults: &[Fault]) -> Self {
        let mut restore = PodVolumeRestore::new("r", PodVolumeRestoreSpec::default());
        restore.metadata.uid = Some("u".to_owned());
        restore.metadata.namespace = Some(SHOP.to_owned());
        restore.spec.mode = mode;
        let begin = Timestamp::from_second(1_000_000).unwrap();
        restore.metadata.creation_timestamp = Some(Time(begin));
        restore.spec.target.name = CLAIM.to_owned();
        let world = World {
            now: begin,
            restore,
            restore_version: 0,
            claims: [].into(),
            volumes: [].into(),
            disks: [].into(),
            attached: [].into(),
            holder: None,
            agent: true,
            deaf: false,
            dead_node: None,
            bound_to_node: false,
            driver_gone: false,
            class_policy: policy.to_owned(),
            base: false,
            copy: false,
            user_deleted_claim: false,
            old_disk: None,
            counter: 0,
            log: Vec::new(),
        };
        let mut play = Self {
            world,
            faults: faults.to_vec(),
            pod_uses_claim: false,
            removed: false,
            untaken: None,
            cleaning: None,
        };
        if mode != RestoreMode::NewClaim {
            play.add_old_claim(mode);
        } else if asking {
            let mut claim = claim("Filesystem");
            claim.spec.as_mut().unwrap().data_source_ref = Some(TypedObjectReference {
                api_group: Some("snaphaul.dev".to_owned()),
                kind: "PodVolumeRestore".to_owned(),
                name: "r".to_owned(),
                namespace: None,
            });
            play.world.add_claim(claim);
        }
        play
    }

    fn add_old_claim(&mut self, mode: RestoreMode) {
        let in_place = mode == RestoreMode::InPlace;
        self.world
            .add_claim(claim(if in_place { "Block" } else { "Filesystem" }));
        let made = self.world.target().unwrap().clone();
        self.world.disks.insert("old".to_owned(), false);
        self.world.old_disk = Some("old".to_owned());
        let policy = if in_place { "Retain" } else { DELETE };
        self.world.add_volume(provisioned(&made, "old", policy));
        while self.world.step(1) {}
    }

    /// One step; most are of the controllers.
    pub(super) fn step(&mut self, number: u64) {
        let (kind, rest) = (number % 16, number / 16);
        match kind {
            0..=6 => drop(self.world.step(rest)),
            7..=11 => self.control(rest),
            12 | 13 => drop(self.world.run_agent(self.outcome(rest))),
            14 => self.world.now += SignedDuration::from_secs(1),
            _ => self.disturb(rest),
        }
    }

    fn outcome(&self, number: u64) -> TransferState {
        let fails = self.faults.contains(&Fault::TransferFails);
        match number % 8 {
            0 if fails => TransferState::Failed,
            1 | 2 if fails => TransferState::Interrupted,
            3..=5 => TransferState::Running,
            _ => TransferState::Succeeded,
        }
    }

    fn disturb(&mut self, number: u64) {
        let index = usize::try_from(number % 16).unwrap();
        let Some(fault) = self.faults.get(index).copied() else {
            return;
        };
        self.world.log.push(format!("fault {fault:?}"));
        match fault {
            Fault::Cancel => {
                self.world.restore.spec.cancel = Some(true);
                self.world.restore_version += 1;
            }
            Fault::Delete => self.world.delete_restore(),
            Fault::ForeignClaim if self.world.target().is_none() => {
                let mut claim = claim("Filesystem");
                claim.metadata.labels = Some([("foreign".to_owned(), "yes".to_owned())].into());
                claim.spec.as_mut().unwrap().storage_class_name = Some("other".to_owned());
                let moment = self.world.now + SignedDuration::from_secs(1);
                claim.metadata.creation_timestamp = Some(Time(moment));
                self.world.add_claim(claim);
            }
            Fault::ClaimDeleted => self.delete_target(),
            Fault::Evicted => {
                if let Some(holder) = &mut self.world.holder {
                    holder.ending = true;
                }
            }
            Fault::AgentLost => self.world.agent = !self.world.agent,
            Fault::Late => self.world.now += SignedDuration::from_mins(31),
            Fault::Deaf => self.world.deaf = !self.world.deaf,
            Fault::Away => self.away(),
            Fault::PodUsesClaim => self.pod_uses_claim = !self.pod_uses_claim,
            Fault::NodeDies => {
                // One dies, once.
                let node = self
                    .world
                    .holder
                    .as_ref()
                    .and_then(|holder| holder.node.clone());
                self.world.dead_node = self.world.dead_node.take().or(node);
            }
            Fault::BaseGoes => self.world.base = false,
            Fault::Crash | Fault::TransferFails | Fault::ForeignClaim => {}
        }
        self.world.check();
    }

    /// No controller leads for hours.
    pub(super) fn away(&mut self) {
        (self.untaken, self.cleaning) = (None, None);
        self.world.now += SignedDuration::from_hours(2);
    }

    fn delete_target(&mut self) {
        let now = self.world.now;
        let target = self.world.claims.get_mut(&World::key(SHOP, CLAIM));
        let Some(target) = target.filter(|claim| claim.metadata.labels.is_none()) else {
            return;
        };
        target.metadata.deletion_timestamp = Some(Time(now));
        // From here its volume may go, as the user wants; only a volume that is no claim's yet may not.
        self.world.user_deleted_claim = true;
    }

    /// The same while the agent fills the volume.
    pub(super) fn until_filled(&mut self, there: impl Fn(&World) -> bool) {
        self.until(|world| world.open_attempt().is_some());
        for _ in 0..2 {
            self.world.run_agent(TransferState::Succeeded);
        }
        self.until(there);
    }

    /// Goes on undisturbed until it happens.
    pub(super) fn until(&mut self, there: impl Fn(&World) -> bool) {
        for _ in 0..600 {
            if there(&self.world) {
                return;
            }
            for which in 0..9 {
                self.world.step(which);
            }
            self.control(u64::MAX);
            let pause = if self.world.deaf { 30 } else { 1 };
            self.world.now += SignedDuration::from_secs(pause);
        }
        panic!("never\n{}", self.world.story());
    }

    /// Nobody disturbs any more: everything comes to rest.
    pub(super) fn settle(&mut self) {
        self.world.log.push("settles".to_owned());
        self.world.agent = true;
        self.world.deaf = false;
        self.rest();
    }

    /// The same with an agent that is as it is.
    pub(super) fn rest(&mut self) {
        self.pod_uses_claim = false;
        for round in 0..600 {
            for which in 0..9 {
                self.world.step(which);
            }
            self.world.run_agent(TransferState::Succeeded);
            self.control(u64::MAX);
            let waits = self.world.driver_gone
                || self.world.dead_node.is_some()
                || self.world.deaf
                || self.world.copies() && !self.world.base;
            self.world.now += SignedDuration::from_secs(if waits { 30 } else { 1 });
            if round > 300 && self.removed {
                break;
            }
        }
    }

    /// One pass of Snaphaul's controller.
    fn control(&mut self, number: u64) {
        if self.removed {
            return;
        }
        let settled = number == u64::MAX;
        let mut dice = number;
        let mut roll = |sides: u64| {
            let face = dice % sides;
            dice /= sides;
            if settled { sides } else { face }
        };
        let seen = self.observe(&mut roll);
        let version = self.world.restore_version;
        // Something else happens between reading and writing.
        for _ in 0..roll(3) % 3 {
            let which = roll(9);
            self.world.step(which);
        }
        let decision = next(&seen);
        let crash = self.faults.contains(&Fault::Crash) && roll(4) == 0;
        let survived = roll(4);
        if Some(&decision.status) != seen.restore.status.as_ref() {
            if self.world.restore_version != version {
                self.world.log.push("conflict".to_owned());
                return;
            }
            let known = self.world.restore.status.take();
            let mut status = decision.status;
            status.transfer = known.and_then(|known| known.transfer);
            self.world.restore.status = Some(status);
            self.world.restore_version += 1;
            self.world.log.push(format!(
                "status {:?}",
                self.world
                    .restore
                    .status
                    .as_ref()
                    .unwrap()
                    .volume
                    .as_ref()
                    .map(|known| known.step)
            ));
            self.world.check();
        }
        for (done, action) in decision.actions.into_iter().enumerate() {
            if crash && u64::try_from(done).unwrap() >= survived {
                self.world.log.push("crash".to_owned());
                return;
            }
            self.world.log.push(format!("act {}", short(&action)));
            if !self.act(action) {
                return;
            }
            self.world.check();
            let which = roll(9);
            if !settled {
                self.world.step(which);
            }
        }
    }

    /// One request to the API server. Whether it was granted.
    fn act(&mut self, action: Action) -> bool {
        let world = &mut self.world;
        match action {
            Action::AddFinalizer => {
                if world.restore.metadata.deletion_timestamp.is_some() {
                    return false;
                }
                world.restore.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
                world.restore_version += 1;
            }
            Action::RemoveFinalizer => {
                world.restore.metadata.finalizers = None;
                world.restore_version += 1;
                self.removed = true;
            }
            Action::CopySnapshot(_) => world.copy = true,
            Action::DropSnapshot => world.copy = false,
            Action::CreateClaim(claim) => world.add_claim(*claim),
            Action::DeleteClaim(id) => {
                let now = world.now;
                let claim = world.claims.get_mut(&World::key(&id.namespace, &id.name));
                let Some(claim) =
                    claim.filter(|claim| claim.metadata.uid.as_ref() == Some(&id.uid))
                else {
                    return false;
                };
                assert!(
                    claim
                        .metadata
                        .labels
                        .as_ref()
                        .is_none_or(|all| !all.contains_key("foreign"))
                );
                claim.metadata.deletion_timestamp.get_or_insert(Time(now));
            }
            Action::ExpandClaim(..) | Action::NamePoint(..) | Action::Event { .. } => {}
            Action::CreateHolder => self.create_holder(),
            Action::DeleteHolder { uid, force } => {
                let Some(holder) = world.holder.as_mut().filter(|holder| holder.uid == uid) else {
                    return false;
                };
                holder.ending = true;
                if force {
                    world.holder = None;
                }
            }
            Action::CreateVolume(volume) => world.add_volume(*volume),
            Action::DeleteVolume(id) => {
                let now = world.now;
                return self.change(&id, |volume| {
                    volume.metadata.deletion_timestamp.get_or_insert(Time(now));
                });
            }
            Action::SetReclaimPolicy(id, policy) => {
                return self.change(&id, |volume| {
                    volume
                        .spec
                        .as_mut()
                        .unwrap()
                        .persistent_volume_reclaim_policy = Some(policy);
                });
            }
            Action::SetClaimRef(id, owner) => return self.belong(&id, *owner, None),
            Action::KeepVolume(id, owner) => return self.belong(&id, *owner, Some(KEPT_OF)),
        }
        true
    }

    /// As the API server keeps it: an empty UID is none.
    fn belong(&mut self, id: &ObjectId, mut owner: ObjectReference, label: Option<&str>) -> bool {
        owner.uid = owner.uid.filter(|uid| !uid.is_empty());
        self.change(id, |volume| {
            let label = label.map(|key| (key.to_owned(), "u".to_owned()));
            volume.metadata.labels.get_or_insert_default().extend(label);
            volume.spec.as_mut().unwrap().claim_ref = Some(owner);
        })
    }

    fn create_holder(&mut self) {
        if self.world.holder.is_none() {
            let uid = format!("pod-{}", self.world.number());
            self.world.holder = Some(Holder {
                uid,
                ..Holder::default()
            });
        }
    }

    fn change(
        &mut self,
        id: &ObjectId,
        change: impl FnOnce(&mut k8s_openapi::api::core::v1::PersistentVolume),
    ) -> bool {
        let same = self.world.volumes.get(&id.name).is_some_and(|volume| {
            volume.metadata.uid.as_ref() == Some(&id.uid)
                && volume.metadata.resource_version.as_ref() == Some(&id.resource_version)
        });
        if same {
            self.world.change(&id.name, change);
        }
        same
    }
}

fn claim(mode: &str) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(CLAIM.to_owned()),
            namespace: Some(SHOP.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(target::request(Quantity(SIZE.to_string()))),
            storage_class_name: Some("fast".to_owned()),
            volume_mode: Some(mode.to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn record(mode: RestoreMode) -> PointRecord {
    let block = mode == RestoreMode::InPlace;
    PointRecord {
        id: "p".to_owned(),
        claim: RecordedClaim {
            size_bytes: SIZE,
            storage_class_name: Some("fast".to_owned()),
            volume_mode: Some(if block {
                VolumeMode::Block
            } else {
                VolumeMode::Filesystem
            }),
            access_modes: vec!["ReadWriteOnce".to_owned()],
            fs_type: Some("ext4".to_owned()),
            volume: Some("c/shop/data".to_owned()),
        },
        ..PointRecord::default()
    }
}

fn short(action: &Action) -> String {
    let text = format!("{action:?}");
    text.chars().take(90).collect()
}
