//! Changing who can open a repository.
//!
//! ```text
//!   add:     new slot, both copies ─► read it back and try it
//!   remove:  first copy away ─► is another key still there? ─► both copies away        (else put the first one back)
//!   rotate:  add, then remove the key that was used
//! ```
//!
//! Owns: the order of these steps. Must not: ask for secrets, or wrap keys (`format::key_slot`).
//!
//! A crash at any step leaves a key that opens: a slot opens through either copy, and nothing is taken away before what takes
//! its place was tried. Several people may do this at once: whoever removes a key takes its first copy away and *then* looks for
//! the first copy of another one, so of those who remove the last keys at the same time at least one sees what the others do and
//! puts its own back. A key is removed only by somebody who holds another: that shows that the other one works.

use std::sync::Arc;

use super::super::format::key_slot::KdfCost;
use super::super::format::{Config, KeySlot, MasterKey, RecoveryKey, Secret};
use super::super::ids::name;
use super::super::store::Store;
use super::slots::{self, KeySlotInfo, MAX_SLOTS, key_slots};
use crate::error::{Error, ErrorKind, Result};

/// Fewer digits than this match too much to be meant.
const MIN_PREFIX_DIGITS: usize = 4;

/// The keys of an encrypted repository, in the hand of somebody who holds one.
#[derive(Debug)]
pub struct Keyring {
    store: Arc<dyn Store>,
    config: Config,
    master: MasterKey,
    /// Name of the slot that was opened; `None` after a recovery sheet.
    opened: Option<String>,
    cost: KdfCost,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Id of the new key.
    pub added: String,
    /// Id of the old one.
    pub removed: String,
}

impl Keyring {
    pub(super) fn new(
        store: Arc<dyn Store>,
        config: Config,
        master: MasterKey,
        opened: Option<String>,
    ) -> Self {
        Self {
            store,
            config,
            master,
            opened,
            cost: KdfCost::default(),
        }
    }

    /// With a KDF that tests can afford.
    #[cfg(test)]
    pub(super) fn at_cost(self, cost: KdfCost) -> Self {
        Self { cost, ..self }
    }

    /// Id of the key that opened the repository; `None` after a recovery sheet.
    #[must_use]
    pub fn opened_by(&self) -> Option<&str> {
        self.opened.as_deref().map(id_of)
    }

    /// The master key, for paper.
    #[must_use]
    pub fn recovery_key(&self) -> RecoveryKey {
        RecoveryKey::new(self.config.repository, self.master.clone())
    }

    /// Lets `secret` open the repository, too, and gives the id of its key.
    ///
    /// # Errors
    /// `InvalidRequest` for a secret that cannot protect anything or opens the repository already, or where there are too many
    /// keys; and what the store answers.
    pub fn add(&self, secret: &Secret, created_unix_secs: i64) -> Result<String> {
        secret.check()?;
        if let Some(slot) = self.slot_of(secret, None)? {
            let kind = secret.kind();
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("add a {kind} that opens the repository already"),
            )
            .object(&slot)
            .hint(format!("give another one; this is key {}", id_of(&slot))));
        }
        let slot = self.put(secret, created_unix_secs)?;
        Ok(id_of(&slot).to_owned())
    }

    /// Takes a key away by its id or the unique beginning of it, and gives the id.
    ///
    /// # Errors
    /// `NotFound` for an unknown id; `InvalidRequest` for an ambiguous one, for the last key and for the one that opened the
    /// repository; `Fenced` where another key is being removed at the same time; and what the store answers.
    pub fn remove(&self, id: &str) -> Result<String> {
        self.remove_of(key_slots(&*self.store, &self.config)?, id)
    }

    fn remove_of(&self, infos: Vec<KeySlotInfo>, id: &str) -> Result<String> {
        let id = find(&infos, id)?;
        if self.opened_by() == Some(id.as_str()) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("refuse to remove key {id}, which opened the repository"),
            )
            .hint("open it with another key, which shows that that one works; `snaphaul key rotate` changes this one"));
        }
        let others: Vec<String> = infos
            .into_iter()
            .filter(|info| info.id != id && info.kind.is_some())
            .map(|info| format!("{}{}", name::KEYS, info.id))
            .collect();
        if others.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("refuse to remove key {id}, the last one"),
            )
            .hint("add another one first with `snaphaul key add`: data without a key is lost"));
        }
        // Where a slot was opened, that one must stay: it is known to work.
        let stay = self.opened.clone().map_or(others, |slot| vec![slot]);
        self.take_away(&format!("{}{id}", name::KEYS), &stay)?;
        Ok(id)
    }

    /// Puts a key for `secret` in the place of the one that opened the repository. After a crash, run again with the same
    /// secrets: a new key that is there already is used.
    ///
    /// # Errors
    /// As [`Keyring::add`] and [`Keyring::remove`]; `InvalidRequest` after a recovery sheet, which has no slot.
    pub fn rotate(&self, secret: &Secret, created_unix_secs: i64) -> Result<Rotated> {
        secret.check()?;
        let Some(old) = &self.opened else {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "rotate the key of a recovery sheet: it has no slot",
            )
            .hint(
                "`snaphaul key add` makes a new key, `snaphaul key remove` takes old ones away",
            ));
        };
        let new = match self.slot_of(secret, Some(old))? {
            Some(new) => new,
            None => self.put(secret, created_unix_secs)?,
        };
        self.take_away(old, std::slice::from_ref(&new))?;
        Ok(Rotated {
            added: id_of(&new).to_owned(),
            removed: id_of(old).to_owned(),
        })
    }

    /// The slot that `secret` opens, other than `skip`.
    fn slot_of(&self, secret: &Secret, skip: Option<&str>) -> Result<Option<String>> {
        match slots::unlock(&*self.store, &self.config, (secret, skip), &mut Vec::new()) {
            Ok((_, slot)) => Ok(Some(slot)),
            Err(error) if matches!(error.kind(), ErrorKind::WrongKey | ErrorKind::Corrupt) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Stores a slot and tries it: a key that never opened anything is none.
    fn put(&self, secret: &Secret, created_unix_secs: i64) -> Result<String> {
        let store = &*self.store;
        if key_slots(store, &self.config)?.len() >= MAX_SLOTS {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("add a key to {MAX_SLOTS} others: that is the limit"),
            )
            .hint("remove one that is not needed with `snaphaul key remove`"));
        }
        let slot = super::put_slot(
            store,
            &self.config,
            (secret, &self.master),
            self.cost,
            created_unix_secs,
        )?;
        store.sync()?;
        for name in [slot.clone(), name::second_copy(&slot)] {
            let stored = KeySlot::parse(&name, &store.get(&name)?)?;
            if !stored.unwrap_master(secret)?.is_same(&self.master) {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "read the new key back: it opens something else",
                )
                .object(&name));
            }
        }
        Ok(slot)
    }

    /// Removes a slot, first copy first, as long as one of `stay` keeps its own.
    fn take_away(&self, slot: &str, stay: &[String]) -> Result<()> {
        let store = &*self.store;
        let first = match store.get(slot) {
            Ok(object) => Some(object),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => None,
            Err(error) => return Err(error),
        };
        store.delete(slot)?;
        let stays = stay.iter().try_fold(false, |stays, other| {
            Ok::<bool, Error>(stays || store.head(other)?.is_some())
        });
        let error = match stays {
            Ok(true) => {
                store.delete(&name::second_copy(slot))?;
                // Of a damaged slot, a repair may have written the first copy again from the second one in between; from here on it
                // finds nothing to write.
                store.delete(slot)?;
                return store.sync();
            }
            Ok(false) => Error::new(
                ErrorKind::Fenced,
                format!("remove key {}: no other key is sure to stay", id_of(slot)),
            )
            .object(slot)
            .hint("somebody removes keys at the same time, or the first copy of the other key is lost: see `snaphaul key list`, and try again with a key that is whole"),
            Err(error) => error,
        };
        // The second copy is still there, so that the key opens even where this fails.
        if let Some(object) = first {
            store.put(slot, object)?;
            store.sync()?;
        }
        Err(error)
    }
}

fn id_of(slot: &str) -> &str {
    slot.strip_prefix(name::KEYS).unwrap_or(slot)
}

fn find(infos: &[KeySlotInfo], text: &str) -> Result<String> {
    let matching: Vec<&str> = infos
        .iter()
        .map(|info| info.id.as_str())
        .filter(|id| text.len() >= MIN_PREFIX_DIGITS && id.starts_with(text))
        .collect();
    match matching[..] {
        [id] => Ok(id.to_owned()),
        [] => Err(Error::new(ErrorKind::NotFound, "find the key")
            .object(text.escape_debug())
            .hint("give an id from `snaphaul key list`, at least its first 4 digits")),
        _ => Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "find the key: `{text}` is the beginning of {}",
                matching.join(", ")
            ),
        )
        .hint("give more digits")),
    }
}

#[cfg(test)]
mod tests;
