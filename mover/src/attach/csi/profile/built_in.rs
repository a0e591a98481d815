//! The table of drivers that is built in.
//!
//! Owns: the facts, by the name of a driver. Must not: be asked for what a person said otherwise.

use super::{AttachWay, BasePolicy, CloneAccess, CloneCost, Profile};

/// A line of the table: what differs from "nothing is known".
#[derive(Clone, Copy, Debug)]
struct Known {
    block: bool,
    clone_cost: CloneCost,
    base_snapshot: BasePolicy,
    change_id_annotation: Option<&'static str>,
    max_snapshots_per_volume: Option<u32>,
}

const UNKNOWN: Known = Known {
    block: true,
    clone_cost: CloneCost::Unknown,
    base_snapshot: BasePolicy::Keep,
    change_id_annotation: None,
    max_snapshots_per_volume: None,
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
    base_snapshot: BasePolicy::Drop,
    change_id_annotation: Some("csi.vsphere.volume/change-id"),
    max_snapshots_per_volume: Some(3),
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

/// What is built in of the driver of this name.
pub(super) fn find(driver: &str) -> Profile {
    let is_it = |end: &str| {
        driver
            .strip_suffix(end)
            .is_some_and(|front| front.is_empty() || front.ends_with('.'))
    };
    let known = TABLE.iter().find(|(end, _)| is_it(end));
    Profile::from(known.map_or(UNKNOWN, |(_, known)| *known))
}

/// Nothing is known.
pub(super) fn unknown() -> Profile {
    UNKNOWN.into()
}

impl From<Known> for Profile {
    fn from(known: Known) -> Self {
        Self {
            block: known.block,
            attach_strategy: AttachWay::Pod,
            clone_storage_class_name: None,
            clone_access_mode: CloneAccess::ReadWriteOnce,
            clone_cost: known.clone_cost,
            base_snapshot: known.base_snapshot,
            change_id_annotation: known.change_id_annotation.map(str::to_owned),
            snapshot_metadata_service_name: None,
            max_snapshots_per_volume: known.max_snapshots_per_volume,
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
        assert_eq!(find("rbd.csi.ceph.com"), of(SHARED));
        assert_eq!(find("openshift-storage.rbd.csi.ceph.com"), of(SHARED));
        assert_eq!(find("xrbd.csi.ceph.com"), of(UNKNOWN));
        assert_eq!(
            find("csi.vsphere.vmware.com").max_snapshots_per_volume,
            Some(3)
        );
        assert!(!find("rook-ceph.cephfs.csi.ceph.com").block);
        assert_eq!(find(""), of(UNKNOWN));
    }
}
