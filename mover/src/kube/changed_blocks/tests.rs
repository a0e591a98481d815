use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use super::*;

fn service(required: Option<bool>) -> MetadataService {
    MetadataService {
        address: "a:1".to_owned(),
        audience: "b".to_owned(),
        ca_cert: ByteString(b"PEM".to_vec()),
        require_base_snapshot_for_delta: required,
    }
}

#[test]
fn the_service_knows_better_than_the_profile() {
    let keeps = Profile::of("rbd.csi.ceph.com");
    let drops = Profile::of("csi.vsphere.vmware.com");
    for (required, profile, needs) in [
        (None, &keeps, true),
        (None, &drops, false),
        (Some(true), &drops, true),
        (Some(false), &keeps, false),
    ] {
        assert_eq!(needs_base(&service(required), profile), needs);
    }
}

#[test]
fn a_change_id_is_what_the_profile_names() {
    let profile = Profile::of("csi.vsphere.vmware.com");
    let of = |pairs: &[(&str, &str)]| {
        let annotations: BTreeMap<String, String> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let id = snapshot::from_annotations(&profile, &annotations);
        id.map(str::to_owned)
    };
    let key = "csi.vsphere.volume/change-id";
    assert_eq!(of(&[(key, "52 60/6")]).as_deref(), Some("52 60/6"));
    assert_eq!(of(&[(key, "")]), None);
    assert_eq!(of(&[(key, &"x".repeat(1025))]), None);
    assert_eq!(of(&[("csi.vsphere.volume/snapshot", "v+s")]), None);
    let annotations = BTreeMap::from([(key.to_owned(), "1".to_owned())]);
    let other = Profile::of("rbd.csi.ceph.com");
    assert_eq!(snapshot::from_annotations(&other, &annotations), None);
}

#[test]
fn a_point_keeps_the_change_id() {
    let subject = Subject {
        namespace: "n".to_owned(),
        name: "s".to_owned(),
        driver: "d".to_owned(),
        driver_version: Some("1".to_owned()),
        volume_handle: "v".to_owned(),
        snapshot_handle: "v+1".to_owned(),
    };
    let facts = snapshot::Facts {
        change_id: Some("52 60/6".to_owned()),
        created: Some((1_700_000_000, 5)),
    };
    let identity = named(&subject, facts).identity();
    assert_eq!(identity.fact("change-id"), Some("52 60/6"));
    assert_eq!(identity.fact("driver-version"), Some("1"));
    let older = snapshot::Facts {
        created: Some((1_600_000_000, 0)),
        ..snapshot::Facts::default()
    };
    let older = named(&subject, older);
    assert_eq!(older.base_id(), "v+1");
    assert!(older.goes_back(&identity).is_some());
}

#[test]
fn why_there_is_no_connection_decides_what_to_do() {
    let of = |reason: &str| {
        let error = ConnectError::Unreachable {
            endpoint: "a:1".to_owned(),
            reason: reason.to_owned(),
        };
        not_connected(error, "a:1").kind()
    };
    let unknown = "transport error: invalid peer certificate: UnknownIssuer";
    assert_eq!(of(unknown), ErrorKind::AccessDenied);
    assert_eq!(of("tcp connect error"), ErrorKind::Unavailable);
}

#[test]
fn nobody_is_a_reason_and_an_error_is_a_fault() {
    let with = |_: ClusterBlocks| unreachable!("there is no service");
    let absent = delta_sources(Ok(Found::Absent("none".to_owned())), with);
    assert!(!absent.unusable[0].is_fault);
    let refused = Error::new(ErrorKind::AccessDenied, "get services").hint("allow it");
    let faulty = delta_sources(Err(refused), with);
    assert!(faulty.unusable[0].is_fault);
    assert!(faulty.unusable[0].reason.contains("allow it"));
}
