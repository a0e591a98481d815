//! A part of a map that cannot be read, and the chunks that it hides.
//!
//! Owns: the error that names the object and the range. Must not: decide whether to go on without it.

use std::error::Error as _;
use std::fmt;
use std::ops::Range;

use super::entry::PagePointer;
use super::{leaves_of, span_of};
use crate::error::{Error, ErrorKind};
use crate::repository::ids::name;

/// Why the chunks below one page cannot be located. The cause of the errors that reading a map returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPage {
    /// Leaves are level 0.
    pub level: u8,
    /// Number of the page among those of its level.
    pub index: u64,
    /// What its chunks hold: the first half of its hash, to know it again by.
    pub content: [u8; 16],
    /// The page's object and number in it, for people.
    pub page: String,
    kind: ErrorKind,
    object: String,
    reason: String,
    missing: bool,
}

impl DamagedPage {
    pub(super) fn new(level: u8, index: u64, pointer: &PagePointer, error: &Error) -> Self {
        let location = pointer.location;
        let object = name::map_segment(location.segment);
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        Self {
            level,
            index,
            content: pointer.content(),
            page: format!("{object}#{}", location.ordinal),
            kind: error.kind(),
            object: error.object_name().map_or(object, str::to_owned),
            reason,
            missing: crate::repository::segments::is_missing(error),
        }
    }

    /// As if the root of a map could not be read.
    #[cfg(test)]
    pub(crate) fn of_root(root: &super::MapRoot) -> Self {
        let pointer = root.pointer.expect("the map is not empty");
        let error = Error::new(ErrorKind::Corrupt, "lose the root");
        Self::new(root.depth - 1, 0, &pointer, &error)
    }

    /// The chunks that cannot be located; the last of them may lie behind the end of the volume.
    #[must_use]
    pub fn chunks(&self) -> Range<u64> {
        let span = span_of(self.level);
        let first = self.index.saturating_mul(span);
        first..first.saturating_add(span)
    }

    /// The leaves that cannot be read.
    #[must_use]
    pub fn leaves(&self) -> Range<u64> {
        let span = leaves_of(self.level);
        let first = self.index.saturating_mul(span);
        first..first.saturating_add(span)
    }

    /// Whether the page's segment is gone, not damaged.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    pub(super) fn to_error(&self) -> Error {
        let chunks = self.chunks();
        let message = format!(
            "read the map of chunks {} to {}",
            chunks.start,
            chunks.end - 1
        );
        let error = Error::new(self.kind, message)
            .object(&self.object)
            .source(self.clone());
        match self.kind {
            ErrorKind::Corrupt => error.hint(
                "`snaphaul verify` names the points it hurts; `snaphaul restore --salvage` restores everything else",
            ),
            _ => error,
        }
    }
}

impl fmt::Display for DamagedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read page {}: {}", self.page, self.reason)
    }
}

impl std::error::Error for DamagedPage {}

/// The part of a map that an error is about, where it is about one.
#[must_use]
pub fn damaged_page(error: &Error) -> Option<&DamagedPage> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(page) = inner.downcast_ref() {
            return Some(page);
        }
        cause = inner.source();
    }
    None
}
