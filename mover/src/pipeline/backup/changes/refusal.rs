//! Why a source of changed blocks is not followed, and what is read instead.
//!
//! Owns: the reactions to what a source answers, one for each. Must not: ask.

use changed_blocks::{SourceError, SourceErrorKind};

use super::verdict::Verdict;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// Why no delta is taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The delta cannot be had: what is allocated is read.
    Full(String),
    /// Nobody is asked at all.
    Scan(String),
    /// The source contradicted itself: nobody is asked, and it is a liar.
    Caught(Verdict),
    /// The run ends.
    Failed(Box<Error>),
}

/// What a step towards a delta gives.
pub(super) type Step<T> = std::result::Result<T, Refusal>;

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        match error.kind {
            // To ask again later costs a point; to read more costs time only.
            SourceErrorKind::FullBackup | SourceErrorKind::Retry => Self::Full(error.with_cause()),
            SourceErrorKind::GiveUp => {
                let error = Error::new(ErrorKind::Io, "ask what changed").source(error);
                Self::Failed(Box::new(error))
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// The end of an answer that was streamed: a stop on request comes before whatever the source made of it.
pub(super) fn ended<T>(stop: &StopFlag, answer: std::result::Result<T, SourceError>) -> Step<T> {
    let stopped: Result<()> = stop.check();
    stopped?;
    answer.map_err(Refusal::from)
}
