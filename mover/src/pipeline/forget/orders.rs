//! Gives the forget orders of a run.
//!
//! Owns: their number at a time, and what a failure leaves. Must not: choose points.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ForgetOutcome, Judged};
use crate::error::{Error, Result};
use crate::repository::access::Repository;
use crate::repository::session::forget::{Tomb, bury};

/// Orders at once: enough to hide a store's latency, few enough for one that throttles.
const PARALLEL_PUTS: usize = 16;

/// Orders every point of `outcome.forgotten` to be forgotten. After a failure only those stay in it whose orders stand.
pub(super) fn give(repository: &Repository, outcome: &mut ForgetOutcome, unix_secs: i64) {
    let chosen = std::mem::take(&mut outcome.forgotten);
    let given: Mutex<Vec<usize>> = Mutex::default();
    let failure: Mutex<Option<Error>> = Mutex::default();
    let next = AtomicUsize::new(0);
    let work = || {
        while failure.lock().expect("no holder panics").is_none() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(judged) = chosen.get(index) else {
                return;
            };
            match give_one(repository, judged, unix_secs) {
                Ok(()) => given.lock().expect("no holder panics").push(index),
                Err(error) => {
                    failure
                        .lock()
                        .expect("no holder panics")
                        .get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_PUTS.min(chosen.len()) {
            scope.spawn(work);
        }
    });
    let mut given = given.into_inner().expect("no holder panics");
    given.sort_unstable();
    let failure = failure.into_inner().expect("no holder panics");
    // What may not survive a power cut was not done.
    match repository.store.sync() {
        Ok(()) => {
            outcome.forgotten = given
                .into_iter()
                .filter_map(|index| chosen.get(index).cloned())
                .collect();
            outcome.failure = failure;
        }
        Err(error) => outcome.failure = failure.or(Some(error)),
    }
}

fn give_one(repository: &Repository, judged: &Judged, unix_secs: i64) -> Result<()> {
    let tomb = Tomb::new(&judged.reasons.join("; "), unix_secs);
    bury(repository, &judged.key, &tomb)
        .map(drop)
        .map_err(|error| {
            let hint = error.hint_text().map_or_else(
                || "run the same command again: what was forgotten stays so".to_owned(),
                str::to_owned,
            );
            error
                .context(format!("forget point {}", judged.key.point()))
                .hint(hint)
        })
}
