//! What is known of CSI drivers in a cluster, and what users say about them.
//!
//! Owns: the built-in table, and overrides from a ConfigMap. Must not: ask the API server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::api::backup::AttachStrategy;
use crate::attach::csi::profile as csi;
use crate::error::{Error, ErrorKind, Result};

/// What a volume made of a snapshot costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CloneCost {
    /// Blocks are shared: nothing is copied.
    #[default]
    Cow,
    /// Everything is copied, which no incremental backup makes up for.
    Copy,
}

/// Whether the snapshot of a point is kept until the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BaseSnapshot {
    /// The driver needs it to say what changed.
    #[default]
    Keep,
    /// The storage suffers from snapshots that stay.
    Drop,
}

/// Access mode of the working copy of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloneAccess {
    /// `ReadWriteOnce`, which every driver has.
    #[default]
    ReadWriteOnce,
    /// `ReadOnlyMany`, where the driver serves it without a copy.
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

/// What is known of one driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DriverProfile {
    /// Whether it serves block devices at all.
    pub block: bool,
    /// How a snapshot becomes a device of an agent; never `Auto`.
    pub attach_strategy: AttachStrategy,
    /// Storage class of working copies. Absent: that of the source volume.
    pub clone_storage_class_name: Option<String>,
    /// Access mode of working copies.
    pub clone_access_mode: CloneAccess,
    /// What a working copy costs.
    pub clone_cost: CloneCost,
    /// Whether base snapshots are kept.
    pub base_snapshot: BaseSnapshot,
    /// Annotation of a VolumeSnapshotContent with the id that changed blocks are asked by, where it is not the handle.
    pub change_id_annotation: Option<String>,
    /// Name of the driver's SnapshotMetadataService, where it is not the driver's.
    pub snapshot_metadata_service_name: Option<String>,
    /// How many snapshots a volume may have, where that is few.
    pub max_snapshots_per_volume: Option<u32>,
    /// Snapshot class, where neither the backup nor the driver's default says it.
    pub volume_snapshot_class_name: Option<String>,
}

impl Default for DriverProfile {
    fn default() -> Self {
        Self {
            block: true,
            attach_strategy: AttachStrategy::Pod,
            clone_storage_class_name: None,
            clone_access_mode: CloneAccess::default(),
            clone_cost: CloneCost::default(),
            base_snapshot: BaseSnapshot::default(),
            change_id_annotation: None,
            snapshot_metadata_service_name: None,
            max_snapshots_per_volume: None,
            volume_snapshot_class_name: None,
        }
    }
}

impl DriverProfile {
    /// What is built in about this driver.
    #[must_use]
    pub fn built_in(driver: &str) -> Self {
        let known = csi::Profile::of(driver);
        let change_id = driver
            .ends_with("csi.vsphere.vmware.com")
            .then(|| "cns.vmware.com/change-id".to_owned());
        Self {
            block: known.block,
            clone_cost: match known.clone_cost {
                csi::CloneCost::Copy => CloneCost::Copy,
                csi::CloneCost::CopyOnWrite | csi::CloneCost::Unknown => CloneCost::Cow,
            },
            base_snapshot: match known.base {
                csi::BasePolicy::Keep => BaseSnapshot::Keep,
                csi::BasePolicy::Drop => BaseSnapshot::Drop,
            },
            max_snapshots_per_volume: known.max_snapshots,
            change_id_annotation: change_id,
            ..Self::default()
        }
    }
}

/// The profiles of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    overrides: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
}

impl Profiles {
    /// From the data of a ConfigMap: one key a driver, its value JSON or YAML with the fields that differ from what is built in.
    ///
    /// # Errors
    /// `InvalidRequest` for a value that is no profile; names the driver.
    pub fn from_config_map(data: &BTreeMap<String, String>) -> Result<Self> {
        let mut overrides = BTreeMap::new();
        for (driver, text) in data {
            let invalid = |why: String| {
                Error::new(
                    ErrorKind::InvalidRequest,
                    format!("read the profile of {driver}: {why}"),
                )
                .object(driver)
                .hint("write fields of a driver profile, e.g. `baseSnapshot: drop`")
            };
            let fields: serde_json::Map<String, serde_json::Value> =
                serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))?;
            merged(driver, &fields).map_err(|error| invalid(error.to_string()))?;
            overrides.insert(driver.clone(), fields);
        }
        Ok(Self { overrides })
    }

    /// What is known of a driver.
    #[must_use]
    pub fn of(&self, driver: &str) -> DriverProfile {
        let built_in = || DriverProfile::built_in(driver);
        let Some(fields) = self.overrides.get(driver) else {
            return built_in();
        };
        merged(driver, fields).unwrap_or_else(|_| built_in())
    }
}

fn merged(
    driver: &str,
    fields: &serde_json::Map<String, serde_json::Value>,
) -> serde_json::Result<DriverProfile> {
    let mut value = serde_json::to_value(DriverProfile::built_in(driver))?;
    if let serde_json::Value::Object(profile) = &mut value {
        profile.extend(fields.clone());
    }
    let mut profile: DriverProfile = serde_json::from_value(value)?;
    if profile.attach_strategy == AttachStrategy::Auto {
        profile.attach_strategy = AttachStrategy::Pod;
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_facts_reach_the_cluster() {
        let vsphere = DriverProfile::built_in("csi.vsphere.vmware.com");
        assert_eq!(vsphere.base_snapshot, BaseSnapshot::Drop);
        assert_eq!(vsphere.max_snapshots_per_volume, Some(3));
        assert!(!DriverProfile::built_in("nfs.csi.k8s.io").block);
        assert_eq!(
            DriverProfile::built_in("unknown").attach_strategy,
            AttachStrategy::Pod
        );
    }

    #[test]
    fn a_config_map_changes_what_it_names_and_nothing_else() {
        let data = BTreeMap::from([(
            "csi.vsphere.vmware.com".to_owned(),
            "baseSnapshot: keep\ncloneAccessMode: ReadOnlyMany\n".to_owned(),
        )]);
        let profiles = Profiles::from_config_map(&data).unwrap();
        let profile = profiles.of("csi.vsphere.vmware.com");
        assert_eq!(profile.base_snapshot, BaseSnapshot::Keep);
        assert_eq!(profile.clone_access_mode, CloneAccess::ReadOnlyMany);
        assert_eq!(profile.max_snapshots_per_volume, Some(3));
    }

    #[test]
    fn a_misspelt_field_is_refused_with_the_driver() {
        let data = BTreeMap::from([("d".to_owned(), "baseSnapshots: keep".to_owned())]);
        let error = Profiles::from_config_map(&data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(error.object_name(), Some("d"));
    }
}
