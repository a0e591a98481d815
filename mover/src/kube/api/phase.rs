//! The phases of a backup or restore, in the words that users of Velero know.
//!
//! Owns: the words and which of them are final. Must not: decide transitions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a backup or restore stands. For people: programs decide by conditions.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Phase {
    /// Nobody has looked at it yet.
    #[default]
    New,
    /// It is valid; its snapshot or volume is being made, or it waits for a free slot.
    Accepted,
    /// The device can be opened on the node of `status.node`.
    Prepared,
    /// The agent moves data.
    InProgress,
    /// It is being stopped and cleaned up.
    Canceling,
    /// It was stopped by `spec.cancel` or a deadline of the user. Nothing of it is left.
    Canceled,
    /// It is done.
    Completed,
    /// It cannot be done; `status.message` says why and what to do.
    Failed,
}

impl Phase {
    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Canceled | Self::Completed | Self::Failed)
    }
}
