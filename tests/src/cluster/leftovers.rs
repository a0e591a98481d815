//! What backups and restores can leave in a cluster, counted.
//!
//! Owns: reading it. Must not: clean up.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use super::api::Api;
use super::storage::Storage;
use crate::csi::Plugin as _;
use crate::csi::leaks::Leaks;

/// The kinds whose objects are counted.
const KINDS: [(&str, &str); 7] = [
    ("pod", "/api/v1/pods"),
    ("claim", "/api/v1/persistentvolumeclaims"),
    ("volume", "/api/v1/persistentvolumes"),
    (
        "snapshot",
        "/apis/snapshot.storage.k8s.io/v1/volumesnapshots",
    ),
    (
        "content",
        "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents",
    ),
    ("attachment", "/apis/storage.k8s.io/v1/volumeattachments"),
    ("lease", "/apis/coordination.k8s.io/v1/leases"),
];
/// The label of what stays on purpose.
const BASE: &str = "snaphaul.dev/base";

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Holdings {
    objects: BTreeSet<String>,
    bases: BTreeSet<String>,
    machine: Leaks,
}

impl Holdings {
    /// Reads it.
    ///
    /// # Errors
    /// Where the API server or the driver does not answer.
    pub fn now(api: &Api, storage: &Storage) -> Result<Self> {
        let (mut objects, mut bases) = (BTreeSet::new(), BTreeSet::new());
        let mut handles = Vec::new();
        for (kind, path) in KINDS {
            for object in api.list(path)? {
                let meta = &object["metadata"];
                let name = format!(
                    "{kind} {}/{}",
                    meta["namespace"].as_str().unwrap_or(""),
                    meta["name"].as_str().unwrap_or("")
                );
                if meta["labels"][BASE].is_null() {
                    objects.insert(name);
                } else {
                    handles.extend(handle(&object));
                    bases.insert(name);
                }
            }
        }
        let mut machine = storage.driver.leaks()?;
        machine.snapshots.retain(|name| !handles.contains(name));
        Ok(Self {
            objects,
            bases,
            machine,
        })
    }

    /// What is there and was not `before`, one line each; kept bases and their snapshots are no leftovers.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        let new = self.objects.difference(&before.objects).cloned();
        new.chain(self.machine.since(&before.machine)).collect()
    }

    /// The objects of kept bases.
    #[must_use]
    pub fn bases(&self) -> &BTreeSet<String> {
        &self.bases
    }
}

fn handle(content: &Value) -> Option<String> {
    let handle = content["status"]["snapshotHandle"].as_str();
    handle
        .or_else(|| content["spec"]["source"]["snapshotHandle"].as_str())
        .map(str::to_owned)
}
