//! Resume: a new session takes over the data of dead sessions of the same volume.
//!
//! Owns: which sessions count as dead, and the steps that make one owner of what they stored (gc-protocol 4.2, 9). Must
//! not: fence a session that may still live in order to resume; a wrong guess costs that session a restart, never data.

use std::sync::Arc;
use std::time::Duration;

use super::origin::Origin;
use super::points::Catalog;
use super::records::{Abort, Kind, Open, get_abort, get_open};
use super::silence;
use super::writer::abort;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::ids::{SessionId, SessionKey, name};
use crate::repository::store::{Created, Store};

/// When a session of the same volume counts as dead.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// Silent for this long by the store's clock. Sessions whose process is surely gone are taken over at once.
    pub after: Duration,
    /// Where this run happens.
    pub here: Origin,
    /// A session of this very process that will never commit.
    pub given_up: Option<SessionId>,
}

/// A dead session that may be taken over.
#[derive(Clone, Debug)]
pub struct Candidate {
    key: SessionKey,
    inherited: Vec<SessionKey>,
    /// An attempt at the order of this run, not after its own.
    is_same_order: bool,
}

impl Candidate {
    /// The session and what it had taken over itself: all of it goes into the new session's `open`.
    pub fn with_inherited(&self) -> impl Iterator<Item = SessionKey> + '_ {
        std::iter::once(self.key).chain(self.inherited.iter().copied())
    }
}

/// Sessions whose data now belongs to this one.
#[derive(Clone, Debug, Default)]
pub struct Adoption {
    /// Whose segments may be referenced.
    pub sessions: Vec<SessionKey>,
}

/// The dead ones among the undecided sessions of a volume. Any staleness is fine: [`take_over`] decides. None in a store
/// without create-only writes: there a slot cannot decide who owns what a session left (gc-protocol 11).
///
/// # Errors
/// What the store answers.
pub fn candidates(
    repository: &Repository,
    catalog: &Catalog,
    takeover: &Takeover,
) -> Result<Vec<Candidate>> {
    let store = repository.store.as_ref();
    let mut candidates = Vec::new();
    if !repository.config.profile.conditional_writes {
        return Ok(candidates);
    }
    for key in catalog.undecided() {
        let open = match get_open(repository, &key) {
            Ok(Some(open)) if open.kind == Kind::Backup => open,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, "leave a session with a damaged start record alone");
                continue;
            }
            Err(error) => return Err(error),
        };
        if is_dead(store, &key, &open, takeover)? {
            candidates.push(Candidate {
                key,
                inherited: open.adopts,
                is_same_order: open.origin.is_superseded_by(&takeover.here),
            });
        }
    }
    Ok(candidates)
}

fn is_dead(store: &dyn Store, key: &SessionKey, open: &Open, takeover: &Takeover) -> Result<bool> {
    if takeover.given_up == Some(key.session) {
        return Ok(true);
    }
    if open.origin.is_superseded_by(&takeover.here) || open.origin.is_gone(&takeover.here) {
        return Ok(true);
    }
    // The same machine sees the process: it lives, however silent it is.
    if open.origin.boot_id == takeover.here.boot_id
        && open.origin.pid_namespace == takeover.here.pid_namespace
    {
        return Ok(false);
    }
    is_silent(store, key, takeover.after)
}

/// Whether nothing of the session changed for `after`, by the store's own clock.
fn is_silent(store: &dyn Store, key: &SessionKey, after: Duration) -> Result<bool> {
    let Some(now) = silence::store_now(store)? else {
        return Ok(false);
    };
    let recent = now.checked_sub(after);
    let newest = silence::last_change(store, &name::open(key), key.session, recent)?;
    Ok(newest.is_some_and(|newest| now.duration_since(newest).is_ok_and(|age| age >= after)))
}

/// Takes the slots of the candidates, which `open(by)` already names. The slot makes one owner; whoever lost the race, or
/// whose start record is gone by now, is left alone.
///
/// # Errors
/// What the store answers.
pub fn take_over(
    repository: &Arc<Repository>,
    by: SessionId,
    candidates: Vec<Candidate>,
) -> Result<Adoption> {
    let mut adoption = Adoption::default();
    for candidate in candidates {
        if abort(repository, &candidate.key, by)? == Created::Exists {
            if candidate.is_same_order && marker_of(repository, &candidate.key)?.is_none() {
                return Err(committed_meanwhile(&candidate.key));
            }
            continue;
        }
        // Looked at after winning: before, it would prove nothing.
        if repository
            .store
            .head(&name::open(&candidate.key))?
            .is_none()
        {
            continue;
        }
        adoption.sessions.extend(inherited(repository, &candidate)?);
        adoption.sessions.push(candidate.key);
    }
    Ok(adoption)
}

/// What stands in a slot that is no manifest; a manifest, and a damaged marker, are none.
fn marker_of(repository: &Repository, key: &SessionKey) -> Result<Option<Abort>> {
    match get_abort(repository, key) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        answer => answer,
    }
}

/// The order is carried out: a second point of it would belong to nobody.
fn committed_meanwhile(key: &SessionKey) -> Error {
    Error::new(
        ErrorKind::Fenced,
        "begin: an earlier attempt at the same order committed meanwhile",
    )
    .object(name::slot(key))
}

/// What a dead session really owned of what it had taken over: a slot that names an owner makes that owner the only one, and
/// an `open` that is still there shows that nothing was purged in between. A chain of owners that ends in the dead session is
/// as good as one link: each link was the only owner when it died.
fn inherited(repository: &Repository, dead: &Candidate) -> Result<Vec<SessionKey>> {
    let mut owners = vec![dead.key.session];
    let mut owned = Vec::new();
    let mut waiting = Vec::new();
    for key in &dead.inherited {
        waiting.extend(marker_of(repository, key)?.map(|marker| (*key, marker.by)));
    }
    while let Some(at) = waiting.iter().position(|(_, by)| owners.contains(by)) {
        let (key, _) = waiting.swap_remove(at);
        if repository.store.head(&name::open(&key))?.is_some() {
            owners.push(key.session);
            owned.push(key);
        }
    }
    Ok(owned)
}
