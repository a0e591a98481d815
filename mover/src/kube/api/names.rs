//! Labels, annotations and finalizers that Snaphaul sets or reads.
//!
//! Owns: the strings. Must not: decide when they are set.

/// Finalizer of a backup or restore while work for it may exist.
pub const FINALIZER: &str = "snaphaul.dev/cleanup";
/// Who made an intermediate object: the field manager, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "snaphaul";
/// Label: UID of the backup or restore that an intermediate object belongs to.
pub const OWNER_UID: &str = "snaphaul.dev/owner-uid";
/// Label: its kind, e.g. `PodVolumeBackup`.
pub const OWNER_KIND: &str = "snaphaul.dev/owner-kind";
/// Label: its namespace.
pub const OWNER_NAMESPACE: &str = "snaphaul.dev/owner-namespace";
/// Annotation: its name (a label holds at most 63 characters).
pub const OWNER_NAME: &str = "snaphaul.dev/owner-name";
/// Label of a volume that a restore keeps for a person: UID of that restore. Nobody sweeps it.
pub const KEPT_OF: &str = "snaphaul.dev/kept-of";
/// Label that keeps Velero from backing up intermediates.
pub const VELERO_EXCLUDE: &str = "velero.io/exclude-from-backup";
/// Label of the pair of objects that keeps a base snapshot: a hash of volume and repository.
pub const BASE: &str = "snaphaul.dev/base";
/// Annotation of a base: the CSI handle of its volume.
pub const BASE_VOLUME: &str = "snaphaul.dev/base-volume";
/// Annotation of a base: the repository it serves.
pub const BASE_REPOSITORY: &str = "snaphaul.dev/base-repository";
/// Annotation of a base: the point whose snapshot it is.
pub const BASE_POINT: &str = "snaphaul.dev/base-point";
/// Label of a backup that `sync` made of a point: whose point it is, [`SYNCED_OWN`] or [`SYNCED_GRANTED`]. Such a backup is never run.
pub const SYNCED: &str = "snaphaul.dev/synced";
/// Value of [`SYNCED`]: the namespace's own.
pub const SYNCED_OWN: &str = "own";
/// Value of [`SYNCED`]: one of another namespace or cluster, by a grant. Its deletion never touches the point.
pub const SYNCED_GRANTED: &str = "granted";
/// Label of such a backup: id of the repository that holds the point.
pub const SYNCED_REPOSITORY: &str = "snaphaul.dev/repository-id";
/// Annotation of a claim: the point that it was filled from.
pub const RESTORED_POINT: &str = "snaphaul.dev/restored-point";
