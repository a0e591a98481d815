//! Which classes are used for a snapshot and its working copy.
//!
//! Owns: the order in which they are looked for, and the refusals. Must not: ask the API server.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;

use crate::kube::api::conditions::Reason;
use crate::kube::foreign::snapshot::{DEFAULT_CLASS, VolumeSnapshotClass};

/// A refusal, with its reason.
pub type Refusal = (Reason, String);

/// The snapshot class: the backup's, the profile's, the driver's default, its only one.
///
/// # Errors
/// `NotFound` where the named one does not exist or is of another driver, `NoSnapshotClass` with the candidates where none can be chosen.
pub fn snapshot_class(
    named: Option<&str>,
    profile: Option<&str>,
    driver: &str,
    classes: &[VolumeSnapshotClass],
) -> Result<String, Refusal> {
    let name_of = |class: &VolumeSnapshotClass| class.metadata.name.clone().unwrap_or_default();
    if let Some(name) = named.or(profile) {
        let found = classes.iter().find(|class| name_of(class) == name);
        return match found {
            Some(class) if class.driver == driver => Ok(name.to_owned()),
            Some(class) => Err((
                Reason::NoSnapshotClass,
                format!(
                    "VolumeSnapshotClass {name} is of driver {}, the volume of {driver}",
                    class.driver
                ),
            )),
            None => Err((
                Reason::NoSnapshotClass,
                format!("there is no VolumeSnapshotClass {name}"),
            )),
        };
    }
    let mut candidates: Vec<&VolumeSnapshotClass> = classes
        .iter()
        .filter(|class| class.driver == driver)
        .collect();
    candidates.sort_by_key(|class| name_of(class));
    let is_default = |class: &&&VolumeSnapshotClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(DEFAULT_CLASS))
            .is_some_and(|value| value == "true")
    };
    let defaults: Vec<&&VolumeSnapshotClass> = candidates.iter().filter(is_default).collect();
    match (defaults.as_slice(), candidates.as_slice()) {
        ([only], _) => Ok(name_of(only)),
        ([], [only]) => Ok(name_of(only)),
        (_, []) => Err((
            Reason::NoSnapshotClass,
            format!("driver {driver} has no VolumeSnapshotClass: create one"),
        )),
        _ => {
            let names: Vec<String> = candidates.iter().map(|class| name_of(class)).collect();
            Err((
                Reason::NoSnapshotClass,
                format!(
                    "driver {driver} has several classes and not one default: name one of {} in volumeSnapshotClassName",
                    names.join(", ")
                ),
            ))
        }
    }
}

/// The storage class of the working copy: the profile's, the volume's, or the driver's only one.
///
/// # Errors
/// `ClassNeedsSourceNamespace` where the class takes secrets by the name or namespace of the claim, which the working copy does not have.
pub fn clone_class(
    profile: Option<&str>,
    of_volume: Option<&str>,
    driver: &str,
    classes: &[StorageClass],
) -> Result<Option<String>, Refusal> {
    let name_of = |class: &StorageClass| class.metadata.name.clone().unwrap_or_default();
    let named = |name: &str| {
        classes
            .iter()
            .find(|class| name_of(class) == name && class.provisioner == driver)
    };
    let only = || {
        let mut all = classes.iter().filter(|class| class.provisioner == driver);
        let first = all.next();
        // Of several, nobody said which.
        first.filter(|_| all.next().is_none())
    };
    let chosen = match profile {
        Some(name) => named(name),
        None => of_volume.and_then(named).or_else(only),
    };
    let Some(class) = chosen else { return Ok(None) };
    let none = BTreeMap::new();
    let needs = class
        .parameters
        .as_ref()
        .unwrap_or(&none)
        .iter()
        .find(|(key, value)| key.contains("secret-name") && value.contains("${pvc."));
    match needs {
        Some((key, value)) => Err((
            Reason::ClassNeedsSourceNamespace,
            format!(
                "StorageClass {} takes its secrets from the claim ({key}: {value}): name another one in the driver's profile (cloneStorageClassName)",
                name_of(class)
            ),
        )),
        None => Ok(Some(name_of(class))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn class(name: &str, driver: &str, default: bool) -> VolumeSnapshotClass {
        VolumeSnapshotClass {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                annotations: default
                    .then(|| BTreeMap::from([(DEFAULT_CLASS.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            driver: driver.to_owned(),
            ..VolumeSnapshotClass::default()
        }
    }

    #[test]
    fn the_class_is_looked_for_in_order() {
        let classes = [
            class("a", "d", false),
            class("b", "d", true),
            class("c", "e", false),
        ];
        let choose = |named, profile, driver| snapshot_class(named, profile, driver, &classes);
        assert_eq!(choose(Some("a"), Some("b"), "d").unwrap(), "a");
        assert_eq!(choose(None, Some("a"), "d").unwrap(), "a");
        assert_eq!(choose(None, None, "d").unwrap(), "b");
        assert_eq!(choose(None, None, "e").unwrap(), "c");
        assert!(
            choose(Some("c"), None, "d")
                .unwrap_err()
                .1
                .contains("driver e")
        );
        assert!(
            choose(None, None, "x")
                .unwrap_err()
                .1
                .contains("create one")
        );
    }

    #[test]
    fn without_a_default_the_candidates_are_named() {
        let classes = [class("b", "d", false), class("a", "d", false)];
        let (reason, why) = snapshot_class(None, None, "d", &classes).unwrap_err();
        assert_eq!(reason, Reason::NoSnapshotClass);
        assert!(why.contains("a, b"), "{why}");
    }

    #[test]
    fn a_class_with_secrets_of_the_claim_is_refused() {
        let class = StorageClass {
            metadata: ObjectMeta {
                name: Some("s".to_owned()),
                ..ObjectMeta::default()
            },
            provisioner: "d".to_owned(),
            parameters: Some(BTreeMap::from([(
                "csi.storage.k8s.io/node-stage-secret-name".to_owned(),
                "${pvc.name}-key".to_owned(),
            )])),
            ..StorageClass::default()
        };
        let (reason, _) =
            clone_class(None, Some("s"), "d", std::slice::from_ref(&class)).unwrap_err();
        assert_eq!(reason, Reason::ClassNeedsSourceNamespace);
        assert_eq!(
            clone_class(Some("other"), None, "d", &[class]).unwrap(),
            None
        );
    }
}
