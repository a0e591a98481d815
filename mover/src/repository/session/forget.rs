//! Forget orders: from here on nobody new uses a point, and gc may collect it.
//!
//! Owns: the record `tomb/…` and its PUT (gc-protocol 4.3). Must not: choose points, or delete anything: forgetting needs the
//! right to create objects and no other.
//!
//! A forget order is irrevocable. Of its presence everybody takes notice, of what it holds only people: a store that makes one
//! up can hide a point, as it could by deleting it.

use minicbor::{Decode, Encode};

use super::origin::Origin;
use super::records::{absent_is_none, get, seal};
use crate::error::Result;
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::ids::{SessionKey, name};
use crate::repository::store::Created;

/// Longest `who` and `why`, in bytes: they are for people and live as long as the point.
const MAX_WHO_LEN: usize = 200;
const MAX_WHY_LEN: usize = 2_048;

/// The order to forget one point. For people only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tomb {
    /// Who gave it: `user@host`.
    #[n(0)]
    pub who: String,
    /// Why: `named` or the policy.
    #[n(1)]
    pub why: String,
    /// When, by the clock of who gave it, in seconds since 1970.
    #[n(2)]
    pub unix_secs: i64,
}

impl Tomb {
    /// An order of this process.
    #[must_use]
    pub fn new(why: &str, unix_secs: i64) -> Self {
        let user = std::env::var("USER").unwrap_or_else(|_| nix::unistd::getuid().to_string());
        let who = format!("{user}@{}", Origin::current().host);
        Self {
            who: shortened(&who, MAX_WHO_LEN),
            why: shortened(why, MAX_WHY_LEN),
            unix_secs,
        }
    }
}

/// The beginning of `text`, at most `limit` bytes of it.
fn shortened(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

/// Orders a point to be forgotten; whether it was this order that did it. The caller syncs the store when all are given.
///
/// # Errors
/// What the store answers; the order may or may not have been stored then, and may be given again.
pub fn bury(repository: &Repository, key: &SessionKey, tomb: &Tomb) -> Result<bool> {
    let name = name::tomb(key);
    let body = seal(repository, Class::Tomb, key.session, &name, tomb)?;
    Ok(repository.store.create(&name, body)? == Created::Won)
}

/// Reads the forget order of a point; `None` where there is none.
///
/// # Errors
/// `Corrupt` where it was not written with the key of this repository, and what the store answers.
pub fn read_tomb(repository: &Repository, key: &SessionKey) -> Result<Option<Tomb>> {
    absent_is_none(get(repository, Class::Tomb, key.session, &name::tomb(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(shortened("größe", 3), "gr");
        assert_eq!(shortened("abc", 3), "abc");
        let tomb = Tomb::new(&"ä".repeat(2_000), 7);
        assert!(tomb.why.len() <= MAX_WHY_LEN && tomb.why.ends_with('ä'));
        assert!(tomb.who.contains('@'));
    }
}
