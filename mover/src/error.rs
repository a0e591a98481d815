//! The one error type of the crate: kind, object, hint and cause.
//!
//! Owns: the kinds, each of which is one reaction of the caller. Must not: print, log, or know exit codes (`cli::exit`).
//! `Display` shows this error's own text; the reporter walks the chain of causes once.

use std::fmt;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// Correct the request: bad flag, unknown point, refused source or target, second `init`.
    InvalidRequest,
    /// Correct the name: no such repository, bucket, object or point.
    NotFound,
    /// Give the right passphrase or key file.
    WrongKey,
    /// Use a newer Snaphaul: unknown version or feature bit.
    NewerFormat,
    /// Fix credentials, policies or trust: 401, 403, untrusted TLS.
    AccessDenied,
    /// Stored bytes are not what was written. Never retried.
    Corrupt,
    /// Try again later: endpoint down, throttled, timed out.
    Unavailable,
    /// A device or file failed to read or write.
    Io,
    /// Free space on the named store or target.
    NoSpace,
    /// Take the backup again from a source that does not change.
    SourceChanged,
    /// Start again: this session was fenced by somebody else.
    Fenced,
    /// Run again to resume: stopped on request.
    Interrupted,
    /// Report it: an invariant of ours does not hold.
    Internal,
}

impl ErrorKind {
    /// Stable name in JSON output and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::NotFound => "not-found",
            Self::WrongKey => "wrong-key",
            Self::NewerFormat => "newer-format",
            Self::AccessDenied => "access-denied",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Io => "io",
            Self::NoSpace => "no-space",
            Self::SourceChanged => "source-changed",
            Self::Fenced => "fenced",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// What failed (`message`), on what (`object`), why (`source`) and what to do next (`hint`).
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    object: Option<String>,
    hint: Option<String>,
    source: Option<Cause>,
}

impl Error {
    /// An error with its own text: lower case, verb first, no full stop ("read the config").
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner {
            kind,
            message,
            object: None,
            hint: None,
            source: None,
        }))
    }

    /// Names the object, device or file it happened on.
    #[must_use]
    pub fn object(mut self, object: impl fmt::Display) -> Self {
        self.0.object = Some(object.to_string());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Cause>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `message` in front and keeps kind, object and hint, with `self` as the cause.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let (object, hint) = (self.0.object.clone(), self.0.hint.clone());
        let mut outer = Self::new(self.kind(), message);
        outer.0.object = object;
        outer.0.hint = hint;
        outer.source(self)
    }

    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Its own text, without the object.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The object it happened on, where one is named.
    #[must_use]
    pub fn object_name(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// What to do next, where it can be said.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.object {
            Some(object) if !self.0.message.contains(object.as_str()) => write!(f, " ({object})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}
