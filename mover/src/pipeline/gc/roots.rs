//! Reads the liveness of every root into the planner's union.
//!
//! Owns: those requests and their memory. Must not: keep a liveness longer than it takes to fold it in.

use std::sync::{Mutex, PoisonError};

use super::gate::Gate;
use super::{Job, Unsettled, crew};
use crate::error::{ErrorKind, Result};
use crate::pipeline::Context;
use crate::repository::gc::{Marking, Plan, Root, StartOver};
use crate::repository::ids::name;
use crate::repository::map::Liveness;
use crate::repository::map::liveness::open_unmatched;

/// Most bytes of liveness in work, however much memory the run may take.
const MOST_IN_WORK: u64 = 32 << 20;
/// What becomes of one byte of a stored liveness while it is decoded: long runs of equal bits compress well, and there are record
/// and tables at once. A wide one goes alone.
const DECODED: u64 = 24;

/// Marks what the roots need.
pub(super) fn mark(job: &Job<'_>, marking: Marking) -> Result<Plan, Unsettled> {
    let context = job.context;
    let roots = marking.roots();
    let limit = MOST_IN_WORK.min(context.memory / 8);
    let gate = Gate::new(limit);
    let marking = Mutex::new(marking);
    let moved: Mutex<Option<StartOver>> = Mutex::default();
    let lock = || marking.lock().unwrap_or_else(PoisonError::into_inner);
    let note = |start_over| {
        let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.get_or_insert(start_over);
    };
    let fold = |root: Root| {
        if moved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            return Ok(());
        }
        let _pass = gate.pass(bytes(context, &root)? * DECODED);
        let liveness = read(context, &root)?;
        if let Err(start_over) = lock().fold(&root.key, liveness.as_ref()) {
            note(start_over);
        }
        Ok(())
    };
    // One thread for all wide ones: each thread's part of the heap would keep what the largest took.
    let is_wide = |root: &Root| u64::from(root.bytes) * DECODED > limit;
    let (wide, others): (Vec<Root>, Vec<Root>) = roots.into_iter().partition(is_wide);
    crew::for_each(wide.into_iter(), 1, &context.stop, fold)?;
    job.for_each(others.into_iter(), fold)?;
    if let Some(moved) = moved.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(moved.into());
    }
    let marking = marking.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(marking.finish()?)
}

/// Size of a root's liveness: points that were committed after the data was listed are looked up.
fn bytes(context: &Context, root: &Root) -> Result<u64> {
    if root.bytes > 0 {
        return Ok(u64::from(root.bytes));
    }
    let found = context.repository.store.head(&name::live(&root.key))?;
    Ok(found.map_or(0, |info| info.size))
}

fn read(context: &Context, root: &Root) -> Result<Option<Liveness>> {
    let repository = &context.repository;
    match repository.store.get(&name::live(&root.key)) {
        Ok(object) => open_unmatched(&repository.keys, &root.key, object)
            .map(Some)
            .map_err(|error| {
                error.hint(format!(
                    "what point {} needs is not known, so nothing can be called dead; repair or forget that point, then run gc again",
                    root.key.point()
                ))
            }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
