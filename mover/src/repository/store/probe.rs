//! Finds out at `init` what a store can really do.
//!
//! ```text
//!   explore (the store's own options) ──► A2 list after write ──► A1 eight creates at once, again after a delete ──► profile
//! ```
//!
//! Owns: the judgement about assumptions A1 and A2 of the session protocol. Must not: leave objects behind, or trust what a
//! server says of itself. Passing is necessary, not sufficient: a race may hide from eight tries.

use std::sync::Barrier;

use bytes::Bytes;

use super::profile::StoreProfile;
use super::{Created, Store, discard, list_all};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::{random, to_hex};

/// Creates sent at once.
const RACERS: usize = 8;
/// Objects written for the listing test; their lengths, and not the order of their names.
const LISTED: [usize; 4] = [1002, 1000, 1003, 1001];

/// What `init` was asked for.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOptions {
    /// False with `--no-conditional-writes`: the store is not asked, and the profile says that it cannot.
    pub conditional_writes: bool,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            conditional_writes: true,
        }
    }
}

/// Probes `store` and returns the profile to record; the store uses it from here on. Leaves no objects.
///
/// A store whose create-only PUT has no single winner is no error: the profile says so.
///
/// # Errors
/// What the store answers, and `InvalidRequest` if a listing misses what was just written: no repository can live there.
pub fn probe(store: &dyn Store, options: ProbeOptions) -> Result<StoreProfile> {
    let scratch = format!("probe/{}", to_hex(&random::<16>()));
    let mut written = Vec::new();
    let probed = run(store, options, &scratch, &mut written);
    let cleaned = written.iter().try_for_each(|name| discard(store, name));
    let profile = probed?;
    cleaned?;
    Ok(profile)
}

fn run(
    store: &dyn Store,
    options: ProbeOptions,
    scratch: &str,
    written: &mut Vec<String>,
) -> Result<StoreProfile> {
    let mut profile = store
        .explore(scratch)
        .map_err(|e| e.context("probe the store"))?;
    store.adopt_profile(&profile);
    check_listing(store, scratch, written)?;
    profile.conditional_writes =
        options.conditional_writes && has_one_winner(store, scratch, written)?;
    store.adopt_profile(&profile);
    Ok(profile)
}

/// A2: what was written is listed at once, in order and with its size, and what was deleted is not.
fn check_listing(store: &dyn Store, scratch: &str, written: &mut Vec<String>) -> Result<()> {
    let mut expected = Vec::new();
    for len in LISTED {
        let name = format!("{scratch}/listed-{len}");
        written.push(name.clone());
        let body = Bytes::from(vec![b'.'; len]);
        expected.push((name.clone(), body.len() as u64));
        expected.sort_unstable();
        store.put(&name, body.clone())?;
        if store.get(&name)? != body {
            return Err(unusable(
                "reads back other bytes than were just written",
                &name,
            ));
        }
        require_listing(store, scratch, &expected)?;
    }
    let (last, _) = expected.pop().expect("some objects were written");
    if !may_delete(store, &last)? {
        return Ok(());
    }
    require_listing(store, scratch, &expected)
}

/// Deletes an object; false where this user may not, as it is meant for those who back up.
fn may_delete(store: &dyn Store, name: &str) -> Result<bool> {
    match store.delete(name) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AccessDenied => {
            tracing::warn!(%error, "probe the store without the right to delete: objects stay under probe/");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn require_listing(store: &dyn Store, scratch: &str, expected: &[(String, u64)]) -> Result<()> {
    let listed: Vec<_> = list_all(store, &format!("{scratch}/"))?
        .into_iter()
        .map(|o| (o.name, o.size))
        .collect();
    if listed == expected {
        Ok(())
    } else {
        Err(unusable("lists not what was just written", scratch))
    }
}

fn unusable(what: &str, name: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("probe the store: it {what}"))
        .object(name)
        .hint("point at one consistent endpoint, not at a cache or an asynchronous replica; points would be lost here")
}

/// A1: of eight creates at once exactly one wins and its bytes stay, and a delete frees the name for exactly one again.
fn has_one_winner(store: &dyn Store, scratch: &str, written: &mut Vec<String>) -> Result<bool> {
    let name = format!("{scratch}/contended");
    written.push(name.clone());
    for round in 0..2 {
        if round > 0 && !may_delete(store, &name)? {
            return Ok(true);
        }
        match race(store, &name) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            // The server does not know the header at all.
            Err(e) if e.kind() == ErrorKind::InvalidRequest => return Ok(false),
            Err(e) => return Err(e.context("probe create-only writes")),
        }
    }
    Ok(true)
}

fn race(store: &dyn Store, name: &str) -> Result<bool> {
    let bodies: Vec<Bytes> = (0..RACERS)
        .map(|_| Bytes::from(format!("create-only probe {}", to_hex(&random::<16>()))))
        .collect();
    let start = Barrier::new(RACERS);
    let outcomes: Vec<Result<Created>> = std::thread::scope(|scope| {
        let racers: Vec<_> = bodies
            .iter()
            .map(|body| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    store.create(name, body.clone())
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("a racer does not panic"))
            .collect()
    });
    let mut winners = Vec::new();
    for (outcome, body) in outcomes.into_iter().zip(&bodies) {
        if outcome? == Created::Won {
            winners.push(body);
        }
    }
    Ok(matches!(winners[..], [winner] if store.get(name)? == *winner))
}

#[cfg(test)]
mod tests;
