//! The PersistentVolume that a filled volume gets for the user's claim.
//!
//! Owns: what is taken over from the working claim's volume and what is not. Must not: create or delete it.
//!
//! A volume's mode cannot be changed, so its object is made again: the same storage under another name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{names, target};
use crate::kube::api::PodVolumeRestore;
use crate::kube::api::names::MANAGER;
use crate::kube::api::restore::{RecordedClaim, VolumeMode};

/// Reclaim policy: the storage goes with the claim.
pub const DELETE: &str = "Delete";
/// Reclaim policy: the storage stays.
pub const RETAIN: &str = "Retain";

/// What external-provisioner writes into the attributes of a volume to know its own: another replica must be able to delete it.
const PROVISIONER_IDENTITY: &str = "storage.kubernetes.io/csiProvisionerIdentity";

/// Annotations that the deletion of the storage needs (sig-storage-lib-external-provisioner and external-provisioner).
const DELETION_ANNOTATIONS: [&str; 3] = [
    "pv.kubernetes.io/provisioned-by",
    "volume.kubernetes.io/provisioner-deletion-secret-name",
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
];

/// The volume for the user's claim, which is not in it yet. `None` where `working` is no CSI volume.
#[must_use]
pub fn for_claim(
    restore: &PodVolumeRestore,
    recorded: &RecordedClaim,
    working: &PersistentVolume,
) -> Option<PersistentVolume> {
    let spec = working.spec.as_ref()?;
    let mut csi = spec.csi.clone()?;
    if let Some(attributes) = &mut csi.volume_attributes {
        attributes.remove(PROVISIONER_IDENTITY);
    }
    let mode = target::mode(restore, recorded);
    csi.fs_type = match mode {
        VolumeMode::Block => None,
        VolumeMode::Filesystem => recorded.fs_type.clone().or(csi.fs_type),
    };
    Some(PersistentVolume {
        metadata: metadata(restore, working),
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(target::access_modes(restore, recorded)),
            capacity: spec.capacity.clone(),
            csi: Some(csi),
            mount_options: spec.mount_options.clone(),
            node_affinity: spec.node_affinity.clone(),
            persistent_volume_reclaim_policy: Some(RETAIN.to_owned()),
            storage_class_name: spec.storage_class_name.clone(),
            volume_attributes_class_name: spec.volume_attributes_class_name.clone(),
            volume_mode: Some(target::mode_word(mode).to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// A second object for the target's own volume, by which the working claim reaches it. It never owns the storage.
#[must_use]
pub fn second_name(
    restore: &PodVolumeRestore,
    system_namespace: &str,
    own: &PersistentVolume,
) -> Option<PersistentVolume> {
    let spec = own.spec.as_ref()?;
    let csi = spec.csi.clone()?;
    Some(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(names::intermediate(restore)),
            labels: Some(target::owner_labels(restore)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            capacity: spec.capacity.clone(),
            claim_ref: Some(ObjectReference {
                kind: Some("PersistentVolumeClaim".to_owned()),
                api_version: Some("v1".to_owned()),
                namespace: Some(system_namespace.to_owned()),
                name: Some(names::intermediate(restore)),
                ..ObjectReference::default()
            }),
            csi: Some(csi),
            node_affinity: spec.node_affinity.clone(),
            persistent_volume_reclaim_policy: Some(RETAIN.to_owned()),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Block".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

fn metadata(restore: &PodVolumeRestore, working: &PersistentVolume) -> ObjectMeta {
    let taken = working.metadata.annotations.iter().flatten();
    let annotations: BTreeMap<String, String> = taken
        .filter(|(key, _)| DELETION_ANNOTATIONS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut labels = working.metadata.labels.clone().unwrap_or_default();
    // With an owner's label it would be swept away with what is left over.
    labels.retain(|key, _| !key.starts_with("snaphaul.dev/") && !key.starts_with("velero.io/"));
    labels.insert(
        "app.kubernetes.io/created-by".to_owned(),
        MANAGER.to_owned(),
    );
    ObjectMeta {
        name: Some(names::intermediate(restore)),
        annotations: Some(annotations).filter(|all| !all.is_empty()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

/// What a volume says of the claim that it belongs to.
#[must_use]
pub fn claim_ref(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("PersistentVolumeClaim".to_owned()),
        api_version: Some("v1".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// What a volume says of the claim that it belongs to.
#[must_use]
pub fn owner_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The UID of the claim that a volume belongs to.
#[must_use]
pub fn owner_uid(volume: &PersistentVolume) -> Option<&str> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    claim.uid.as_deref()
}

/// What happens to the storage when the claim goes. Absent means Retain (API documentation of PersistentVolumeSpec).
#[must_use]
pub fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref())
        .unwrap_or(RETAIN)
}

/// How pods see the volume. Absent means Filesystem (API documentation of PersistentVolumeSpec).
#[must_use]
pub fn mode_of(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.volume_mode.as_deref())
        .unwrap_or(target::mode_word(VolumeMode::Filesystem))
}

/// Where the binding controller has a volume.
#[must_use]
pub fn phase(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref()?.phase.as_deref()
}

/// Whether claim and volume belong to each other, as both say.
#[must_use]
pub fn is_bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let named = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref());
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    named.is_some()
        && named == volume.metadata.name.as_deref()
        && owner_uid(volume).is_some()
        && owner_uid(volume) == claim.metadata.uid.as_deref()
        && phase == Some("Bound")
}

/// What a volume of a CSI driver may say of itself; any other source of a volume has a field of its own.
const FIELDS: [&str; 10] = [
    "accessModes",
    "capacity",
    "claimRef",
    "csi",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Whether this JSON is of a PersistentVolume that names the volume of this handle through its driver, and nothing else.
#[must_use]
pub fn is_plain_csi(object: &str, handle: &str) -> bool {
    let Ok(object) = serde_json::from_str::<serde_json::Value>(object) else {
        return false;
    };
    let named = object.pointer("/spec/csi/volumeHandle");
    let fields = object.pointer("/spec").and_then(|spec| spec.as_object());
    named.and_then(|named| named.as_str()) == Some(handle)
        && fields.is_some_and(|spec| spec.keys().all(|key| FIELDS.contains(&key.as_str())))
}

#[cfg(test)]
mod tests;
