use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::kube::api::repository::GrantSource;

fn place(cluster: &str, namespace: &str, uid: &str) -> Origin {
    Origin {
        cluster_uid: cluster.to_owned(),
        namespace: namespace.to_owned(),
        namespace_uid: uid.to_owned(),
    }
}

fn point(id: &str, origin: Option<Origin>, claim: &str, taken: i64) -> PointRecord {
    PointRecord {
        id: id.to_owned(),
        origin,
        claim_name: claim.to_owned(),
        taken_unix_millis: taken,
        ..PointRecord::default()
    }
}

fn grant(cluster: Option<&str>, namespace: &str, to: &[&str]) -> Grant {
    Grant {
        from: GrantSource {
            cluster_uid: cluster.map(str::to_owned),
            namespace: namespace.to_owned(),
        },
        to: to.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn id(id: &str) -> RestoreSource {
    RestoreSource {
        point_id: Some(id.to_owned()),
        ..RestoreSource::default()
    }
}

fn volume(claim: &str, as_of: Option<&str>) -> RestoreSource {
    RestoreSource {
        volume: Some(VolumeSource {
            claim_name: claim.to_owned(),
            as_of: as_of.map(|time| Time(time.parse().unwrap())),
        }),
        ..RestoreSource::default()
    }
}

fn found(answer: &PointAnswer) -> Option<&str> {
    match answer {
        PointAnswer::Found(point) => Some(&point.id),
        _ => None,
    }
}

fn reason(answer: &PointAnswer) -> Option<Reason> {
    match answer {
        PointAnswer::Refused { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[test]
fn a_namespace_owns_what_its_cluster_name_and_uid_made() {
    let own = place("c1", "shop", "u1");
    assert!(may_have(&own, Some(&own), &[]));
    for other in [
        place("c2", "shop", "u1"),
        place("c1", "bank", "u1"),
        place("c1", "shop", "u2"),
    ] {
        assert!(!may_have(&own, Some(&other), &[]), "{other:?}");
    }
    assert!(!may_have(&own, None, &[]));
}

#[test]
fn a_record_without_uids_is_nobodys() {
    let nameless = place("", "shop", "");
    assert!(!may_have(&nameless, Some(&nameless), &[]));
    let grants = [grant(Some(""), "shop", &["shop"])];
    assert!(!may_have(&nameless, Some(&nameless), &grants));
}

#[test]
fn a_grant_names_cluster_and_namespace_and_serves_only_those_it_is_for() {
    let asking = place("c1", "copy", "u9");
    let here = place("c1", "shop", "u1");
    let elsewhere = place("c2", "shop", "u1");
    let local = [grant(None, "shop", &["copy"])];
    assert!(may_have(&asking, Some(&here), &local));
    assert!(!may_have(&asking, Some(&elsewhere), &local));
    let remote = [grant(Some("c2"), "shop", &["copy"])];
    assert!(may_have(&asking, Some(&elsewhere), &remote));
    assert!(!may_have(&asking, Some(&here), &remote));
    assert!(!may_have(
        &asking,
        Some(&here),
        &[grant(None, "shop", &["other"])]
    ));
    assert!(!may_have(
        &asking,
        Some(&here),
        &[grant(None, "copy", &["shop"])]
    ));
}

#[test]
fn an_id_may_be_short_but_not_ambiguous_or_anothers() {
    let own = place("c1", "shop", "u1");
    let points = [
        point("aaaa1111", Some(own.clone()), "data", 1),
        point("aaaa2222", Some(own.clone()), "data", 2),
        point("bbbb1111", Some(place("c1", "bank", "u2")), "data", 3),
        point("cccc1111", None, "data", 4),
    ];
    let ask = |text: &str| choose(&id(text), &points, &own, &[]);
    assert_eq!(found(&ask("aaaa1")), Some("aaaa1111"));
    assert_eq!(reason(&ask("aaaa")), Some(Reason::NotFound));
    assert_eq!(reason(&ask("dddd")), Some(Reason::NotFound));
    assert_eq!(reason(&ask("bbbb")), Some(Reason::PointNotGranted));
    assert_eq!(reason(&ask("cccc")), Some(Reason::PointNotGranted));
}

#[test]
fn a_volume_gives_its_newest_point_up_to_a_time() {
    let own = place("c1", "shop", "u1");
    let old = place("c1", "shop", "u0");
    let points = [
        point("a1", Some(own.clone()), "data", 1_000_400),
        point("a2", Some(own.clone()), "data", 2_000_000),
        point("a3", Some(own.clone()), "other", 3_000_000),
        point("a4", Some(old), "data", 4_000_000),
    ];
    let ask = |source: &RestoreSource| choose(source, &points, &own, &[]);
    assert_eq!(found(&ask(&volume("data", None))), Some("a2"));
    // Listed as taken at second 1000.
    let at = Some("1970-01-01T00:16:40Z");
    assert_eq!(found(&ask(&volume("data", at))), Some("a1"));
    let before = Some("1970-01-01T00:16:39Z");
    assert_eq!(
        reason(&ask(&volume("data", before))),
        Some(Reason::NotFound)
    );
    let granted = [grant(None, "shop", &["shop"])];
    let answer = choose(&volume("data", None), &points, &own, &granted);
    assert_eq!(found(&answer), Some("a4"));
}
