//! Copy: points of one repository become points of another, with other keys, in another kind of store.
//!
//! ```text
//!   points of both ─► plan (what is missing, in which order, since which point) ─► for each: PointSource ─► backup
//! ```
//!
//! A copy is a backup whose source is a point: it is read like a restore, every chunk checked against its digest, and stored
//! like any other backup, so that it resumes, is committed and verified in the same way. Where the target already has an
//! older copy, only what differs is read.
//!
//! Owns: one copied point. Must not: copy objects: their keys, and in time their chunk sizes, differ.

mod plan;
mod queue;
mod source;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use plan::{Task, origin_of, plan};
pub use source::PointSource;

use crate::device::queue::EngineChoice;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::backup::{self, BackupRequest, ChangedBlocksChoice, ParentChoice, Recorded};
use crate::pipeline::progress::Progress;
use crate::pipeline::report::{BackupReport, CopiedPoint};
use crate::repository::access::Repository;
use crate::repository::format::codec::Compression;
use crate::repository::session::points::Point;
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::Kind;

/// How points are stored in the target.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// How chunks are compressed.
    pub compression: Compression,
    /// How long a session of another machine must be silent before its data is taken over.
    pub takeover_after: Duration,
}

/// Refuses to copy a repository into itself.
///
/// # Errors
/// `InvalidRequest` where both are the same.
pub fn check_pair(from: &Repository, to: &Repository) -> Result<()> {
    if from.config.repository != to.config.repository {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::InvalidRequest, "copy a repository into itself")
            .object(to.store.url())
            .hint("give another repository with --to; `snaphaul init` makes one"),
    )
}

/// Copies one point. `from` reads, `to` writes; both stop together.
///
/// # Errors
/// `Corrupt` with object, point and range where the point is damaged, then nothing is committed; what the stores answer;
/// `Interrupted` on request.
pub fn run(
    from: &Context,
    to: &Context,
    task: &Task,
    options: &CopyOptions,
) -> Result<CopiedPoint> {
    let started = Instant::now();
    let mut pins = vec![&task.point];
    pins.extend(task.since.as_ref().map(|since| &since.base));
    let lease = ReaderLease::take(&from.repository, Kind::Restore, &pins)?;
    let mut copied = match since(from, to, task, options) {
        Some(Ok(copied)) => copied,
        // A base or parent that is gone or damaged costs time, not the copy.
        Some(Err(error)) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
            tracing::warn!(%error, point = %task.point.id(), "copy everything: what differs cannot be told");
            // What the first attempt counted is no part of the point.
            let again = Context {
                progress: Arc::new(Progress::default()),
                ..to.clone()
            };
            whole(from, &again, task, options)?
        }
        Some(Err(error)) => return Err(error),
        None => whole(from, to, task, options)?,
    };
    copied.warnings.extend(lease.warning().map(str::to_owned));
    copied.duration_seconds = started.elapsed().as_secs_f64();
    Ok(copied)
}

/// Reads only what differs from the base, which the target has.
fn since(
    from: &Context,
    to: &Context,
    task: &Task,
    options: &CopyOptions,
) -> Option<Result<CopiedPoint>> {
    let since = task.since.as_ref()?;
    let source = source(from, to, task, Some(since.base.clone()));
    let request = BackupRequest {
        parent: ParentChoice::Point(since.parent.to_string()),
        changed_blocks: ChangedBlocksChoice::Delta,
        ..request(from, task, options)
    };
    let report = backup::run(to, &source, &request);
    Some(report.map(|report| {
        let mut copied = copied(task, source.context.progress.as_ref(), report);
        copied.base = Some(since.base.id().to_string());
        copied
    }))
}

fn whole(from: &Context, to: &Context, task: &Task, options: &CopyOptions) -> Result<CopiedPoint> {
    let source = source(from, to, task, None);
    let report = backup::run(to, &source, &request(from, task, options))?;
    Ok(copied(task, source.context.progress.as_ref(), report))
}

/// With counters of its own: those of `to` tell how far the copy is.
fn source(from: &Context, to: &Context, task: &Task, base: Option<Point>) -> PointSource {
    let context = Context {
        progress: Arc::new(Progress::default()),
        ..from.clone()
    };
    let chunk_size = to.repository.config.chunk_size;
    PointSource::new(context, task.point.clone(), base, chunk_size)
}

fn request(from: &Context, task: &Task, options: &CopyOptions) -> BackupRequest {
    let manifest = &task.point.manifest;
    let origin = origin_of(&from.repository, &task.point);
    BackupRequest {
        volume: manifest.volume.clone(),
        parent: ParentChoice::Auto,
        changed_blocks: ChangedBlocksChoice::Auto,
        base: None,
        compression: options.compression,
        tags: manifest.tags.clone(),
        group: manifest.group.clone(),
        allow_live: false,
        takeover_after: options.takeover_after,
        engine: EngineChoice::Auto,
        order: None,
        recorded: Some(Recorded {
            state: manifest.state,
            identity: origin.into_identity(manifest),
        }),
    }
}

fn copied(task: &Task, source: &Progress, report: BackupReport) -> CopiedPoint {
    CopiedPoint {
        point: task.point.id().to_string(),
        copy: report.point,
        volume: report.volume,
        base: None,
        size_bytes: report.size_bytes,
        fetched_bytes: Progress::read_of(&source.read),
        new_bytes: report.new_bytes,
        resumed_bytes: report.resumed_bytes,
        stored_bytes: report.stored_bytes,
        warnings: report.warnings,
        duration_seconds: 0.0,
    }
}
