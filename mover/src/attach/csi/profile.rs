//! What is known of drivers that they do not say themselves.
//!
//! Owns: the table. Must not: ask anybody.

use serde::Serialize;

/// What a volume made from a snapshot costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloneCost {
    /// Blocks are shared until one of both is written.
    CopyOnWrite,
    /// All of it is copied.
    Copy,
    /// Nobody looked.
    Unknown,
}

/// Whether the snapshot of a point is kept until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BasePolicy {
    /// A delta needs it.
    Keep,
    /// The storage suffers from snapshots that stay.
    Drop,
}

/// What is known of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Whether it serves block devices at all.
    pub block: bool,
    /// What a volume made from a snapshot costs.
    pub clone_cost: CloneCost,
    /// Whether the snapshot of a point is kept.
    pub base: BasePolicy,
    /// How many snapshots a volume may have, where that is few.
    pub max_snapshots: Option<u32>,
}

const UNKNOWN: Profile = Profile {
    block: true,
    clone_cost: CloneCost::Unknown,
    base: BasePolicy::Keep,
    max_snapshots: None,
};

const SHARED: Profile = Profile {
    clone_cost: CloneCost::CopyOnWrite,
    ..UNKNOWN
};

const COPIED: Profile = Profile {
    clone_cost: CloneCost::Copy,
    ..UNKNOWN
};

const FILES: Profile = Profile {
    block: false,
    ..UNKNOWN
};

/// By the end of the name: operators put a prefix of their own in front.
const TABLE: [(&str, Profile); 13] = [
    ("rbd.csi.ceph.com", SHARED),
    ("topolvm.io", SHARED),
    ("local.csi.openebs.io", SHARED),
    ("zfs.csi.openebs.io", SHARED),
    ("hostpath.csi.k8s.io", COPIED),
    ("driver.longhorn.io", COPIED),
    (
        "csi.vsphere.vmware.com",
        Profile {
            base: BasePolicy::Drop,
            max_snapshots: Some(3),
            ..COPIED
        },
    ),
    ("cephfs.csi.ceph.com", FILES),
    ("nfs.csi.ceph.com", FILES),
    ("nfs.csi.k8s.io", FILES),
    ("smb.csi.k8s.io", FILES),
    ("efs.csi.aws.com", FILES),
    ("file.csi.azure.com", FILES),
];

impl Profile {
    /// What is known of the driver of this name.
    #[must_use]
    pub fn of(driver: &str) -> Self {
        let is_it = |end: &str| {
            driver
                .strip_suffix(end)
                .is_some_and(|front| front.is_empty() || front.ends_with('.'))
        };
        TABLE
            .iter()
            .find(|(end, _)| is_it(end))
            .map_or(UNKNOWN, |(_, profile)| *profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_behind_a_prefix() {
        assert_eq!(Profile::of("rbd.csi.ceph.com"), SHARED);
        assert_eq!(Profile::of("openshift-storage.rbd.csi.ceph.com"), SHARED);
        assert_eq!(Profile::of("xrbd.csi.ceph.com"), UNKNOWN);
        assert_eq!(Profile::of("csi.vsphere.vmware.com").max_snapshots, Some(3));
        assert!(!Profile::of("rook-ceph.cephfs.csi.ceph.com").block);
        assert_eq!(Profile::of(""), UNKNOWN);
    }
}
