//! Why a run starts over and believes nobody: evidence that a source of changed blocks was wrong, or an answer that broke off.
//!
//! Owns: what was found, and how it travels from the thread that found it to the run. Must not: decide what
//! happens then.

use std::fmt;

use changed_blocks::{SourceError, SourceErrorKind};

use super::verdict::Verdict;
use crate::error::{Error, ErrorKind};
use crate::repository::ids::{Digest, SessionId};

/// A chunk that is not what a source said.
#[derive(Clone, Debug)]
pub struct Lie {
    /// Name of the source.
    pub source: &'static str,
    /// What it said.
    pub said: Said,
    /// Byte offset of the chunk.
    pub offset: u64,
    /// Digest of what was read; `None` for zeros.
    pub found: Option<Digest>,
    /// The identity record of what it spoke about, in one line.
    pub target: String,
}

/// What a source said of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is as it was.
    Unchanged {
        /// Id of the parent.
        parent: String,
        /// Digest in the parent; `None` for zeros.
        before: Option<Digest>,
    },
    /// It holds nothing.
    Unallocated,
}

impl std::error::Error for Lie {}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.said {
            Said::Unchanged { .. } => "a change",
            Said::Unallocated => "data",
        };
        let (source, evidence) = (self.source, self.evidence());
        write!(f, "{source} did not tell of {what}: {evidence}")
    }
}

impl Lie {
    fn evidence(&self) -> String {
        let text = |digest: Option<Digest>| match digest {
            Some(digest) => digest.to_string(),
            None => "zeros".to_owned(),
        };
        let (offset, found) = (self.offset, text(self.found));
        match &self.said {
            Said::Unchanged { parent, before } => {
                let before = text(*before);
                format!("the chunk at byte {offset} is {found}, in point {parent} it is {before}")
            }
            Said::Unallocated => format!("the chunk at byte {offset} is {found}, not unallocated"),
        }
    }

    /// What is kept of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::new(self.source, self.evidence(), &self.target)
    }

    /// As the error that ends the run.
    #[must_use]
    pub fn into_error(self) -> Error {
        Error::new(ErrorKind::Io, "believe the source of changed blocks").source(self)
    }
}

/// Why a run is tried again without any source.
#[derive(Clone, Debug)]
pub struct Again {
    cause: Cause,
    /// The session of the try that was given up, whose data the next one takes over.
    pub session: Option<SessionId>,
}

#[derive(Clone, Debug)]
enum Cause {
    /// A chunk is not what was said.
    Lie(Lie),
    /// What was to be built on turned out not to be there, or the source could not answer to the end.
    Doubt(String),
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Lie(lie) => lie.fmt(f),
            Cause::Doubt(reason) => f.write_str(reason),
        }
    }
}

impl Again {
    /// Whether the error that ended a try of `session` is one after which everything is read.
    #[must_use]
    pub fn after(error: &Error, session: Option<SessionId>) -> Option<Self> {
        let source = std::error::Error::source(error)?;
        let cause = match source.downcast_ref::<Lie>() {
            Some(lie) => Cause::Lie(lie.clone()),
            None => {
                let doubt = source.downcast_ref::<SourceError>()?;
                (doubt.kind == SourceErrorKind::FullBackup)
                    .then(|| Cause::Doubt(doubt.to_string()))?
            }
        };
        Some(Self { cause, session })
    }

    /// The lie, where it was one.
    #[must_use]
    pub fn lie(&self) -> Option<&Lie> {
        match &self.cause {
            Cause::Lie(lie) => Some(lie),
            Cause::Doubt(_) => None,
        }
    }

    /// The same without an accusation, for this reason.
    #[must_use]
    pub fn without_lie(self, reason: &str) -> Self {
        Self {
            cause: Cause::Doubt(reason.to_owned()),
            ..self
        }
    }
}
