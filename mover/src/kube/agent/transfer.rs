//! One order carried out, in a thread of its own.
//!
//! ```text
//!   repository (proved) ─► committed already? ─► holder: device ─► pipeline ─► what the answer says
//! ```
//!
//! Owns: the order of these steps. Must not: speak to the API server, or know how bytes are moved.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use changed_blocks::csi::Notices;

use super::changed::{Asker, Services};
use super::device::{self, SnapshotDevice};
use super::share::Budget;
use super::work::{Task, Work, unreadable};
use crate::device::queue::EngineChoice;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::{Bandwidth, RepositoryAccess};
use crate::kube::api::backup::{
    AttachStrategy, ChangedBlocksPolicy, ChangedBlocksStatus, ParentPolicy, PointStatus,
};
use crate::kube::hold::client::{Held, Wanted};
use crate::kube::hold::protocol::Mode;
use crate::kube::point_tags;
use crate::pipeline::Context;
use crate::pipeline::backup::{self, BackupRequest, ChangedBlocksChoice, ParentChoice};
use crate::pipeline::progress::{Progress, StopFlag};
use crate::pipeline::report::{BackupReport, RestoreReport};
use crate::pipeline::restore::{self, RestoreRequest, TargetSpec};
use crate::repository::access::Repository;
use crate::repository::format::codec::Compression;
use crate::repository::session::origin::OrderedAttempt;
use crate::repository::session::points::{self, Point};
use crate::repository::store::RequestCounts;

/// Sessions of nobody's order, e.g. of the command line on another machine, are taken over after this silence.
const TAKEOVER_AFTER: Duration = Duration::from_secs(600);
/// Identity record of the source that needs the snapshot for the next delta.
const BASE_NEEDED_BY: &str = "base-needed-by";

/// Everything that a thread needs.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) work: Work,
    pub(super) access: RepositoryAccess,
    pub(super) bandwidth: Bandwidth,
    pub(super) holder_directory: PathBuf,
    pub(super) budget: Budget,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: StopFlag,
    pub(super) services: Services,
}

/// What a thread ends with.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) result: Result<Success>,
    /// Steps and how long they took.
    pub(super) phases: Vec<(Phase, Duration)>,
    pub(super) requests: Option<RequestCounts>,
}

/// A step of a transfer, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Repository,
    Device,
    Data,
}

impl Phase {
    pub(super) const ALL: [Self; 3] = [Self::Repository, Self::Device, Self::Data];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Device => "device",
            Self::Data => "data",
        }
    }
}

/// What went well.
#[derive(Debug)]
pub(super) enum Success {
    Backup(Box<BackupReport>, PointStatus),
    /// An attempt before had committed, and died before it could tell.
    Committed(Committed),
    Restore(Box<RestoreReport>),
}

/// A point that was there already.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) point: PointStatus,
    pub(super) size: u64,
    pub(super) incremental: u64,
    pub(super) changed_blocks: ChangedBlocksStatus,
    pub(super) base_needed: bool,
}

impl Transfer {
    /// Carries the order out. `on_loss` is called when the holder goes away meanwhile.
    pub(super) fn run(&self, on_loss: impl FnOnce() + Send + 'static) -> Finished {
        let mut phases = Vec::new();
        let mut requests = None;
        let started = Instant::now();
        let opened = self.open();
        phases.push((Phase::Repository, started.elapsed()));
        let result = opened.and_then(|repository| {
            let repository = Arc::new(repository);
            let result = self.go(&repository, on_loss, &mut phases);
            requests = Some(repository.store.counts());
            result
        });
        Finished {
            result,
            phases,
            requests,
        }
    }

    fn open(&self) -> Result<Repository> {
        self.stop.check()?;
        if self.work.order.strategy != AttachStrategy::Pod {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "reach the device by the strategy {:?}: this agent serves Pod",
                    self.work.order.strategy
                ),
            )
            .object(device::name(&self.work.order)));
        }
        self.access.open_for(self.bandwidth, &self.stop)
    }

    fn go(
        &self,
        repository: &Arc<Repository>,
        on_loss: impl FnOnce() + Send + 'static,
        phases: &mut Vec<(Phase, Duration)>,
    ) -> Result<Success> {
        let order = &self.work.order;
        if matches!(self.work.task, Task::Backup { .. })
            && self.work.was_tried()
            && let Some(committed) = self.committed(repository)?
        {
            return Ok(Success::Committed(committed));
        }
        self.stop.check()?;
        let started = Instant::now();
        let wanted = Wanted {
            directory: &self.holder_directory,
            owner: &self.work.uid,
            attempt: order.attempt,
            mode: match &self.work.task {
                Task::Backup { .. } => Mode::Read,
                Task::Restore { .. } => Mode::Write,
                Task::Unreadable(why) => return Err(unreadable(why)),
            },
        };
        let held = Held::ask(&wanted, on_loss);
        phases.push((Phase::Device, started.elapsed()));
        let held = held?;
        // Who waited long for its device may have a successor by now.
        self.stop.check()?;
        let started = Instant::now();
        let result = match &self.work.task {
            Task::Backup {
                parent,
                changed_blocks,
            } => self.backup(repository, &held, (*parent, *changed_blocks)),
            Task::Restore { point } => self.restore(repository, &held, point.as_ref()),
            Task::Unreadable(why) => Err(unreadable(why)),
        };
        phases.push((Phase::Data, started.elapsed()));
        drop(held);
        result
    }

    fn backup(
        &self,
        repository: &Arc<Repository>,
        held: &Held,
        (parent, changed_blocks): (ParentPolicy, ChangedBlocksPolicy),
    ) -> Result<Success> {
        let order = &self.work.order;
        let asker = Asker {
            services: self.services.clone(),
            stop: self.stop.clone(),
            notices: Notices::default(),
        };
        let source = SnapshotDevice::new(&held.device, order, asker)?;
        let request = BackupRequest {
            volume: order.volume.clone(),
            parent: match parent {
                ParentPolicy::Auto => ParentChoice::Auto,
                ParentPolicy::None => ParentChoice::None,
            },
            changed_blocks: match changed_blocks {
                ChangedBlocksPolicy::Auto => ChangedBlocksChoice::Auto,
                ChangedBlocksPolicy::Scan => ChangedBlocksChoice::Scan,
            },
            base: None,
            compression: Compression::default(),
            tags: point_tags::tags(&self.work.uid, order.recorded.as_deref())?,
            group: None,
            allow_live: false,
            takeover_after: TAKEOVER_AFTER,
            engine: EngineChoice::Auto,
            order: Some(OrderedAttempt {
                order: self.work.uid.clone(),
                attempt: u64::try_from(order.attempt).unwrap_or(0),
            }),
            recorded: None,
        };
        let report = backup::run(&self.context(repository), &source, &request)?;
        let point = PointStatus {
            id: report.point.clone(),
            repository_id: repository.config.repository.to_string(),
        };
        Ok(Success::Backup(Box::new(report), point))
    }

    fn restore(
        &self,
        repository: &Arc<Repository>,
        held: &Held,
        point: Option<&PointStatus>,
    ) -> Result<Success> {
        let order = &self.work.order;
        let refuse = |message: &str| {
            Error::new(ErrorKind::InvalidRequest, message).object(device::name(order))
        };
        let point = point.ok_or_else(|| refuse("restore without a point in the status"))?;
        if point.repository_id != repository.config.repository.to_string() {
            return Err(refuse(
                "restore a point of another repository than the one that is named",
            ));
        }
        let request = RestoreRequest {
            point: point.id.clone(),
            target: TargetSpec::Received(held.device.clone(), device::name(order).into()),
            // Whoever ordered it decided what may be written over.
            force: true,
            // What an attempt before wrote need not be written again.
            delta: order.attempt > 1,
            range: None,
            salvage: false,
            engine: EngineChoice::Auto,
            forgotten: false,
        };
        let report = restore::run(&self.context(repository), &request)?;
        Ok(Success::Restore(Box::new(report)))
    }

    /// The point that an earlier attempt for this very object committed, if it did.
    fn committed(&self, repository: &Repository) -> Result<Option<Committed>> {
        let volume = repository.keys.volume_id(&self.work.order.volume);
        let listing = points::list(repository, Some(volume))?;
        let is_ours = |point: &&Point| {
            point.status == points::PointStatus::Complete
                && point.manifest.tags.get(point_tags::OWNER) == Some(&self.work.uid)
        };
        let ours = listing.points.iter().rev().find(is_ours);
        Ok(ours.map(|point| committed(repository, point)))
    }

    fn context(&self, repository: &Arc<Repository>) -> Context {
        Context {
            repository: Arc::clone(repository),
            progress: Arc::clone(&self.progress),
            stop: self.stop.clone(),
            jobs: self.budget.jobs,
            memory: self.budget.memory,
        }
    }
}

fn committed(repository: &Repository, point: &Point) -> Committed {
    let manifest = &point.manifest;
    Committed {
        point: PointStatus {
            id: point.id().to_string(),
            repository_id: repository.config.repository.to_string(),
        },
        size: manifest.size,
        incremental: manifest.stats.new,
        changed_blocks: ChangedBlocksStatus {
            source: manifest.changed_blocks.clone(),
            reason: manifest.changed_blocks_reason.clone(),
        },
        base_needed: manifest
            .identity
            .iter()
            .any(|(name, _)| name == BASE_NEEDED_BY),
    }
}
