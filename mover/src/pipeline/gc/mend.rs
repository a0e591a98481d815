//! Adds second copies of manifests that are missing, because the writer died before it stored its own.
//!
//! Owns: that. Must not: copy what it cannot read, or stop a run: a copy is an extra.

use super::Job;
use crate::error::{ErrorKind, Result};
use crate::pipeline::Context;
use crate::repository::access::Repository;
use crate::repository::format::Manifest;
use crate::repository::gc::Plan;
use crate::repository::ids::{SessionKey, name};

/// Stores the copies that the plan misses.
pub(super) fn copies(job: &Job<'_>, plan: &Plan) -> Result<()> {
    let missing: Vec<SessionKey> = plan.missing_copies().collect();
    job.for_each(missing.into_iter(), |key| {
        match copy(job.context, &key) {
            Ok(added) => job.tally.copies_added(u64::from(added)),
            Err(error) => {
                tracing::warn!(%error, point = %key.point(), "add the second copy of a manifest");
            }
        }
        Ok(())
    })
}

/// Copies one manifest; whether there was one to copy, and none yet.
fn copy(context: &Context, key: &SessionKey) -> Result<bool> {
    let repository = &context.repository;
    let (slot, copy) = (name::slot(key), name::copy(key));
    // Young points get theirs from the writer.
    if repository.store.head(&copy)?.is_some() {
        return Ok(false);
    }
    let object = match repository.store.get(&slot) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    Manifest::open(&repository.keys, key, &slot, &object)?;
    // A manifest that came late, into a slot that a purge had freed, is no point's, though the listings may show it beside a start
    // record that has gone since. A copy would make it look like a point that the store has damaged. What stands while its
    // start record does was committed; a copy that comes after the purge of that is taken back, by this run or, where it dies, the next.
    if repository.store.head(&name::open(key))?.is_none() {
        return Ok(false);
    }
    repository.store.put(&copy, object)?;
    if is_purged(repository, key)? {
        // Until it is gone it makes the point look like one that the store has damaged.
        repository.store.delete(&copy)?;
        return Ok(false);
    }
    Ok(true)
}

/// Whether another run purged the point, or is about to. A start record that the store lost is no purge: there is no order to
/// forget, which goes last of all, and the manifest stands.
fn is_purged(repository: &Repository, key: &SessionKey) -> Result<bool> {
    let has = |name: String| Ok(repository.store.head(&name)?.is_some());
    Ok(!has(name::open(key))? && (has(name::tomb(key))? || !has(name::slot(key))?))
}
