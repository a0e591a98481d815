//! How one transfer is stopped, and why.
//!
//! Owns: that the first cause counts. Must not: know what an answer says ([`super::conclusion`] does).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::pipeline::progress::StopFlag;

/// Why something that runs has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The order says so.
    Order(String),
    /// The agent ends.
    Drain,
    /// The holder of the device went away.
    HolderLost,
    /// The order is another attempt's, another node's, or gone.
    Superseded,
    /// The API server did not confirm the order for too long: somebody else may have it.
    CutOff,
}

/// Stops one transfer; the first cause counts.
#[derive(Debug, Default)]
pub(super) struct Stopper {
    flag: StopFlag,
    cause: Mutex<Option<(Cause, Instant)>>,
}

impl Stopper {
    pub(super) fn stop(&self, cause: Cause) {
        self.cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| (cause, Instant::now()));
        self.flag.stop();
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.stopped().map(|(cause, _)| cause)
    }

    /// What the data plane looks at.
    pub(super) fn flag(&self) -> &StopFlag {
        &self.flag
    }

    fn stopped(&self) -> Option<(Cause, Instant)> {
        self.cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the agent has to answer now, because it ends before the transfer does: a store that is slow may hold it up.
    pub(super) fn is_out_of_time(&self, grace: Duration) -> bool {
        self.stopped()
            .is_some_and(|(cause, at)| cause == Cause::Drain && at.elapsed() >= grace / 2)
    }

    /// Whether nobody waits for an answer any more. Who drains tries to the end of his grace period.
    pub(super) fn is_pointless(&self) -> bool {
        self.cause() == Some(Cause::Superseded)
    }
}
