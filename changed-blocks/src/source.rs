//! The trait every changed-block source implements.
//!
//! Owns: the contract between a source and its consumer. Must not: read data or trust an answer.

use crate::extent::{ByteLen, Extent};
use crate::identity::Identity;

/// Receives the extents of an answer in ascending, disjoint order.
///
/// Returning `false` asks the source to stop early; the answer then has no [`Summary`] that may be used.
pub type ExtentSink<'a> = dyn FnMut(Extent) -> bool + 'a;

/// How precise an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Exactly the ranges asked for.
    Exact,
    /// At least the ranges asked for.
    Superset,
    /// At least the ranges asked for, as far as anybody knows; nobody can say by how much more.
    Unknown,
}

/// What is known of the answers of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The storage itself was compared with its answers, and defects that lose changes are not known.
    Verified,
    /// Answers lost changes in some release: used only when it is asked for, and sampled like any other.
    Unverified,
}

/// What a source can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Name for people, JSON and metrics, e.g. `scan`, `hole-map`.
    pub name: &'static str,
    /// Smallest unit the source tells apart, in bytes.
    pub granularity: ByteLen,
    /// Whether an answer is exact or a superset.
    pub precision: Precision,
    /// Whether the base snapshot must still exist when a delta is asked for.
    pub needs_base: bool,
    /// Whether an answer may hold extents that read as zero.
    pub zero_extents: bool,
    /// Whether ranges that the volume's user discarded may read as anything, differently each time.
    pub discard_unstable: bool,
    /// What is known of its answers.
    pub trust: Trust,
}

impl Capabilities {
    /// Of a source that says what must be read and compares with nothing.
    #[must_use]
    pub fn without_base(name: &'static str, granularity: ByteLen) -> Self {
        Self {
            name,
            granularity,
            precision: Precision::Superset,
            needs_base: false,
            zero_extents: false,
            discard_unstable: false,
            trust: Trust::Verified,
        }
    }
}

/// The explicit end of an answer. An answer without it must be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Size of the target in bytes, as the source saw it.
    pub size: ByteLen,
    /// Number of extents delivered.
    pub extents: u64,
}

/// What a delta is to be taken against.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// What the parent recorded of the target that it was made from.
    pub record: &'a Identity,
    /// Id of the parent.
    pub point: &'a str,
    /// Where a person says that the base is, for sources that cannot look it up.
    pub named: Option<&'a str>,
}

/// Says which byte ranges of a target must be read.
pub trait ChangedBlocks {
    /// What this source can do.
    fn capabilities(&self) -> Capabilities;

    /// What names the target for ever, so that a later run can bind a delta to it; `None` where nothing does.
    fn identity(&self) -> Option<Identity> {
        None
    }

    /// Finds the base that the parent's record names and binds the next [`delta`](Self::delta) to it.
    ///
    /// # Errors
    /// `FullBackup` with the reason where the base is gone, is another one than recorded, or cannot be compared with.
    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        let _ = base;
        Err(SourceError::full(format!(
            "{} cannot compare with a base",
            self.capabilities().name
        )))
    }

    /// Why the target is an older state than the one recorded: somebody went back in the history of the volume, after which
    /// everything is read once (rule R10). `None` where it is not, or where nothing tells.
    fn goes_back(&self, base: &Identity) -> Option<String> {
        let _ = base;
        None
    }

    /// Whether [`allocated`](Self::allocated) costs no more than a delta, and holds all data that a delta may tell of: then both
    /// are asked, and a delta that tells of data elsewhere is a contradiction (rule R7).
    fn tells_both(&self) -> bool {
        false
    }

    /// Streams every range of the target that may hold anything but zeros.
    ///
    /// # Errors
    /// See [`SourceErrorKind`]: each kind is one reaction.
    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError>;

    /// Streams every range that may differ between the base this source was bound to and the target, as far as both reach.
    ///
    /// What lies behind the smaller end is for the consumer, who knows both sizes.
    ///
    /// # Errors
    /// See [`SourceErrorKind`]: each kind is one reaction. `FullBackup` without a base.
    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError>;
}

/// A borrowed source is a source.
impl<S: ChangedBlocks + ?Sized> ChangedBlocks for &mut S {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn identity(&self) -> Option<Identity> {
        (**self).identity()
    }

    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        (**self).bind(base)
    }

    fn goes_back(&self, base: &Identity) -> Option<String> {
        (**self).goes_back(base)
    }

    fn tells_both(&self) -> bool {
        (**self).tells_both()
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        (**self).allocated(sink)
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        (**self).delta(sink)
    }
}

/// What the caller must do after a failed answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// Fall back to a full read; the answer cannot be had or cannot be trusted.
    FullBackup,
    /// Ask again later.
    Retry,
    /// Give up; the target itself cannot be read.
    GiveUp,
}

/// A failed answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What the caller must do.
    pub kind: SourceErrorKind,
    /// What failed, on what.
    pub message: String,
    /// Why.
    #[source]
    pub source: Option<std::io::Error>,
}

impl SourceError {
    /// The answer cannot be had or cannot be trusted: everything allocated must be read.
    pub fn full(message: impl Into<String>) -> Self {
        Self::new(SourceErrorKind::FullBackup, message)
    }

    /// An error without a cause.
    pub fn new(kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The message and what the system said, in one line.
    #[must_use]
    pub fn with_cause(&self) -> String {
        match &self.source {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: std::io::Error) -> Self {
        self.source = Some(source);
        self
    }
}
