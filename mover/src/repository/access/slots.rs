//! Finding the key slot that a secret opens.
//!
//! Owns: the search and the words for its failure. Must not: wrap keys (`format::key_slot`).

use super::super::format::key_slot::{KdfCost, SecretKind};
use super::super::format::{Config, KeySlot, MasterKey, Secret};
use super::super::ids::name;
use super::super::store::Store;
use super::copies::{load, slot_names};
use crate::error::{Error, ErrorKind, Result};

/// Most slots of one repository that are tried: each costs up to a second of Argon2id, and nobody has so many keys. Those of other
/// repositories cost a request and are not counted; damaged ones are, since nobody can tell whose they are.
pub(super) const MAX_SLOTS: usize = 64;

/// One key slot for `key list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlotInfo {
    /// Id: the name without `keys/`.
    pub id: String,
    /// What opens it; `None` where it cannot be read.
    pub kind: Option<SecretKind>,
    /// What deriving its key costs; `None` for a key file, and where the slot cannot be read.
    pub kdf: Option<KdfCost>,
    /// When it was made, in seconds since 1970.
    pub created_unix_secs: Option<i64>,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// Lists the key slots of the repository of `config`. Slots of other repositories, left by an `init` that lost, are not shown.
///
/// # Errors
/// What the store answers; a damaged slot is listed with its fault.
pub fn key_slots(store: &dyn Store, config: &Config) -> Result<Vec<KeySlotInfo>> {
    let mut infos = Vec::new();
    for slot in slot_names(store)? {
        let id = slot.strip_prefix(name::KEYS).unwrap_or(&slot).to_owned();
        let mut faults = Vec::new();
        match load(store, &slot, KeySlot::parse, &mut faults) {
            Ok(slot) if slot.repository() != config.repository => {}
            Ok(slot) => infos.push(KeySlotInfo {
                id,
                kind: Some(slot.kind()),
                kdf: slot.kdf_cost(),
                created_unix_secs: Some(slot.created_unix_secs()),
                fault: faults.pop(),
            }),
            Err(error) if is_of_the_slot(&error) => infos.push(KeySlotInfo {
                id,
                kind: None,
                kdf: None,
                created_unix_secs: None,
                fault: Some(error.to_string()),
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(infos)
}

/// Whether the slot is to blame, so that another one may still do.
fn is_of_the_slot(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::NewerFormat
    )
}

/// Unwraps the master key with whichever slot the secret opens, and gives the slot's name. One slot may be passed over.
pub(super) fn unlock(
    store: &dyn Store,
    config: &Config,
    (secret, skip): (&Secret, Option<&str>),
    warnings: &mut Vec<String>,
) -> Result<(MasterKey, String)> {
    let mut lost = Vec::new();
    let (mut refused, mut tried) = (0, 0);
    for name in slot_names(store)? {
        if tried == MAX_SLOTS {
            break;
        }
        if skip == Some(name.as_str()) {
            continue;
        }
        let slot = match load(store, &name, KeySlot::parse, warnings) {
            Ok(slot) => slot,
            Err(error) if is_of_the_slot(&error) => {
                tried += 1;
                lost.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if slot.repository() != config.repository {
            continue;
        }
        tried += 1;
        if slot.kind() != secret.kind() {
            continue;
        }
        match slot.unwrap_master(secret) {
            Ok(master) => {
                warnings.extend(lost.iter().map(ToString::to_string));
                return Ok((master, name));
            }
            Err(error) if error.kind() == ErrorKind::WrongKey => refused += 1,
            Err(error) => return Err(error),
        }
    }
    Err(failure(store, secret.kind(), refused, lost))
}

/// Damage where no slot was left to refuse the secret; else the secret is wrong.
fn failure(store: &dyn Store, kind: SecretKind, refused: usize, mut lost: Vec<Error>) -> Error {
    if refused == 0 && lost.is_empty() && slot_names(store).is_ok_and(|slots| slots.is_empty()) {
        return Error::new(ErrorKind::Corrupt, "open the repository: no key slot is left")
            .object(name::KEYS)
            .hint("give the recovery sheet that `snaphaul key export` made with --recovery-sheet, or get the objects below keys/ back from a copy of the repository: without either its data is lost");
    }
    if refused == 0
        && let Some(error) = lost.pop()
    {
        return error.context("open the repository: its key slot cannot be used");
    }
    let message = if refused == 0 {
        format!("open the repository: no key slot takes a {kind}")
    } else {
        format!("open the repository: wrong {kind}")
    };
    let hint = match (refused, lost.len()) {
        (0, _) => "give the other one of --passphrase-file and --key-file".to_owned(),
        (_, 0) => {
            "check the passphrase or key file, and that --repo is the right repository".to_owned()
        }
        (_, lost) => format!("{lost} more key slots are damaged: the {kind} may have been theirs"),
    };
    Error::new(ErrorKind::WrongKey, message)
        .object(store.url())
        .hint(hint)
}
