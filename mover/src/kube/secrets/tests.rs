use proptest::prelude::*;

use super::template::{name, namespace, speaks_of_claim};
use super::*;

fn names() -> Names {
    Names {
        claim: Some("data".to_owned()),
        claim_namespace: Some("shop".to_owned()),
        claim_annotations: BTreeMap::from([("a.b/key".to_owned(), "team-a".to_owned())]),
        volume: Some("pvc-1".to_owned()),
        snapshot: Some("snap".to_owned()),
        snapshot_namespace: Some("shop".to_owned()),
        content: Some("snapcontent-1".to_owned()),
    }
}

/// Every token that a name may hold, with its value.
fn tokens() -> Vec<(&'static str, &'static str)> {
    vec![
        ("${pvc.name}", "data"),
        ("${pvc.namespace}", "shop"),
        ("${pvc.annotations['a.b/key']}", "team-a"),
        ("${pv.name}", "pvc-1"),
        ("${volumesnapshot.name}", "snap"),
        ("${volumesnapshot.namespace}", "shop"),
        ("${volumesnapshotcontent.name}", "snapcontent-1"),
    ]
}

fn part() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        "[a-z0-9]{1,6}".prop_map(|text| (text.clone(), text)),
        prop::sample::select(tokens())
            .prop_map(|(token, value)| (token.to_owned(), value.to_owned())),
    ]
}

proptest! {
    #[test]
    fn parts_are_filled_in_where_they_stand(parts in prop::collection::vec(part(), 1..6)) {
        let template: Vec<&str> = parts.iter().map(|(token, _)| token.as_str()).collect();
        let wanted: Vec<&str> = parts.iter().map(|(_, value)| value.as_str()).collect();
        prop_assert_eq!(name(&template.join("-"), &names()).unwrap(), wanted.join("-"));
    }

    #[test]
    fn any_text_ends_in_a_name_or_an_error(text in "(\\$|\\{|\\}|[a-z.'\\[\\]/ ]|pvc\\.name|\\$\\{pv\\.name\\}){0,12}") {
        if let Ok(name) = name(&text, &names()) {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            prop_assert!(!name.is_empty() && name.chars().all(fits), "{}", name);
        }
        let _ = namespace(&text, &names());
    }

    #[test]
    fn a_claim_is_seen_in_any_place(before in "[a-z-]{0,5}", after in "[a-z-]{0,5}", at in 0..3_usize) {
        let (token, _) = tokens()[at];
        let text = format!("{before}{token}{after}");
        prop_assert!(speaks_of_claim(&text), "{}", text);
        let text = format!("{before}${{pv.name}}{after}");
        prop_assert!(!speaks_of_claim(&text), "{}", text);
    }
}

fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()))
        .collect()
}

#[test]
fn what_nobody_fills_in_is_refused() {
    for text in [
        "${pvc.uid}",
        "${PVC.NAME}",
        "${}",
        "${pvc.annotations['other']}",
        "${ pv.name}",
    ] {
        let error = name(text, &names()).unwrap_err();
        assert!(
            matches!(error, TemplateError::Unknown { .. }),
            "{text}: {error}"
        );
    }
    let error = name("${pvc.name}", &Names::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`${pvc.name}`: nothing is known here for ${pvc.name}"
    );
    assert!(matches!(
        name("a-${pv.name", &names()),
        Err(TemplateError::Unended { .. })
    ));
    for text in ["", "A", "a_b", "../b", "-a", "a..b", &*"a".repeat(254)] {
        assert!(
            matches!(name(text, &names()), Err(TemplateError::NoName { .. })),
            "{text}"
        );
    }
}

#[test]
fn who_writes_a_claim_does_not_choose_the_namespace() {
    assert_eq!(namespace("${pvc.namespace}", &names()).unwrap(), "shop");
    for text in [
        "${pvc.name}",
        "${pvc.annotations['a.b/key']}",
        "${volumesnapshot.name}",
    ] {
        namespace(text, &names()).unwrap_err();
    }
    namespace("a.b", &names()).unwrap_err();
}

#[test]
fn each_group_has_the_secret_of_its_parameters() {
    let class = parameters(&[
        ("provisioner-secret-name", "prov"),
        ("provisioner-secret-namespace", "ceph"),
        ("node-stage-secret-name", "${pvc.name}-stage"),
        ("node-stage-secret-namespace", "${pvc.namespace}"),
        ("controller-expand-secret-name", "unused"),
        ("fstype", "xfs"),
    ]);
    let found = places(&class, &names()).unwrap();
    let place = |namespace: &str, name: &str| SecretPlace {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(
        found,
        Places::from([
            (Group::Provisioner, place("ceph", "prov")),
            (Group::NodeStage, place("shop", "data-stage")),
        ])
    );
    let old = parameters(&[("secret-name", "old"), ("secret-namespace", "ns")]);
    assert_eq!(
        places(&old, &names()).unwrap()[&Group::Provisioner],
        place("ns", "old")
    );
    let of_snapshots = parameters(&[
        ("snapshotter-secret-name", "takes"),
        ("snapshotter-secret-namespace", "ceph"),
        ("snapshotter-list-secret-name", "lists"),
        ("snapshotter-list-secret-namespace", "ceph"),
    ]);
    assert_eq!(
        places(&of_snapshots, &names()).unwrap(),
        Places::from([
            (Group::Snapshotter, place("ceph", "takes")),
            (Group::SnapshotterList, place("ceph", "lists")),
        ])
    );
    let half = parameters(&[("snapshotter-secret-name", "s")]);
    assert!(matches!(
        places(&half, &names()),
        Err(TemplateError::HalfAName { .. })
    ));
}

#[test]
fn classes_that_need_the_namespace_of_the_user_are_told() {
    let class = parameters(&[
        ("provisioner-secret-name", "fixed"),
        ("node-stage-secret-namespace", "${pvc.namespace}"),
    ]);
    assert_eq!(
        needs_source_namespace(&class),
        Some("csi.storage.k8s.io/node-stage-secret-namespace")
    );
    let class = parameters(&[
        ("provisioner-secret-name", "${pv.name}"),
        ("fstype", "${pvc.name}"),
    ]);
    assert_eq!(needs_source_namespace(&class), None);
}
