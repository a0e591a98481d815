//! The simulated cluster around one backup.
//!
//! Owns: its state, and how it begins, goes on and comes to rest. `hand` is our controller, `rules` are those of others, `checks` and `left` are what holds.

mod checks;
mod hand;
mod left;
mod rules;

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use crate::attach::csi::profile::Profile;
use crate::kube::api::backup::{
    BackupSource, BaseSnapshotPolicy, DeletionPolicy, PodVolumeBackupSpec,
};
use crate::kube::api::conditions::{self as kinds, Reason};
use crate::kube::api::transfer::TransferState;
use crate::kube::api::{NameRef, Phase, PodVolumeBackup, PodVolumeBackupStatus};
use crate::kube::controller::backup::base;
use crate::kube::controller::backup::view::*;
use crate::kube::controller::conditions;
use crate::kube::controller::recorded::Recorded;
use crate::kube::controller::working_copy::{ChangeId, Original};
use crate::kube::foreign::snapshot::SnapshotDeletion;
use rules::RULES;

const UID: &str = "7b0e6c1e-2f6d-4f0e-9a58-5c1f1d2e3f40";

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Look,
    Progress,
    Time,
    AgentFails,
    AgentInterrupted,
    AgentGone,
    AgentBack,
    HolderEvicted,
    DriverGone,
    UserCancels,
    UserDeletes,
    SnapshotDeletedByUser,
    DriverNotes,
    /// The agent is ready and hears of no order, or hears again.
    AgentDeaf,
    AgentHears,
    /// No controller leads for hours.
    Away,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub user_snapshot: bool,
    pub old_base: bool,
    pub class_retains: bool,
    pub base: BaseSnapshotPolicy,
    pub deletion: DeletionPolicy,
}

pub(super) struct World {
    shape: Shape,
    backup: Option<PodVolumeBackup>,
    now: Timestamp,
    seen: Observed,
    backend: BTreeSet<String>,
    slot: bool,
    agent_up: bool,
    agent_frozen: bool,
    agent_deaf: bool,
    /// Since when the controller saw the attempt not taken.
    untaken: Option<(i64, Timestamp)>,
    /// Since when it saw the cleaning.
    cleaning: Option<Timestamp>,
    binder_prefers_others: bool,
    /// The driver answers nothing any more: no snapshot and no volume comes or goes.
    driver_gone: bool,
    /// Nor can anything be unmounted.
    pods_stuck: bool,
    next_uid: u32,
    forgotten: bool,
}

/// The annotation that the driver of this world writes change ids on.
const CHANGE_ID: &str = "driver/change-id";

fn profile() -> Profile {
    Profile {
        change_id_annotation: Some(CHANGE_ID.to_owned()),
        snapshot_metadata_service_name: Some("service".to_owned()),
        ..Profile::default()
    }
}

/// What the driver writes on its snapshot.
fn change_id(handle: &str) -> ChangeId {
    ChangeId {
        annotation: CHANGE_ID.to_owned(),
        value: format!("change of {handle}"),
    }
}

fn original(handle: &str) -> Original {
    Original {
        driver: "d".to_owned(),
        handle: handle.to_owned(),
        ..Original::default()
    }
}

fn ready_snapshot(name: &str, uid: &str, ours: bool) -> SnapshotView {
    SnapshotView {
        name: name.to_owned(),
        uid: uid.to_owned(),
        ours,
        ready: true,
        ..SnapshotView::default()
    }
}

fn content(name: &str, uid: &str, handle: &str, policy: SnapshotDeletion) -> ContentView {
    ContentView {
        name: name.to_owned(),
        uid: uid.to_owned(),
        policy,
        original: Some(original(handle)),
        ..ContentView::default()
    }
}

fn backup_of(shape: Shape) -> PodVolumeBackup {
    let named = |name: &str| NameRef {
        name: name.to_owned(),
    };
    let spec = PodVolumeBackupSpec {
        source: BackupSource {
            persistent_volume_claim: (!shape.user_snapshot).then(|| named("c")),
            volume_snapshot: shape.user_snapshot.then(|| named("theirs")),
            pod: None,
        },
        repository_ref: named("r"),
        volume_snapshot_class_name: None,
        parent_policy: Default::default(),
        changed_blocks_policy: Default::default(),
        attach_strategy: Default::default(),
        base_snapshot_policy: shape.base,
        deletion_policy: shape.deletion,
        active_deadline_seconds: None,
        ttl_seconds_after_finished: None,
        cancel: None,
    };
    let mut backup = PodVolumeBackup::new("b", spec);
    backup.metadata = ObjectMeta {
        uid: Some(UID.to_owned()),
        namespace: Some("n".to_owned()),
        generation: Some(1),
        ..backup.metadata
    };
    backup
}

impl World {
    pub(super) fn new(shape: Shape) -> Self {
        let mut seen = Observed {
            repository: RepositoryView::Ready,
            source: SourceView::Found(Box::new(Source {
                recorded: Recorded {
                    claim: "c".to_owned(),
                    driver: "d".to_owned(),
                    volume_handle: "v".to_owned(),
                    size_bytes: 1 << 30,
                    ..Recorded::default()
                },
                clone_class: Some("sc".to_owned()),
                profile: profile(),
                volume: "k/n/c".to_owned(),
                ..Source::default()
            })),
            ..Observed::default()
        };
        let mut backend = BTreeSet::new();
        if shape.old_base {
            let name = base::name("d", "v", "r");
            seen.base_content = Some(content(&name, "b1", "s-old", SnapshotDeletion::Retain));
            seen.base_snapshot = Some(ready_snapshot(&name, "b2", false));
            backend.insert("s-old".to_owned());
        }
        if shape.user_snapshot {
            seen.snapshot = Some(ready_snapshot("theirs", "u1", false));
            seen.content = Some(content(
                "theirs-c",
                "u2",
                "s-user",
                SnapshotDeletion::Delete,
            ));
            backend.insert("s-user".to_owned());
        }
        Self {
            shape,
            backup: Some(backup_of(shape)),
            now: Timestamp::from_second(1_000_000).unwrap(),
            seen,
            backend,
            slot: false,
            agent_up: true,
            agent_frozen: false,
            agent_deaf: false,
            untaken: None,
            cleaning: None,
            binder_prefers_others: false,
            driver_gone: false,
            pods_stuck: false,
            next_uid: 0,
            forgotten: false,
        }
    }

    pub(super) fn status(&self) -> &PodVolumeBackupStatus {
        self.backup.as_ref().unwrap().status.as_ref().unwrap()
    }

    pub(super) fn phase(&self) -> Phase {
        let status = self
            .backup
            .as_ref()
            .and_then(|backup| backup.status.as_ref());
        status.and_then(|status| status.phase).unwrap_or_default()
    }

    pub(super) fn message(&self) -> Option<String> {
        self.backup.as_ref()?.status.as_ref()?.message.clone()
    }

    pub(super) fn gone(&self) -> bool {
        self.backup.is_none()
    }

    pub(super) fn has_order(&self) -> bool {
        self.order_attempt().is_some()
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.seen.content.is_some()
    }

    pub(super) fn has_copy(&self) -> bool {
        self.seen.copy_snapshot.is_some()
    }

    pub(super) fn has_backend(&self, handle: &str) -> bool {
        self.backend.contains(handle)
    }

    pub(super) fn base_handle(&self) -> Option<String> {
        Some(
            self.seen
                .base_content
                .as_ref()?
                .original
                .as_ref()?
                .handle
                .clone(),
        )
    }

    /// Whether the last attempt was given up.
    pub(super) fn is_given_up(&self) -> bool {
        let reason = conditions::reason(&self.status().conditions, kinds::DEVICE_READY);
        reason == Some(Reason::AgentLost)
    }

    pub(super) fn freeze_agent(&mut self) {
        self.agent_frozen = true;
    }

    /// The binding controller finds free volumes of others for our claims.
    pub(super) fn let_others_be_bound(&mut self) {
        self.binder_prefers_others = true;
    }

    /// The driver writes the change id on its snapshot, whenever it gets to that.
    fn note(&mut self) {
        let content = self.seen.content.as_mut();
        let original = content.and_then(|content| content.original.as_mut());
        if let (Some(original), Some(snapshot)) = (original, &mut self.seen.snapshot) {
            original.change_id = Some(change_id(&original.handle));
            snapshot.change_id.clone_from(&original.change_id);
        }
    }

    /// The change id of the base.
    pub(super) fn base_change_id(&self) -> Option<String> {
        let original = self.seen.base_content.as_ref()?.original.as_ref()?;
        Some(original.change_id.as_ref()?.value.clone())
    }

    /// The change id on the snapshot that the agent is pointed to.
    pub(super) fn copied_change_id(&self) -> Option<String> {
        let copy = self.seen.copy_snapshot.as_ref()?;
        Some(copy.change_id.as_ref()?.value.clone())
    }

    fn order_attempt(&self) -> Option<i64> {
        let status = self.backup.as_ref()?.status.as_ref()?;
        status.order.as_ref().map(|order| order.attempt)
    }

    fn uid(&mut self) -> String {
        self.next_uid += 1;
        format!("o{}", self.next_uid)
    }

    pub(super) fn happen(&mut self, event: Event, luck: u8) {
        self.now = self.now.checked_add(Duration::from_secs(1)).unwrap();
        match event {
            Event::Look => self.look(),
            Event::Progress => self.progress(luck),
            Event::Time => {
                let pause = Duration::from_secs(60 * u64::from(luck % 20));
                self.now = self.now.checked_add(pause).unwrap();
            }
            Event::AgentFails => self.answer(TransferState::Failed),
            Event::AgentInterrupted => self.answer(TransferState::Interrupted),
            Event::AgentGone => self.agent_up = false,
            Event::AgentBack => self.agent_up = true,
            Event::HolderEvicted => {
                if let Some(holder) = &mut self.seen.holder {
                    holder.deleting = true;
                    holder.ready = false;
                }
            }
            Event::DriverGone => {
                self.driver_gone = true;
                self.pods_stuck = luck % 2 == 1;
            }
            Event::UserCancels => {
                if let Some(backup) = &mut self.backup {
                    backup.spec.cancel = Some(true);
                }
            }
            Event::UserDeletes => {
                if let Some(backup) = &mut self.backup {
                    backup.metadata.deletion_timestamp = Some(Time(self.now));
                }
                self.remove_if_free();
            }
            Event::DriverNotes => self.note(),
            Event::AgentDeaf => self.agent_deaf = true,
            Event::AgentHears => self.agent_deaf = false,
            Event::Away => {
                (self.untaken, self.cleaning) = (None, None);
                let pause = Duration::from_hours(2);
                self.now = self.now.checked_add(pause).unwrap();
            }
            Event::SnapshotDeletedByUser => {
                if let Some(snapshot) = &mut self.seen.snapshot {
                    snapshot.deleting = true;
                }
            }
        }
        self.check();
    }

    /// Looks until it happens.
    pub(super) fn until(&mut self, there: impl Fn(&Self) -> bool) {
        for luck in 0..200 {
            if there(self) {
                return;
            }
            self.happen(Event::Look, 0);
            if there(self) {
                return;
            }
            self.happen(Event::Progress, luck);
        }
        panic!("never: {:?}", self.message());
    }

    /// From now on everybody answers.
    pub(super) fn settle(&mut self) {
        self.agent_up = true;
        self.agent_deaf = false;
        self.rest();
    }

    /// The same with an agent that is as it is.
    pub(super) fn rest(&mut self) {
        for _ in 0..400 {
            self.happen(Event::Look, 0);
            for rule in 0..RULES {
                self.happen(Event::Progress, rule);
            }
            if self.agent_frozen || self.driver_gone || self.agent_deaf {
                self.happen(Event::Time, 5);
            }
            let deleting = self
                .backup
                .as_ref()
                .is_none_or(|backup| backup.metadata.deletion_timestamp.is_some());
            if self.gone() || (self.phase().is_terminal() && !deleting) {
                break;
            }
        }
        for _ in 0..30 {
            self.happen(Event::Look, 0);
            self.sweep();
            for rule in 0..RULES {
                self.happen(Event::Progress, rule);
            }
        }
    }

    fn remove_if_free(&mut self) {
        let free = self.backup.as_ref().is_some_and(|backup| {
            backup.metadata.deletion_timestamp.is_some()
                && backup
                    .metadata
                    .finalizers
                    .as_ref()
                    .is_none_or(Vec::is_empty)
        });
        if free {
            self.backup = None;
            self.slot = false;
        }
    }
}
