//! Objects as YAML.

/// A PodVolumeBackup with the fields of `spec`, as a flow mapping without its braces.
pub(super) fn backup(namespace: &str, name: &str, spec: &str) -> String {
    object(
        "PodVolumeBackup",
        &format!("name: {name}, namespace: {namespace}"),
        spec,
    )
}

/// A PodVolumeRestore.
pub(super) fn restore(namespace: &str, name: &str, spec: &str) -> String {
    object(
        "PodVolumeRestore",
        &format!("name: {name}, namespace: {namespace}"),
        spec,
    )
}

/// A SnapshotRepository.
pub(super) fn repository(name: &str, spec: &str) -> String {
    object("SnapshotRepository", &format!("name: {name}"), spec)
}

fn object(kind: &str, metadata: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: snaphaul.dev/v1alpha1, kind: {kind}, metadata: {{{metadata}}}, spec: {{{spec}}}}}"
    )
}

/// The smallest spec of a backup.
pub(super) const BACKUP: &str =
    "source: {persistentVolumeClaim: {name: data}}, repositoryRef: {name: backups}";
/// The smallest spec of a restore.
pub(super) const RESTORE: &str = "source: {backupName: one}, target: {name: data}";
/// The smallest spec of a repository.
pub(super) const REPOSITORY: &str = "s3: {bucket: backups}, encryptionSecretRef: {name: key}";
