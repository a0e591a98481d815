//! The trait every changed-block source implements.
//!
//! Owns: the contract between a source and its consumer. Must not: read data or trust an answer.

use crate::extent::{ByteLen, Extent};

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
}

/// The explicit end of an answer. An answer without it must be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Size of the target in bytes, as the source saw it.
    pub size: ByteLen,
    /// Number of extents delivered.
    pub extents: u64,
}

/// Says which byte ranges of a target must be read.
pub trait ChangedBlocks {
    /// What this source can do.
    fn capabilities(&self) -> Capabilities;

    /// Streams every range of the target that may hold anything but zeros.
    ///
    /// # Errors
    /// See [`SourceErrorKind`]: each kind is one reaction.
    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError>;

    /// Streams every range that may differ between the base this source was bound to and the target, or `None` where the
    /// source cannot compare: the consumer then reads what is allocated.
    ///
    /// # Errors
    /// See [`SourceErrorKind`]: each kind is one reaction.
    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Option<Summary>, SourceError>;
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
