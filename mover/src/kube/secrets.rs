//! Secrets of a driver, from the cluster: which ones a class means, and what is in them.
//!
//! Owns: the way from the parameters of a class to the secrets of each group of calls. Must not: show, log or keep a value.
//!
//! Facts: the parameters `csi.storage.k8s.io/GROUP-secret-name` and `-namespace` of external-provisioner (StorageClass) and of
//! external-snapshotter (VolumeSnapshotClass), <https://kubernetes-csi.github.io/docs/secrets-and-credentials.html>.

pub mod template;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

use self::template::{Names, TemplateError};
use super::refusal::{Rule, failed};
use crate::attach::csi::secrets::{Group, SecretMap, Secrets};
use crate::error::{Error, ErrorKind, Result};

const GET_SECRET: Rule = Rule {
    verb: "get",
    group: "",
    resource: "secrets",
};
const GET_CLASS: Rule = Rule {
    verb: "get",
    group: "storage.k8s.io",
    resource: "storageclasses",
};
const GET_SNAPSHOT_CLASS: Rule = Rule {
    verb: "get",
    group: "snapshot.storage.k8s.io",
    resource: "volumesnapshotclasses",
};

const PREFIX: &str = "csi.storage.k8s.io/";
/// Keys of before there were prefixes, which some classes still have.
const OLD_PROVISIONER: [(&str, &str); 2] = [
    ("csiProvisionerSecretName", "csiProvisionerSecretNamespace"),
    (
        "csi.storage.k8s.io/secret-name",
        "csi.storage.k8s.io/secret-namespace",
    ),
];

/// The groups that a VolumeSnapshotClass names; all others are those of a StorageClass.
const OF_SNAPSHOTS: [Group; 2] = [Group::Snapshotter, Group::SnapshotterList];

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretPlace {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The secret of each group of calls that has one.
pub type Places = BTreeMap<Group, SecretPlace>;

/// Which secrets a class means, for the object that `names` tells of: a StorageClass has those of volumes, a VolumeSnapshotClass
/// those of snapshots. Pure.
///
/// # Errors
/// [`TemplateError`] for a template that nobody fills in, a name without a namespace, or what is no name then.
pub fn places(
    parameters: &BTreeMap<String, String>,
    names: &Names,
) -> Result<Places, TemplateError> {
    let mut places = Places::new();
    for (group, stem) in Group::ALL {
        let keys = [
            format!("{PREFIX}{stem}-secret-name"),
            format!("{PREFIX}{stem}-secret-namespace"),
        ];
        let mut pair = keys.each_ref().map(|key| parameters.get(key));
        if group == Group::Provisioner {
            for (name, namespace) in OLD_PROVISIONER {
                if pair == [None, None] {
                    pair = [parameters.get(name), parameters.get(namespace)];
                }
            }
        }
        let [name, namespace] = match pair {
            [None, None] => continue,
            [Some(name), Some(namespace)] => [name, namespace],
            _ => {
                return Err(TemplateError::HalfAName {
                    key: keys[0].clone(),
                });
            }
        };
        let place = SecretPlace {
            namespace: template::namespace(namespace, names)?,
            name: template::name(name, names)?,
        };
        places.insert(group, place);
    }
    Ok(places)
}

/// The first parameter whose template speaks of the user's claim: clones are claimed in our own namespace under a name of ours, so that
/// it would name another secret, or none (`ClassNeedsSourceNamespace`).
#[must_use]
pub fn needs_source_namespace(parameters: &BTreeMap<String, String>) -> Option<&str> {
    let is_secret = |key: &str| {
        key.starts_with(PREFIX)
            && (key.ends_with("-secret-name") || key.ends_with("-secret-namespace"))
            || OLD_PROVISIONER
                .iter()
                .any(|(name, namespace)| key == *name || key == *namespace)
    };
    parameters
        .iter()
        .find(|(key, value)| is_secret(key) && template::speaks_of_claim(value))
        .map(|(key, _)| key.as_str())
}

/// Reads the secrets. Each is read once, however many groups share it.
///
/// # Errors
/// `AccessDenied` with the rule that is missing; `NotFound`; `InvalidRequest` for what no request may carry, by its key alone.
pub async fn read(client: &Client, places: &Places) -> Result<Secrets> {
    let mut known: BTreeMap<&SecretPlace, SecretMap> = BTreeMap::new();
    let mut groups = Vec::new();
    for (group, place) in places {
        if !known.contains_key(place) {
            known.insert(place, read_one(client, place).await?);
        }
        groups.push((*group, known.get(place).cloned().unwrap_or_default()));
    }
    Secrets::of_groups(groups)
}

/// The same secret for every group, as the command line is told.
///
/// # Errors
/// As [`read`].
pub async fn read_for_all(client: &Client, place: &SecretPlace) -> Result<Secrets> {
    let places = Group::ALL.map(|(group, _)| (group, place.clone()));
    read(client, &Places::from(places)).await
}

/// The secrets that two classes mean, where no object is at hand that a template could speak of.
///
/// # Errors
/// As [`read`]; `InvalidRequest` for a template.
pub async fn read_of_classes(
    client: &Client,
    storage: &str,
    snapshot: Option<&str>,
) -> Result<Secrets> {
    let classes: Api<StorageClass> = Api::all(client.clone());
    let class = classes.get(storage).await;
    let class = class.map_err(|error| failed(error, &GET_CLASS, storage))?;
    let unusable = |name: &str, error: TemplateError| {
        Error::new(ErrorKind::InvalidRequest, "find the secrets of a class")
            .object(name)
            .hint("name the secret itself: --csi-secrets k8s:NAMESPACE/NAME")
            .source(error)
    };
    let names = Names::default();
    let mut all = places(&class.parameters.unwrap_or_default(), &names)
        .map_err(|error| unusable(storage, error))?;
    all.retain(|group, _| !OF_SNAPSHOTS.contains(group));
    if let Some(name) = snapshot {
        let parameters = snapshot_class(client, name).await?;
        let mut found = places(&parameters, &names).map_err(|error| unusable(name, error))?;
        found.retain(|group, _| OF_SNAPSHOTS.contains(group));
        all.extend(found);
    }
    read(client, &all).await
}

async fn snapshot_class(client: &Client, name: &str) -> Result<BTreeMap<String, String>> {
    let rule = GET_SNAPSHOT_CLASS;
    let kind = GroupVersionKind::gvk(rule.group, "v1", "VolumeSnapshotClass");
    let resource = ApiResource::from_gvk_with_plural(&kind, rule.resource);
    let classes: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let class = classes.get(name).await;
    let class = class.map_err(|error| failed(error, &rule, name))?;
    let parameters = class.data.get("parameters").and_then(|map| map.as_object());
    let pairs = parameters.into_iter().flatten();
    Ok(pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect())
}

async fn read_one(client: &Client, place: &SecretPlace) -> Result<SecretMap> {
    let object = format!("{}/{}", place.namespace, place.name);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &place.namespace);
    let secret = secrets.get(&place.name).await;
    let secret = secret.map_err(|error| failed(error, &GET_SECRET, &object))?;
    let mut map = SecretMap::new();
    for (key, value) in secret.data.unwrap_or_default() {
        let text = String::from_utf8(value.0).map_err(|_| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("use the key {key}, which is no text, as a secret"),
            )
            .object(&object)
        })?;
        map.insert(key, text);
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
