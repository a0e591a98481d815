//! Root objects are stored twice, NAME and then NAME.b; this reads whichever is intact.
//!
//! Owns: the fall-back, the check of both copies, writing one again from the other, and the test whether a place is free. Must not: choose
//! between two intact ones.

use bytes::Bytes;

use super::super::format::KeySlot;
use super::super::format::config::ConfigRecord;
use super::super::ids::name;
use super::super::store::{Store, list_all, replace};
use super::Repository;
use crate::error::{Error, ErrorKind, Result};

/// Where a store is probed; another `init` may be doing so right now.
const PROBE: &str = "probe/";

/// Reads `object` through `parse`, or its second copy where the first is missing or damaged, with a warning that says so.
///
/// An intact object of a newer format is never passed over for its copy.
pub(super) fn load<T>(
    store: &dyn Store,
    object: &str,
    parse: fn(&str, &[u8]) -> Result<T>,
    warnings: &mut Vec<String>,
) -> Result<T> {
    let read = |name: &str| store.get(name).and_then(|bytes| parse(name, &bytes));
    let first = match read(object) {
        Ok(value) => return Ok(value),
        Err(error) if is_lost(&error) => error,
        Err(error) => return Err(error),
    };
    let second = name::second_copy(object);
    match read(&second) {
        Ok(value) => {
            warnings.push(format!(
                "`{object}`: {first}; used its second copy `{second}`"
            ));
            Ok(value)
        }
        // Of two complaints, damage says more than absence.
        Err(error) if !is_lost(&error) || first.kind() == ErrorKind::NotFound => Err(error),
        Err(_) => Err(first),
    }
}

/// Whether the second copy can help.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)
}

/// Checks both copies of the config and of every key slot, and gives what is wrong with each.
///
/// # Errors
/// What the store answers; damage and absence are findings, no errors.
pub fn check_roots(store: &dyn Store) -> Result<Vec<Error>> {
    let mut findings = Vec::new();
    check_pair(
        store,
        name::CONFIG,
        |n, b| ConfigRecord::parse(n, b).map(drop),
        &mut findings,
    )?;
    for slot in slot_names(store)? {
        check_pair(
            store,
            &slot,
            |n, b| KeySlot::parse(n, b).map(drop),
            &mut findings,
        )?;
    }
    Ok(findings)
}

fn check_pair(
    store: &dyn Store,
    object: &str,
    parse: fn(&str, &[u8]) -> Result<()>,
    findings: &mut Vec<Error>,
) -> Result<()> {
    let mut intact = Vec::new();
    for name in [object.to_owned(), name::second_copy(object)] {
        match store
            .get(&name)
            .and_then(|bytes| parse(&name, &bytes).map(|()| bytes))
        {
            Ok(bytes) => intact.push(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => findings.push(
                Error::new(ErrorKind::Corrupt, "find a root object")
                    .object(&name)
                    .source(error),
            ),
            Err(error) if error.kind() == ErrorKind::Corrupt => findings.push(error),
            Err(error) => return Err(error),
        }
    }
    if let [first, second] = &intact[..]
        && first != second
    {
        let what = "compare a root object with its second copy: they differ";
        findings.push(Error::new(ErrorKind::Corrupt, what).object(object));
    }
    Ok(())
}

/// What became of the root objects.
#[derive(Debug, Default)]
pub struct MendedRoots {
    /// Objects that were written again (or can be), each with what was wrong and what was done.
    pub mended: Vec<(String, String)>,
    /// What cannot be mended.
    pub lost: Vec<Error>,
}

/// Writes each copy of config and key slots again that is missing or damaged while the other is intact; a dry run only says so.
///
/// # Errors
/// What the store answers.
pub fn mend_roots(repository: &Repository, dry_run: bool) -> Result<MendedRoots> {
    let store = repository.store.as_ref();
    let mut roots = MendedRoots::default();
    let config = |name: &str, bytes: &[u8]| {
        let record = ConfigRecord::parse(name, bytes)?;
        record.authenticate(name, &repository.keys).map(drop)
    };
    mend_pair(store, name::CONFIG, &config, (dry_run, &mut roots))?;
    for slot in slot_names(store)? {
        // A slot of another repository is what an `init` left that lost a race.
        let parse = |name: &str, bytes: &[u8]| KeySlot::parse(name, bytes).map(drop);
        mend_pair(store, &slot, &parse, (dry_run, &mut roots))?;
    }
    Ok(roots)
}

type Parse<'a> = &'a dyn Fn(&str, &[u8]) -> Result<()>;

fn mend_pair(
    store: &dyn Store,
    object: &str,
    parse: Parse<'_>,
    (dry_run, roots): (bool, &mut MendedRoots),
) -> Result<()> {
    let second = name::second_copy(object);
    let read = |name: &str| -> Result<Result<Bytes, Error>> {
        let read = store.get(name).and_then(|bytes| {
            parse(name, &bytes)?;
            Ok(bytes)
        });
        match read {
            Err(error) if !is_lost(&error) => Err(error),
            read => Ok(read),
        }
    };
    match (read(object)?, read(&second)?) {
        (Ok(first), Ok(copy)) if first == copy => {}
        (Ok(_), Ok(_)) => {
            let what =
                "choose between two copies of a root object: they differ, and both are intact";
            roots.lost.push(
                Error::new(ErrorKind::Corrupt, what)
                    .object(object)
                    .hint("find out who wrote the second one"),
            );
        }
        (Ok(good), Err(bad)) => rewrite(store, &second, (object, good, &bad), (dry_run, roots))?,
        (Err(bad), Ok(good)) => rewrite(store, object, (&second, good, &bad), (dry_run, roots))?,
        (Err(first), Err(_)) => roots
            .lost
            .push(first.context("read a root object: both copies are lost")),
    }
    Ok(())
}

fn rewrite(
    store: &dyn Store,
    object: &str,
    (from, good, bad): (&str, Bytes, &Error),
    (dry_run, roots): (bool, &mut MendedRoots),
) -> Result<()> {
    if !dry_run {
        replace(store, object, good)?;
        if object.starts_with(name::KEYS) && store.head(from)?.is_none() {
            // Somebody removes this key: what was just written must not bring it back.
            store.delete(object)?;
            return Ok(());
        }
    }
    let done = if dry_run { "can be" } else { "was" };
    let revoked = if object.starts_with(name::KEYS) {
        "; if the key was meant to be removed, remove it again"
    } else {
        ""
    };
    let message = format!("{bad}; it {done} written again from `{from}`{revoked}");
    roots.mended.push((object.to_owned(), message));
    Ok(())
}

/// Names of all key slots of which at least one copy is there, ascending.
pub(super) fn slot_names(store: &dyn Store) -> Result<Vec<String>> {
    let mut names: Vec<String> = list_all(store, name::KEYS)?
        .into_iter()
        .map(|info| match info.name.strip_suffix(".b") {
            Some(first) => first.to_owned(),
            None => info.name,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Whether a place without a config has other objects of a repository. One that cannot be listed has none to tell of.
pub(super) fn has_rest(store: &dyn Store) -> bool {
    [name::SNAP, name::SEG].into_iter().any(|prefix| {
        let mut found = false;
        let listed = store.list(prefix, &mut |page| {
            found |= !page.is_empty();
            // One page tells; the rest is not asked for.
            if found {
                Err(Error::new(ErrorKind::Interrupted, "stop listing"))
            } else {
                Ok(())
            }
        });
        drop(listed);
        found
    })
}

/// Refuses a place where a repository, the rest of one, or anything foreign is.
pub(super) fn require_vacant(store: &dyn Store) -> Result<()> {
    if store.head(name::CONFIG)?.is_some() {
        return Err(already_there(store));
    }
    let refuse = |message: &str, object: &str| {
        Error::new(ErrorKind::InvalidRequest, message).object(format!("{}: {object}", store.url()))
    };
    store.list("", &mut |page| {
        for info in page {
            let ours = [
                name::OPEN,
                name::SNAP,
                name::TOMB,
                name::COPY,
                name::LIVE,
                name::SEG,
            ]
            .into_iter()
            .chain([
                name::MAP,
                name::BEAT,
                name::QUARANTINE,
                name::QUARANTINE_USED,
                name::CHECKED,
                "config",
            ])
            .any(|prefix| info.name.starts_with(prefix));
            if ours {
                return Err(
                    refuse("refuse a repository that lost its config", &info.name)
                        .hint("do not write here: the objects that are left may still be read"),
                );
            }
            // Slots without a config are what an interrupted `init` leaves.
            if !info.name.starts_with(name::KEYS) && !info.name.starts_with(PROBE) {
                return Err(refuse("refuse a place that is not empty", &info.name)
                    .hint("give an empty directory, or another prefix in the bucket"));
            }
        }
        Ok(())
    })
}

/// The answer to a second `init`. Adds second copies that an interrupted first one did not get to.
pub(super) fn already_there(store: &dyn Store) -> Error {
    let refusal = Error::new(
        ErrorKind::InvalidRequest,
        "refuse a second init: a repository is there",
    )
    .object(store.url())
    .hint("use the repository as it is, or --if-missing in scripts");
    match complete(store) {
        Ok(()) => refusal,
        Err(cause) => refusal.source(cause),
    }
}

/// Stores the second copy of an intact config that lacks one; slots have both before the config is created.
fn complete(store: &dyn Store) -> Result<()> {
    let config = store.get(name::CONFIG)?;
    ConfigRecord::parse(name::CONFIG, &config)?;
    let second = name::second_copy(name::CONFIG);
    if store.head(&second)?.is_none() {
        store.put(&second, config)?;
    }
    store.sync()
}
