//! Moving data: backup, restore, verify, repair and diff.
//!
//! Owns: the threads of the data plane and their byte budgets. Must not: parse flags or print.

pub mod backup;
pub mod budget;
pub mod changed;
pub mod copy;
pub mod diff;
pub mod forget;
pub mod gc;
pub mod progress;
pub mod repair;
pub mod report;
pub mod restore;
#[cfg(test)]
pub(crate) mod testing;
pub mod verify;
mod walk;

use std::sync::Arc;

use crate::repository::access::Repository;
use progress::{Progress, StopFlag};

/// What every pipeline runs with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The opened repository.
    pub repository: Arc<Repository>,
    /// Counters for the reporter.
    pub progress: Arc<Progress>,
    /// Set on SIGINT and SIGTERM.
    pub stop: StopFlag,
    /// Worker threads; default the number of cores.
    pub jobs: usize,
    /// Bytes of memory that the run may take; [`budget`] says what becomes of them.
    pub memory: u64,
}
