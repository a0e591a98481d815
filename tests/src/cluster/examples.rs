//! The examples of `manifests/examples`, with what a user puts in.
//!
//! Owns: reading them, and the values of a test in them. Must not: change anything else.

use anyhow::{Context, Result, ensure};

use super::Cluster;
use super::product::repository_root;
use crate::server::Endpoint;

/// The passphrase of the examples.
pub const PASSPHRASE: &str = "replace me by a sentence that nobody guesses";
/// The bucket of the examples.
pub const BUCKET: &str = "backups";
/// The prefix in it.
pub const PREFIX: &str = "snaphaul";

/// The text of one.
///
/// # Errors
/// Where there is none of this name.
pub fn text(name: &str) -> Result<String> {
    let path = repository_root()?.join("manifests/examples").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// One with values in place of its own, each of which must be there.
///
/// # Errors
/// Where one is not.
pub fn filled(name: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut filled = text(name)?;
    for (from, to) in values {
        ensure!(filled.contains(from), "{name} has no {from:?}");
        filled = filled.replace(from, to);
    }
    Ok(filled)
}

/// Makes the bucket, applies the secrets and the repository, and waits until that is Ready.
///
/// # Errors
/// Where the server or the API server refuses, or the controller cannot open the repository.
pub fn repository(cluster: &Cluster, server: &Endpoint) -> Result<()> {
    server.bucket(BUCKET)?;
    let [access, secret] = [
        format!("AWS_ACCESS_KEY_ID: {}", server.owner.access),
        format!("AWS_SECRET_ACCESS_KEY: {}", server.owner.secret),
    ];
    let account = [
        ("AWS_ACCESS_KEY_ID: replace-me", access.as_str()),
        ("AWS_SECRET_ACCESS_KEY: replace-me", &secret),
        (PASSPHRASE, PASSPHRASE),
    ];
    cluster.apply(&filled("01-secrets.yaml", &account)?)?;
    let place = [("https://minio.storage.svc:9000", server.url.as_str())];
    cluster.apply(&filled("02-repository.yaml", &place)?)?;
    let words = [
        "wait",
        "snapshotrepository/backups",
        "--for=condition=Ready",
        "--timeout=180s",
    ];
    cluster.kubectl(&words).map(drop)
}
