//! Deletes what the plan calls dead.
//!
//! ```text
//!   all copies ─ sync ─► all start records ─ sync ─► slots ─ sync ─► liveness ─ sync ─► forget orders ─ sync ─► data, leftovers
//!      └ refused: the later objects of that session stay
//! ```
//!
//! Owns: the order, and what a refusal stops. Must not: choose. Steps are rounds over all sessions, so that a directory is flushed once
//! between two steps and a power cut cannot turn their order round.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Job;
use super::tally::Tally;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::Progress;
use crate::repository::gc::{Chain, ControlStep, OpenKey, Plan};
use crate::repository::ids::{SegmentId, name};
use crate::repository::store::list_all;
use crate::repository::store::lock::Purged;

/// Every step, in the order that all chains keep.
const STEPS: [ControlStep; 5] = [
    ControlStep::Copy,
    ControlStep::Open,
    ControlStep::Slot,
    ControlStep::Live,
    ControlStep::Tomb,
];

/// Counts what a run would delete.
pub(super) fn preview(plan: &Plan, tally: &Tally) {
    plan.chains().for_each(|chain| tally.purged(&chain));
    plan.dead_data()
        .chain(plan.superseded())
        .for_each(|dead| tally.deleted(&dead));
}

/// Deletes control objects.
pub(super) fn control(job: &Job<'_>, plan: &Plan) -> Result<()> {
    let refused: Mutex<HashSet<OpenKey>> = Mutex::default();
    let lock = || refused.lock().unwrap_or_else(PoisonError::into_inner);
    for step in STEPS {
        let chains = plan.chains().filter_map(|chain| {
            let at_step = chain.steps().contains(&step).then(|| chain.name(step))??;
            Some((chain, at_step))
        });
        job.for_each(chains, |(chain, object)| {
            if lock().contains(&chain.key) {
                return Ok(());
            }
            if !delete(job, &object)? {
                lock().insert(chain.key);
            } else if is_last(&chain, step) {
                job.tally.purged(&chain);
            }
            Ok(())
        })?;
        job.store().sync()?;
    }
    Ok(())
}

/// Whether nothing of the chain is left after this step.
fn is_last(chain: &Chain, step: ControlStep) -> bool {
    let mut named = chain
        .steps()
        .iter()
        .filter(|step| chain.name(**step).is_some());
    named.next_back() == Some(&step)
}

/// Deletes dead data, superseded generations, and what belongs to nothing any more.
///
/// # Errors
/// `AccessDenied` where not one deletion of the run was allowed.
pub(super) fn data(job: &Job<'_>, plan: &Plan) -> Result<()> {
    let dead = plan.dead_data().chain(plan.superseded());
    job.for_each(dead, |dead| {
        if delete(job, &dead.name())? {
            job.tally.deleted(&dead);
            Progress::add(&job.context.progress.done, dead.size());
        }
        Ok(())
    })?;
    let beats = plan.dead_beats().into_iter().map(name::beat);
    job.for_each(beats, |beat| delete(job, &beat).map(drop))?;
    job.for_each(plan.dead_marks(), |segment| marks(job, segment))?;
    job.tally.check_allowed()
}

/// Deletes the marks on the bodies of a segment that is gone.
fn marks(job: &Job<'_>, segment: SegmentId) -> Result<()> {
    for mark in list_all(job.store(), &name::marks_of(segment))? {
        delete(job, &mark.name)?;
    }
    Ok(())
}

/// Deletes one object, with all its versions; false where the store refuses or a lock holds it. That says nothing about another
/// object: they are locked one by one.
pub(super) fn delete(job: &Job<'_>, name: &str) -> Result<bool> {
    match job.store().purge(name) {
        Ok(Purged::Gone) => {
            job.tally.one_deleted();
            Ok(true)
        }
        Ok(Purged::LockedUntil(until)) => {
            tracing::info!(name, ?until, "locked");
            job.tally.locked(name, until);
            Ok(false)
        }
        Err(error) if error.kind() == ErrorKind::AccessDenied => {
            tracing::info!(%error, "refused");
            job.tally.refused(name);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

impl Tally {
    fn check_allowed(&self) -> Result<()> {
        match self.first_refused() {
            Some(object) if !self.any_deleted() => Err(Error::new(
                ErrorKind::AccessDenied,
                "delete garbage: the store refused every deletion",
            )
            .object(object)
            .hint("give these credentials the right to delete; or, where objects are locked, run gc again when their locks have ended")),
            _ => Ok(()),
        }
    }
}
