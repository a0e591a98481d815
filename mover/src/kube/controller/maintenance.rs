//! Maintenance of repositories: garbage is collected and what is stored is verified, without anybody asking.
//!
//! ```text
//!   SnapshotRepositories ─► due (pure): what is next, and when ─► run: one at a time, on a thread of its own
//!            ▲                                                      │
//!            └───── status, condition `Healthy`, events ◄── outcome (pure): what it means ◄──┘
//! ```
//!
//! Owns: that one run goes on at a time in this process, and that its result is told. Must not: hold up the looks at other objects, or need
//! to be alone: the protocol of the repository admits any number of collectors and verifiers, so two leaders for a moment are harmless.
//!
//! A run that does nothing any more for an hour fails, and a beginning that cannot be written down is tried again later: neither holds up
//! the others. A run that takes long does: what is due first comes next.
//!
//! A run that is killed with its process leaves a status that says when it began; that counts as a failure, so that one which takes
//! the process with it is not begun again at once.

pub mod due;
pub mod outcome;
mod run;
mod stillness;

pub use run::run;
pub(super) use run::write;

use crate::pipeline::report::{GcReport, VerifyReport};

/// What is done to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Garbage collection.
    Gc,
    /// Verification.
    Verify,
}

impl Task {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gc, Self::Verify];

    /// Its name: a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gc => "gc",
            Self::Verify => "verify",
        }
    }
}

/// What a run that did its work brought.
#[derive(Debug)]
pub enum Done {
    /// Garbage was collected.
    Gc(GcReport),
    /// The repository was verified.
    Verify(Verified),
}

/// What a verification brought.
#[derive(Debug, Default)]
pub struct Verified {
    /// The report.
    pub report: VerifyReport,
    /// Whether all data was read.
    pub all_data: bool,
    /// Those of the points known as damaged before that are still there.
    pub still_there: Vec<String>,
}
