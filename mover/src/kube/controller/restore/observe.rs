//! One look at everything that a restore depends on.
//!
//! Owns: the requests. Must not: change anything, other than asking for a slot, which can be repeated.
//!
//! What is decided by is read now and not taken from a watch: a store that is a moment old would create or delete twice.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use super::super::apply::Object;
use super::super::backup::base;
use super::super::nodes::Eligible;
use super::super::ordered::Ordered;
use super::super::slots::Slot as Place;
use super::super::working_copy::{Original, is_foreign};
use super::super::{Context, holder, nodes};
use super::lookup;
use super::names;
use super::observation::{Agent, Base, Holder, Observation, Settings, Slot};
use super::point::PointAnswer;
use super::{next, target, volume};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::answer;
use crate::kube::api::names::{BASE, BASE_POINT, BASE_REPOSITORY, BASE_VOLUME};
use crate::kube::api::restore::{RecordedClaim, RestoreMode};
use crate::kube::api::{Phase, PodVolumeRestore, PodVolumeRestoreStatus};
use crate::kube::foreign::snapshot::VolumeSnapshotContent;

/// Reads an object that may not be there.
pub(super) async fn read<K: Object>(api: Api<K>, name: &str) -> Result<Option<K>> {
    api.get_opt(name)
        .await
        .map_err(|error| answer::failed("read", &format!("{} {name}", K::kind(&())), error))
}

/// Looks at everything.
pub(super) async fn observe(context: &Context, restore: PodVolumeRestore) -> Result<Observation> {
    let status = restore.status.clone().unwrap_or_default();
    let namespace = restore.namespace().unwrap_or_default();
    let place = read::<Namespace>(Api::all(context.client.clone()), &namespace).await?;
    let mut seen = Observation {
        now: now()?,
        namespace_terminating: place
            .as_ref()
            .is_none_or(|place| place.metadata.deletion_timestamp.is_some()),
        point: PointAnswer::NotAsked,
        class: None,
        base: None,
        slot: Slot::Granted,
        working_claim: None,
        working_volume: None,
        foreign_volume: None,
        final_volume: None,
        attached_to: Vec::new(),
        holder: None,
        agent: Agent::default(),
        untaken: SignedDuration::ZERO,
        cleaning: SignedDuration::ZERO,
        reachable: true,
        cordoned: BTreeSet::new(),
        target: None,
        target_users: Vec::new(),
        target_attached_to: Vec::new(),
        target_volume: None,
        settings: settings(context),
        restore,
    };
    if status.phase.unwrap_or_default().is_terminal() {
        return Ok(seen);
    }
    target(context, &mut seen).await?;
    intermediates(context, &mut seen).await?;
    // Work is where its pod is; the status says where it was ordered last.
    let node = seen.holder.as_ref().and_then(|holder| holder.node.clone());
    seen.agent = agent(context, node.or_else(|| status.node.clone()).as_deref());
    witnessed(context, &status, &mut seen);
    attachments(context, &mut seen).await?;
    if status.recorded.is_none() && !seen.namespace_terminating {
        let labels = place
            .as_ref()
            .map(|place| (place.uid().unwrap_or_default(), place.labels()));
        let (uid, labels) = labels.unzip();
        let asking = lookup::Asking {
            namespace_uid: uid.unwrap_or_default(),
            labels: labels.cloned().unwrap_or_default(),
        };
        seen.point = lookup::point(context, &seen.restore, &asking).await?;
    }
    class(context, &mut seen).await?;
    let eligible = eligible(context, &seen);
    seen.reachable = !eligible.open.is_empty();
    seen.cordoned.clone_from(&eligible.cordoned);
    slot(context, &eligible.open, &mut seen);
    find_base(context, &mut seen).await?;
    Ok(seen)
}

/// The base that is the point. Ids of points are chosen by whoever writes a repository, so that the id alone proves nothing: it must
/// be the base that this controller keeps for the repository that is restored from.
async fn find_base(context: &Context, seen: &mut Observation) -> Result<()> {
    let status = seen.restore.status.as_ref();
    let point = status.and_then(|status| status.point.clone());
    let Some(point) = point.filter(|_| seen.slot == Slot::Granted && next::wants_base(seen)) else {
        return Ok(());
    };
    let contents = Api::<VolumeSnapshotContent>::all(context.client.clone());
    let bases = contents
        .list(&ListParams::default().labels(BASE))
        .await
        .map_err(|error| answer::failed("list", "the base snapshots", error))?;
    let Some(repository) = lookup::repository(context, &seen.restore).await? else {
        return Ok(());
    };
    let found = bases.into_iter().find(|content| {
        content.metadata.deletion_timestamp.is_none()
            && content.annotations().get(BASE_POINT) == Some(&point.id)
            && is_kept_for(content, &repository, &context.settings.namespace)
    });
    seen.base = found.and_then(|content| {
        let size = content
            .status
            .as_ref()
            .and_then(|status| status.restore_size);
        Some(Base {
            original: Original::of(&content)?,
            restore_size: size.and_then(|size| u64::try_from(size).ok()),
        })
    });
    Ok(())
}

/// Whether a content is the base of its volume in this repository, under the name that only the controller gives.
fn is_kept_for(content: &VolumeSnapshotContent, repository: &str, system: &str) -> bool {
    let note = |key| content.annotations().get(key).map(String::as_str);
    let name = note(BASE_VOLUME).map(|volume| base::name(&content.spec.driver, volume, repository));
    note(BASE_REPOSITORY) == Some(repository)
        && name == content.metadata.name
        && content.spec.volume_snapshot_ref.namespace == system
}

fn now() -> Result<Timestamp> {
    Timestamp::from_second(Timestamp::now().as_second())
        .map_err(|error| Error::new(ErrorKind::Internal, "read the clock").source(error))
}

fn settings(context: &Context) -> Settings {
    let deadlines = &context.settings.deadlines;
    let signed = |limit| SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
    Settings {
        system_namespace: context.settings.namespace.clone(),
        expose_deadline: signed(deadlines.expose),
        progress_deadline: signed(deadlines.no_progress),
        bind_deadline: signed(deadlines.expose),
        agent_deadline: signed(deadlines.agent_lost),
        stop_deadline: signed(deadlines.stop),
        clean_deadline: signed(deadlines.clean),
        ..Settings::default()
    }
}

fn agent(context: &Context, node: Option<&str>) -> Agent {
    match node.and_then(|node| context.stores.agent_lost_for(node)) {
        Some(_) => Agent::Gone,
        None => Agent::Ready,
    }
}

/// What is a matter of time, of which only what this process saw counts.
fn witnessed(context: &Context, status: &PodVolumeRestoreStatus, seen: &mut Observation) {
    let uid = seen.restore.uid().unwrap_or_default();
    let lasts = |what: &str, holds| {
        let time = context.witness.lasts(what, holds);
        SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
    };
    let ended = next::gives_up(&seen.restore);
    seen.cleaning = lasts(&format!("{uid} is taken back"), ended);
    let Some(order) = &status.order else {
        return;
    };
    let open = Ordered::of(&status.order, &status.transfer, status.node.as_deref());
    let idle = open
        .filter(|_| seen.agent == Agent::Ready && !ended)
        .is_some_and(|open| open.answer.is_none() && !context.stores.moves_data(open.node));
    seen.untaken = lasts(&format!("{uid} is not taken: {}", order.attempt), idle);
}

async fn target(context: &Context, seen: &mut Observation) -> Result<()> {
    let client = &context.client;
    let namespace = seen.restore.namespace().unwrap_or_default();
    let name = seen.restore.spec.target.name.clone();
    seen.target = read(Api::namespaced(client.clone(), &namespace), &name).await?;
    if seen.restore.spec.mode == RestoreMode::NewClaim {
        return Ok(());
    }
    let named = seen
        .target
        .as_ref()
        .and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
    if let Some(volume) = named {
        let volume: Option<PersistentVolume> = read(Api::all(client.clone()), &volume).await?;
        // A claim can name any volume: what it may write over is what the volume, too, says to be its own.
        let bound = |volume: &PersistentVolume| {
            let claim = seen.target.as_ref();
            claim.is_some_and(|claim| volume::is_bound(volume, claim))
        };
        seen.target_volume = volume.filter(bound);
    }
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let pods = pods
        .list(&ListParams::default())
        .await
        .map_err(|error| answer::failed("list the pods of", &namespace, error))?;
    seen.target_users = pods
        .iter()
        .filter(|pod| uses(pod, &name))
        .map(|pod| format!("pod {}", pod.name_any()))
        .collect();
    let restores = Api::<PodVolumeRestore>::namespaced(client.clone(), &namespace);
    let restores = restores
        .list(&ListParams::default())
        .await
        .map_err(|error| answer::failed("list the restores of", &namespace, error))?;
    let older = restores
        .iter()
        .filter(|other| writes_before(other, &seen.restore));
    let older = older.map(|other| format!("PodVolumeRestore {}", other.name_any()));
    seen.target_users.extend(older);
    Ok(())
}

/// Whether another restore has the claim of this one: of two that write into one volume, or take it away, the older goes first.
fn writes_before(other: &PodVolumeRestore, this: &PodVolumeRestore) -> bool {
    let order = |restore: &PodVolumeRestore| {
        let created = restore.metadata.creation_timestamp.as_ref();
        (created.map(|time| time.0), restore.metadata.uid.clone())
    };
    let phase = other.status.as_ref().and_then(|status| status.phase);
    other.spec.mode != RestoreMode::NewClaim
        && other.spec.target.name == this.spec.target.name
        && other.metadata.uid != this.metadata.uid
        && !phase.is_some_and(Phase::is_terminal)
        && order(other) < order(this)
}

/// Whether a pod that has not ended names the claim, also as the claim of an ephemeral volume.
fn uses(pod: &Pod, claim: &str) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().any(|volume| {
        let named = volume.persistent_volume_claim.as_ref();
        named.is_some_and(|named| named.claim_name == claim)
            || (volume.ephemeral.is_some()
                && format!("{}-{}", pod.name_any(), volume.name) == claim)
    })
}

async fn intermediates(context: &Context, seen: &mut Observation) -> Result<()> {
    let (client, system) = (&context.client, &context.settings.namespace);
    let name = names::intermediate(&seen.restore);
    seen.working_claim = read(Api::namespaced(client.clone(), system), &name).await?;
    let pod: Option<Pod> = read(Api::namespaced(client.clone(), system), &name).await?;
    seen.holder = pod.as_ref().map(|pod| Holder {
        uid: pod.uid().unwrap_or_default(),
        node: nodes::node_of(pod).map(str::to_owned),
        ready: nodes::is_ready(pod),
        ending: pod.metadata.deletion_timestamp.is_some(),
        trouble: holder::complaint(pod),
    });
    if let Some(node) = seen.holder.as_ref().and_then(|holder| holder.node.as_ref()) {
        let uid = seen.restore.uid().unwrap_or_default();
        if context.slots.settle(&uid, node) {
            context.wake_waiting();
        }
    }
    let volumes = Api::<PersistentVolume>::all(client.clone());
    seen.final_volume = read(volumes.clone(), &name).await?;
    let working = working_volume(&volumes, seen, &name).await?;
    // One that the status names was taken for ours before; a second name of the user's volume is bound like a foreign one.
    let is_new = seen
        .restore
        .status
        .as_ref()
        .is_none_or(|status| status.volume.is_none());
    let may_be_foreign = is_new && seen.restore.spec.mode != RestoreMode::InPlace;
    match working {
        Some(found) if may_be_foreign && is_foreign(&found, seen.working_claim.as_ref()) => {
            seen.foreign_volume = Some(found);
        }
        found => seen.working_volume = found,
    }
    Ok(())
}

/// By the status, by the claim, or, where a provisioner was faster than both, by the volume's own words.
async fn working_volume(
    volumes: &Api<PersistentVolume>,
    seen: &Observation,
    name: &str,
) -> Result<Option<PersistentVolume>> {
    let status = seen.restore.status.as_ref();
    let known = status
        .and_then(|status| status.volume.as_ref())
        .map(|volume| volume.name.clone());
    let named = |claim: &PersistentVolumeClaim| claim.spec.as_ref()?.volume_name.clone();
    if let Some(volume) = known.or_else(|| seen.working_claim.as_ref().and_then(named)) {
        return read(volumes.clone(), &volume).await;
    }
    if !next::gives_up(&seen.restore) {
        return Ok(None);
    }
    let all = volumes
        .list(&ListParams::default())
        .await
        .map_err(|error| answer::failed("list", "PersistentVolumes", error))?;
    Ok(all.into_iter().find(|volume| {
        let owner = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        owner.is_some_and(|owner| {
            owner.name.as_deref() == Some(name)
                && owner.namespace.as_ref() == Some(&seen.settings.system_namespace)
        })
    }))
}

async fn attachments(context: &Context, seen: &mut Observation) -> Result<()> {
    if !next::wants_attachments(&seen.restore) {
        return Ok(());
    }
    let all = Api::<VolumeAttachment>::all(context.client.clone())
        .list(&ListParams::default())
        .await
        .map_err(|error| answer::failed("list", "VolumeAttachments", error))?;
    let nodes_of = |volume: Option<&PersistentVolume>| -> Vec<String> {
        let name = volume.and_then(|volume| volume.metadata.name.as_ref());
        let naming = all
            .iter()
            .filter(|attachment| attachment.spec.source.persistent_volume_name.as_ref() == name);
        match name {
            Some(_) => naming
                .map(|attachment| attachment.spec.node_name.clone())
                .collect(),
            None => Vec::new(),
        }
    };
    let mut attached_to = nodes_of(seen.working_volume.as_ref());
    attached_to.extend(nodes_of(seen.final_volume.as_ref()));
    attached_to.dedup();
    seen.attached_to = attached_to;
    seen.target_attached_to = nodes_of(seen.target_volume.as_ref());
    Ok(())
}

async fn class(context: &Context, seen: &mut Observation) -> Result<()> {
    let known = seen.restore.status.as_ref();
    let known = known.and_then(|status| status.recorded.clone());
    let recorded: RecordedClaim = match (&seen.point, known) {
        (PointAnswer::Found(point), _) => next::effective(seen, &point.claim),
        (_, Some(recorded)) if seen.working_claim.is_none() || next::copies(&seen.restore) => {
            recorded
        }
        _ => return Ok(()),
    };
    if let Some(name) = target::class_name(&seen.restore, &recorded) {
        let classes = Api::<StorageClass>::all(context.client.clone());
        seen.class = read(classes, name).await?;
    }
    Ok(())
}

/// Asks for a place where the next step makes something.
fn slot(context: &Context, open: &BTreeSet<String>, seen: &mut Observation) {
    let uid = seen.restore.uid().unwrap_or_default();
    if !next::wants_slot(seen) {
        // Who waits for something else must not hold a place in the queue of those that could begin.
        if context.slots.withdraw(&uid) {
            context.wake_waiting();
        }
        return;
    }
    let created = seen.restore.metadata.creation_timestamp.as_ref();
    let created = created.map_or(0, |time| time.0.as_second());
    seen.slot = match context.slots.request(&uid, created, open) {
        Place::Waiting { ahead } => Slot::Waiting(ahead),
        Place::NoNode => Slot::NoNode,
        Place::NotAsked | Place::Granted(_) => Slot::Granted,
    };
}

/// Nodes whose agent can reach the volume.
pub(super) fn eligible(context: &Context, seen: &Observation) -> Eligible {
    let volume = seen.working_volume.as_ref().or(seen.target_volume.as_ref());
    let affinity = volume.and_then(|volume| volume.spec.as_ref()?.node_affinity.as_ref());
    // The old volume of a claim that is replaced says nothing about the new one.
    let affinity = affinity.filter(|_| {
        seen.working_volume.is_some() || seen.restore.spec.mode == RestoreMode::InPlace
    });
    context
        .stores
        .nodes()
        .eligible(&context.stores.agents(), affinity)
}
