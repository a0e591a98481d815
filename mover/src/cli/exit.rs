//! The exit codes, and which error ends with which.
//!
//! Owns: the one table from [`ErrorKind`] to exit code. Must not: print. The numbers are a contract with scripts and follow
//! sysexits.h.

use std::process::ExitCode;

use crate::error::ErrorKind;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// The request must be corrected: flags, names, keys, access, a refused source or target.
    Usage = 64,
    /// Stored data is damaged: `verify` found something, or `--salvage` lost ranges.
    Damaged = 65,
    /// A store, source or target failed; trying again may help.
    Unavailable = 69,
    /// A bug of ours.
    Bug = 70,
    /// Stopped by SIGINT or SIGTERM; running again resumes.
    Interrupted = 75,
}

impl Exit {
    /// Every exit, in ascending order.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Usage,
        Self::Damaged,
        Self::Unavailable,
        Self::Bug,
        Self::Interrupted,
    ];

    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Stable name, used as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Usage => "usage",
            Self::Damaged => "damaged",
            Self::Unavailable => "unavailable",
            Self::Bug => "bug",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidRequest
            | ErrorKind::NotFound
            | ErrorKind::WrongKey
            | ErrorKind::NewerFormat
            | ErrorKind::AccessDenied => Self::Usage,
            ErrorKind::Corrupt => Self::Damaged,
            ErrorKind::Unavailable
            | ErrorKind::Io
            | ErrorKind::NoSpace
            | ErrorKind::SourceChanged
            | ErrorKind::Fenced => Self::Unavailable,
            ErrorKind::Internal => Self::Bug,
            ErrorKind::Interrupted => Self::Interrupted,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_code_of_the_contract() {
        for (kind, code) in [
            (ErrorKind::InvalidRequest, 64),
            (ErrorKind::NotFound, 64),
            (ErrorKind::WrongKey, 64),
            (ErrorKind::NewerFormat, 64),
            (ErrorKind::AccessDenied, 64),
            (ErrorKind::Corrupt, 65),
            (ErrorKind::Unavailable, 69),
            (ErrorKind::Io, 69),
            (ErrorKind::NoSpace, 69),
            (ErrorKind::SourceChanged, 69),
            (ErrorKind::Fenced, 69),
            (ErrorKind::Internal, 70),
            (ErrorKind::Interrupted, 75),
        ] {
            assert_eq!(Exit::from(kind).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn codes_and_names_are_distinct() {
        let codes: std::collections::HashSet<_> = Exit::ALL.iter().map(|e| e.code()).collect();
        let names: std::collections::HashSet<_> = Exit::ALL.iter().map(|e| e.as_str()).collect();
        assert_eq!(
            (codes.len(), names.len()),
            (Exit::ALL.len(), Exit::ALL.len())
        );
    }
}
