//! What is known of drivers that they do not say themselves.
//!
//! Owns: the table that is built in, and how a person overrides it. Must not: ask anybody, or read files.
//!
//! ```yaml
//! # what `--csi-profile FILE` reads, and each entry of a ConfigMap: only what differs is written
//! rbd.csi.ceph.com:
//!   cloneStorageClassName: ceph-clones
//!   baseSnapshot: drop
//! ```

mod overrides;

use serde::{Deserialize, Serialize};

pub use overrides::{Profiles, ProfilesError};

/// What a volume made from a snapshot costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloneCost {
    /// Blocks are shared until one of both is written.
    #[serde(alias = "cow")]
    CopyOnWrite,
    /// All of it is copied.
    Copy,
    /// Nobody looked.
    Unknown,
}

/// Whether the snapshot of a point is kept until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BasePolicy {
    /// A delta needs it.
    Keep,
    /// The storage suffers from snapshots that stay, or no delta needs them.
    Drop,
}

/// How a device of this driver is reached in a cluster, where a backup does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachWay {
    /// A small pod makes the kubelet attach it.
    Pod,
    /// By the driver's own socket; only without ControllerPublish.
    Csi,
    /// Without a clone, by the storage's own protocol.
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

/// What is known of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Whether it serves block devices at all.
    pub block: bool,
    /// How its devices are reached in a cluster.
    pub attach_strategy: AttachWay,
    /// The storage class that clones are made with; without it that of the volume.
    pub clone_storage_class_name: Option<String>,
    /// How a clone is claimed.
    pub clone_access_mode: CloneAccess,
    /// What a volume made from a snapshot costs.
    pub clone_cost: CloneCost,
    /// Whether the snapshot of a point is kept.
    pub base: BasePolicy,
    /// Annotation of a VolumeSnapshot that holds what the driver takes as a base in place of the snapshot's handle.
    pub change_id_annotation: Option<String>,
    /// Name of its SnapshotMetadataService; without it that of the driver.
    pub snapshot_metadata_service_name: Option<String>,
    /// How many snapshots a volume may have, where that is few.
    pub max_snapshots: Option<u32>,
    /// The class that snapshots are taken with; without it the cluster's default of the driver.
    pub volume_snapshot_class_name: Option<String>,
}

/// A line of the table: what differs from "nothing is known".
#[derive(Clone, Copy, Debug)]
struct Known {
    block: bool,
    clone_cost: CloneCost,
    base: BasePolicy,
    change_id_annotation: Option<&'static str>,
    max_snapshots: Option<u32>,
}

const UNKNOWN: Known = Known {
    block: true,
    clone_cost: CloneCost::Unknown,
    base: BasePolicy::Keep,
    change_id_annotation: None,
    max_snapshots: None,
};

const SHARED: Known = Known {
    clone_cost: CloneCost::CopyOnWrite,
    ..UNKNOWN
};

const COPIED: Known = Known {
    clone_cost: CloneCost::Copy,
    ..UNKNOWN
};

const FILES: Known = Known {
    block: false,
    ..UNKNOWN
};

/// The annotation is that of the Supervisor's driver, whose volumes have an id for each state.
const VSPHERE: Known = Known {
    base: BasePolicy::Drop,
    change_id_annotation: Some("csi.vsphere.volume/change-id"),
    max_snapshots: Some(3),
    ..COPIED
};

/// By the end of the name: operators put a prefix of their own in front.
const TABLE: [(&str, Known); 13] = [
    ("rbd.csi.ceph.com", SHARED),
    ("topolvm.io", SHARED),
    ("local.csi.openebs.io", SHARED),
    ("zfs.csi.openebs.io", SHARED),
    ("hostpath.csi.k8s.io", COPIED),
    ("driver.longhorn.io", COPIED),
    ("csi.vsphere.vmware.com", VSPHERE),
    ("cephfs.csi.ceph.com", FILES),
    ("nfs.csi.ceph.com", FILES),
    ("nfs.csi.k8s.io", FILES),
    ("smb.csi.k8s.io", FILES),
    ("efs.csi.aws.com", FILES),
    ("file.csi.azure.com", FILES),
];

impl Profile {
    /// What is built in of the driver of this name.
    #[must_use]
    pub fn of(driver: &str) -> Self {
        let is_it = |end: &str| {
            driver
                .strip_suffix(end)
                .is_some_and(|front| front.is_empty() || front.ends_with('.'))
        };
        let known = TABLE.iter().find(|(end, _)| is_it(end));
        Self::from(known.map_or(UNKNOWN, |(_, known)| *known))
    }

    /// Name of the SnapshotMetadataService that speaks for `driver`.
    #[must_use]
    pub fn service_name<'a>(&'a self, driver: &'a str) -> &'a str {
        self.snapshot_metadata_service_name
            .as_deref()
            .unwrap_or(driver)
    }
}

impl From<Known> for Profile {
    fn from(known: Known) -> Self {
        Self {
            block: known.block,
            attach_strategy: AttachWay::Pod,
            clone_storage_class_name: None,
            clone_access_mode: CloneAccess::ReadWriteOnce,
            clone_cost: known.clone_cost,
            base: known.base,
            change_id_annotation: known.change_id_annotation.map(str::to_owned),
            snapshot_metadata_service_name: None,
            max_snapshots: known.max_snapshots,
            volume_snapshot_class_name: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_behind_a_prefix() {
        let of = |known: Known| Profile::from(known);
        assert_eq!(Profile::of("rbd.csi.ceph.com"), of(SHARED));
        assert_eq!(
            Profile::of("openshift-storage.rbd.csi.ceph.com"),
            of(SHARED)
        );
        assert_eq!(Profile::of("xrbd.csi.ceph.com"), of(UNKNOWN));
        assert_eq!(Profile::of("csi.vsphere.vmware.com").max_snapshots, Some(3));
        assert!(!Profile::of("rook-ceph.cephfs.csi.ceph.com").block);
        assert_eq!(Profile::of(""), of(UNKNOWN));
    }

    #[test]
    fn a_service_has_the_name_of_its_driver_unless_told_otherwise() {
        let mut profile = Profile::of("d");
        assert_eq!(profile.service_name("d"), "d");
        profile.snapshot_metadata_service_name = Some("s".to_owned());
        assert_eq!(profile.service_name("d"), "s");
    }
}
