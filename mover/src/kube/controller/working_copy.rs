//! The working copy of a snapshot, in the system namespace: a content, a snapshot and a claim of their own.
//!
//! ```text
//!   handle ─► content (Retain) ◄─ snapshot ◄─ claim (Block) ◄─ holder pod
//! ```
//!
//! Owns: their shapes. Must not: create or delete them. The content never deletes the driver's snapshot: at most one object does, and that
//! is the one that the snapshot was taken by.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::owner::Owner;
use super::quantity;
use crate::kube::foreign::snapshot::{
    ALLOW_MODE_CHANGE, ContentSource, DELETION_SECRET, MANAGED_BY, SnapshotDeletion,
    SnapshotReference, SnapshotSource, VolumeSnapshot, VolumeSnapshotContent,
    VolumeSnapshotContentSpec, VolumeSnapshotSpec,
};

/// What of a snapshot's content its other contents need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// The driver.
    pub driver: String,
    /// The driver's handle of the snapshot.
    pub handle: String,
    /// The class, whose secrets are needed to look at the snapshot.
    pub class: Option<String>,
    /// Annotations that name the secrets of its deletion.
    pub secrets: BTreeMap<String, String>,
    /// The node whose snapshotter manages it.
    pub managed_by: Option<String>,
    /// What the driver takes as a base in place of the handle, where it has such a thing.
    pub change_id: Option<ChangeId>,
}

/// A change id, which every copy of a snapshot carries: the driver wrote it on the first one only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeId {
    /// The annotation that it is the value of.
    pub annotation: String,
    /// What the driver wrote, which means nothing to anybody else.
    pub value: String,
}

impl ChangeId {
    /// The value of `annotation`, if an object with these annotations has one.
    #[must_use]
    pub fn among(
        annotation: Option<&str>,
        annotations: Option<&BTreeMap<String, String>>,
    ) -> Option<Self> {
        let annotation = annotation?;
        let value = annotations?.get(annotation)?;
        (!value.is_empty()).then(|| Self {
            annotation: annotation.to_owned(),
            value: value.clone(),
        })
    }
}

impl Original {
    /// From a content whose snapshot exists.
    #[must_use]
    pub fn of(content: &VolumeSnapshotContent) -> Option<Self> {
        let made = content
            .status
            .as_ref()
            .and_then(|status| status.snapshot_handle.clone());
        let handle = made.or_else(|| content.spec.source.snapshot_handle.clone())?;
        let annotations = content.metadata.annotations.as_ref();
        Some(Self {
            driver: content.spec.driver.clone(),
            handle,
            class: content.spec.volume_snapshot_class_name.clone(),
            secrets: DELETION_SECRET
                .iter()
                .filter_map(|&key| Some((key.to_owned(), annotations?.get(key)?.clone())))
                .collect(),
            managed_by: content
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(MANAGED_BY).cloned()),
            change_id: None,
        })
    }
}

impl Original {
    fn note(&self, metadata: &mut ObjectMeta) {
        if let Some(id) = &self.change_id {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(id.annotation.clone(), id.value.clone());
        }
    }
}

/// A content of a snapshot that exists, bound to the VolumeSnapshot `namespace`/`metadata.name`.
#[must_use]
pub fn content(
    original: &Original,
    mut metadata: ObjectMeta,
    namespace: &str,
) -> VolumeSnapshotContent {
    metadata.namespace = None;
    original.note(&mut metadata);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.extend(original.secrets.clone());
    annotations.insert(ALLOW_MODE_CHANGE.to_owned(), "true".to_owned());
    if let Some(node) = &original.managed_by {
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(MANAGED_BY.to_owned(), node.clone());
    }
    let name = metadata.name.clone().unwrap_or_default();
    VolumeSnapshotContent {
        metadata,
        spec: VolumeSnapshotContentSpec {
            volume_snapshot_ref: SnapshotReference {
                namespace: namespace.to_owned(),
                name,
                uid: None,
            },
            deletion_policy: SnapshotDeletion::Retain,
            driver: original.driver.clone(),
            volume_snapshot_class_name: original.class.clone(),
            source: ContentSource {
                snapshot_handle: Some(original.handle.clone()),
                volume_handle: None,
            },
            source_volume_mode: None,
        },
        status: None,
    }
}

/// The VolumeSnapshot of a content of the same name.
#[must_use]
pub fn snapshot(original: &Original, mut metadata: ObjectMeta) -> VolumeSnapshot {
    let name = metadata.name.clone();
    original.note(&mut metadata);
    VolumeSnapshot {
        metadata,
        spec: VolumeSnapshotSpec {
            source: SnapshotSource {
                volume_snapshot_content_name: name,
                persistent_volume_claim_name: None,
            },
            volume_snapshot_class_name: original.class.clone(),
        },
        status: None,
    }
}

/// What a working claim asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRequest<'a> {
    /// The system namespace.
    pub namespace: &'a str,
    /// Storage class.
    pub class: &'a str,
    /// `ReadWriteOnce` or `ReadOnlyMany`.
    pub access_mode: &'a str,
    /// Bytes.
    pub size: u64,
    /// The VolumeSnapshot of the same namespace that it is made of; an empty volume without.
    pub snapshot: Option<&'a str>,
}

/// The claim of a working copy, or of a volume that is to be filled: always a block device.
#[must_use]
pub fn claim(owner: &Owner, request: &ClaimRequest<'_>) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: owner.metadata(Some(request.namespace)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![request.access_mode.to_owned()]),
            storage_class_name: Some(request.class.to_owned()),
            volume_mode: Some("Block".to_owned()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    quantity::of_bytes(request.size),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            data_source: request.snapshot.map(|name| TypedLocalObjectReference {
                api_group: Some("snapshot.storage.k8s.io".to_owned()),
                kind: "VolumeSnapshot".to_owned(),
                name: name.to_owned(),
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The binding controller writes it on a volume that was there before its claim. One that was made for a claim names that from birth.
const BOUND_LATER: &str = "pv.kubernetes.io/bound-by-controller";

/// Whether a claim of ours was given a volume that somebody else had made: the binding controller prefers any free one that fits to a
/// new one, and looks at no data source (kubernetes/kubernetes#101878). Such a volume is neither what was asked for nor ours to remove.
#[must_use]
pub fn is_foreign(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> bool {
    let annotated = volume
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(BOUND_LATER));
    let older = claim.is_some_and(|claim| {
        match (
            &volume.metadata.creation_timestamp,
            &claim.metadata.creation_timestamp,
        ) {
            (Some(volume), Some(claim)) => volume.0 < claim.0,
            _ => false,
        }
    });
    annotated || older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_content_keeps_what_deletion_needs_and_never_deletes() {
        let mut source = VolumeSnapshotContent::new(
            "snapcontent-1",
            VolumeSnapshotContentSpec {
                driver: "d".to_owned(),
                deletion_policy: SnapshotDeletion::Delete,
                volume_snapshot_class_name: Some("class".to_owned()),
                source_volume_mode: Some("Filesystem".to_owned()),
                ..VolumeSnapshotContentSpec::default()
            },
        );
        assert_eq!(
            Original::of(&source),
            None,
            "the snapshot does not exist yet"
        );
        source.status = Some(
            crate::kube::foreign::snapshot::VolumeSnapshotContentStatus {
                snapshot_handle: Some("h".to_owned()),
                ..Default::default()
            },
        );
        source.metadata.annotations = Some(BTreeMap::from([
            (DELETION_SECRET[0].to_owned(), "secret".to_owned()),
            (
                "snapshot.storage.kubernetes.io/volumesnapshot-being-created".to_owned(),
                "yes".to_owned(),
            ),
        ]));
        source.metadata.labels = Some(BTreeMap::from([(MANAGED_BY.to_owned(), "n1".to_owned())]));
        let original = Original::of(&source).unwrap();
        let metadata = ObjectMeta {
            name: Some("snaphaul-1".to_owned()),
            ..ObjectMeta::default()
        };
        let copy = content(&original, metadata, "system");
        assert_eq!(copy.spec.deletion_policy, SnapshotDeletion::Retain);
        assert_eq!(copy.spec.source_volume_mode, None);
        assert_eq!(copy.spec.source.snapshot_handle.as_deref(), Some("h"));
        let annotations = copy.metadata.annotations.unwrap();
        assert_eq!(annotations[DELETION_SECRET[0]], "secret");
        assert_eq!(annotations[ALLOW_MODE_CHANGE], "true");
        assert_eq!(annotations.len(), 2);
        assert_eq!(copy.metadata.labels.unwrap()[MANAGED_BY], "n1");
        assert_eq!(copy.spec.volume_snapshot_ref.name, "snaphaul-1");
    }

    #[test]
    fn a_change_id_is_on_every_copy() {
        let annotations = BTreeMap::from([
            ("id".to_owned(), "52 60/6".to_owned()),
            ("empty".to_owned(), String::new()),
        ]);
        let found = |name| ChangeId::among(name, Some(&annotations));
        assert_eq!(found(None), None);
        assert_eq!(found(Some("other")), None);
        assert_eq!(found(Some("empty")), None);
        assert_eq!(ChangeId::among(Some("id"), None), None);
        let original = Original {
            handle: "h".to_owned(),
            change_id: found(Some("id")),
            ..Original::default()
        };
        let metadata = || ObjectMeta {
            name: Some("snaphaul-base-1".to_owned()),
            ..ObjectMeta::default()
        };
        let copy = snapshot(&original, metadata());
        assert_eq!(copy.metadata.annotations.unwrap()["id"], "52 60/6");
        let content = content(&original, metadata(), "system");
        assert_eq!(content.metadata.annotations.unwrap()["id"], "52 60/6");
    }
}
