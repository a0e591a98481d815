//! The sweep: intermediates whose owner is gone, and bases that nobody needs.
//!
//! ```text
//!   pods ─► claims ─► volumes ─► snapshots ─► contents          of owners that do not exist
//!   bases: too old, volume gone, repository gone
//! ```
//!
//! Owns: what finalizers cannot promise: objects that were left by a forced deletion, and bases, which belong to no backup. Must not: touch what
//! has a live owner, or anything without our labels.
//!
//! An owner is live while the API server has it. That is asked anew for each object: a store may not know a young owner yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};
use serde_json::json;

use super::apply::{self, Object};
use super::owner::{self, Owner};
use super::working_copy::is_foreign;
use super::{Context, backup, volumes};
use crate::error::Result;
use crate::kube::answer;
use crate::kube::api::{PodVolumeBackup, PodVolumeRestore, names};
use crate::kube::foreign::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

/// What is swept: a metric label.
pub const KINDS: [&str; 6] = [
    "Pod",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "VolumeSnapshot",
    "VolumeSnapshotContent",
    "base",
];
/// An object of this age has an owner that everybody can see.
const SETTLED: Duration = Duration::from_secs(30);

/// Sweeps at once, and then again and again.
pub async fn run(context: Arc<Context>) {
    loop {
        context.reload_profiles().await;
        if let Err(error) = once(&context).await {
            tracing::warn!(%error, "the sweep did not end");
        }
        tokio::time::sleep(context.settings.sweep_every).await;
    }
}

/// One sweep.
///
/// # Errors
/// What the API server answers; the rest is swept the next time.
pub async fn once(context: &Context) -> Result<()> {
    let mut live = Live::new(context);
    let system = &context.settings.namespace;
    let client = &context.client;
    let pods = Api::<Pod>::namespaced(client.clone(), system);
    let mut left = sweep(&mut live, &pods, "Pod", names::OWNER_UID).await?;
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), system);
    left.extend(persistent_volumes(&mut live).await?);
    left.extend(
        sweep(
            &mut live,
            &claims,
            "PersistentVolumeClaim",
            names::OWNER_UID,
        )
        .await?,
    );
    snapshots(&mut live, &left).await?;
    forget_waiting(context);
    bases(context).await?;
    context.telemetry.load(
        context.queue.depth(),
        context.slots.exposed(),
        context.slots.waiting().len(),
    );
    Ok(())
}

/// Places in the queue of objects that are gone.
fn forget_waiting(context: &Context) {
    for uid in context.slots.waiting() {
        if context
            .stores
            .keys_of(std::slice::from_ref(&uid))
            .is_empty()
            && context.slots.release(&uid)
        {
            context.wake_waiting();
        }
    }
}

/// Which owners exist.
struct Live<'a> {
    context: &'a Context,
    known: BTreeMap<String, bool>,
}

impl<'a> Live<'a> {
    fn new(context: &'a Context) -> Self {
        Self {
            context,
            known: BTreeMap::new(),
        }
    }

    /// Whether the owner exists; one of an unknown kind does.
    async fn has(&mut self, owner: &Owner) -> Result<bool> {
        if let Some(known) = self.known.get(&owner.uid) {
            return Ok(*known);
        }
        let client = self.context.client.clone();
        let found = match owner.kind.as_str() {
            "PodVolumeBackup" => {
                uid_of(
                    &Api::<PodVolumeBackup>::namespaced(client, &owner.namespace),
                    &owner.name,
                )
                .await?
            }
            "PodVolumeRestore" => {
                uid_of(
                    &Api::<PodVolumeRestore>::namespaced(client, &owner.namespace),
                    &owner.name,
                )
                .await?
            }
            _ => Some(owner.uid.clone()),
        };
        let lives = found.as_deref() == Some(owner.uid.as_str());
        self.known.insert(owner.uid.clone(), lives);
        Ok(lives)
    }
}

async fn uid_of<K: Object>(api: &Api<K>, name: &str) -> Result<Option<String>> {
    let found = api
        .get_metadata_opt(name)
        .await
        .map_err(|error| answer::failed("look for an owner", name, error))?;
    Ok(found.and_then(|object| object.metadata.uid))
}

async fn list<K: Object>(api: &Api<K>, label: &str) -> Result<Vec<K>> {
    let parameters = ListParams::default().labels(label);
    let list = api
        .list(&parameters)
        .await
        .map_err(|error| answer::failed("list", &K::kind(&()), error))?;
    Ok(list.items)
}

fn is_young(object: &impl Resource<DynamicType = ()>) -> bool {
    let created = object.meta().creation_timestamp.as_ref();
    created.is_some_and(|time| backup::next::elapsed(time.0, Timestamp::now()) < SETTLED)
}

/// Deletes what has no owner any more, and says of which owners something is still there.
async fn sweep<K: Object>(
    live: &mut Live<'_>,
    api: &Api<K>,
    kind: &'static str,
    label: &str,
) -> Result<BTreeSet<String>> {
    let mut left = BTreeSet::new();
    for object in list(api, label).await? {
        let Some(owner) = Owner::of(object.meta()) else {
            continue;
        };
        if is_young(&object) || live.has(&owner).await? {
            continue;
        }
        left.insert(owner.uid.clone());
        if object.meta().deletion_timestamp.is_none() {
            let uid = object.meta().uid.clone().unwrap_or_default();
            apply::delete(api, &object.name_any(), &uid, None).await?;
            live.context.telemetry.swept(kind);
            tracing::info!(kind, name = object.name_any(), owner = owner.uid, "swept");
        }
        live.context.slots.release(&owner.uid);
    }
    Ok(left)
}

/// Volumes of working copies: by our label, or by the claim that they were made for, in case nobody had time to label them.
async fn persistent_volumes(live: &mut Live<'_>) -> Result<BTreeSet<String>> {
    let system = live.context.settings.namespace.clone();
    let api = Api::<PersistentVolume>::all(live.context.client.clone());
    let mut left = BTreeSet::new();
    for volume in list(&api, "").await? {
        let claim = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        let claim = claim.filter(|claim| claim.namespace.as_deref() == Some(system.as_str()));
        let Some(uid) = claim.and_then(|claim| owner::uid_of_name(claim.name.as_deref()?)) else {
            continue;
        };
        let owners = live.context.stores.keys_of(&[uid.to_owned()]);
        if !owners.is_empty() || is_young(&volume) {
            continue;
        }
        if let Some(owner) = Owner::of(&volume.metadata)
            && live.has(&owner).await?
        {
            continue;
        }
        if is_foreign(&volume, None) {
            continue;
        }
        // A volume of a restore may be on its way to the user's claim: only what still belongs to a claim of ours goes with it.
        let policy = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
        let kept = volume
            .labels()
            .get(names::OWNER_KIND)
            .is_some_and(|kind| kind == "PodVolumeRestore");
        if policy.as_deref() != Some("Delete") && !kept {
            let change = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
            apply::merge(&api, &volume.name_any(), &change).await?;
            live.context.telemetry.swept("PersistentVolume");
        }
        left.insert(uid.to_owned());
    }
    Ok(left)
}

/// Snapshots and contents of owners of whom nothing else is left.
async fn snapshots(live: &mut Live<'_>, left: &BTreeSet<String>) -> Result<()> {
    let client = live.context.client.clone();
    let contents = Api::<VolumeSnapshotContent>::all(client.clone());
    let mut orphans = Vec::new();
    for content in list(&contents, names::OWNER_UID).await? {
        let Some(owner) = Owner::of(&content.metadata) else {
            continue;
        };
        if left.contains(&owner.uid) || is_young(&content) || live.has(&owner).await? {
            continue;
        }
        orphans.push((owner, content));
    }
    // The driver's snapshot goes with the content it was taken by; the copy's never deletes. A base may have taken it over.
    let based = based_handles(&contents).await?;
    for (owner, content) in &orphans {
        let is_copy = content.name_any() == owner.object_name();
        let handle = super::working_copy::Original::of(content).map(|original| original.handle);
        let is_base = handle.is_some_and(|handle| based.contains(&handle));
        if !is_copy && !is_base {
            let change = json!({"spec": {"deletionPolicy": "Delete"}});
            apply::merge(&contents, &content.name_any(), &change).await?;
        }
    }
    let all = Api::<VolumeSnapshot>::all(client.clone());
    for snapshot in list(&all, names::OWNER_UID).await? {
        let Some(owner) = Owner::of(&snapshot.metadata) else {
            continue;
        };
        if left.contains(&owner.uid) || is_young(&snapshot) || live.has(&owner).await? {
            continue;
        }
        if snapshot.metadata.deletion_timestamp.is_none() {
            let place = Api::<VolumeSnapshot>::namespaced(
                client.clone(),
                &snapshot.namespace().unwrap_or_default(),
            );
            let uid = snapshot.uid().unwrap_or_default();
            apply::delete(&place, &snapshot.name_any(), &uid, None).await?;
            live.context.telemetry.swept("VolumeSnapshot");
        }
    }
    for (_, content) in &orphans {
        if content.metadata.deletion_timestamp.is_none() {
            let uid = content.uid().unwrap_or_default();
            apply::delete(&contents, &content.name_any(), &uid, None).await?;
            live.context.telemetry.swept("VolumeSnapshotContent");
        }
    }
    Ok(())
}

async fn based_handles(contents: &Api<VolumeSnapshotContent>) -> Result<BTreeSet<String>> {
    Ok(list(contents, names::BASE)
        .await?
        .iter()
        .filter_map(super::working_copy::Original::of)
        .map(|original| original.handle)
        .collect())
}

/// The gauges of each volume, also of those that somebody else backed up before this process began.
fn gauges(context: &Context, bases: &[VolumeSnapshotContent], all: &[PersistentVolume]) {
    if !context.settings.per_volume_metrics {
        return;
    }
    let backups = context.stores.backups.state();
    let told = backups
        .iter()
        .filter_map(|backup| volumes::of_backup(backup));
    let before = context.telemetry.known_volumes();
    let known = volumes::known(told, bases, &volumes::claims(all), before);
    context.telemetry.volumes(known);
}

/// Bases that are too old, or whose volume or repository is gone.
async fn bases(context: &Context) -> Result<()> {
    let contents = Api::<VolumeSnapshotContent>::all(context.client.clone());
    let system = &context.settings.namespace;
    let snapshots = Api::<VolumeSnapshot>::namespaced(context.client.clone(), system);
    let bases = list(&contents, names::BASE).await?;
    context.telemetry.bases(bases.len());
    let volumes = list(&Api::<PersistentVolume>::all(context.client.clone()), "").await?;
    gauges(context, &bases, &volumes);
    let volumes: BTreeSet<(String, String)> = volumes
        .into_iter()
        .filter_map(|volume| volume.spec?.csi)
        .map(|csi| (csi.driver, csi.volume_handle))
        .collect();
    for base in &bases {
        let note = |key: &str| base.annotations().get(key).cloned().unwrap_or_default();
        let age = base.creation_timestamp().map_or(Duration::ZERO, |time| {
            backup::next::elapsed(time.0, Timestamp::now())
        });
        let why = if age >= context.settings.base_max_age {
            "too old"
        } else if !volumes.contains(&(base.spec.driver.clone(), note(names::BASE_VOLUME))) {
            "its volume is gone"
        } else if context
            .stores
            .repository(&note(names::BASE_REPOSITORY))
            .is_none()
        {
            "its repository is gone"
        } else {
            continue;
        };
        if is_young(base) {
            continue;
        }
        let name = base.name_any();
        tracing::info!(base = name, why, "a base snapshot is given up");
        let change = json!({"spec": {"deletionPolicy": "Delete"}});
        apply::merge(&contents, &name, &change).await?;
        let snapshot = snapshots
            .get_opt(&name)
            .await
            .map_err(|error| answer::failed("read a base snapshot", &name, error))?;
        match snapshot {
            Some(snapshot) => {
                let uid = snapshot.uid().unwrap_or_default();
                apply::delete(&snapshots, &name, &uid, None).await?;
            }
            None => {
                let uid = base.uid().unwrap_or_default();
                apply::delete(&contents, &name, &uid, None).await?;
            }
        }
        context.telemetry.swept("base");
    }
    Ok(())
}
