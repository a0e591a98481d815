use ::kube::CustomResourceExt as _;

use super::conditions::Reason;
use super::*;

#[test]
fn resources_have_the_names_that_the_documentation_uses() {
    let names: Vec<String> = [
        PodVolumeBackup::crd(),
        PodVolumeRestore::crd(),
        SnapshotRepository::crd(),
    ]
    .into_iter()
    .map(|crd| crd.metadata.name.unwrap())
    .collect();
    assert_eq!(
        names,
        [
            "podvolumebackups.snaphaul.dev",
            "podvolumerestores.snaphaul.dev",
            "snapshotrepositories.snaphaul.dev"
        ]
    );
}

#[test]
fn every_reason_is_found_by_its_word_and_documented() {
    for reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        assert!(reason.meaning().trim().ends_with('.'), "{reason:?}");
    }
}
