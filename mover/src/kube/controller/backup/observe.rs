//! One look at everything that a backup depends on.
//!
//! Owns: the requests, and turning objects into views. Must not: change anything, other than asking for a slot, which can be repeated.
//!
//! What is decided by is read now and not taken from a watch: a store that is a moment old would make a snapshot twice or delete too late.

use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};

use super::view::{
    ClaimView, ContentView, ForeignVolume, HolderView, Observed, RepositoryView, SnapshotView,
    VolumeView,
};
use super::{base, next, source};
use crate::error::Result;
use crate::kube::answer;
use crate::kube::api::conditions::{self as kinds};
use crate::kube::api::{Phase, PodVolumeBackup, names};
use crate::kube::controller::apply::Object;
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::ordered::Ordered;
use crate::kube::controller::owner::{self, Owner};
use crate::kube::controller::slots::Slot;
use crate::kube::controller::working_copy::{ChangeId, Original, is_foreign};
use crate::kube::controller::{Context, holder, nodes, quantity, sync};
use crate::kube::foreign::snapshot::{SnapshotDeletion, VolumeSnapshot, VolumeSnapshotContent};

/// Reads an object that may not be there.
pub(super) async fn read<K: Object>(api: Api<K>, name: &str) -> Result<Option<K>> {
    api.get_opt(name)
        .await
        .map_err(|error| answer::failed("read", &format!("{} {name}", K::kind(&())), error))
}

/// Looks at everything.
pub(super) async fn observe(context: &Context, backup: &PodVolumeBackup) -> Result<Observed> {
    let mut seen = Observed::default();
    let status = backup.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let namespace = backup.namespace().unwrap_or_default();
    if phase == Phase::New && sync::is_synced(backup.meta()) {
        return Ok(seen);
    }
    if phase.is_terminal() && backup.meta().deletion_timestamp.is_none() {
        return Ok(seen);
    }
    let place = read::<Namespace>(Api::all(context.client.clone()), &namespace).await?;
    seen.repository = repository(context, backup, place.as_ref());
    if backup.meta().deletion_timestamp.is_some() {
        seen.going_away = is_going(place.as_ref()) || definition_goes(context).await;
    }
    if phase.is_terminal() {
        return Ok(seen);
    }
    snapshots(context, backup, &mut seen).await?;
    copies(context, backup, &mut seen).await?;
    let source = source::find(context, backup, &seen, place.as_ref()).await?;
    seen.source = source.view;
    if let Some((driver, handle)) = &source.volume {
        bases(context, backup, (driver, handle), &mut seen).await?;
    }
    let node = status
        .node
        .clone()
        .or_else(|| seen.holder.as_ref()?.node.clone());
    seen.agent_lost = node.and_then(|node| context.stores.agent_lost_for(&node));
    witnessed(context, backup, &mut seen);
    if next::wants_slot(backup, &seen) {
        seen.slot = slot(context, backup, &seen);
    }
    Ok(seen)
}

/// What is a matter of time, of which only what this process saw counts.
fn witnessed(context: &Context, backup: &PodVolumeBackup, seen: &mut Observed) {
    let (uid, status) = (
        backup.uid().unwrap_or_default(),
        backup.status.clone().unwrap_or_default(),
    );
    let ended = next::verdict(&status).is_some();
    let cleaning = format!("{uid} is cleaned up");
    seen.cleaning = context.witness.lasts(&cleaning, ended);
    let Some(order) = &status.order else {
        return;
    };
    let open = Ordered::of(&status.order, &status.transfer, status.node.as_deref());
    let idle = open
        .filter(|_| seen.agent_lost.is_none() && !ended)
        .is_some_and(|open| open.answer.is_none() && !context.stores.moves_data(open.node));
    let untaken = format!("{uid} is not taken: {}", order.attempt);
    seen.untaken = context.witness.lasts(&untaken, idle);
}

fn slot(context: &Context, backup: &PodVolumeBackup, seen: &Observed) -> Slot {
    let super::view::SourceView::Found(source) = &seen.source else {
        return Slot::NotAsked;
    };
    let created = backup
        .meta()
        .creation_timestamp
        .as_ref()
        .map_or(0, |time| time.0.as_second());
    let uid = backup.uid().unwrap_or_default();
    context.slots.request(&uid, created, &source.nodes)
}

fn is_going(namespace: Option<&Namespace>) -> bool {
    namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some())
}

/// Whether the definition of the resource is being deleted; a controller that may not look takes it for staying.
async fn definition_goes(context: &Context) -> bool {
    let api = Api::<CustomResourceDefinition>::all(context.client.clone());
    match api.get_opt("podvolumebackups.snaphaul.dev").await {
        Ok(definition) => {
            definition.is_none_or(|definition| definition.metadata.deletion_timestamp.is_some())
        }
        Err(_) => false,
    }
}

fn repository(
    context: &Context,
    backup: &PodVolumeBackup,
    namespace: Option<&Namespace>,
) -> RepositoryView {
    let name = &backup.spec.repository_ref.name;
    let Some(repository) = context.stores.repository(name) else {
        return RepositoryView::Missing;
    };
    let labels = namespace.and_then(|namespace| namespace.metadata.labels.clone());
    let allowed = repository.spec.allowed_namespaces.as_ref();
    if !crate::kube::controller::repository::selects(allowed, &labels.unwrap_or_default()) {
        return RepositoryView::NotAllowed;
    }
    let status = repository.status.clone().unwrap_or_default();
    if conditions::is(&status.conditions, kinds::READY, Is::True) {
        return RepositoryView::Ready;
    }
    let why = conditions::find(&status.conditions, kinds::READY)
        .map_or("nobody has looked at it yet", |ready| {
            ready.message.as_str()
        });
    RepositoryView::NotReady(why.to_owned())
}

async fn snapshots(context: &Context, backup: &PodVolumeBackup, seen: &mut Observed) -> Result<()> {
    let (client, uid) = (&context.client, backup.uid().unwrap_or_default());
    let namespace = backup.namespace().unwrap_or_default();
    let users = backup.spec.source.volume_snapshot.as_ref();
    let name = users.map_or_else(|| owner::object_name(&uid), |named| named.name.clone());
    let snapshot: Option<VolumeSnapshot> =
        read(Api::namespaced(client.clone(), &namespace), &name).await?;
    let contents = Api::<VolumeSnapshotContent>::all(client.clone());
    let bound = snapshot.as_ref().and_then(|snapshot| {
        let named = snapshot
            .status
            .as_ref()?
            .bound_volume_snapshot_content_name
            .clone();
        // The name that the snapshot controller gives, before it says so.
        named.or_else(|| {
            users
                .is_none()
                .then(|| format!("snapcontent-{}", snapshot.uid().unwrap_or_default()))
        })
    });
    let mut content: Option<VolumeSnapshotContent> = match bound {
        Some(name) => read(contents.clone(), &name).await?,
        None => None,
    };
    // Whoever may write the status of a snapshot could name the content of another namespace there.
    content = content.filter(|content| {
        snapshot
            .as_ref()
            .is_some_and(|snapshot| belongs(content, snapshot))
    });
    if content.is_none() && users.is_none() {
        content = labelled(&contents, &uid).await?;
    }
    let annotation = change_id_annotation(context, content.as_ref());
    let annotation = annotation.as_deref();
    seen.snapshot = snapshot
        .as_ref()
        .map(|snapshot| snapshot_view(snapshot, &uid, annotation));
    seen.content = content.as_ref().map(|content| {
        let noted = seen
            .snapshot
            .as_ref()
            .and_then(|view| view.change_id.clone());
        let mut view = content_view(content, &uid, annotation);
        if let Some(original) = &mut view.original {
            // Whoever may write in the namespace may write on the snapshot; its content is the driver's.
            original.change_id = original.change_id.take().or(noted);
        }
        view
    });
    // Labels on the snapshot are of whoever may write in its namespace; those of its content are ours.
    if let (Some(snapshot), Some(content)) = (&mut seen.snapshot, &seen.content) {
        snapshot.ours |= users.is_none() && content.ours;
    }
    Ok(())
}

/// Where the driver of a content writes what it takes as a base.
fn change_id_annotation(
    context: &Context,
    content: Option<&VolumeSnapshotContent>,
) -> Option<String> {
    context.profile(&content?.spec.driver).change_id_annotation
}

/// Whether a content says of itself that it is of this snapshot.
pub(super) fn belongs(content: &VolumeSnapshotContent, snapshot: &VolumeSnapshot) -> bool {
    let named = &content.spec.volume_snapshot_ref;
    Some(&named.namespace) == snapshot.metadata.namespace.as_ref()
        && Some(&named.name) == snapshot.metadata.name.as_ref()
        && named.uid.is_some()
        && named.uid == snapshot.metadata.uid
}

/// The content of our snapshot when the snapshot is gone: by our label, and not the copy.
async fn labelled(
    contents: &Api<VolumeSnapshotContent>,
    uid: &str,
) -> Result<Option<VolumeSnapshotContent>> {
    let selector = owner::selector(uid);
    let list = contents
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|error| answer::failed("list the contents of snapshots", &selector, error))?;
    let copy = owner::object_name(uid);
    Ok(list.into_iter().find(|content| content.name_any() != copy))
}

async fn copies(context: &Context, backup: &PodVolumeBackup, seen: &mut Observed) -> Result<()> {
    let (client, system) = (&context.client, &context.settings.namespace);
    let uid = backup.uid().unwrap_or_default();
    let name = owner::object_name(&uid);
    let content: Option<VolumeSnapshotContent> = read(Api::all(client.clone()), &name).await?;
    let snapshot: Option<VolumeSnapshot> =
        read(Api::namespaced(client.clone(), system), &name).await?;
    let claim: Option<PersistentVolumeClaim> =
        read(Api::namespaced(client.clone(), system), &name).await?;
    let pod: Option<Pod> = read(Api::namespaced(client.clone(), system), &name).await?;
    let volume = volume(context, claim.as_ref(), &uid).await?;
    let is_ours = |volume: &PersistentVolume| owner::owner_uid(&volume.metadata) == Some(&uid);
    let (foreign, volume) = match volume {
        Some(found) if !is_ours(&found) && is_foreign(&found, claim.as_ref()) => {
            (Some(found), None)
        }
        found => (None, found),
    };
    seen.foreign = foreign.map(|volume| ForeignVolume {
        name: volume.name_any(),
        kept: reclaim_policy(&volume) == Some("Retain"),
    });
    let annotation = change_id_annotation(context, content.as_ref());
    let annotation = annotation.as_deref();
    seen.copy_content = content
        .as_ref()
        .map(|content| content_view(content, &uid, annotation));
    seen.copy_snapshot = snapshot
        .as_ref()
        .map(|snapshot| snapshot_view(snapshot, &uid, annotation));
    seen.claim = claim.as_ref().map(|claim| ClaimView {
        uid: claim.uid().unwrap_or_default(),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        bound: is_bound(claim),
    });
    seen.volume = volume.as_ref().map(|volume| VolumeView {
        name: volume.name_any(),
        secured: is_ours(volume) && reclaim_policy(volume) == Some("Delete"),
    });
    seen.holder = pod.as_ref().map(|pod| HolderView {
        uid: pod.uid().unwrap_or_default(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        node: nodes::node_of(pod).map(str::to_owned),
        ready: nodes::is_ready(pod),
        complaint: holder::complaint(pod),
    });
    Ok(())
}

fn reclaim_policy(volume: &PersistentVolume) -> Option<&str> {
    let spec = volume.spec.as_ref()?;
    spec.persistent_volume_reclaim_policy.as_deref()
}

/// The volume of the working copy: named by its claim, or by our label once the claim is gone.
async fn volume(
    context: &Context,
    claim: Option<&PersistentVolumeClaim>,
    uid: &str,
) -> Result<Option<PersistentVolume>> {
    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    let named = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return read(volumes, &name).await;
    }
    if claim.is_some() {
        return Ok(None);
    }
    let selector = owner::selector(uid);
    let list = volumes
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(|error| answer::failed("list the volumes", &selector, error))?;
    Ok(list.into_iter().next())
}

async fn bases(
    context: &Context,
    backup: &PodVolumeBackup,
    (driver, handle): (&str, &str),
    seen: &mut Observed,
) -> Result<()> {
    let name = base::name(driver, handle, &backup.spec.repository_ref.name);
    let content: Option<VolumeSnapshotContent> =
        read(Api::all(context.client.clone()), &name).await?;
    let snapshot: Option<VolumeSnapshot> = read(
        Api::namespaced(context.client.clone(), &context.settings.namespace),
        &name,
    )
    .await?;
    let ours = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(names::BASE))
    };
    let annotation = change_id_annotation(context, content.as_ref());
    let annotation = annotation.as_deref();
    seen.base_content = content
        .as_ref()
        .filter(|content| ours(&content.metadata))
        .map(|content| content_view(content, "", annotation));
    seen.base_snapshot = snapshot
        .as_ref()
        .filter(|snapshot| ours(&snapshot.metadata))
        .map(|snapshot| snapshot_view(snapshot, "", annotation));
    Ok(())
}

/// Whether a claim has a volume.
pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some("Bound")
}

fn snapshot_view(snapshot: &VolumeSnapshot, uid: &str, annotation: Option<&str>) -> SnapshotView {
    let status = snapshot.status.clone().unwrap_or_default();
    SnapshotView {
        name: snapshot.name_any(),
        uid: snapshot.uid().unwrap_or_default(),
        ours: Owner::of(&snapshot.metadata).is_some_and(|owner| owner.uid == uid),
        deleting: snapshot.metadata.deletion_timestamp.is_some(),
        ready: status.ready_to_use == Some(true)
            && status.bound_volume_snapshot_content_name.is_some(),
        error: status.error.and_then(|error| error.message),
        created: status.creation_time.map(|time| time.0),
        restore_size: status.restore_size.as_ref().and_then(quantity::bytes),
        change_id: ChangeId::among(annotation, snapshot.metadata.annotations.as_ref()),
    }
}

fn content_view(
    content: &VolumeSnapshotContent,
    uid: &str,
    annotation: Option<&str>,
) -> ContentView {
    let annotations = content.metadata.annotations.as_ref();
    let size = content
        .status
        .as_ref()
        .and_then(|status| status.restore_size);
    ContentView {
        name: content.name_any(),
        uid: content.uid().unwrap_or_default(),
        ours: owner::owner_uid(&content.metadata) == Some(uid),
        deleting: content.metadata.deletion_timestamp.is_some(),
        policy: match content.spec.deletion_policy {
            SnapshotDeletion::Delete => SnapshotDeletion::Delete,
            SnapshotDeletion::Retain => SnapshotDeletion::Retain,
        },
        original: Original::of(content).map(|original| Original {
            change_id: ChangeId::among(annotation, annotations),
            ..original
        }),
        volume_handle: content.spec.source.volume_handle.clone(),
        restore_size: size
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size > 0),
    }
}
