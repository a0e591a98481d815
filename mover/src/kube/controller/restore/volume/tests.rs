use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, SecretReference, VolumeNodeAffinity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::*;
use crate::kube::api::PodVolumeRestoreSpec;

fn restore() -> PodVolumeRestore {
    let mut restore = PodVolumeRestore::new("r", PodVolumeRestoreSpec::default());
    restore.metadata.uid = Some("u".to_owned());
    restore.metadata.namespace = Some("shop".to_owned());
    restore
}

fn recorded(mode: VolumeMode) -> RecordedClaim {
    RecordedClaim {
        size_bytes: 1,
        volume_mode: Some(mode),
        access_modes: vec!["ReadWriteMany".to_owned()],
        fs_type: Some("xfs".to_owned()),
        ..RecordedClaim::default()
    }
}

fn pairs(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn working() -> PersistentVolume {
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some("pvc-1".to_owned()),
            uid: Some("1".to_owned()),
            resource_version: Some("7".to_owned()),
            finalizers: Some(vec!["kubernetes.io/pv-protection".to_owned()]),
            labels: Some(pairs(&[
                ("topology.kubernetes.io/zone", "a"),
                ("snaphaul.dev/owner-uid", "u"),
                ("velero.io/exclude-from-backup", "true"),
            ])),
            annotations: Some(pairs(&[
                ("pv.kubernetes.io/provisioned-by", "d"),
                ("pv.kubernetes.io/bound-by-controller", "yes"),
                ("volume.kubernetes.io/provisioner-deletion-secret-name", "s"),
                (
                    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
                    "n",
                ),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            capacity: Some([("storage".to_owned(), Quantity("2".to_owned()))].into()),
            claim_ref: Some(claim_ref("system", "snaphaul-u", "c")),
            csi: Some(CSIPersistentVolumeSource {
                driver: "d".to_owned(),
                volume_handle: "h".to_owned(),
                node_stage_secret_ref: Some(SecretReference {
                    name: Some("key".to_owned()),
                    namespace: Some("n".to_owned()),
                }),
                volume_attributes: Some(pairs(&[(PROVISIONER_IDENTITY, "1"), ("pool", "p")])),
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: Some(vec!["noatime".to_owned()]),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector::default()),
            }),
            persistent_volume_reclaim_policy: Some(DELETE.to_owned()),
            storage_class_name: Some("fast".to_owned()),
            volume_mode: Some("Block".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

#[test]
fn a_volume_made_again_is_the_same_storage_for_another_claim() {
    let old = working();
    let made = for_claim(&restore(), &recorded(VolumeMode::Filesystem), &old).unwrap();
    let (old, spec) = (old.spec.unwrap(), made.spec.unwrap());
    let (was, csi) = (old.csi.unwrap(), spec.csi.unwrap());
    assert_eq!(
        (csi.driver, csi.volume_handle),
        (was.driver, was.volume_handle)
    );
    assert_eq!(csi.node_stage_secret_ref, was.node_stage_secret_ref);
    assert_eq!(csi.volume_attributes, Some(pairs(&[("pool", "p")])));
    assert_eq!(csi.fs_type.as_deref(), Some("xfs"));
    assert_eq!(spec.capacity, old.capacity);
    assert_eq!(spec.node_affinity, old.node_affinity);
    assert_eq!(spec.mount_options, old.mount_options);
    assert_eq!(spec.storage_class_name, old.storage_class_name);
    assert_eq!(spec.volume_mode.as_deref(), Some("Filesystem"));
    assert_eq!(spec.access_modes, Some(vec!["ReadWriteMany".to_owned()]));
    // Until its claim is bound nothing may delete the storage.
    assert_eq!(
        spec.persistent_volume_reclaim_policy.as_deref(),
        Some(RETAIN)
    );
    assert_eq!(spec.claim_ref, None);
}

#[test]
fn what_is_about_the_old_object_stays_behind() {
    let made = for_claim(&restore(), &recorded(VolumeMode::Block), &working()).unwrap();
    let metadata = made.metadata;
    assert_eq!(metadata.name.as_deref(), Some("snaphaul-u"));
    assert_eq!((metadata.uid, metadata.resource_version), (None, None));
    assert_eq!(metadata.finalizers, None);
    let annotations: Vec<String> = metadata.annotations.unwrap().into_keys().collect();
    assert_eq!(annotations, DELETION_ANNOTATIONS);
    let labels = metadata.labels.unwrap();
    assert!(labels.contains_key("topology.kubernetes.io/zone"));
    assert!(
        !labels
            .keys()
            .any(|key| key.contains("snaphaul.dev") || key.contains("velero.io"))
    );
    assert_eq!(made.spec.unwrap().csi.unwrap().fs_type, None);
}

#[test]
fn a_second_name_never_owns_the_storage() {
    let second = second_name(&restore(), "system", &working()).unwrap();
    assert_eq!(reclaim_policy(&second), RETAIN);
    // Without it external-provisioner deletes nothing, whatever the policy says.
    assert_eq!(second.metadata.annotations, None);
    let spec = second.spec.unwrap();
    assert_eq!(spec.storage_class_name.as_deref(), Some(""));
    let owner = spec.claim_ref.unwrap();
    assert_eq!(owner.namespace.as_deref(), Some("system"));
    assert_eq!(
        (owner.name.as_deref(), owner.uid),
        (Some("snaphaul-u"), None)
    );
}

#[test]
fn only_a_plain_volume_of_the_driver_is_made_again() {
    let good = r#"{"spec": {"csi": {"driver": "d", "volumeHandle": "v"}, "capacity": {"storage": "1Gi"}}}"#;
    assert!(is_plain_csi(good, "v"));
    assert!(!is_plain_csi(good, "w"));
    let both =
        r#"{"spec": {"csi": {"driver": "d", "volumeHandle": "v"}, "hostPath": {"path": "/"}}}"#;
    assert!(!is_plain_csi(both, "v"));
    assert!(!is_plain_csi(
        r#"{"spec": {"hostPath": {"path": "/"}}}"#,
        "v"
    ));
    assert!(!is_plain_csi("no JSON", "v"));
}
