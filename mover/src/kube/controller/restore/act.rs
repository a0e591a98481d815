//! Carries out what was decided about a restore.
//!
//! Owns: the requests. Must not: decide. Each can be repeated, and none happens to another object than the one that was observed.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions};
use serde_json::json;

use super::super::events::Note;
use super::super::holder::HoldMode;
use super::super::owner::Owner;
use super::super::working_copy::Original;
use super::super::{Context, apply, holder, removal, working_copy};
use super::decision::{Action, ObjectId};
use super::names;
use super::observation::Observation;
use super::observe;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::answer;
use crate::kube::api::PodVolumeRestore;
use crate::kube::api::names::{KEPT_OF, RESTORED_POINT};
use crate::kube::foreign::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

/// Takes one action.
pub(super) async fn act(context: &Context, seen: &Observation, action: Action) -> Result<()> {
    let client = &context.client;
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let claims =
        |namespace: &str| Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let restore = &seen.restore;
    match action {
        Action::AddFinalizer => finalizer(context, restore, true).await,
        Action::RemoveFinalizer => finalizer(context, restore, false).await,
        Action::CreateClaim(claim) => {
            let namespace = claim.namespace().unwrap_or_default();
            apply::ensure(&claims(&namespace), claim.as_ref())
                .await
                .map(drop)
        }
        Action::DeleteClaim(id) => {
            apply::delete(&claims(&id.namespace), &id.name, &id.uid, None).await
        }
        Action::ExpandClaim(id, storage) => {
            let change = json!({
                "metadata": {"uid": id.uid},
                "spec": {"resources": {"requests": {"storage": storage}}},
            });
            apply::merge(&claims(&id.namespace), &id.name, &change)
                .await
                .map(drop)
        }
        Action::NamePoint(id, point) => {
            let change =
                json!({"metadata": {"uid": id.uid, "annotations": {RESTORED_POINT: point}}});
            apply::merge(&claims(&id.namespace), &id.name, &change)
                .await
                .map(drop)
        }
        Action::CopySnapshot(original) => copy_snapshot(context, restore, &original).await,
        Action::DropSnapshot => drop_snapshot(context, restore).await,
        Action::CreateHolder => create_holder(context, seen).await,
        Action::DeleteHolder { uid, force } => {
            let pods = Api::<Pod>::namespaced(client.clone(), &context.settings.namespace);
            let name = names::intermediate(restore);
            apply::delete(&pods, &name, &uid, force.then_some(0)).await
        }
        Action::CreateVolume(volume) => apply::ensure(&volumes, volume.as_ref()).await.map(drop),
        Action::DeleteVolume(id) => delete_volume(&volumes, &id).await,
        Action::SetReclaimPolicy(id, policy) => {
            let change = json!({
                "metadata": version(&id),
                "spec": {"persistentVolumeReclaimPolicy": policy},
            });
            apply::merge(&volumes, &id.name, &change).await.map(drop)
        }
        Action::SetClaimRef(id, owner) => belong(&volumes, &id, &owner, None).await,
        Action::KeepVolume(id, owner) => belong(&volumes, &id, &owner, restore.uid()).await,
        Action::Event {
            warning,
            reason,
            message,
        } => {
            let note = Note {
                warning,
                reason,
                message,
            };
            tell(context, seen, &note).await;
            Ok(())
        }
    }
}

/// A claim that asks to be filled hears what its restore hears.
async fn tell(context: &Context, seen: &Observation, note: &Note) {
    context.events.send(&seen.restore, note).await;
    let target = seen.target.as_ref();
    if let Some(claim) = target.filter(|claim| super::target::asks_for(claim, &seen.restore)) {
        context.events.send(claim, note).await;
    }
}

async fn finalizer(context: &Context, restore: &PodVolumeRestore, present: bool) -> Result<()> {
    let namespace = restore.namespace().unwrap_or_default();
    let api = Api::<PodVolumeRestore>::namespaced(context.client.clone(), &namespace);
    apply::set_finalizer(&api, &restore.metadata, present).await
}

fn version(id: &ObjectId) -> serde_json::Value {
    json!({"uid": id.uid, "resourceVersion": id.resource_version})
}

/// Sets whom a volume belongs to, and where it is kept for a person, by which restore.
async fn belong(
    volumes: &Api<PersistentVolume>,
    id: &ObjectId,
    owner: &ObjectReference,
    kept_of: Option<String>,
) -> Result<()> {
    let mut metadata = version(id);
    if let Some(uid) = kept_of {
        metadata["labels"] = json!({KEPT_OF: uid});
    }
    let change = json!({"metadata": metadata, "spec": {"claimRef": whole(owner)}});
    apply::merge(volumes, &id.name, &change).await.map(drop)
}

/// A reference for a merge, which keeps what is not named.
fn whole(owner: &ObjectReference) -> serde_json::Value {
    let mut owner = json!(owner);
    for field in ["resourceVersion", "uid"] {
        if owner[field].is_null() {
            owner[field] = serde_json::Value::Null;
        }
    }
    owner
}

/// Only in the version that was observed: a policy that changed since could make storage go with the object.
async fn delete_volume(volumes: &Api<PersistentVolume>, id: &ObjectId) -> Result<()> {
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(id.uid.clone()),
            resource_version: Some(id.resource_version.clone()),
        }),
        ..DeleteParams::default()
    };
    match volumes.delete(&id.name, &parameters).await {
        Ok(_) => Ok(()),
        Err(error) if answer::is_missing(&error) => Ok(()),
        Err(error) => Err(answer::failed(
            "delete",
            &format!("PersistentVolume {}", id.name),
            error,
        )),
    }
}

async fn create_holder(context: &Context, seen: &Observation) -> Result<()> {
    let allowed = observe::eligible(context, seen).open;
    if allowed.is_empty() {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "find a node with an agent that can reach the volume",
        ));
    }
    let restore = &seen.restore;
    let owner = owner_of(restore);
    let claim = names::intermediate(restore);
    let pod = holder::pod(
        &owner,
        &context.settings.holder,
        HoldMode::Write,
        (&claim, false),
        (&allowed, &context.stores.nodes()),
    );
    let pods = Api::<Pod>::namespaced(context.client.clone(), &context.settings.namespace);
    apply::ensure(&pods, &pod).await.map(drop)
}

fn owner_of(restore: &PodVolumeRestore) -> Owner {
    Owner {
        kind: "PodVolumeRestore".to_owned(),
        namespace: restore.namespace().unwrap_or_default(),
        name: restore.name_any(),
        uid: restore.uid().unwrap_or_default(),
    }
}

fn snapshots(context: &Context) -> (Api<VolumeSnapshotContent>, Api<VolumeSnapshot>) {
    let client = &context.client;
    let system = &context.settings.namespace;
    (
        Api::all(client.clone()),
        Api::namespaced(client.clone(), system),
    )
}

/// A content of its own: it never deletes the driver's snapshot, and the base may go or change meanwhile.
async fn copy_snapshot(
    context: &Context,
    restore: &PodVolumeRestore,
    original: &Original,
) -> Result<()> {
    let (contents, snapshots) = snapshots(context);
    let (owner, system) = (owner_of(restore), context.settings.namespace.as_str());
    let content = working_copy::content(original, owner.metadata(None), system);
    apply::ensure(&contents, &content).await?;
    let snapshot = working_copy::snapshot(original, owner.metadata(Some(system)));
    apply::ensure(&snapshots, &snapshot).await.map(drop)
}

async fn drop_snapshot(context: &Context, restore: &PodVolumeRestore) -> Result<()> {
    let (contents, snapshots) = snapshots(context);
    let owner = owner_of(restore);
    let name = owner.object_name();
    let snapshot = observe::read(snapshots.clone(), &name).await?;
    if let Some(snapshot) = snapshot.filter(|found| owner.owns(&found.metadata)) {
        let uid = snapshot.uid().unwrap_or_default();
        removal::delete_copy(&snapshots, &name, &uid).await?;
    }
    let content = observe::read(contents.clone(), &name).await?;
    if let Some(content) = content.filter(|found| owner.owns(&found.metadata)) {
        let uid = content.uid().unwrap_or_default();
        apply::delete(&contents, &name, &uid, None).await?;
    }
    Ok(())
}
