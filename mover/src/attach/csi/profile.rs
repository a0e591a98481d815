//! What is known of drivers that they do not say themselves, on the command line and in a cluster.
//!
//! Owns: the fields of a profile and their names; `built_in` is the table, `overrides` what a person knows better. Must not: ask anybody, or read files.
//!
//! The names are those of every text: what `csi info` prints, what `--csi-profile` takes, what a ConfigMap holds.
//!
//! ```yaml
//! # what `--csi-profile FILE` reads; each entry of the ConfigMap is what is below a driver: only what differs is written
//! rbd.csi.ceph.com:
//!   cloneStorageClassName: ceph-clones
//!   baseSnapshot: drop
//! ```

mod built_in;
mod overrides;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use overrides::{Profiles, ProfilesError};

/// What a volume made from a snapshot costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloneCost {
    /// Blocks are shared until one of both is written.
    #[serde(rename = "cow")]
    CopyOnWrite,
    /// All of it is copied.
    Copy,
    /// Nobody looked.
    Unknown,
}

/// Whether the snapshot of a point is kept until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BasePolicy {
    /// A delta needs it.
    Keep,
    /// The storage suffers from snapshots that stay, or no delta needs them.
    Drop,
}

/// How a device of this driver is reached in a cluster, where a backup does not say. As in a backup, capitals may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachWay {
    /// A small pod makes the kubelet attach it.
    #[serde(alias = "Pod")]
    Pod,
    /// By the driver's own socket; only without ControllerPublish.
    #[serde(alias = "CSI")]
    Csi,
    /// Without a clone, by the storage's own protocol.
    #[serde(alias = "Direct")]
    Direct,
}

/// How a clone is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloneAccess {
    /// By one node, which may write.
    ReadWriteOnce,
    /// For reading only: some drivers make no copy then.
    ReadOnlyMany,
}

impl CloneAccess {
    /// The word in a claim.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadOnlyMany => "ReadOnlyMany",
        }
    }
}

/// What is known of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// Whether it serves block devices at all.
    pub block: bool,
    /// How its devices are reached in a cluster.
    pub attach_strategy: AttachWay,
    /// The storage class that clones are made with; without it that of the volume.
    #[serde(deserialize_with = "text")]
    pub clone_storage_class_name: Option<String>,
    /// How a clone is claimed.
    pub clone_access_mode: CloneAccess,
    /// What a volume made from a snapshot costs.
    pub clone_cost: CloneCost,
    /// Whether the snapshot of a point is kept.
    pub base_snapshot: BasePolicy,
    /// Annotation of a VolumeSnapshot that holds what the driver takes as a base in place of the snapshot's handle.
    #[serde(deserialize_with = "text")]
    pub change_id_annotation: Option<String>,
    /// Name of its SnapshotMetadataService; without it that of the driver.
    #[serde(deserialize_with = "text")]
    pub snapshot_metadata_service_name: Option<String>,
    /// How many snapshots a volume may have, where that is few.
    #[serde(deserialize_with = "count")]
    pub max_snapshots_per_volume: Option<u32>,
    /// The class that snapshots are taken with; without it the cluster's default of the driver.
    #[serde(deserialize_with = "text")]
    pub volume_snapshot_class_name: Option<String>,
}

impl Default for Profile {
    /// Of a driver that nothing is known of.
    fn default() -> Self {
        built_in::unknown()
    }
}

/// An empty text takes away what is built in.
fn text<'a, D: Deserializer<'a>>(value: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(value)?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// So does nought.
fn count<'a, D: Deserializer<'a>>(value: D) -> Result<Option<u32>, D::Error> {
    let count = Option::<u32>::deserialize(value)?;
    Ok(count.filter(|count| *count > 0))
}

impl Profile {
    /// What is built in of the driver of this name.
    #[must_use]
    pub fn of(driver: &str) -> Self {
        built_in::find(driver)
    }

    /// Name of the SnapshotMetadataService that speaks for `driver`.
    #[must_use]
    pub fn service_name<'a>(&'a self, driver: &'a str) -> &'a str {
        self.snapshot_metadata_service_name
            .as_deref()
            .unwrap_or(driver)
    }

    /// Every field by its name, as texts that `--csi-profile NAME=VALUE` takes; what is not known is empty.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let fields = match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            // Words, numbers and texts can always be written.
            _ => serde_json::Map::new(),
        };
        let word = |value: Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        fields
            .into_iter()
            .map(|(name, value)| (name, word(value)))
            .collect()
    }

    /// The same with another value of one field.
    fn with(&self, name: &str, value: Value) -> serde_json::Result<Self> {
        let mut fields = serde_json::to_value(self)?;
        if let Value::Object(fields) = &mut fields {
            fields.insert(name.to_owned(), value);
        }
        serde_json::from_value(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_the_name_of_its_driver_unless_told_otherwise() {
        let mut profile = Profile::of("d");
        assert_eq!(profile.service_name("d"), "d");
        profile.snapshot_metadata_service_name = Some("s".to_owned());
        assert_eq!(profile.service_name("d"), "s");
    }

    #[test]
    fn words_are_those_of_the_documentation() {
        let pairs = Profile::of("csi.vsphere.vmware.com").pairs();
        let said: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            said,
            [
                "attachStrategy=pod",
                "baseSnapshot=drop",
                "block=true",
                "changeIdAnnotation=csi.vsphere.volume/change-id",
                "cloneAccessMode=ReadWriteOnce",
                "cloneCost=copy",
                "cloneStorageClassName=",
                "maxSnapshotsPerVolume=3",
                "snapshotMetadataServiceName=",
                "volumeSnapshotClassName=",
            ]
        );
    }
}
