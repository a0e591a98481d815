use super::*;
use crate::kube::api::PodVolumeRestoreSpec;
use crate::kube::api::restore::{StorageRequest, TargetResources};

fn restore(size: Option<&str>) -> PodVolumeRestore {
    let mut restore = PodVolumeRestore::new("r", PodVolumeRestoreSpec::default());
    restore.metadata.uid = Some("u-1".to_owned());
    restore.metadata.namespace = Some("shop".to_owned());
    restore.spec.target.name = "data".to_owned();
    restore.spec.target.resources = size.map(|size| TargetResources {
        requests: StorageRequest {
            storage: Quantity(size.to_owned()),
        },
    });
    restore
}

fn recorded() -> RecordedClaim {
    RecordedClaim {
        size_bytes: 1 << 30,
        storage_class_name: Some("fast".to_owned()),
        volume_mode: Some(VolumeMode::Filesystem),
        access_modes: vec!["ReadWriteOnce".to_owned()],
        ..RecordedClaim::default()
    }
}

fn class(grows: bool) -> StorageClass {
    StorageClass {
        allow_volume_expansion: Some(grows),
        ..StorageClass::default()
    }
}

fn reason(result: Result<(), Refusal>) -> Option<Reason> {
    result.err().map(|(reason, _)| reason)
}

#[test]
fn sizes_are_compared_with_the_points() {
    let refused = Some(Reason::TargetRefused);
    for (size, grows, expected) in [
        (None, false, None),
        (Some("1Gi"), false, None),
        (Some("1073741824"), false, None),
        (Some("2Gi"), true, None),
        (Some("2Gi"), false, refused),
        (Some("1G"), true, refused),
        (Some("1023Mi"), true, refused),
        (Some("a lot"), true, refused),
    ] {
        let result = check(&restore(size), &recorded(), Some(&class(grows)), None);
        assert_eq!(reason(result), expected, "{size:?} {grows}");
    }
    assert_eq!(bigger_size(&restore(Some("1Gi")), &recorded(), None), None);
    let bigger = Some(Quantity("2Gi".to_owned()));
    assert_eq!(
        bigger_size(&restore(Some("2Gi")), &recorded(), None),
        bigger
    );
}

#[test]
fn a_class_must_exist_and_not_need_the_namespace_of_the_claim() {
    let result = check(&restore(None), &recorded(), None, None);
    assert_eq!(reason(result), Some(Reason::NotFound));
    let mut own = class(false);
    let key = "csi.storage.k8s.io/node-stage-secret-namespace".to_owned();
    own.parameters = Some([(key, "${pvc.namespace}".to_owned())].into());
    let result = check(&restore(None), &recorded(), Some(&own), None);
    assert_eq!(reason(result), Some(Reason::ClassNeedsSourceNamespace));
    let mut unnamed = recorded();
    unnamed.storage_class_name = None;
    let result = check(&restore(None), &unnamed, Some(&class(false)), None);
    assert_eq!(reason(result), Some(Reason::TargetRefused));
}

#[test]
fn the_working_claim_is_a_device_that_can_be_written() {
    let mut recorded = recorded();
    recorded.access_modes = vec!["ReadOnlyMany".to_owned()];
    let claim = working_claim(&restore(Some("5Gi")), &recorded, "system");
    let spec = claim.spec.as_ref().unwrap();
    assert_eq!(spec.volume_mode.as_deref(), Some("Block"));
    assert_eq!(spec.access_modes, Some(vec!["ReadWriteOnce".to_owned()]));
    assert_eq!(requested_bytes(&claim), Some(1 << 30));
    assert_eq!(claim.metadata.namespace.as_deref(), Some("system"));
    let claim = new_claim(&restore(None), &recorded);
    let spec = claim.spec.unwrap();
    assert_eq!(spec.access_modes, Some(recorded.access_modes));
    assert_eq!(spec.volume_name.as_deref(), Some("snaphaul-u-1"));
}

#[test]
fn a_claim_that_asks_to_be_filled_gets_what_it_asks_for_or_nothing() {
    let claim = |class: &str, mode: &str, size: &str| {
        let mut claim = working_claim(&restore(None), &recorded(), "shop");
        let spec = claim.spec.as_mut().unwrap();
        spec.storage_class_name = Some(class.to_owned());
        spec.volume_mode = Some(mode.to_owned());
        spec.resources = Some(request(Quantity(size.to_owned())));
        claim
    };
    let suits = |claim: &PersistentVolumeClaim| suits(&restore(None), &recorded(), claim);
    assert!(suits(&claim("fast", "Filesystem", "1Gi")));
    assert!(suits(&claim("fast", "Filesystem", "1Mi")));
    assert!(!suits(&claim("slow", "Filesystem", "1Gi")));
    assert!(!suits(&claim("fast", "Block", "1Gi")));
    assert!(!suits(&claim("fast", "Filesystem", "2Gi")));
    let mut shared = claim("fast", "Filesystem", "1Gi");
    shared.spec.as_mut().unwrap().access_modes = Some(vec!["ReadWriteMany".to_owned()]);
    assert!(!suits(&shared));
    // Made for whoever asks: what the record says then is the claim's.
    let taken = as_claimed(&recorded(), Some(&shared));
    assert!(super::suits(&restore(None), &taken, &shared));
}

#[test]
fn the_volume_is_made_where_the_first_pod_will_be() {
    let mut asking = new_claim(&restore(None), &recorded());
    assert_eq!(selected_node(&asking), None);
    let annotations = asking.metadata.annotations.get_or_insert_default();
    annotations.insert(SELECTED_NODE.to_owned(), "n1".to_owned());
    let mut working = working_claim(&restore(None), &recorded(), "system");
    follow_consumer(&mut working, &asking);
    assert_eq!(selected_node(&working), Some(&"n1".to_owned()));
}
