//! The simulated cluster: controllers of others, scheduler, kubelet and agent, each a rule about one object.
//!
//! Owns: the rules, and what must hold at every moment. Must not: be gentler than Kubernetes: an object with dependants stays until they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use crate::attach::csi::profile::Profile;
use crate::kube::api::backup::{
    BackupSource, BaseSnapshotPolicy, DeletionPolicy, PodVolumeBackupSpec, PointStatus,
};
use crate::kube::api::transfer::{TransferState, TransferStatus};
use crate::kube::api::{NameRef, Phase, PodVolumeBackup, PodVolumeBackupStatus, names};
use crate::kube::controller::backup::action::{Action, Object};
use crate::kube::controller::backup::base;
use crate::kube::controller::backup::next::{self, Verdict};
use crate::kube::controller::backup::view::*;
use crate::kube::controller::recorded::Recorded;
use crate::kube::controller::settings::Deadlines;
use crate::kube::controller::slots::Slot;
use crate::kube::controller::working_copy::{ChangeId, Original};
use crate::kube::foreign::snapshot::SnapshotDeletion;

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
    UserCancels,
    UserDeletes,
    SnapshotDeletedByUser,
    DriverNotes,
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
    binder_prefers_others: bool,
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
            binder_prefers_others: false,
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
        for _ in 0..400 {
            self.happen(Event::Look, 0);
            for rule in 0..=u8::MAX {
                if rule < RULES {
                    self.happen(Event::Progress, rule);
                }
            }
            if self.agent_frozen {
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
        for _ in 0..5 {
            self.happen(Event::Look, 0);
        }
    }

    fn look(&mut self) {
        let Some(backup) = self.backup.clone() else {
            return;
        };
        let mut seen = self.seen.clone();
        let nodes = BTreeSet::from(["n1".to_owned()]);
        if let SourceView::Found(source) = &mut seen.source {
            source.nodes.clone_from(&nodes);
        }
        seen.agent_lost = (!self.agent_up).then_some(Duration::from_secs(120));
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

    /// What a new order says, and what the agent finds at that moment.
    fn ordered(&self, before: &PodVolumeBackupStatus, after: &PodVolumeBackupStatus) {
        let Some(order) = after.order.as_ref().filter(|_| before.order.is_none()) else {
            return;
        };
        let profile = profile();
        assert_eq!(order.change_id_annotation, profile.change_id_annotation);
        assert_eq!(
            order.snapshot_metadata_service_name,
            profile.snapshot_metadata_service_name
        );
        assert_eq!(order.keeps_base, Some(true));
        let content = self.seen.content.as_ref();
        let noted = content.and_then(|content| content.original.as_ref()?.change_id.as_ref());
        let copy = self.seen.copy_snapshot.as_ref();
        let copied = copy.and_then(|copy| copy.change_id.as_ref());
        assert!(noted.is_none() || noted == copied, "{noted:?} {copied:?}");
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

    fn act(&mut self, action: &Action) {
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

    /// One rule of the cluster.
    fn progress(&mut self, luck: u8) {
        match luck % RULES {
            0 => self.snapshot_controller(),
            1 => {
                if let (Some(copy), Some(_)) =
                    (&mut self.seen.copy_snapshot, &self.seen.copy_content)
                {
                    copy.ready = true;
                }
            }
            2 => self.provisioner(),
            3 => {
                if let Some(holder) = self.seen.holder.as_mut().filter(|holder| !holder.deleting) {
                    holder.node = Some("n1".to_owned());
                    holder.ready = self.seen.claim.as_ref().is_some_and(|claim| claim.bound);
                }
            }
            4 if !self.agent_frozen => self.answer(TransferState::Running),
            5 if !self.agent_frozen => self.agent_works(),
            6 => self.seen.holder = self.seen.holder.take().filter(|holder| !holder.deleting),
            7 => {
                // The claim is protected while a pod uses it; the volume goes after it, if it may.
                if self.seen.holder.is_none() {
                    let goes = self.seen.claim.as_ref().is_some_and(|claim| claim.deleting);
                    if goes {
                        self.seen.claim = None;
                        let lost = self.seen.foreign.take().is_some_and(|found| !found.kept);
                        assert!(!lost, "a volume of somebody else went with our claim");
                        self.seen.volume = self.seen.volume.take().filter(|volume| !volume.secured);
                    }
                }
            }
            8 => Self::snapshot_goes(&mut self.seen.copy_snapshot, &mut self.seen.copy_content),
            9 => Self::snapshot_goes(&mut self.seen.snapshot, &mut self.seen.content),
            10 => Self::snapshot_goes(&mut self.seen.base_snapshot, &mut self.seen.base_content),
            _ => self.contents_go(),
        }
    }

    fn snapshot_controller(&mut self) {
        if self.shape.user_snapshot {
            return;
        }
        let Some(snapshot) = self
            .seen
            .snapshot
            .as_mut()
            .filter(|snapshot| !snapshot.deleting)
        else {
            return;
        };
        if self.seen.content.is_none() {
            let policy = if self.shape.class_retains {
                SnapshotDeletion::Retain
            } else {
                SnapshotDeletion::Delete
            };
            self.seen.content = Some(content("snapcontent-1", "o0", "s-new", policy));
            self.backend.insert("s-new".to_owned());
        } else {
            snapshot.ready = true;
        }
    }

    fn provisioner(&mut self) {
        let Some(claim) = self.seen.claim.as_mut().filter(|claim| !claim.deleting) else {
            return;
        };
        if !claim.bound && self.seen.holder.is_some() {
            claim.bound = true;
            if self.binder_prefers_others {
                self.seen.foreign = Some(ForeignVolume {
                    name: "theirs".to_owned(),
                    kept: false,
                });
            } else {
                self.seen.volume = Some(VolumeView {
                    name: "pv".to_owned(),
                    secured: false,
                });
            }
        }
    }

    fn answer(&mut self, state: TransferState) {
        let up = self.agent_up;
        let Some(status) = self
            .backup
            .as_mut()
            .and_then(|backup| backup.status.as_mut())
        else {
            return;
        };
        let Some(order) = status.order.clone().filter(|_| up) else {
            return;
        };
        let known = status
            .transfer
            .as_ref()
            .filter(|known| known.attempt == order.attempt);
        if known.is_some_and(|known| known.state != TransferState::Running)
            || status.phase.unwrap_or_default().is_terminal()
            || (order.stop.is_some() && known.is_none() && state != TransferState::Stopped)
        {
            return;
        }
        status.transfer = Some(TransferStatus {
            attempt: order.attempt,
            state,
            last_progress: Some(self.now.to_string()),
            ..TransferStatus::default()
        });
        if state == TransferState::Succeeded {
            status.point = Some(PointStatus {
                id: "p".to_owned(),
                repository_id: "r".to_owned(),
            });
        }
    }

    fn agent_works(&mut self) {
        let stop = self
            .backup
            .as_ref()
            .and_then(|backup| backup.status.as_ref()?.order.as_ref()?.stop.clone());
        let open = self.seen.holder.as_ref().is_some_and(|holder| holder.ready);
        self.answer(match (stop, open) {
            (Some(_), _) => TransferState::Stopped,
            (None, true) => TransferState::Succeeded,
            (None, false) => TransferState::Interrupted,
        });
    }

    fn snapshot_goes(snapshot: &mut Option<SnapshotView>, content: &mut Option<ContentView>) {
        if snapshot.as_ref().is_some_and(|snapshot| snapshot.deleting) {
            *snapshot = None;
            if let Some(content) = content.as_mut() {
                content.deleting |= content.policy == SnapshotDeletion::Delete;
            }
        }
    }

    fn contents_go(&mut self) {
        let with = [
            (&mut self.seen.content, self.seen.snapshot.is_some()),
            (
                &mut self.seen.copy_content,
                self.seen.copy_snapshot.is_some(),
            ),
            (
                &mut self.seen.base_content,
                self.seen.base_snapshot.is_some(),
            ),
        ];
        for (content, has_snapshot) in with {
            let goes = content
                .as_ref()
                .is_some_and(|content| content.deleting && !has_snapshot);
            if let Some(content) = content.take_if(|_| goes)
                && content.policy == SnapshotDeletion::Delete
            {
                let original = content.original.unwrap();
                self.backend.remove(&original.handle);
            }
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let contents = [
            &self.seen.content,
            &self.seen.copy_content,
            &self.seen.base_content,
        ];
        let mut deleters: BTreeMap<&str, u32> = BTreeMap::new();
        for content in contents.into_iter().flatten() {
            let handle = content
                .original
                .as_ref()
                .map_or("", |original| original.handle.as_str());
            if content.policy == SnapshotDeletion::Delete {
                *deleters.entry(handle).or_default() += 1;
            }
        }
        assert!(
            deleters.values().all(|count| *count <= 1),
            "two contents delete one handle"
        );
        for original in contents
            .into_iter()
            .flatten()
            .filter_map(|content| content.original.as_ref())
        {
            let own = change_id(&original.handle);
            assert!(
                original.change_id.as_ref().is_none_or(|id| *id == own),
                "the change id of another snapshot: {original:?}"
            );
        }
        if let Some(handle) = self.base_handle() {
            assert!(self.backend.contains(&handle), "the base lost its snapshot");
            if self.seen.content.as_ref().is_some_and(|content| {
                content
                    .original
                    .as_ref()
                    .is_some_and(|o| o.handle == handle)
                    && content.policy == SnapshotDeletion::Delete
            }) {
                panic!("the base would go with the content");
            }
        }
    }

    pub(super) fn assert_clean(&self) {
        assert!(self.seen.holder.is_none() && self.seen.claim.is_none());
        assert!(self.seen.volume.is_none() && self.seen.copy_snapshot.is_none());
        assert!(self.seen.copy_content.is_none() && !self.slot);
        if !self.shape.user_snapshot {
            assert!(self.seen.snapshot.is_none() && self.seen.content.is_none());
        }
        let mut expected: BTreeSet<String> = self.base_handle().into_iter().collect();
        if self.seen.content.is_some() {
            expected.insert("s-user".to_owned());
        }
        assert_eq!(self.backend, expected, "snapshots of the driver");
        if let Some(backup) = &self.backup {
            let status = backup.status.clone().unwrap_or_default();
            let owns = self.shape.deletion == DeletionPolicy::Delete
                && status.phase == Some(Phase::Completed);
            let has = backup
                .metadata
                .finalizers
                .as_ref()
                .is_some_and(|all| !all.is_empty());
            assert_eq!(has, owns, "finalizer");
            assert!(status.message.is_some(), "every end says why");
        }
        if self.forgotten {
            assert_eq!(self.shape.deletion, DeletionPolicy::Delete);
        }
    }
}

const RULES: u8 = 12;
