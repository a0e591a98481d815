//! Evidence that a source of changed blocks was wrong.
//!
//! Owns: what was found, and how it travels from the worker that found it to the run that starts over. Must not: decide what
//! happens then.

use std::fmt;

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

    /// The lie that an error is about.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        std::error::Error::source(error)?
            .downcast_ref::<Self>()
            .cloned()
    }
}
