//! Adds second copies of manifests that are missing, because the writer died before it stored its own.
//!
//! Owns: that. Must not: copy what it cannot read, or stop a run: a copy is an extra.

use super::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
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
    repository.store.put(&copy, object)?;
    // A purge that went on meanwhile has looked for a copy already. What this leaves is seen as its ghost by the next run.
    match repository.store.head(&name::open(key))? {
        Some(_) => Ok(true),
        None => Err(Error::new(ErrorKind::NotFound, "find the point any more").object(copy)),
    }
}
