//! Whose an intermediate object is, and what it is called.
//!
//! Owns: names, labels and annotations of intermediates. Must not: create them.
//!
//! The name follows from the UID of the backup or restore, so that whoever comes second finds what the first one made. Nothing has an
//! ownerReference: the garbage collector takes owners in another namespace for absent.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kube::api::names;

/// What every name of an intermediate begins with.
pub const PREFIX: &str = "snaphaul-";

/// A backup or restore that intermediates are made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// `PodVolumeBackup` or `PodVolumeRestore`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl Owner {
    /// Name of each of its intermediates.
    #[must_use]
    pub fn object_name(&self) -> String {
        object_name(&self.uid)
    }

    /// Name, labels and annotations of an intermediate; without a namespace it is of the cluster.
    #[must_use]
    pub fn metadata(&self, namespace: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.object_name()),
            namespace: namespace.map(str::to_owned),
            labels: Some(self.labels()),
            annotations: Some(self.annotations()),
            ..ObjectMeta::default()
        }
    }

    /// The labels that say whose an object is.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            (names::OWNER_UID, self.uid.as_str()),
            (names::OWNER_KIND, &self.kind),
            (names::OWNER_NAMESPACE, &self.namespace),
            (names::VELERO_EXCLUDE, "true"),
            ("app.kubernetes.io/managed-by", names::MANAGER),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// The annotations that say whose an object is.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(names::OWNER_NAME.to_owned(), self.name.clone())])
    }

    /// Whose this object is, as its labels say.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let label = |key: &str| metadata.labels.as_ref()?.get(key).cloned();
        let name = metadata.annotations.as_ref()?.get(names::OWNER_NAME);
        Some(Self {
            kind: label(names::OWNER_KIND)?,
            namespace: label(names::OWNER_NAMESPACE)?,
            name: name?.clone(),
            uid: label(names::OWNER_UID)?,
        })
    }

    /// Whether an object is this owner's.
    #[must_use]
    pub fn owns(&self, metadata: &ObjectMeta) -> bool {
        owner_uid(metadata) == Some(self.uid.as_str())
    }
}

/// UID of the owner of an object, as its labels say.
#[must_use]
pub fn owner_uid(metadata: &ObjectMeta) -> Option<&str> {
    metadata
        .labels
        .as_ref()?
        .get(names::OWNER_UID)
        .map(String::as_str)
}

/// Name of each intermediate of the owner with this UID.
#[must_use]
pub fn object_name(uid: &str) -> String {
    format!("{PREFIX}{uid}")
}

/// The UID that a name of an intermediate was made from.
#[must_use]
pub fn uid_of_name(name: &str) -> Option<&str> {
    let uid = name.strip_prefix(PREFIX)?;
    let is_uid = uid.len() == 36
        && uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase(),
        });
    is_uid.then_some(uid)
}

/// Selector of all intermediates of one owner.
#[must_use]
pub fn selector(uid: &str) -> String {
    format!("{}={uid}", names::OWNER_UID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_says_whose_it_is() {
        let owner = Owner {
            kind: "PodVolumeBackup".to_owned(),
            namespace: "shop".to_owned(),
            name: "a-name-longer-than-any-label-may-be-".repeat(3),
            uid: "7b0e6c1e-2f6d-4f0e-9a58-5c1f1d2e3f40".to_owned(),
        };
        let metadata = owner.metadata(Some("snaphaul-system"));
        assert_eq!(Owner::of(&metadata), Some(owner.clone()));
        assert!(owner.owns(&metadata));
        assert_eq!(
            uid_of_name(metadata.name.as_deref().unwrap()),
            Some(owner.uid.as_str())
        );
        assert!(
            metadata
                .labels
                .unwrap()
                .values()
                .all(|value| value.len() <= 63)
        );
    }

    #[test]
    fn names_of_others_are_nobodys() {
        assert_eq!(
            uid_of_name("snaphaul-base-0123456789abcdef0123456789abcdef"),
            None
        );
        assert_eq!(uid_of_name("snaphaul-controller"), None);
        assert_eq!(Owner::of(&ObjectMeta::default()), None);
    }
}
