//! Keeps everything that a new point needs locked for as long as the point is promised to be.
//!
//! ```text
//!   segments of this session ── began in the window of the commit? ── yes ─► locked long enough as stored
//!   segments of the parent   ── committed in that window?          ── yes ─► locked long enough by its own commit
//!   everything else          ── LIST per session, one request a segment ──► locked until the window's end + R
//! ```
//!
//! Owns: which locks are extended, which follows from times alone. Must not: choose dates (`store::lock` does), or trust
//! that a segment is there because a map says so: one that is not listed fails the backup before it commits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::ids::{SegmentId, SessionId, name};
use crate::repository::map::liveness::Liveness;
use crate::repository::parallel;
use crate::repository::store::lock::ObjectLock;
use crate::repository::store::{ObjectInfo, list_all};

/// Requests at once: enough to hide a store's latency, few enough for one that throttles.
const PARALLEL_LOCKS: usize = 16;

/// How often a segment that vanished is looked for again: each time a collector compacted it meanwhile.
const ATTEMPTS: usize = 4;

/// What a new point builds on, as far as locks go.
#[derive(Clone, Debug)]
pub struct Base {
    /// The session that commits it.
    pub own: SessionId,
    /// A moment before the session stored its first object.
    pub began: SystemTime,
    /// The time that its manifest says.
    pub committed: SystemTime,
    /// The same of every pinned point; none for a point that builds on nothing.
    pub parents: Vec<SystemTime>,
    /// Dead sessions whose data it references; when they stored it is not known.
    pub adopted: Vec<SessionId>,
}

impl Base {
    /// Whether what the pinned points need is locked long enough. Unequal windows are not, whichever is the later: a clock
    /// that was wrong must not shorten a lock.
    fn parents_last(&self, policy: &ObjectLock) -> bool {
        let window = policy.window(self.committed);
        let same = |moment: &SystemTime| policy.window(*moment) == window;
        !self.parents.is_empty() && self.parents.iter().all(same)
    }

    /// Whether the objects of `session` must be extended.
    fn is_short(&self, policy: &ObjectLock, session: SessionId) -> bool {
        if session == self.own {
            return policy.window(self.began) != policy.window(self.committed);
        }
        self.adopted.contains(&session) || !self.parents_last(policy)
    }
}

/// The moment that a manifest names.
#[must_use]
pub fn moment(unix_millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_millis).unwrap_or(0))
}

/// Extends what is locked too shortly of everything that `liveness` names, before its point is committed. Gives the number of
/// locks extended; 0 in a repository without Object Lock.
///
/// # Errors
/// `Corrupt` where a segment is missing, `AccessDenied` where this user may not lock, and what the store answers.
pub fn extend(repository: &Repository, liveness: &Liveness, base: &Base) -> Result<u64> {
    let Some(policy) = repository.config.profile.lock else {
        return Ok(0);
    };
    let until = policy.end(base.committed);
    let segments = liveness.segments().map(|(id, _)| (name::SEG, id));
    let maps = liveness.map_segments().map(|(id, _)| (name::MAP, id));
    let mut short: BTreeMap<(&str, SessionId), BTreeSet<u32>> = BTreeMap::new();
    for (kind, id) in segments.chain(maps) {
        if base.is_short(&policy, id.session) {
            short
                .entry((kind, id.session))
                .or_default()
                .insert(id.number);
        }
    }
    let mut extended = 0;
    for ((kind, session), numbers) in short {
        extended += extend_session(repository, kind, session, &numbers, until)?;
    }
    if !base.parents_last(&policy) {
        extended += extend_roots(repository, until)?;
    }
    Ok(extended)
}

/// Locks the start record of a committed point: without it the point would be hidden, though not lost.
///
/// # Errors
/// What the store answers.
pub fn lock_open(repository: &Repository, open: &str, committed: SystemTime) -> Result<()> {
    match repository.config.profile.lock {
        Some(policy) => repository.store.lock(open, policy.end(committed)),
        None => Ok(()),
    }
}

/// The config and the key slots, which every point needs.
fn extend_roots(repository: &Repository, until: SystemTime) -> Result<u64> {
    let store = repository.store.as_ref();
    let mut roots = list_all(store, name::CONFIG)?;
    roots.extend(list_all(store, name::KEYS)?);
    lock_all(&roots, |root| store.lock(&root.name, until).map(|()| 1))
}

/// Extends the segments `numbers` of one session, page by page of their listing.
fn extend_session(
    repository: &Repository,
    kind: &str,
    session: SessionId,
    numbers: &BTreeSet<u32>,
    until: SystemTime,
) -> Result<u64> {
    let store = repository.store.as_ref();
    let prefix = format!("{kind}{session}/");
    let mut missing = numbers.clone();
    let mut extended = 0;
    store.list(&prefix, &mut |page| {
        let wanted: Vec<ObjectInfo> = page
            .into_iter()
            .filter(|info| number(&info.name, &prefix).is_some_and(|n| numbers.contains(&n)))
            .collect();
        for info in &wanted {
            number(&info.name, &prefix).map(|n| missing.remove(&n));
        }
        extended += lock_all(&wanted, |info| lock_segment(repository, &info.name, until))?;
        Ok(())
    })?;
    match missing.first() {
        None => Ok(extended),
        Some(number) => Err(lost(kind, session, *number)),
    }
}

/// Locks one generation of a segment, or the next one where a collector has just replaced it.
fn lock_segment(repository: &Repository, segment: &str, until: SystemTime) -> Result<u64> {
    let store = repository.store.as_ref();
    let gone = match store.lock(segment, until) {
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        other => return other.map(|()| 1),
    };
    let generations = segment.split_once('.').map_or(segment, |(stem, _)| stem);
    for _ in 0..ATTEMPTS {
        let mut locked = 0;
        for info in list_all(store, generations)? {
            match store.lock(&info.name, until) {
                Ok(()) => locked += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if locked > 0 {
            return Ok(locked);
        }
    }
    Err(gone)
}

/// Locks every object, [`PARALLEL_LOCKS`] at a time, and adds up what `lock` gives.
fn lock_all(
    objects: &[ObjectInfo],
    lock: impl Fn(&ObjectInfo) -> Result<u64> + Sync,
) -> Result<u64> {
    const ACTION: &str = "extend the locks of what this point needs";
    parallel::sum(objects, PARALLEL_LOCKS, lock).map_err(|error| match error.kind() {
        ErrorKind::AccessDenied => error.context(ACTION).hint(
            "let this user do s3:PutObjectRetention and s3:GetObjectRetention (manifests/s3-policies/backup.json)",
        ),
        _ => error.context(ACTION),
    })
}

fn number(object: &str, prefix: &str) -> Option<u32> {
    let rest = object.strip_prefix(prefix)?;
    rest.split('.').next()?.parse().ok()
}

fn lost(kind: &str, session: SessionId, number: u32) -> Error {
    let id = SegmentId { session, number };
    let object = match kind {
        name::MAP => name::map_segment(id),
        _ => name::segment(id, 0),
    };
    Error::new(
        ErrorKind::Corrupt,
        "extend the lock of a segment: the store has lost it",
    )
    .object(object)
    .hint("get deleted objects back with `snaphaul recover`, or store the volume again with `backup --parent none`")
}

#[cfg(test)]
mod tests;
