//! Damage to stored objects: what disks, networks and people do to them.
//!
//! Owns: the kinds of damage and of objects. Must not: know the format beyond object names (`FORMAT.md`, "Names").

use std::fmt;

use anyhow::{Context, Result};

use crate::random::Random;
use crate::repo::Repo;

/// One kind of stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `config`, stored twice.
    Config,
    /// `keys/…`, stored twice.
    Key,
    /// `seg/…`.
    Segment,
    /// `map/…`.
    Map,
    /// `live/…`.
    Liveness,
    /// `snap/…`, with a second copy under `copy/…`.
    Manifest,
    /// `open/…`.
    Open,
}

/// Every kind.
pub const KINDS: [Kind; 7] = [
    Kind::Config,
    Kind::Key,
    Kind::Segment,
    Kind::Map,
    Kind::Liveness,
    Kind::Manifest,
    Kind::Open,
];

impl Kind {
    /// Where objects of this kind are.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "keys/",
            Self::Segment => "seg/",
            Self::Map => "map/",
            Self::Liveness => "live/",
            Self::Manifest => "snap/",
            Self::Open => "open/",
        }
    }

    /// Whether a second copy exists, so that one damaged copy must not stop a restore.
    #[must_use]
    pub fn has_copy(self) -> bool {
        matches!(self, Self::Config | Self::Key | Self::Manifest)
    }

    /// Objects of this kind, second copies (`NAME.b`) left out.
    ///
    /// # Errors
    /// Where the repository cannot be listed.
    pub fn objects(self, repo: &Repo) -> Result<Vec<String>> {
        let mut names = repo.objects(self.prefix())?;
        names.retain(|name| !name.ends_with(".b"));
        Ok(names)
    }
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit is turned over.
    Flip,
    /// The end is cut off.
    Truncate,
    /// It is gone.
    Remove,
    /// It holds the bytes of another object of its kind.
    Swap,
    /// It is there and empty.
    Empty,
}

/// Every damage.
pub const DAMAGES: [Damage; 5] = [
    Damage::Flip,
    Damage::Truncate,
    Damage::Remove,
    Damage::Swap,
    Damage::Empty,
];

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// An object as it was, to be put back.
#[derive(Debug)]
pub struct Undo<'a> {
    repo: &'a Repo,
    name: String,
    body: Vec<u8>,
}

impl Undo<'_> {
    /// Repairs the damage.
    ///
    /// # Errors
    /// Where the object cannot be written.
    pub fn repair(self) -> Result<()> {
        self.repo.write(&self.name, &self.body)
    }
}

/// Damages one object. `other` is the name of another of its kind, for [`Damage::Swap`].
///
/// # Errors
/// Where the object cannot be read or written.
pub fn damage<'a>(
    repo: &'a Repo,
    name: &str,
    damage: Damage,
    other: Option<&str>,
    random: &mut Random,
) -> Result<Undo<'a>> {
    let body = repo.read(name)?;
    let mut changed = body.clone();
    match damage {
        Damage::Flip => {
            let at = random.index(changed.len());
            changed[at] ^= 1 << random.below(8);
            repo.write(name, &changed)?;
        }
        Damage::Truncate => {
            changed.truncate(random.index(body.len() - 1) + 1);
            repo.write(name, &changed)?;
        }
        Damage::Remove => repo.remove(name)?,
        Damage::Swap => repo.write(
            name,
            &repo.read(other.context("a swap needs two objects")?)?,
        )?,
        Damage::Empty => repo.write(name, b"")?,
    }
    Ok(Undo {
        repo,
        name: name.to_owned(),
        body,
    })
}
