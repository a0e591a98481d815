//! What a point records of the claim, volume and cluster it came from: `status.order.recorded`, as JSON.
//!
//! Owns: the fields, and taking them from claim and volume. Must not: drop a field that was ever written: restores of other clusters read it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, VolumeNodeAffinity};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::quantity;

/// Annotations with these prefixes are other programs' notes about the old volume; a new claim must not carry them.
const NOT_RECORDED: [&str; 4] = [
    "kubectl.kubernetes.io/",
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
];

/// A claim, its volume and its cluster, as they were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Recorded {
    /// UID of the cluster: of its namespace kube-system.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: String,
    /// Namespace of the claim.
    pub namespace: String,
    /// UID of that namespace.
    #[serde(rename = "namespaceUID")]
    pub namespace_uid: String,
    /// Name of the claim.
    pub claim: String,
    /// Its UID.
    #[serde(rename = "claimUID", skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// The CSI driver.
    pub driver: String,
    /// The driver's handle of the volume.
    pub volume_handle: String,
    /// Bytes that the volume has at least.
    pub size_bytes: u64,
    /// What the claim asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// Storage class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// `Block` or `Filesystem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Access modes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// File system on it, as the volume says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<String>,
    /// Mount options of the volume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mount_options: Vec<String>,
    /// Labels of the claim.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the claim that are about it and not about its old volume.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When the snapshot was taken, as the driver says: long before it is read, where many volumes wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Time>,
    /// Nodes that the volume can be attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<VolumeNodeAffinity>,
}

impl Recorded {
    /// From a claim and the CSI volume it is bound to; nothing for a volume of another kind.
    #[must_use]
    pub fn of(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let wanted = claim.spec.as_ref();
        let storage = |resources: &BTreeMap<String, _>| resources.get("storage").cloned();
        let capacity = spec.capacity.as_ref().and_then(storage);
        let requested = wanted
            .and_then(|spec| spec.resources.as_ref()?.requests.as_ref())
            .and_then(storage);
        Some(Self {
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            claim: claim.metadata.name.clone().unwrap_or_default(),
            claim_uid: claim.metadata.uid.clone(),
            driver: csi.driver.clone(),
            volume_handle: csi.volume_handle.clone(),
            size_bytes: capacity.as_ref().and_then(quantity::bytes).unwrap_or(0),
            requested: requested.map(|quantity| quantity.0),
            storage_class_name: spec
                .storage_class_name
                .clone()
                .or_else(|| wanted?.storage_class_name.clone())
                .filter(|name| !name.is_empty()),
            volume_mode: spec
                .volume_mode
                .clone()
                .or_else(|| Some("Filesystem".to_owned())),
            access_modes: wanted
                .and_then(|spec| spec.access_modes.clone())
                .unwrap_or_default(),
            fs_type: csi.fs_type.clone(),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
            labels: claim.metadata.labels.clone().unwrap_or_default(),
            annotations: about_claim(claim.metadata.annotations.as_ref()),
            node_affinity: spec.node_affinity.clone(),
            ..Self::default()
        })
    }

    /// Reads what [`Recorded::to_json`] wrote, also of an older or newer program.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("maps of strings and numbers can be written")
    }
}

fn about_claim(annotations: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| !NOT_RECORDED.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_json_and_unknown_fields() {
        let recorded = Recorded {
            cluster_uid: "c".to_owned(),
            driver: "d".to_owned(),
            size_bytes: 1 << 40,
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ..Recorded::default()
        };
        let text = recorded.to_json().replacen('{', r#"{"later":1,"#, 1);
        assert_eq!(Recorded::from_json(&text), Some(recorded));
    }

    #[test]
    fn notes_about_the_old_volume_are_left_out() {
        let annotations = BTreeMap::from(
            ["pv.kubernetes.io/bind-completed", "team"].map(|key| (key.to_owned(), String::new())),
        );
        let kept = about_claim(Some(&annotations));
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["team"]);
    }
}
