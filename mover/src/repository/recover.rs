//! Brings back what was deleted or overwritten in a bucket that keeps versions.
//!
//! ```text
//!   versions of one object, newest first:   marker · other bytes · … · the first one
//!                                           └── removed by id ────┘    └ read again; where removing is refused, its bytes are
//!                                                                        stored once more on top
//! ```
//!
//! Owns: the rule that the oldest version is the true one, or the oldest whose seal and length are right, if the store kept a damaged one
//! that `repair` has written again since. It follows from the format: no object that a point needs is ever rewritten while it is
//! intact, and a collector removes all versions or none. Must not: touch what is rewritten at will (heartbeats) or belongs
//! to readers, or need a key: a thief may have taken the key slots away too.

use std::time::SystemTime;

use bytes::Bytes;

use super::format::header::is_whole;
use super::ids::name;
use super::parallel;
use super::store::Store;
use super::store::lock::{ObjectLock, Version};
use crate::error::{ErrorKind, Result};

/// Objects brought back at once; each may have to be held in memory whole.
const PARALLEL: usize = 4;
/// Objects named in the report; the others are counted.
const NAMED: usize = 100;

/// What was found, and brought back unless only looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Objects whose versions were looked at.
    pub objects: u64,
    /// Objects that a delete had hidden.
    pub hidden: u64,
    /// Objects that other bytes had been put over.
    pub overwritten: u64,
    /// The first of them by name.
    pub names: Vec<String>,
}

/// An object whose first version is not the one that is read.
#[derive(Clone, Debug)]
struct Loss {
    /// Newest first, as far as the true one, which is the last.
    versions: Vec<Version>,
    is_hidden: bool,
}

/// Finds every hidden or overwritten object below `prefix`, and brings it back unless this is a `dry_run`. What a policy
/// covers is locked again.
///
/// # Errors
/// `InvalidRequest` where the store keeps no versions, `AccessDenied`, and what the store answers.
pub fn recover(
    store: &dyn Store,
    prefix: &str,
    policy: Option<ObjectLock>,
    dry_run: bool,
) -> Result<Recovery> {
    let mut recovery = Recovery::default();
    let mut group: Vec<Version> = Vec::new();
    store.versions(prefix, &mut |page| {
        let mut losses = Vec::new();
        for version in page {
            if group
                .first()
                .is_some_and(|first| first.name != version.name)
            {
                losses.extend(judge(store, std::mem::take(&mut group), &mut recovery)?);
            }
            group.push(version);
        }
        mend(store, &losses, policy, dry_run)
    })?;
    let last = judge(store, group, &mut recovery)?;
    mend(store, last.as_slice(), policy, dry_run)?;
    Ok(recovery)
}

/// Whether the object is one that is never rewritten.
fn is_constant(object: &str) -> bool {
    let is_reader = object
        .rsplit('/')
        .next()
        .is_some_and(|last| last.starts_with("r-"));
    ObjectLock::covers(object, usize::MAX)
        || object.starts_with(name::TOMB)
        || (object.starts_with(name::OPEN) && !is_reader)
}

/// Looks at all versions of one object.
fn judge(
    store: &dyn Store,
    mut versions: Vec<Version>,
    recovery: &mut Recovery,
) -> Result<Option<Loss>> {
    // Markers behind the first bytes are from another life of this name, e.g. a slot that was freed.
    while versions.last().is_some_and(|version| version.is_marker) {
        versions.pop();
    }
    let (Some(latest), Some(first)) = (versions.first(), versions.last()) else {
        return Ok(None);
    };
    if !is_constant(&first.name) {
        return Ok(None);
    }
    recovery.objects += 1;
    let is_hidden = latest.is_marker;
    if latest.id == first.id || (!is_hidden && is_same(store, latest, first)?) {
        return Ok(None);
    }
    let read = |version: &Version| store.get_version(&version.name, &version.id);
    let place = truest(&versions, read)?;
    if place == 0 {
        // A repair's.
        return Ok(None);
    }
    versions.truncate(place + 1);
    let Some(first) = versions.last() else {
        return Ok(None);
    };
    if is_hidden {
        recovery.hidden += 1;
    } else {
        recovery.overwritten += 1;
    }
    if recovery.names.len() < NAMED {
        recovery.names.push(first.name.clone());
    }
    Ok(Some(Loss {
        versions,
        is_hidden,
    }))
}

/// The place of the true version among several, newest first: the oldest that is whole, else the oldest. One that stands alone is not read.
fn truest(versions: &[Version], read: impl Fn(&Version) -> Result<Bytes>) -> Result<usize> {
    let bodies = || {
        (0..versions.len())
            .rev()
            .filter(|at| !versions[*at].is_marker)
    };
    let oldest = bodies().next().unwrap_or_default();
    if bodies().nth(1).is_none() {
        return Ok(oldest);
    }
    for at in bodies() {
        if is_whole(&read(&versions[at])?) {
            return Ok(at);
        }
    }
    Ok(oldest)
}

/// A PUT whose answer was lost is repeated and makes a second version of the same bytes.
fn is_same(store: &dyn Store, one: &Version, other: &Version) -> Result<bool> {
    Ok(one.size == other.size
        && store.get_version(&one.name, &one.id)? == store.get_version(&other.name, &other.id)?)
}

fn mend<'a>(
    store: &dyn Store,
    losses: impl IntoIterator<Item = &'a Loss>,
    policy: Option<ObjectLock>,
    dry_run: bool,
) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    let losses: Vec<&Loss> = losses.into_iter().collect();
    parallel::sum(&losses, PARALLEL, |loss| bring_back(store, loss, policy)).map(drop)
}

fn bring_back(store: &dyn Store, loss: &Loss, policy: Option<ObjectLock>) -> Result<u64> {
    let Some((first, newer)) = loss.versions.split_last() else {
        return Ok(0);
    };
    tracing::info!(
        object = first.name,
        hidden = loss.is_hidden,
        "bring an object back"
    );
    if uncover(store, newer)? {
        return Ok(1);
    }
    store.put(&first.name, store.get_version(&first.name, &first.id)?)?;
    if let Some(policy) = policy
        && first.name.starts_with(name::OPEN)
    {
        store.lock(&first.name, policy.end(SystemTime::now()))?;
    }
    Ok(1)
}

/// Removes what lies on top, so that the first version with its lock is read again; false where that is refused.
fn uncover(store: &dyn Store, newer: &[Version]) -> Result<bool> {
    for version in newer {
        match store.delete_version(&version.name, &version.id) {
            Ok(()) => {}
            // Not allowed, or locked by the thief; MinIO calls the latter a bad request.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::AccessDenied | ErrorKind::InvalidRequest
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::format::SALT_LEN;
    use crate::repository::format::header::{Header, seal};
    use crate::repository::format::{Cipher, Class};

    /// An object without bodies.
    fn object(salt: u8) -> Vec<u8> {
        let region = [salt; 40];
        let salt = [salt; SALT_LEN];
        let header = Header::plan(Class::Open, Cipher::None, 40, 0, salt).encode();
        [&header[..], &region, &seal(&header, &region)].concat()
    }

    /// The place of the true version among these, newest first; `None` is a marker.
    fn place(bodies: &[Option<Vec<u8>>]) -> usize {
        let version = |(at, body): (usize, &Option<Vec<u8>>)| Version {
            name: "live/x".to_owned(),
            id: at.to_string(),
            size: 0,
            modified: None,
            is_marker: body.is_none(),
            is_latest: at == 0,
        };
        let versions: Vec<Version> = bodies.iter().enumerate().map(version).collect();
        let read = |version: &Version| {
            let at: usize = version.id.parse().unwrap();
            Ok(Bytes::from(bodies[at].clone().unwrap()))
        };
        truest(&versions, read).unwrap()
    }

    #[test]
    fn the_oldest_version_that_is_whole_is_the_true_one() {
        let (true_one, thiefs) = (Some(object(1)), Some(object(2)));
        let mut damaged = object(1);
        damaged[70] ^= 1;
        let cut = Some(object(1)[..130].to_vec());
        let damaged = Some(damaged);
        assert!(is_whole(true_one.as_ref().unwrap()));
        assert_eq!(place(&[thiefs.clone(), true_one.clone()]), 1);
        assert_eq!(place(&[None, thiefs.clone(), true_one.clone()]), 2);
        assert_eq!(place(&[true_one.clone(), None, damaged.clone()]), 0);
        assert_eq!(place(&[true_one.clone(), cut.clone()]), 0);
        assert_eq!(place(&[thiefs, true_one.clone(), None, damaged.clone()]), 1);
        // Nothing to choose from: the first one, which is not even read where it stands alone.
        assert_eq!(place(&[damaged.clone(), cut]), 1);
        assert_eq!(place(&[None, damaged]), 1);
        assert_eq!(
            place(&[Some(b"other".to_vec()), Some(b"bytes".to_vec())]),
            1
        );
    }
}
