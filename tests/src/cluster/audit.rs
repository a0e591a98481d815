//! What the product asked of the API server, by the server's own audit log.
//!
//! Owns: the policy that keeps the log small, and reading it. Must not: judge what was asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::product::SYSTEM;

/// What is logged: requests of the product's accounts, once each, without their bodies.
pub(super) fn policy() -> String {
    format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules:\n\
         - level: Metadata\n  users: ['system:serviceaccount:{SYSTEM}:snaphaul-controller', 'system:serviceaccount:{SYSTEM}:snaphaul-agent']\n\
         - level: None\n"
    )
}

/// A request, as roles name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Name of the ServiceAccount.
    pub account: String,
    /// E.g. `patch`.
    pub verb: String,
    /// Group of the resource; empty for the core.
    pub group: String,
    /// With its subresource, as in a rule.
    pub resource: String,
    /// Empty for what has none, and for lists over all.
    pub namespace: String,
    /// Empty for lists and creation.
    pub name: String,
    /// Whether it was forbidden, by a role or by a policy.
    pub forbidden: bool,
}

/// Where the log is.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("logs/audit.log")
}

/// Every kind of request that is in the log, each once.
///
/// # Errors
/// Where there is no log, or a line of it is none.
pub fn read(folder: &Path) -> Result<BTreeSet<Asked>> {
    let text = std::fs::read_to_string(path(folder)).context("read the audit log")?;
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut all = BTreeSet::new();
    for line in whole.lines() {
        let event: Value = serde_json::from_str(line).context("a line of the audit log")?;
        all.extend(asked(&event));
    }
    Ok(all)
}

/// Requests about no resource, e.g. for the version, are no rule's.
fn asked(event: &Value) -> Option<Asked> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = event.get("objectRef")?;
    let resource = word(&about["resource"]);
    let subresource = word(&about["subresource"]);
    Some(Asked {
        account: word(&event["user"]["username"])
            .rsplit(':')
            .next()?
            .to_owned(),
        verb: word(&event["verb"]),
        group: word(&about["apiGroup"]),
        resource: if subresource.is_empty() {
            resource
        } else {
            format!("{resource}/{subresource}")
        },
        namespace: word(&about["namespace"]),
        name: word(&about["name"]),
        forbidden: event["responseStatus"]["code"] == 403,
    })
}
