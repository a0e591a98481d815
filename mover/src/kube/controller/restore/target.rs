//! The claim that a restore fills: what is asked for, from the target of the restore and what the point records.
//!
//! Owns: which class, mode, access modes and size it gets, and what is refused. Must not: create it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
    VolumeResourceRequirements,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names;
use crate::kube::api::conditions::Reason;
use crate::kube::api::names::{
    MANAGER, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE, OWNER_UID, VELERO_EXCLUDE,
};
use crate::kube::api::restore::{RecordedClaim, VolumeMode};
use crate::kube::api::{GROUP, PodVolumeRestore};
use crate::kube::controller::quantity::bytes;

/// Why a target cannot be had.
pub type Refusal = (Reason, String);

/// The word in claims and volumes.
#[must_use]
pub const fn mode_word(mode: VolumeMode) -> &'static str {
    match mode {
        VolumeMode::Block => "Block",
        VolumeMode::Filesystem => "Filesystem",
    }
}

/// The storage class that the volume is made from.
#[must_use]
pub fn class_name<'a>(
    restore: &'a PodVolumeRestore,
    recorded: &'a RecordedClaim,
) -> Option<&'a str> {
    let target = &restore.spec.target;
    let wanted = target.storage_class_name.as_deref();
    wanted
        .or(recorded.storage_class_name.as_deref())
        .filter(|name| !name.is_empty())
}

/// How pods see the volume.
#[must_use]
pub fn mode(restore: &PodVolumeRestore, recorded: &RecordedClaim) -> VolumeMode {
    let wanted = restore.spec.target.volume_mode.or(recorded.volume_mode);
    wanted.unwrap_or(VolumeMode::Filesystem)
}

/// The access modes of the user's claim.
#[must_use]
pub fn access_modes(restore: &PodVolumeRestore, recorded: &RecordedClaim) -> Vec<String> {
    let wanted = restore.spec.target.access_modes.clone();
    let modes = wanted.unwrap_or_else(|| recorded.access_modes.clone());
    if modes.is_empty() {
        vec!["ReadWriteOnce".to_owned()]
    } else {
        modes
    }
}

/// Size that the user's claim asks for in the end, where that is more than the point's: the target's, or that of the claim that is
/// replaced.
#[must_use]
pub fn bigger_size(
    restore: &PodVolumeRestore,
    recorded: &RecordedClaim,
    replaced: Option<&PersistentVolumeClaim>,
) -> Option<Quantity> {
    let target = restore.spec.target.resources.as_ref();
    let wanted = target
        .map(|resources| &resources.requests.storage)
        .or_else(|| requested(replaced?))?;
    (i128::from(bytes(wanted)?) > i128::from(recorded.size_bytes)).then(|| wanted.clone())
}

/// Checks the target against the point and the class.
///
/// # Errors
/// Why it is refused: the class is missing or needs secrets of the claim's namespace, the size is smaller than the point's, or
/// bigger where the class does not let claims grow.
pub fn check(
    restore: &PodVolumeRestore,
    recorded: &RecordedClaim,
    class: Option<&StorageClass>,
    replaced: Option<&PersistentVolumeClaim>,
) -> Result<(), Refusal> {
    let Some(name) = class_name(restore, recorded) else {
        let message = "the point records no storage class: name one in target.storageClassName";
        return Err((Reason::TargetRefused, message.to_owned()));
    };
    let Some(class) = class else {
        let message =
            format!("there is no storage class {name}: name one in target.storageClassName");
        return Err((Reason::NotFound, message));
    };
    if let Some(parameter) = own_namespace_secret(class) {
        let message = format!(
            "storage class {name} takes its secrets from the claim ({parameter}), and the volume is made through a claim of another namespace"
        );
        return Err((Reason::ClassNeedsSourceNamespace, message));
    }
    let grows = class.allow_volume_expansion == Some(true);
    if bigger_size(restore, recorded, replaced).is_some() && !grows {
        let message = format!(
            "more is asked for than the {} bytes of the point's volume, and storage class {name} does not let claims grow",
            recorded.size_bytes
        );
        return Err((Reason::TargetRefused, message));
    }
    check_size(restore, recorded)
}

fn check_size(restore: &PodVolumeRestore, recorded: &RecordedClaim) -> Result<(), Refusal> {
    if recorded.size_bytes <= 0 {
        let message = "the point has no data: its volume had no bytes";
        return Err((Reason::TargetRefused, message.to_owned()));
    }
    let Some(resources) = &restore.spec.target.resources else {
        return Ok(());
    };
    let wanted = &resources.requests.storage;
    let Some(asked) = bytes(wanted) else {
        let message = format!("{} is no size", wanted.0);
        return Err((Reason::TargetRefused, message));
    };
    let needed = i128::from(recorded.size_bytes);
    if i128::from(asked) < needed {
        let message = format!(
            "the target asks for {}, the point's volume has {needed} bytes",
            wanted.0
        );
        return Err((Reason::TargetRefused, message));
    }
    Ok(())
}

/// A secret parameter whose value depends on the claim.
fn own_namespace_secret(class: &StorageClass) -> Option<&str> {
    let parameters = class.parameters.as_ref()?;
    let secret = |key: &str| {
        key.starts_with("csi.storage.k8s.io/")
            && (key.ends_with("-secret-name") || key.ends_with("-secret-namespace"))
    };
    parameters
        .iter()
        .find(|(key, value)| secret(key) && value.contains("${pvc."))
        .map(|(key, _)| key.as_str())
}

/// The claim in the system namespace that the volume is made through: Block, at the size of the point.
#[must_use]
pub fn working_claim(
    restore: &PodVolumeRestore,
    recorded: &RecordedClaim,
    system_namespace: &str,
) -> PersistentVolumeClaim {
    let mut modes = access_modes(restore, recorded);
    if modes.iter().all(|mode| mode == "ReadOnlyMany") {
        // It must be written once before it can only be read.
        modes = vec!["ReadWriteOnce".to_owned()];
    }
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::intermediate(restore)),
            namespace: Some(system_namespace.to_owned()),
            labels: Some(owner_labels(restore)),
            annotations: Some(owner_annotations(restore)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes),
            resources: Some(request(size(recorded))),
            storage_class_name: class_name(restore, recorded).map(str::to_owned),
            volume_mode: Some(mode_word(VolumeMode::Block).to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// Lets a working claim be made of the snapshot of its own name.
pub fn of_snapshot(claim: &mut PersistentVolumeClaim) {
    let name = claim.metadata.name.clone().unwrap_or_default();
    if let Some(spec) = &mut claim.spec {
        spec.data_source = Some(TypedLocalObjectReference {
            api_group: Some("snapshot.storage.k8s.io".to_owned()),
            kind: "VolumeSnapshot".to_owned(),
            name,
        });
    }
}

/// The claim in the system namespace that reaches the target's own volume by its second name.
#[must_use]
pub fn second_claim(
    restore: &PodVolumeRestore,
    recorded: &RecordedClaim,
    system_namespace: &str,
) -> PersistentVolumeClaim {
    let mut claim = working_claim(restore, recorded, system_namespace);
    if let Some(spec) = &mut claim.spec {
        spec.access_modes = Some(vec!["ReadWriteOnce".to_owned()]);
        // No class: nothing may be provisioned for it.
        spec.storage_class_name = Some(String::new());
        spec.volume_name = Some(names::intermediate(restore));
    }
    claim
}

/// The scheduler's word to the provisioner (k8s.io/component-helpers, storage/volume).
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Where the scheduler wants the pod that waits for a claim.
#[must_use]
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE)
}

/// Makes the volume where the scheduler wants the pod that waits for the user's claim.
pub fn follow_consumer(claim: &mut PersistentVolumeClaim, asking: &PersistentVolumeClaim) {
    if let Some(node) = selected_node(asking) {
        let own = claim.metadata.annotations.get_or_insert_default();
        own.insert(SELECTED_NODE.to_owned(), node.clone());
    }
}

/// The user's claim of a restore that makes a new one. It names the volume from the beginning, so that no provisioner takes it.
#[must_use]
pub fn new_claim(restore: &PodVolumeRestore, recorded: &RecordedClaim) -> PersistentVolumeClaim {
    let target = &restore.spec.target;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(target.name.clone()),
            namespace: restore.metadata.namespace.clone(),
            labels: target.labels.clone(),
            annotations: target.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(access_modes(restore, recorded)),
            resources: Some(request(size(recorded))),
            storage_class_name: class_name(restore, recorded).map(str::to_owned),
            volume_mode: Some(mode_word(mode(restore, recorded)).to_owned()),
            volume_name: Some(names::intermediate(restore)),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The point's record with what an existing claim, which keeps its shape, says instead.
#[must_use]
pub fn as_claimed(
    recorded: &RecordedClaim,
    claim: Option<&PersistentVolumeClaim>,
) -> RecordedClaim {
    let mut result = recorded.clone();
    let Some(spec) = claim.and_then(|claim| claim.spec.as_ref()) else {
        return result;
    };
    result
        .storage_class_name
        .clone_from(&spec.storage_class_name);
    result.access_modes = spec.access_modes.clone().unwrap_or_default();
    // Absent means Filesystem (API documentation of PersistentVolumeClaimSpec).
    result.volume_mode = Some(match spec.volume_mode.as_deref() {
        Some("Block") => VolumeMode::Block,
        _ => VolumeMode::Filesystem,
    });
    result
}

/// Whether a claim asks to be filled by this restore.
#[must_use]
pub fn asks_for(claim: &PersistentVolumeClaim, restore: &PodVolumeRestore) -> bool {
    let source = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.data_source_ref.as_ref());
    source.is_some_and(|source| {
        source.api_group.as_deref() == Some(GROUP)
            && source.kind == "PodVolumeRestore"
            && Some(&source.name) == restore.metadata.name.as_ref()
            && source
                .namespace
                .as_ref()
                .is_none_or(|namespace| Some(namespace) == restore.metadata.namespace.as_ref())
    })
}

/// Whether the volume that is made can become this claim's.
#[must_use]
pub fn suits(
    restore: &PodVolumeRestore,
    recorded: &RecordedClaim,
    claim: &PersistentVolumeClaim,
) -> bool {
    let asked = as_claimed(recorded, Some(claim));
    let modes = access_modes(restore, recorded);
    asked.storage_class_name.as_deref() == class_name(restore, recorded)
        && asked.volume_mode == Some(mode(restore, recorded))
        && asked.access_modes.iter().all(|mode| modes.contains(mode))
        && i128::from(requested_bytes(claim).unwrap_or(0)) <= i128::from(recorded.size_bytes)
}

/// Labels of everything that is taken back in the end.
#[must_use]
pub fn owner_labels(restore: &PodVolumeRestore) -> BTreeMap<String, String> {
    let metadata = &restore.metadata;
    [
        ("app.kubernetes.io/managed-by", MANAGER.to_owned()),
        (OWNER_UID, metadata.uid.clone().unwrap_or_default()),
        (OWNER_KIND, "PodVolumeRestore".to_owned()),
        (
            OWNER_NAMESPACE,
            metadata.namespace.clone().unwrap_or_default(),
        ),
        (VELERO_EXCLUDE, "true".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn owner_annotations(restore: &PodVolumeRestore) -> BTreeMap<String, String> {
    let name = restore.metadata.name.clone().unwrap_or_default();
    [(OWNER_NAME.to_owned(), name)].into()
}

/// The size of the point as a claim asks for it.
#[must_use]
pub fn size(recorded: &RecordedClaim) -> Quantity {
    Quantity(recorded.size_bytes.to_string())
}

/// A request for storage.
#[must_use]
pub fn request(storage: Quantity) -> VolumeResourceRequirements {
    VolumeResourceRequirements {
        requests: Some([("storage".to_owned(), storage)].into()),
        limits: None,
    }
}

/// The storage that a claim asks for, in bytes.
#[must_use]
pub fn requested_bytes(claim: &PersistentVolumeClaim) -> Option<u64> {
    bytes(requested(claim)?)
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    resources.requests.as_ref()?.get("storage")
}

#[cfg(test)]
mod tests;
