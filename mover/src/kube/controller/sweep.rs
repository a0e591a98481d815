//! The sweep: intermediates whose owner is gone or has ended, and bases that nobody needs.
//!
//! ```text
//!   pods ─► claims ─► volumes ─► snapshots ─► contents          of owners that do not exist, or have ended
//!   bases: too old, volume gone, repository gone
//! ```
//!
//! Owns: what finalizers cannot promise: objects that were left by a forced deletion or because nobody answered in time, and bases, which
//! belong to no backup. Must not: touch what has an owner at work, or anything without our labels.
//!
//! An owner is at work while the API server has it and it is in no final phase. That is asked anew for each object: a store may not know
//! a young owner yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};
use serde_json::json;

use super::apply::{self, Object};
use super::owner::{self, Owner};
use super::watches::Kind;
use super::working_copy::is_foreign;
use super::{Context, backup, removal, volumes};
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

    /// Whether the owner exists and has not ended; one of an unknown kind is at work.
    async fn has(&mut self, owner: &Owner) -> Result<bool> {
        if let Some(known) = self.known.get(&owner.uid) {
            return Ok(*known);
        }
        let client = self.context.client.clone();
        let (namespace, name) = (&owner.namespace, &owner.name);
        let found = match owner.kind.as_str() {
            "PodVolumeBackup" => {
                let api = Api::<PodVolumeBackup>::namespaced(client, namespace);
                let phase = |found: &PodVolumeBackup| found.status.as_ref()?.phase;
                read(&api, name)
                    .await?
                    .map(|found| (phase(&found), found.metadata.uid))
            }
            "PodVolumeRestore" => {
                let api = Api::<PodVolumeRestore>::namespaced(client, namespace);
                let phase = |found: &PodVolumeRestore| found.status.as_ref()?.phase;
                read(&api, name)
                    .await?
                    .map(|found| (phase(&found), found.metadata.uid))
            }
            _ => Some((None, Some(owner.uid.clone()))),
        };
        let lives = found.is_some_and(|(phase, uid)| {
            uid.as_deref() == Some(owner.uid.as_str()) && !phase.unwrap_or_default().is_terminal()
        });
        self.known.insert(owner.uid.clone(), lives);
        Ok(lives)
    }

    /// The same for whom only a UID is known: by what the watches saw, or by the labels of the object.
    async fn has_uid(&mut self, uid: &str, metadata: &ObjectMeta) -> Result<bool> {
        let seen = self.context.stores.keys_of(&[uid.to_owned()]);
        let seen = seen.into_iter().map(|key| Owner {
            kind: key.kind.as_str().to_owned(),
            namespace: key.namespace,
            name: key.name,
            uid: uid.to_owned(),
        });
        for owner in seen.chain(Owner::of(metadata)) {
            if self.has(&owner).await? {
                return Ok(true);
            }
        }
        // Without their definition nobody was seen: what has no label of its owner is left alone until it is there again.
        let unseen = self.context.stores.definitions.lacks(Kind::Restore);
        Ok(unseen && Owner::of(metadata).is_none())
    }
}

async fn read<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>> {
    api.get_opt(name)
        .await
        .map_err(|error| answer::failed("look for", name, error))
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
        let Some(uid) = made_for(&volume, &system) else {
            continue;
        };
        if is_young(&volume) || live.has_uid(uid, &volume.metadata).await? {
            continue;
        }
        left.insert(uid.to_owned());
        if is_second_name(&volume) {
            forget_name(live, &api, &volume).await?;
            continue;
        }
        let policy = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
        if policy.as_deref() != Some("Delete") {
            let change = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
            // Listed a while ago: a restore may have kept it for a person since.
            if apply::merge_seen(&api, &volume, &change).await? {
                live.context.telemetry.swept("PersistentVolume");
            }
        }
    }
    Ok(left)
}

/// The UID of the owner that a volume was made for, by the claim of ours that it names; nothing where it is somebody else's, or kept for a
/// person: in the namespace of Snaphaul, too, there may be claims of users.
fn made_for<'a>(volume: &'a PersistentVolume, system: &str) -> Option<&'a str> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let uid = owner::uid_of_name(claim.name.as_deref()?)?;
    let is_ours = is_second_name(volume) || !is_foreign(volume, None);
    let is_kept = volume.labels().contains_key(names::KEPT_OF);
    (claim.namespace.as_deref() == Some(system) && is_ours && !is_kept).then_some(uid)
}

/// Whether this is the object by which a restore reached a volume of the user: the storage is the user's. Only such carry the label of
/// a restore.
fn is_second_name(volume: &PersistentVolume) -> bool {
    let kind = volume.labels().get(names::OWNER_KIND);
    kind.is_some_and(|kind| kind == "PodVolumeRestore")
}

/// Takes a second name away once no claim of ours uses it. Its storage stays, as its policy says.
async fn forget_name(
    live: &Live<'_>,
    volumes: &Api<PersistentVolume>,
    volume: &PersistentVolume,
) -> Result<()> {
    let context = live.context;
    let policy = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let system = &context.settings.namespace;
    let claims = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), system);
    let used = read(&claims, &volume.name_any()).await?.is_some();
    if policy != Some("Retain") || used || volume.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let uid = volume.uid().unwrap_or_default();
    apply::delete(volumes, &volume.name_any(), &uid, None).await?;
    context.telemetry.swept("PersistentVolume");
    Ok(())
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
            apply::merge_seen(&contents, content, &change).await?;
        }
    }
    let all = Api::<VolumeSnapshot>::all(client.clone());
    for snapshot in list(&all, names::OWNER_UID).await? {
        // In a namespace of users, labels are of whoever may write there: only what we would have made is ours.
        let ours = |owner: &Owner| {
            let place = snapshot.metadata.namespace.as_ref();
            snapshot.metadata.name == Some(owner.object_name())
                && (place == Some(&owner.namespace)
                    || place == Some(&live.context.settings.namespace))
        };
        let Some(owner) = Owner::of(&snapshot.metadata).filter(ours) else {
            continue;
        };
        if left.contains(&owner.uid) || is_young(&snapshot) || live.has(&owner).await? {
            continue;
        }
        let namespace = snapshot.namespace().unwrap_or_default();
        let place = Api::<VolumeSnapshot>::namespaced(client.clone(), &namespace);
        let (name, uid) = (snapshot.name_any(), snapshot.uid().unwrap_or_default());
        let goes = snapshot.metadata.deletion_timestamp.is_some();
        if namespace == live.context.settings.namespace {
            removal::delete_copy(&place, &name, &uid).await?;
        } else if !goes {
            apply::delete(&place, &name, &uid, None).await?;
        }
        if !goes {
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
    // Whoever applies the definition again has the same repositories again.
    let undefined = context.stores.definitions.lacks(Kind::Repository);
    for base in &bases {
        let note = |key: &str| base.annotations().get(key).cloned().unwrap_or_default();
        let age = base.creation_timestamp().map_or(Duration::ZERO, |time| {
            backup::next::elapsed(time.0, Timestamp::now())
        });
        let why = if age >= context.settings.base_max_age {
            "too old"
        } else if !volumes.contains(&(base.spec.driver.clone(), note(names::BASE_VOLUME))) {
            "its volume is gone"
        } else if !undefined
            && context
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeSpec};

    use super::*;

    const UID: &str = "7b0e6c1e-2f6d-4f0e-9a58-5c1f1d2e3f40";

    fn volume(namespace: &str, claim: &str, label: Option<&str>) -> PersistentVolume {
        let mut volume = PersistentVolume {
            spec: Some(PersistentVolumeSpec {
                claim_ref: Some(ObjectReference {
                    namespace: Some(namespace.to_owned()),
                    name: Some(claim.to_owned()),
                    ..ObjectReference::default()
                }),
                ..PersistentVolumeSpec::default()
            }),
            ..PersistentVolume::default()
        };
        let label = label.map(|key| (key.to_owned(), UID.to_owned()));
        volume.metadata.labels = Some(label.into_iter().collect());
        volume
    }

    #[test]
    fn what_is_kept_for_a_person_is_nobodys_to_sweep() {
        let name = owner::object_name(UID);
        let made_for = |volume: &PersistentVolume| made_for(volume, "system").map(str::to_owned);
        let ours = volume("system", &name, Some(names::OWNER_UID));
        assert_eq!(made_for(&ours).as_deref(), Some(UID));
        assert_eq!(made_for(&volume("shop", &name, None)), None);
        assert_eq!(made_for(&volume("system", "data", None)), None);
        // A restore of a claim of the namespace of Snaphaul itself.
        let kept = volume("system", &name, Some(names::KEPT_OF));
        assert_eq!(made_for(&kept), None);
        let mut foreign = volume("system", &name, None);
        let annotation = (
            "pv.kubernetes.io/bound-by-controller".to_owned(),
            "yes".to_owned(),
        );
        foreign.metadata.annotations = Some([annotation].into());
        assert_eq!(made_for(&foreign), None);
    }
}
