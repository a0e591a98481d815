//! Kubeconfig files: who calls which API server.
//!
//! Owns: their form. Must not: make users or tokens.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::certificates::Pair;

/// What a caller shows the API server.
#[derive(Debug)]
pub(super) enum Credential<'a> {
    /// A client certificate.
    Certificate(&'a Pair),
    /// A bearer token.
    Token(&'a str),
}

/// Writes one with a single context; every file is named by its absolute path. JSON is YAML, so that any client reads it.
pub(super) fn write(
    path: &Path,
    server: &str,
    authority: &Path,
    credential: &Credential<'_>,
    namespace: &str,
) -> Result<()> {
    let user = match credential {
        Credential::Certificate(pair) => {
            json!({"client-certificate": pair.certificate, "client-key": pair.key})
        }
        Credential::Token(token) => json!({"token": token}),
    };
    let text = document(server, authority, &user, namespace).to_string();
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn document(server: &str, authority: &Path, user: &Value, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rig", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "user", "namespace": namespace}}],
        "current-context": "rig",
    })
}
