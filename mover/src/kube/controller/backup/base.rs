//! Base snapshots: the pair of objects that keeps the snapshot of the last point of a volume.
//!
//! Owns: their name, labels and shape. Must not: belong to a backup: a base outlives it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kube::api::names;

/// What the name of each base begins with.
pub const PREFIX: &str = "snaphaul-base-";
/// Hexadecimal digits of the hash in the name.
const HASH_DIGITS: usize = 32;

/// Name of the base of a volume in a repository.
#[must_use]
pub fn name(driver: &str, volume_handle: &str, repository: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update([driver, volume_handle, repository].join("\0").as_bytes());
    let hash = hasher.finalize().to_hex();
    format!("{PREFIX}{}", hash.get(..HASH_DIGITS).unwrap_or_default())
}

/// Metadata of both objects of a base.
#[must_use]
pub fn metadata(
    name: &str,
    namespace: Option<&str>,
    volume_handle: &str,
    (repository, point): (&str, &str),
) -> ObjectMeta {
    let pairs = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
        list.iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(pairs(&[
            (names::BASE, name.strip_prefix(PREFIX).unwrap_or(name)),
            (names::VELERO_EXCLUDE, "true"),
            ("app.kubernetes.io/managed-by", names::MANAGER),
        ])),
        annotations: Some(pairs(&[
            (names::BASE_VOLUME, volume_handle),
            (names::BASE_REPOSITORY, repository),
            (names::BASE_POINT, point),
        ])),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_named_by_volume_and_repository() {
        let base = name("d", "v", "r");
        assert_eq!(base.len(), PREFIX.len() + HASH_DIGITS);
        assert_ne!(base, name("d", "v", "s"));
        assert_ne!(name("d", "ve", "r"), name("dv", "e", "r"));
        let metadata = metadata(&base, None, "v", ("r", "p"));
        assert!(metadata.labels.unwrap()[names::BASE].len() <= 63);
    }
}
