//! Why a run starts over and believes nobody: evidence that a source of changed blocks was wrong, or an answer that broke off.
//!
//! Owns: what was found, and how it travels from the thread that found it to the run. Must not: decide what
//! happens then.

use std::fmt;

use changed_blocks::{SourceError, SourceErrorKind};

use super::history::Verdict;
use crate::error::{Error, ErrorKind};
use crate::repository::ids::{Digest, SessionKey};

/// A chunk that the source called unchanged, and that differs from the parent's.
#[derive(Clone, Debug)]
pub struct Lie {
    /// Name of the source.
    pub source: &'static str,
    /// Id of the parent.
    pub parent: String,
    /// Byte offset of the chunk.
    pub offset: u64,
    /// Digest in the parent; `None` for zeros.
    pub before: Option<Digest>,
    /// Digest of what was read; `None` for zeros.
    pub found: Option<Digest>,
    /// The session that read it and will not commit.
    pub session: SessionKey,
}

impl std::error::Error for Lie {}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} did not tell of a change: {}",
            self.source,
            self.evidence()
        )
    }
}

impl Lie {
    fn evidence(&self) -> String {
        let [before, found] = [self.before, self.found].map(|digest| match digest {
            Some(digest) => digest.to_string(),
            None => "zeros".to_owned(),
        });
        let (offset, parent) = (self.offset, &self.parent);
        format!("the chunk at byte {offset} is {found}, in point {parent} it is {before}")
    }

    /// What is kept of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict {
            source: self.source.to_owned(),
            evidence: self.evidence(),
        }
    }

    /// As the error that ends the run.
    #[must_use]
    pub fn into_error(self) -> Error {
        Error::new(ErrorKind::Io, "believe the source of changed blocks").source(self)
    }
}

/// Why a run is tried again without any source.
#[derive(Clone, Debug)]
pub enum Again {
    /// A chunk differs that was said to be the same.
    Lie(Lie),
    /// The source could not say to the end what is allocated.
    Doubt(String),
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lie(lie) => lie.fmt(f),
            Self::Doubt(reason) => f.write_str(reason),
        }
    }
}

impl Again {
    /// Whether the error that ended a try is one after which everything is read.
    #[must_use]
    pub fn after(error: &Error) -> Option<Self> {
        let cause = std::error::Error::source(error)?;
        if let Some(lie) = cause.downcast_ref::<Lie>() {
            return Some(Self::Lie(lie.clone()));
        }
        let doubt = cause.downcast_ref::<SourceError>()?;
        (doubt.kind == SourceErrorKind::FullBackup).then(|| Self::Doubt(doubt.to_string()))
    }

    /// The lie, where it was one.
    #[must_use]
    pub fn lie(&self) -> Option<&Lie> {
        match self {
            Self::Lie(lie) => Some(lie),
            Self::Doubt(_) => None,
        }
    }
}
