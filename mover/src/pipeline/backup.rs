//! Backup: one source becomes one point.
//!
//! ```text
//!   extents ─► feeder ══ 1 MiB pieces ══► workers ══ sealed segments ══► uploads
//!                 ▲                          ║
//!          parent's map                 leaves, in order ─► map stage ─► map segments ─► uploads
//!                                                               ║
//!                              liveness ─► sync ─► slot (commit) ◄╝
//! ```
//!
//! Owns: the threads of a backup, their order of ending, and the commit. Must not: know how chunks are encoded (`worker`) or
//! what the protocol asks of the store (`repository::session`).

pub mod adopted;
pub mod changes;
pub mod dedupe;
pub mod extents;
pub mod feeder;
pub mod leaves;
pub mod map_stage;
pub mod parent;
pub mod plan;
pub mod request;
pub mod segment_log;
pub mod stages;
pub mod upload;
pub mod worker;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use request::{BackupRequest, ChangedBlocksChoice, ParentChoice, Recorded};

use crate::device::source::SourceDevice;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::progress::Progress;
use crate::pipeline::report::BackupReport;
use crate::repository::format::manifest::{Manifest, PointState, PointStats};
use crate::repository::ids::{SessionId, name};
use crate::repository::session::adopt::Takeover;
use crate::repository::session::origin::Origin;
use crate::repository::session::points::{Catalog, Point};
use crate::repository::session::protect;
use crate::repository::session::writer::{Begin, WriterSession};
use crate::repository::store::RequestCounts;
use changes::lie::Again;
use changes::{Question, Reading};
use map_stage::Mapped;
use plan::Geometry;

/// A pinned parent may be forgotten between its choice and the pin; then the next newest is taken.
const PARENT_ATTEMPTS: usize = 5;

/// What a run knows once its session is open.
struct Run<'a> {
    context: &'a Context,
    source: &'a dyn SourceDevice,
    request: &'a BackupRequest,
    session: WriterSession,
    parent: Option<Point>,
    geometry: Geometry,
    warnings: Vec<String>,
    start: Start,
    /// By the wall clock, before the session stored anything.
    began: SystemTime,
}

/// When the first try of a run began: what a try stored that was given up counts as well.
#[derive(Clone, Copy)]
struct Start {
    at: Instant,
    counts: RequestCounts,
}

/// A try that failed, and its session, if it came that far.
struct Failed {
    error: Error,
    session: Option<SessionId>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            session: None,
        }
    }
}

/// Backs `source` up.
///
/// # Errors
/// `SourceChanged` where the source changed while it was read; `Fenced` where another process took the session over;
/// `Interrupted` on request; otherwise what source and store answer. After any error every earlier point is intact, and the
/// next run takes over what was stored.
pub fn run(
    context: &Context,
    source: &dyn SourceDevice,
    request: &BackupRequest,
) -> Result<BackupReport> {
    let start = Start {
        at: Instant::now(),
        counts: context.repository.store.counts(),
    };
    let failed = match attempt(context, source, request, None, start) {
        Err(failed) => failed,
        Ok(report) => return Ok(report),
    };
    let Some(again) = Again::after(&failed.error, failed.session) else {
        return Err(failed.error);
    };
    let again = if again.lie().is_some() && !source.check_unchanged()? {
        // Not who said what changed is wrong, but who goes on writing.
        if !request.allow_live {
            return Err(written_to(source));
        }
        again.without_lie("the source was written to while it was read")
    } else {
        again
    };
    tracing::error!(%again, "read everything: the source of changed blocks cannot be believed");
    context.progress.start_over();
    attempt(context, source, request, Some(&again), start).map_err(|failed| failed.error)
}

/// One try; the second one, after a lie or a doubt, believes nobody.
fn attempt(
    context: &Context,
    source: &dyn SourceDevice,
    request: &BackupRequest,
    again: Option<&Again>,
    start: Start,
) -> std::result::Result<BackupReport, Failed> {
    let began = SystemTime::now();
    let size = source.size();
    let geometry = Geometry {
        size,
        chunk_size: context.repository.config.chunk_size,
    };
    context
        .progress
        .total
        .store(size, std::sync::atomic::Ordering::Relaxed);
    let begun = begin(context, request, again)?;
    let session = Some(begun.session.key().session);
    let run = Run {
        context,
        source,
        request,
        session: begun.session,
        parent: begun.parent,
        geometry,
        warnings: begun.warnings,
        start,
        began,
    };
    run.go(&begun.newest, again)
        .map_err(|error| Failed { error, session })
}

/// A session that was opened, and what it builds on.
struct Begun {
    session: WriterSession,
    parent: Option<Point>,
    newest: Vec<Point>,
    warnings: Vec<String>,
}

/// Opens a session on the chosen parent.
fn begin(context: &Context, request: &BackupRequest, again: Option<&Again>) -> Result<Begun> {
    let repository = &context.repository;
    repository.config.check_writable()?;
    if request.changed_blocks == ChangedBlocksChoice::Delta
        && !matches!(request.parent, ParentChoice::Point(_))
    {
        // Bound to any other point the answer would be about something else.
        let message = "read only what changed without saying since which point";
        return Err(Error::new(ErrorKind::Internal, message).object(&request.volume));
    }
    let volume = repository.keys.volume_id(&request.volume);
    let takeover = Takeover {
        after: request.takeover_after,
        here: match &request.order {
            Some(order) => Origin::current().working_for(order),
            None => Origin::current(),
        },
        given_up: again.and_then(|again| again.session),
    };
    for _ in 0..PARENT_ATTEMPTS {
        let catalog = Catalog::list(repository.store.as_ref(), volume)?;
        let chosen = parent::choose(repository, &request.volume, &request.parent, &catalog)?;
        let pins: Vec<_> = chosen.parent.iter().map(|point| point.key).collect();
        let begin = Begin {
            volume: &request.volume,
            pins: &pins,
            sequence: chosen.sequence,
            takeover: takeover.clone(),
        };
        match WriterSession::begin(repository, &begin, &catalog) {
            Ok(session) => {
                let newest = match request.changed_blocks {
                    ChangedBlocksChoice::Delta => Vec::new(),
                    _ => parent::newest(repository, &chosen, &catalog)?,
                };
                return Ok(Begun {
                    session,
                    newest,
                    parent: chosen.parent,
                    warnings: chosen.warnings,
                });
            }
            Err(error)
                if error.kind() == ErrorKind::NotFound && request.parent == ParentChoice::Auto =>
            {
                tracing::info!(%error, "choose another parent");
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "choose a parent: each was forgotten meanwhile",
    )
    .object(&request.volume)
    .hint("run again when forget has ended"))
}

impl Run<'_> {
    /// Decides what is read, reads it, and makes it a point.
    fn go(mut self, newest: &[Point], again: Option<&Again>) -> Result<BackupReport> {
        // A source may take its time; a session that shows no life is taken over.
        let question = Question {
            source: self.source,
            request: self.request,
            parent: self.parent.as_ref(),
            newest,
            geometry: self.geometry,
            again,
            stop: &self.context.stop,
            progress: &self.context.progress,
        };
        let (reading, mut blocks) = stages::beating(&self, || changes::decide(&question))?;
        let why =
            again.map(|why| format!("{why}; everything was read instead, and the point is right"));
        self.warnings.extend(why);
        self.warnings.extend(reading.warnings.iter().cloned());
        let (source, reason) = (reading.name, &reading.reason);
        let seed = reading.sample_seed().unwrap_or_default();
        tracing::info!(source, %reason, %seed, "decide what is read");
        let mapped = stages::run(&self, &reading, blocks.as_mut())?;
        self.commit(&mapped, &reading)
    }

    /// Everything the point references is stored; makes it a point.
    fn commit(mut self, mapped: &Mapped, reading: &Reading) -> Result<BackupReport> {
        let state = self.state()?;
        let key = self.session.key();
        // One moment for the manifest and for locks: what is stored from here on is locked as long, or longer.
        let created_unix_millis = now_unix_millis();
        let locks_extended = self.extend_locks(mapped, created_unix_millis)?;
        let (object, liveness) = mapped.liveness.seal(&self.context.repository.keys, &key)?;
        self.context
            .repository
            .store
            .put(&name::live(&key), object)?;
        let stats = self.stats();
        let Geometry { size, chunk_size } = self.geometry;
        let content_hash =
            mapped
                .root
                .content_hash(&self.context.repository.keys, size, chunk_size);
        let manifest = Manifest {
            session: key,
            volume: self.request.volume.clone(),
            parent: self.parent.as_ref().map(|point| point.key),
            size: self.geometry.size,
            chunk_size: self.geometry.chunk_size,
            root: mapped.root,
            liveness,
            exact_liveness_age: 0,
            tags: self.request.tags.clone(),
            group: self.request.group.clone(),
            state,
            content_hash,
            created_unix_millis,
            tool: concat!("snaphaul ", env!("CARGO_PKG_VERSION")).to_owned(),
            stats,
            changed_blocks: reading.name.to_owned(),
            changed_blocks_reason: reading.reason.clone(),
            identity: self.identity(reading, state),
            pins: self.session.pins().to_vec(),
            features_read: 0,
        };
        let mut report = self.report(stats, reading, state);
        let point = self.session.commit(manifest)?;
        report.point = point.id().to_string();
        report.session = Some(point.key);
        report.locks_extended = locks_extended;
        let counts = self.context.repository.store.counts();
        report.stored_bytes = counts.put_bytes - self.start.counts.put_bytes;
        report.put_requests = counts.put - self.start.counts.put;
        report.duration_seconds = self.start.at.elapsed().as_secs_f64();
        Ok(report)
    }

    fn extend_locks(&self, mapped: &Mapped, created_unix_millis: i64) -> Result<u64> {
        let moment = |point: &Point| protect::moment(point.manifest.created_unix_millis);
        let adopted = &self.session.adoption().sessions;
        let base = protect::Base {
            own: self.session.key().session,
            began: self.began,
            committed: protect::moment(created_unix_millis),
            parents: self.parent.iter().map(moment).collect(),
            adopted: adopted.iter().map(|key| key.session).collect(),
        };
        protect::extend(&self.context.repository, &mapped.liveness, &base)
    }

    /// Whether the source stayed what it was.
    fn state(&mut self) -> Result<PointState> {
        if self.source.check_unchanged()? {
            let recorded = self.request.recorded.as_ref();
            return Ok(recorded.map_or(PointState::Crash, |recorded| recorded.state));
        }
        if !self.request.allow_live {
            return Err(written_to(self.source));
        }
        self.warnings.push(
            "the source changed while it was read: the point is fuzzy, a mix of several moments"
                .to_owned(),
        );
        Ok(PointState::Fuzzy)
    }

    /// What later runs may bind a delta to; a mix of several moments is no base.
    fn identity(&self, reading: &Reading, state: PointState) -> Vec<(String, String)> {
        if let Some(recorded) = &self.request.recorded {
            return recorded.identity.clone();
        }
        let identity = self.source.identity();
        let immutable = identity
            .immutable
            .map(|name| ("immutable".to_owned(), name));
        let records = reading.records_at_end(state == PointState::Fuzzy);
        std::iter::once(("kind".to_owned(), identity.kind))
            .chain(immutable)
            .chain(records)
            .collect()
    }

    fn stats(&self) -> PointStats {
        let progress = &self.context.progress;
        let unchanged = Progress::read_of(&progress.unchanged);
        let deduplicated = Progress::read_of(&progress.deduplicated);
        let new = Progress::read_of(&progress.new);
        let counts = self.context.repository.store.counts();
        PointStats {
            zero: self.geometry.size - unchanged - deduplicated - new,
            unchanged,
            deduplicated,
            new,
            stored: counts.put_bytes - self.start.counts.put_bytes,
        }
    }

    fn report(&self, stats: PointStats, reading: &Reading, state: PointState) -> BackupReport {
        let progress = &self.context.progress;
        let is_base = self.request.recorded.is_none() && state != PointState::Fuzzy;
        let caught = reading.caught.as_ref();
        let unstable_bytes = Progress::read_of(&progress.unstable);
        BackupReport {
            volume: self.request.volume.clone(),
            parent: self.parent.as_ref().map(|point| point.id().to_string()),
            size_bytes: self.geometry.size,
            read_bytes: Progress::read_of(&progress.read),
            zero_bytes: stats.zero,
            unchanged_bytes: stats.unchanged,
            deduplicated_bytes: stats.deduplicated,
            new_bytes: stats.new,
            resumed_bytes: Progress::read_of(&progress.resumed),
            sampled_bytes: Progress::read_of(&progress.sampled),
            changed_blocks: reading.name.to_owned(),
            changed_blocks_reason: reading.reason.clone(),
            changed_blocks_liar: caught.map(|verdict| verdict.source.clone()),
            sample_seed: reading.sample_seed(),
            unstable_bytes,
            base_needed_by: reading
                .base_needed_by
                .filter(|_| is_base)
                .map(str::to_owned),
            warnings: self
                .warnings
                .iter()
                .cloned()
                .chain(changes::unstable_warning(reading, unstable_bytes))
                .chain(self.source.warnings())
                .collect(),
            ..BackupReport::default()
        }
    }
}

fn written_to(source: &dyn SourceDevice) -> Error {
    let message = "commit the point: the source was written to while it was read";
    Error::new(ErrorKind::SourceChanged, message)
        .object(source.name())
        .hint("back up a snapshot of it, stop its writers, or say --allow-live for a fuzzy point")
}

fn now_unix_millis() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
