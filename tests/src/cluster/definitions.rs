//! The foreign kinds of every cluster: snapshots of `snapshot.storage.k8s.io`, and the metadata service of `cbt.storage.k8s.io`.
//!
//! Owns: their installation. Must not: hold copies of the first: `tests/run` lays them into the cache from the module that the
//! snapshot controller is built with. The module of the second is not to be had from the public proxy, so that its definition
//! is written here, from the fields that its documentation names.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::kubectl::Kubectl;
use crate::part;

/// What the cluster knows after [`install`].
const ESTABLISHED: [&str; 4] = [
    "volumesnapshots.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshotclasses.snapshot.storage.k8s.io",
    "snapshotmetadataservices.cbt.storage.k8s.io",
];
const METADATA_SERVICE: &str = include_str!("snapshot_metadata_service.yaml");

/// Installs all of them and waits until they are served.
pub(super) fn install(kubectl: &Kubectl) -> Result<()> {
    let mut yaml = METADATA_SERVICE.to_owned();
    for path in snapshot_definitions()? {
        yaml.push_str("\n---\n");
        let text = std::fs::read_to_string(&path);
        yaml.push_str(&text.with_context(|| format!("read {}", path.display()))?);
    }
    kubectl.apply(&yaml)?;
    let mut wait = vec![
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd",
    ];
    wait.extend(ESTABLISHED);
    kubectl.run(&wait).map(drop)
}

fn snapshot_definitions() -> Result<Vec<PathBuf>> {
    let folder = part::cache().join("crds/snapshots");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).into_iter().flatten() {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!(
            "the definitions of VolumeSnapshot are missing in {}: run `tests/run`, which lays them there",
            folder.display()
        );
    }
    paths.sort();
    Ok(paths)
}
