//! What a backup is asked for.
//!
//! Owns: the request. Must not: know flags (`cli`) or their text forms beyond those every caller shares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::device::queue::EngineChoice;
use crate::repository::format::codec::Compression;
use crate::repository::format::manifest::PointState;
use crate::repository::session::origin::OrderedAttempt;

/// Which point the new one builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParentChoice {
    /// The newest intact point of the volume.
    Auto,
    /// None: every chunk is stored again.
    None,
    /// The given point of the same volume.
    Point(String),
}

/// How it is found out which bytes must be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangedBlocksChoice {
    /// The best sound source that the volume has: a delta against the parent, else the hole map of a file, else a scan.
    Auto,
    /// Read everything and compare digests.
    Scan,
    /// Skip the holes of a sparse file.
    HoleMap,
    /// Ask nobody what changed: read what is allocated.
    None,
    /// The source of this name, which the volume must have.
    Source(String),
    /// A file that lists the extents (`changed_blocks::ExtentsFile`).
    ExtentsFile(PathBuf),
    /// Read only what the source says may differ from the parent, which is the base that its answer is bound to. For sources
    /// that cannot be wrong: nothing is checked.
    Delta,
}

impl ChangedBlocksChoice {
    /// Whether a person named who is to answer.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        matches!(self, Self::Source(_) | Self::ExtentsFile(_))
    }
}

/// What is recorded with a point instead of what this run knows of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What kind of image it is.
    pub state: PointState,
    /// Where its bytes come from.
    pub identity: Vec<(String, String)>,
}

/// A backup of one source to one point.
#[derive(Clone, Debug)]
pub struct BackupRequest {
    /// Name of the volume.
    pub volume: String,
    /// What the point builds on.
    pub parent: ParentChoice,
    /// What is read.
    pub changed_blocks: ChangedBlocksChoice,
    /// Where the base of a delta is, for sources that cannot look it up: the image that the parent was made from.
    pub base: Option<String>,
    /// How chunks are compressed.
    pub compression: Compression,
    /// Free key-value pairs for people and policies.
    pub tags: BTreeMap<String, String>,
    /// Name of the set of points taken together.
    pub group: Option<String>,
    /// Whether a source that changes while it is read still gives a point, marked as fuzzy.
    pub allow_live: bool,
    /// How long a session of another machine must be silent before its data is taken over.
    pub takeover_after: Duration,
    /// How the source is read.
    pub engine: EngineChoice,
    /// Name of the order that this run carries out, where somebody sees to it that only one run at a time does: what earlier runs of
    /// the same order stored is taken over at once, and none of them can commit any more.
    pub order: Option<OrderedAttempt>,
    /// What the manifest says of the source, where this run is not the one to know it.
    pub recorded: Option<Recorded>,
}
