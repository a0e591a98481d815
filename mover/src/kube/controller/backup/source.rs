//! What a backup is of: from the claim, pod or snapshot that it names to a CSI volume and everything that is chosen for it.
//!
//! Owns: the refusals of volumes that cannot be backed up. Must not: change anything.
//!
//! Once a snapshot is ordered, what was recorded then counts: the claim may be gone or changed since.

use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use super::choice;
use super::observe::{belongs, is_bound, read};
use super::view::{Observed, Source, SourceView};
use crate::attach::csi::profile::Profile;
use crate::error::Result;
use crate::kube::answer;
use crate::kube::api::PodVolumeBackup;
use crate::kube::api::conditions::Reason;
use crate::kube::controller::Context;
use crate::kube::controller::apply::Object;
use crate::kube::controller::recorded::Recorded;
use crate::kube::foreign::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};

/// The source, and driver and handle of the volume as far as they are known.
pub(super) struct Found {
    pub view: SourceView,
    pub volume: Option<(String, String)>,
}

/// What is known of the claim, or why nothing is.
enum Claim {
    Is(Box<Recorded>),
    Not(SourceView),
}

/// Looks at the source.
pub(super) async fn find(
    context: &Context,
    backup: &PodVolumeBackup,
    seen: &Observed,
    namespace: Option<&Namespace>,
) -> Result<Found> {
    let order = backup
        .status
        .as_ref()
        .and_then(|status| status.order.as_ref());
    let known = order.map(|order| (order.driver.clone(), order.volume_handle.clone()));
    let mut recorded = match recorded(context, backup, seen).await? {
        Claim::Is(recorded) => recorded,
        Claim::Not(view) => {
            return Ok(Found {
                view,
                volume: known,
            });
        }
    };
    let volume = Some((recorded.driver.clone(), recorded.volume_handle.clone()));
    // What was ordered was complete.
    if recorded.cluster_uid.is_empty() {
        recorded.cluster_uid.clone_from(&context.cluster_uid);
        recorded.namespace = backup.namespace().unwrap_or_default();
        recorded.namespace_uid = namespace.and_then(|place| place.uid()).unwrap_or_default();
    }
    let profile = context.profile(&recorded.driver);
    if !profile.block {
        let why = format!(
            "driver {} serves files and no block devices",
            recorded.driver
        );
        let view = SourceView::Refused(Reason::UnsupportedVolume, why);
        return Ok(Found { view, volume });
    }
    let needs_snapshot = seen.content.is_none() && backup.spec.source.volume_snapshot.is_none();
    let snapshot_class = if needs_snapshot {
        let classes: Vec<VolumeSnapshotClass> = all(context).await?;
        let named = backup.spec.volume_snapshot_class_name.as_deref();
        let by_profile = profile.volume_snapshot_class_name.as_deref();
        match choice::snapshot_class(named, by_profile, &recorded.driver, &classes) {
            Ok(class) => Some(class),
            Err((reason, why)) => {
                let view = SourceView::Refused(reason, why);
                return Ok(Found { view, volume });
            }
        }
    } else {
        None
    };
    let view = with_clone_class(context, *recorded, profile, snapshot_class).await?;
    Ok(Found { view, volume })
}

/// The last that is asked for: a class for the working copy.
async fn with_clone_class(
    context: &Context,
    recorded: Recorded,
    profile: Profile,
    snapshot_class: Option<String>,
) -> Result<SourceView> {
    let classes: Vec<StorageClass> = all(context).await?;
    let clone_class = match choice::clone_class(
        profile.clone_storage_class_name.as_deref(),
        recorded.storage_class_name.as_deref(),
        &recorded.driver,
        &classes,
    ) {
        Ok(class) => class,
        Err((reason, why)) => return Ok(SourceView::Refused(reason, why)),
    };
    let eligible = context
        .stores
        .nodes()
        .eligible(&context.stores.agents(), recorded.node_affinity.as_ref());
    Ok(SourceView::Found(Box::new(Source {
        volume: format!(
            "{}/{}/{}",
            context.cluster_alias, recorded.namespace, recorded.claim
        ),
        snapshot_class,
        clone_class,
        profile,
        nodes: eligible.open,
        cordoned: eligible.cordoned,
        recorded,
    })))
}

/// What was recorded when the snapshot was ordered, else what is there now.
async fn recorded(context: &Context, backup: &PodVolumeBackup, seen: &Observed) -> Result<Claim> {
    let place = backup.namespace().unwrap_or_default();
    let status = backup.status.as_ref();
    let ordered = status.and_then(|status| status.order.as_ref()?.recorded.as_deref());
    // As long as there is no snapshot, the claim may have been made again, and the new one is meant.
    let exists = seen.snapshot.is_some() || seen.content.is_some();
    let noted = status.and_then(|status| status.recorded.as_deref());
    let known = ordered.or(noted.filter(|_| exists));
    if let Some(recorded) = known.and_then(Recorded::from_json) {
        return Ok(Claim::Is(Box::new(recorded)));
    }
    if let Some(named) = &backup.spec.source.volume_snapshot {
        return of_snapshot(context, &place, &named.name).await;
    }
    let claim = match (
        &backup.spec.source.persistent_volume_claim,
        &backup.spec.source.pod,
    ) {
        (Some(claim), _) => claim.name.clone(),
        (None, Some(pod)) => match claim_of_pod(context, &place, &pod.name, &pod.volume).await? {
            Ok(claim) => claim,
            Err(view) => return Ok(Claim::Not(view)),
        },
        (None, None) => String::new(),
    };
    of_claim(context, &place, &claim).await
}

async fn claim_of_pod(
    context: &Context,
    namespace: &str,
    name: &str,
    volume: &str,
) -> Result<std::result::Result<String, SourceView>> {
    let Some(pod) = read::<Pod>(Api::namespaced(context.client.clone(), namespace), name).await?
    else {
        return Ok(Err(SourceView::Missing(format!("there is no Pod {name}"))));
    };
    let volumes = pod.spec.and_then(|spec| spec.volumes).unwrap_or_default();
    let Some(found) = volumes.into_iter().find(|found| found.name == volume) else {
        let why = format!("Pod {name} has no volume {volume}");
        return Ok(Err(SourceView::Refused(Reason::NotFound, why)));
    };
    if let Some(claim) = found.persistent_volume_claim {
        return Ok(Ok(claim.claim_name));
    }
    if found.ephemeral.is_some() {
        // The name that the ephemeral volume controller gives (k8s.io/docs: generic ephemeral volumes).
        return Ok(Ok(format!("{name}-{volume}")));
    }
    let why = format!("volume {volume} of Pod {name} has no claim");
    Ok(Err(SourceView::Refused(Reason::UnsupportedVolume, why)))
}

async fn of_claim(context: &Context, namespace: &str, name: &str) -> Result<Claim> {
    let claims = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), namespace);
    let Some(claim) = read(claims, name).await? else {
        let why = format!("there is no PersistentVolumeClaim {name}");
        return Ok(Claim::Not(SourceView::Missing(why)));
    };
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone());
    let Some(volume) = volume.filter(|_| is_bound(&claim)) else {
        let why = format!("PersistentVolumeClaim {name} is not bound to a volume yet");
        return Ok(Claim::Not(SourceView::Unbound(why)));
    };
    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    let Some(volume) = read(volumes, &volume).await? else {
        let why =
            format!("PersistentVolume {volume} of PersistentVolumeClaim {name} does not exist");
        return Ok(Claim::Not(SourceView::Unbound(why)));
    };
    // A claim says of itself what its owner writes; whose a volume is, the volume says.
    if claim_uid(&volume).is_none_or(|uid| Some(uid) != claim.metadata.uid.as_deref()) {
        let volume = volume.name_any();
        let why = format!("PersistentVolume {volume} is not bound to PersistentVolumeClaim {name}");
        return Ok(Claim::Not(SourceView::Unbound(why)));
    }
    Ok(match Recorded::of(&claim, &volume) {
        Some(recorded) => Claim::Is(Box::new(recorded)),
        None => Claim::Not(SourceView::Refused(
            Reason::UnsupportedVolume,
            format!("PersistentVolume {} is of no CSI driver", volume.name_any()),
        )),
    })
}

/// UID of the claim that a volume belongs to.
fn claim_uid(volume: &PersistentVolume) -> Option<&str> {
    let owner = volume.spec.as_ref()?.claim_ref.as_ref()?;
    owner.uid.as_deref()
}

/// A snapshot of the user: its claim where that is still there, else what the content says.
async fn of_snapshot(context: &Context, namespace: &str, name: &str) -> Result<Claim> {
    let snapshots = Api::<VolumeSnapshot>::namespaced(context.client.clone(), namespace);
    let Some(snapshot) = read(snapshots, name).await? else {
        let why = format!("there is no VolumeSnapshot {name}");
        return Ok(Claim::Not(SourceView::Missing(why)));
    };
    let bound = snapshot
        .status
        .as_ref()
        .and_then(|status| status.bound_volume_snapshot_content_name.clone());
    let content: Option<VolumeSnapshotContent> = match bound {
        Some(content) => read(Api::all(context.client.clone()), &content).await?,
        None => None,
    };
    let content = content.filter(|content| belongs(content, &snapshot));
    let Some(content) = content else {
        let why = format!("VolumeSnapshot {name} has no content yet");
        return Ok(Claim::Not(SourceView::Unbound(why)));
    };
    let claim = snapshot.spec.source.persistent_volume_claim_name.clone();
    let handle = content.spec.source.volume_handle.clone();
    if let Some(claim) = &claim
        && let Claim::Is(recorded) = of_claim(context, namespace, claim).await?
        // A claim of the same name on another volume is another history.
        && (handle.is_none() || handle.as_deref() == Some(recorded.volume_handle.as_str()))
    {
        return Ok(Claim::Is(recorded));
    }
    Ok(Claim::Is(Box::new(Recorded {
        claim: claim.unwrap_or_else(|| name.to_owned()),
        driver: content.spec.driver.clone(),
        volume_handle: handle.unwrap_or_default(),
        volume_mode: content.spec.source_volume_mode.clone(),
        ..Recorded::default()
    })))
}

async fn all<K: Object>(context: &Context) -> Result<Vec<K>> {
    let list = Api::<K>::all(context.client.clone())
        .list(&ListParams::default())
        .await
        .map_err(|error| answer::failed("list", &K::kind(&()), error))?;
    Ok(list.items)
}
