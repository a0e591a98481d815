//! The custom resources of `snaphaul.dev/v1alpha1`, as people and programs see them.
//!
//! Owns: fields, defaults, validation rules, names and reasons: a contract, fields are only ever added. Must not: act on any of it.
//! Descriptions here are what `kubectl explain` prints.

pub mod backup;
pub mod conditions;
pub mod names;
pub mod phase;
pub mod repository;
pub mod restore;
pub mod transfer;

pub use backup::{PodVolumeBackup, PodVolumeBackupSpec, PodVolumeBackupStatus};
pub use phase::Phase;
pub use repository::{SnapshotRepository, SnapshotRepositorySpec, SnapshotRepositoryStatus};
pub use restore::{PodVolumeRestore, PodVolumeRestoreSpec, PodVolumeRestoreStatus};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "snaphaul.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";

/// The name of an object whose kind and place the field decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    /// Name of the object. There is no namespace: it follows from the field.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[cfg(test)]
mod tests;
