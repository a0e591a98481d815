//! What each pipeline reports at its end: the fields of the JSON `result` line (names are a contract).
//!
//! Owns: the reports. Must not: format them for people (`cli::output`).

use serde::Serialize;

use crate::repository::ids::SessionKey;

/// Result of a backup. `size_bytes = zero + unchanged + deduplicated + new`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BackupReport {
    /// Id of the new point.
    pub point: String,
    /// What the new point's objects are named by.
    #[serde(skip)]
    pub session: Option<SessionKey>,
    /// Name of the volume.
    pub volume: String,
    /// Id of the parent point.
    pub parent: Option<String>,
    /// Size of the volume.
    pub size_bytes: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes that are zero, holes included.
    pub zero_bytes: u64,
    /// Bytes equal to the parent's.
    pub unchanged_bytes: u64,
    /// Bytes found earlier in this session or in an adopted one.
    pub deduplicated_bytes: u64,
    /// Raw bytes stored anew.
    pub new_bytes: u64,
    /// Every byte PUT, metadata included.
    pub stored_bytes: u64,
    /// Raw bytes taken over from a session that was killed.
    pub resumed_bytes: u64,
    /// Bytes read again to check the changed-block source.
    pub sampled_bytes: u64,
    /// Objects created.
    pub put_requests: u64,
    /// Locks of older objects that were extended, where the repository has Object Lock.
    pub locks_extended: u64,
    /// The source of changed blocks that was used, e.g. `scan`.
    pub changed_blocks: String,
    /// Why that one.
    pub changed_blocks_reason: String,
    /// A source of changed blocks that was caught in this run, and is not used for this volume until a person names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_blocks_liar: Option<String>,
    /// What the random samples follow from (16 hex digits), where a source of changed blocks was checked by some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_seed: Option<String>,
    /// Bytes stored because they differed although nobody told of it, where the source declares that this proves nothing.
    #[serde(skip_serializing_if = "is_none")]
    pub unstable_bytes: u64,
    /// The source of changed blocks that can compare with this point only as long as the snapshot exists that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_needed_by: Option<String>,
    /// What a person should know although the point is good.
    pub warnings: Vec<String>,
    /// Wall time.
    pub duration_seconds: f64,
}

fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

/// Result of a restore. `written + zero + skipped = size` of the restored range.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RestoreReport {
    /// The point.
    pub point: String,
    /// Where it was written.
    pub target: String,
    /// Bytes of the restored range.
    pub size_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes made or left zero.
    pub zero_bytes: u64,
    /// Bytes that `--delta` found already right.
    pub skipped_bytes: u64,
    /// Ranges `--salvage` could not restore.
    pub lost: Vec<LostRange>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Wall time.
    pub duration_seconds: f64,
}

/// A byte range that could not be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostRange {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// The damaged object and what is wrong with it.
    pub why: String,
}

/// Result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// `metadata`, `sample` or `data`.
    pub level: String,
    /// Points looked at.
    pub points: u64,
    /// Objects looked at.
    pub objects: u64,
    /// Chunks whose data was read and checked.
    pub chunks: u64,
    /// Bytes fetched.
    pub read_bytes: u64,
    /// Bytes of the volume that a restore test put together, zeros included.
    pub restored_bytes: u64,
    /// Content hash of what a restore test gave; it must be that of the manifest.
    pub content_hash: Option<String>,
    /// What is wrong.
    pub errors: Vec<VerifyFinding>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Wall time.
    pub duration_seconds: f64,
}

/// One damaged object and whom it hurts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyFinding {
    /// `missing`, `truncated`, `damaged`, `swapped`.
    pub kind: String,
    /// Name of the object.
    pub object: String,
    /// What is wrong with it, and what to do next.
    pub message: String,
    /// Name of the volume hurt, where known.
    pub volume: Option<String>,
    /// Points hurt.
    pub points: Vec<String>,
    /// Byte ranges of the volume hurt, `[offset, length]`; empty means all of it.
    pub ranges: Vec<(u64, u64)>,
}

/// One point that was copied to another repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CopiedPoint {
    /// Id of the point that was read.
    pub point: String,
    /// Id of its copy in the target.
    pub copy: String,
    /// Name of the volume.
    pub volume: String,
    /// The point since which only what differs was read.
    pub base: Option<String>,
    /// Size of the volume.
    pub size_bytes: u64,
    /// Bytes fetched from the source repository.
    pub fetched_bytes: u64,
    /// Raw bytes stored anew in the target.
    pub new_bytes: u64,
    /// Raw bytes taken over from a copy that was killed.
    pub resumed_bytes: u64,
    /// Every byte PUT into the target, metadata included.
    pub stored_bytes: u64,
    /// What a person should know although the copy is good.
    pub warnings: Vec<String>,
    /// Wall time.
    pub duration_seconds: f64,
}

/// Result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RepairReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Points looked at.
    pub points: u64,
    /// What was mended, or would be.
    pub repaired: Vec<Repaired>,
    /// What could not be mended.
    pub lost: Vec<VerifyFinding>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Wall time.
    pub duration_seconds: f64,
}

/// Result of a copy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CopyReport {
    /// Where the points went.
    pub to: String,
    /// What was copied, in order.
    pub points: Vec<CopiedPoint>,
    /// Points that the target had already.
    pub present: usize,
    /// Bytes fetched from the source repository.
    pub fetched_bytes: u64,
    /// Every byte PUT into the target, metadata included.
    pub stored_bytes: u64,
    /// Wall time.
    pub duration_seconds: f64,
}

/// One thing that was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// `copied` from the other copy, or `recommitted`: the point was committed again.
    pub kind: String,
    /// The object that was lost.
    pub object: String,
    /// Name of the volume, where it is of one.
    pub volume: Option<String>,
    /// The point that was hurt.
    pub points: Vec<String>,
    /// The point that took its place.
    pub new_point: Option<String>,
    /// What was wrong and what was done.
    pub message: String,
}

/// Result of comparing two points.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DiffReport {
    /// The first point.
    pub from: String,
    /// The second point.
    pub to: String,
    /// Number of extents that differ.
    pub extents: u64,
    /// Bytes that differ, in whole chunks clipped to the size.
    pub changed_bytes: u64,
    /// Wall time.
    pub duration_seconds: f64,
}

/// Result of asking what a source holds, or what changed in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChangedReport {
    /// What was looked at.
    pub source: String,
    /// What it was compared with.
    pub base: Option<String>,
    /// Size of the source.
    pub size_bytes: u64,
    /// Who answered.
    pub changed_blocks: String,
    /// Smallest unit it tells apart, in bytes.
    pub granularity: u64,
    /// Number of extents.
    pub extents: u64,
    /// Bytes of them.
    pub changed_bytes: u64,
    /// What reading everything gave, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditReport>,
    /// Wall time.
    pub duration_seconds: f64,
}

/// An answer of a source of changed blocks held against every byte.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AuditReport {
    /// Bytes read, of both states.
    pub read_bytes: u64,
    /// Bytes that really differ (without a base: that are not zero) among those told of, in blocks of 4 KiB.
    pub true_bytes: u64,
    /// Bytes told of for one that really differs; `None` where nothing differs. 1 is exact.
    pub over_report: Option<f64>,
    /// Bytes that differ and were not told of, in sectors: always 0, or the source must not be used.
    pub untold_bytes: u64,
    /// Bytes that were said to be zero and are not, in sectors.
    pub wrong_zero_bytes: u64,
    /// The first of both, `[offset, length]`.
    pub wrong: Vec<(u64, u64)>,
}

/// Result of a garbage collection. With `dry_run` it says what would be done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GcReport {
    /// Nothing was written or deleted.
    pub dry_run: bool,
    /// Points of which nothing is left, by id.
    pub points: Vec<String>,
    /// Number of those.
    pub points_purged: u64,
    /// Sessions without a point of which nothing is left.
    pub sessions_purged: u64,
    /// Data segments deleted, in any generation; those of `segments_rewritten` not among them.
    pub segments_deleted: u64,
    /// Map segments deleted.
    pub map_segments_deleted: u64,
    /// Data segments replaced by one with living chunks only.
    pub segments_rewritten: u64,
    /// Bytes of deleted data, map and liveness objects.
    pub freed_bytes: u64,
    /// Bytes written in their place.
    pub written_bytes: u64,
    /// Estimate of the dead bytes that stay in segments that are not rewritten, be it that it would write more than it frees.
    pub dead_bytes_left: u64,
    /// Objects that the store refuses to delete, because these credentials may not.
    pub refused: u64,
    /// Some of them.
    pub refused_objects: Vec<String>,
    /// Objects that Object Lock holds, and sparse segments not rewritten because of it.
    pub locked: u64,
    /// Some of them.
    pub locked_objects: Vec<String>,
    /// When the last of their locks ends.
    pub locked_until: Option<String>,
    /// Silent sessions given up in this run, by id.
    pub fenced: Vec<String>,
    /// Sessions that were neither committed nor aborted: what they use was kept.
    pub unfinished: Vec<UnfinishedSession>,
    /// Second copies of manifests added.
    pub copies_added: u64,
    /// Points that the store damaged, by id; they are kept.
    pub damaged: Vec<String>,
    /// How often the run began again because another was ahead.
    pub started_over: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Wall time.
    pub duration_seconds: f64,
}

/// A session that was neither committed nor aborted when gc looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnfinishedSession {
    /// Its id.
    pub session: String,
    /// `backup`, `restore` or `verify`.
    pub kind: &'static str,
    /// Name of its volume.
    pub volume: String,
    /// Host of its process.
    pub host: String,
    /// Its process there.
    pub pid: u32,
}
