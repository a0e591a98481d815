//! The definitions of the custom resources, as an API server takes them.
//!
//! ```text
//!   api (types, rules, descriptions) ─► derived schema ─► schema (what a person would have written) ─► YAML | JSON
//! ```
//!
//! Owns: their order and form; `manifests/base/crds/snaphaul.dev.yaml` is what [`yaml`] gives. Must not: send them anywhere.

mod schema;

use ::kube::CustomResourceExt as _;
use serde_json::Value;

use super::api::{PodVolumeBackup, PodVolumeRestore, SnapshotRepository};
use crate::error::{Error, ErrorKind, Result};

/// First lines of the YAML. The licence is that of the project.
const HEADING: &str = "\
# The custom resources of Snaphaul. Generated: do not edit.
#   cargo run --bin snaphaul -- crds > manifests/base/crds/snaphaul.dev.yaml
";

/// Every definition, in the order of their names; the keys of every object are sorted.
///
/// # Errors
/// `Internal` where a derived definition cannot be written as JSON.
pub fn all() -> Result<Vec<Value>> {
    [
        PodVolumeBackup::crd(),
        PodVolumeRestore::crd(),
        SnapshotRepository::crd(),
    ]
    .into_iter()
    .map(|definition| {
        let mut definition = serde_json::to_value(definition).map_err(|error| {
            Error::new(ErrorKind::Internal, "write the definition of a resource").source(error)
        })?;
        schema::polish(&mut definition);
        definition.sort_all_objects();
        Ok(definition)
    })
    .collect()
}

/// The same as one file of several YAML documents.
///
/// # Errors
/// As [`all`].
pub fn yaml() -> Result<String> {
    let mut text = HEADING.to_owned();
    for definition in all()? {
        text.push_str("---\n");
        let document = serde_saphyr::to_string(&definition).map_err(|error| {
            Error::new(ErrorKind::Internal, "write the definition of a resource")
                .source(error.to_string())
        })?;
        text.push_str(&document);
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
