//! What a run reads because of its listings: start records of sessions in flight, and a second look at suspects.
//!
//! Owns: those requests, several at once. Must not: take "gone" for an answer: the planner decides what it means.

use std::sync::{Mutex, PoisonError};

use super::Job;
use crate::error::{ErrorKind, Result};
use crate::repository::format::Class;
use crate::repository::gc::{Lookup, OpenKey};
use crate::repository::ids::{SessionId, SessionKey, name};
use crate::repository::session::records::{MAX_ABORT_LEN, Open, absent_is_none, get};
use crate::repository::store::Store;

/// A session in flight and its start record; `None` where that is gone.
pub(super) type Flight = (OpenKey, Option<Open>);

/// Reads start records. Those of `unneeded` sessions may be damaged: they count as gone then.
pub(super) fn read(
    job: &Job<'_>,
    keys: Vec<OpenKey>,
    unneeded: &[SessionId],
) -> Result<Vec<Flight>> {
    gather(job, keys, |key| {
        let record = get::<Open>(
            &job.context.repository,
            Class::Open,
            key.session(),
            &key.open_name(),
        );
        match absent_is_none(record) {
            Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
            Err(_) if unneeded.contains(&key.session()) => Ok(None),
            Err(error) => Err(error.hint(format!(
                "what this session uses is not known, so nothing can be called dead; if its process has ended, run `snaphaul gc --abort {}`",
                key.session()
            ))),
            found => found,
        }
    })
}

/// Looks at suspects again. The order of the requests is the planner's: [`Lookup`].
pub(super) fn look_again(
    job: &Job<'_>,
    keys: Vec<SessionKey>,
) -> Result<Vec<(SessionKey, Lookup)>> {
    gather(job, keys, |key| look(job.store(), key))
}

fn look(store: &dyn Store, key: &SessionKey) -> Result<Lookup> {
    let tomb = store.head(&name::tomb(key))?.is_some();
    let open = store.head(&name::open(key))?.is_some();
    let slot = store.head(&name::slot(key))?;
    let copy = store.head(&name::copy(key))?.is_some();
    Ok(Lookup {
        tomb,
        open,
        manifest: slot.is_some_and(|slot| slot.size > MAX_ABORT_LEN),
        copy,
    })
}

fn gather<K: Send, V: Send>(
    job: &Job<'_>,
    keys: Vec<K>,
    ask: impl Fn(&K) -> Result<V> + Sync,
) -> Result<Vec<(K, V)>> {
    let answers = Mutex::new(Vec::with_capacity(keys.len()));
    job.for_each(keys.into_iter(), |key| {
        let answer = ask(&key)?;
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((key, answer));
        Ok(())
    })?;
    Ok(answers.into_inner().unwrap_or_else(PoisonError::into_inner))
}
