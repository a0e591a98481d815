//! Names of what is made for a restore.
//!
//! Owns: how they follow from its UID. Must not: decide when the objects exist.

use ::kube::ResourceExt as _;

use crate::kube::api::PodVolumeRestore;

/// Working claim and holder in the system namespace, and the PersistentVolume that the user's claim gets in the end.
#[must_use]
pub(super) fn intermediate(restore: &PodVolumeRestore) -> String {
    format!("snaphaul-{}", restore.uid().unwrap_or_default())
}
