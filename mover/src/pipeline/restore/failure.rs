//! The first failure of a pipeline, and how it stops all of its threads.
//!
//! Owns: which error is reported. Must not: print. Later errors are consequences of the first and are dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::ByteBudget;
use crate::error::{Error, Result};
use crate::pipeline::progress::StopFlag;

/// Shared by all threads of one run.
#[derive(Debug)]
pub(crate) struct Failure {
    first: Mutex<Option<Error>>,
    failed: AtomicBool,
    stop: StopFlag,
    budget: Arc<ByteBudget>,
}

impl Failure {
    /// Watches `stop`, and closes `budget` on the first failure.
    pub(crate) fn new(stop: StopFlag, budget: Arc<ByteBudget>) -> Self {
        Self {
            first: Mutex::new(None),
            failed: AtomicBool::new(false),
            stop,
            budget,
        }
    }

    /// Records an error; the first one wins.
    pub(crate) fn set(&self, error: Error) {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        self.budget.close();
    }

    /// Records the error of a stage, if it has one.
    pub(crate) fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            self.set(error);
        }
    }

    /// Whether a thread should go on: false after a failure or once a stop was asked for (which becomes the failure).
    pub(crate) fn goes_on(&self) -> bool {
        if self.failed.load(Ordering::Acquire) {
            return false;
        }
        self.note(self.stop.check());
        !self.failed.load(Ordering::Acquire)
    }

    /// The first error, if any.
    pub(crate) fn into_result(self) -> Result<()> {
        self.first
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn keeps_the_first_error_and_closes_the_budget() {
        let budget = ByteBudget::new(10);
        let failure = Failure::new(StopFlag::default(), Arc::clone(&budget));
        assert!(failure.goes_on());
        failure.set(Error::new(ErrorKind::Io, "write the target"));
        failure.set(Error::new(
            ErrorKind::Internal,
            "notice that a channel closed",
        ));
        assert!(!failure.goes_on());
        assert!(budget.acquire(1).is_none());
        assert_eq!(failure.into_result().unwrap_err().kind(), ErrorKind::Io);
    }

    #[test]
    fn a_stop_is_a_failure() {
        let stop = StopFlag::default();
        let failure = Failure::new(stop.clone(), ByteBudget::new(10));
        stop.stop();
        assert!(!failure.goes_on());
        assert_eq!(
            failure.into_result().unwrap_err().kind(),
            ErrorKind::Interrupted
        );
    }
}
