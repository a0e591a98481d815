//! `key add`, `key remove` and `key rotate`.
//!
//! Owns: flags to secrets, and what is said afterwards. Must not: decide in which order slots come and go
//! (`repository::access`).

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::super::args::{NewSecretArgs, RemoveArgs};
use super::super::run::{Outcome, Run, Text};
use super::super::secret;
use crate::error::Result;
use crate::repository::access::Keyring;

const MASTER_STAYS: &str = "The master key is the same as before: whoever kept a copy of the old key object can still unwrap it with the \
old secret, and read new points, too. If that is a danger, copy the points to a new repository.";

#[derive(Debug, Serialize)]
struct ChangeReport {
    /// Id of the key that was added.
    added: Option<String>,
    /// Id of the key that was removed.
    removed: Option<String>,
}

pub(super) fn add(run: &Run, keyring: &Keyring, args: &NewSecretArgs) -> Result<Outcome> {
    let secret = secret::new_secret(args)?;
    let id = keyring.add(&secret, now_unix_secs())?;
    if keyring.opened_by().is_none() {
        run.warn("the recovery sheet still opens the repository, as before");
    }
    let text = format!(
        "Added key {id}: the {} opens the repository now.",
        secret.kind()
    );
    outcome(Some(id), None, text)
}

pub(super) fn remove(keyring: &Keyring, args: &RemoveArgs) -> Result<Outcome> {
    let id = keyring.remove(&args.id)?;
    let text = format!("Removed key {id}.\n{MASTER_STAYS}");
    outcome(None, Some(id), text)
}

pub(super) fn rotate(keyring: &Keyring, args: &NewSecretArgs) -> Result<Outcome> {
    let secret = secret::new_secret(args)?;
    let done = keyring.rotate(&secret, now_unix_secs())?;
    let text = format!(
        "Key {} (a {}) has taken the place of key {}.\n{MASTER_STAYS}",
        done.added,
        secret.kind(),
        done.removed
    );
    outcome(Some(done.added), Some(done.removed), text)
}

fn outcome(added: Option<String>, removed: Option<String>, text: String) -> Result<Outcome> {
    Outcome::new(&ChangeReport { added, removed }, Text::Summary(text))
}

pub(super) fn now_unix_secs() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
