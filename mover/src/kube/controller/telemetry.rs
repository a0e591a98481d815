//! Metrics and health of a controller.
//!
//! Owns: the registry, and the pages that are served. Must not: use labels that are not from a closed set, except for the names of
//! repositories, and of volumes in gauges that can be turned off.

mod maintenance;
mod repositories;
mod synced;
mod volumes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry};

use super::definitions::Definitions;
use super::maintenance::{Done, Task};
use super::sync::Done as Synced;
use super::watches::Kind;
use crate::error::Result;
use crate::kube::api::SnapshotRepositoryStatus;
use crate::kube::http::Pages;
use crate::metrics::register::{counters, gauge, histograms, registry, text};
use maintenance::Maintenance;
use repositories::Repositories;
use volumes::VolumeGauges;
pub use volumes::{Volume, VolumeState};

/// Seconds of a look: from an answer out of memory to a store that times out.
const LOOK_BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Seconds of a backup: from an empty delta to a first full.
const BACKUP_BUCKETS: [f64; 12] = [
    0.5, 2.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 43200.0, 86400.0,
];

/// A step of a backup or restore, as its conditions tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From its creation until it is accepted.
    Accept,
    /// Until the frozen source is there.
    Snapshot,
    /// Until the device is open, waiting for a slot included.
    Expose,
    /// Until the data is moved.
    Transfer,
    /// Until what was made for it is gone.
    Clean,
}

impl Phase {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Accept,
        Self::Snapshot,
        Self::Expose,
        Self::Transfer,
        Self::Clean,
    ];

    /// Its name: a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Snapshot => "snapshot",
            Self::Expose => "expose",
            Self::Transfer => "transfer",
            Self::Clean => "clean",
        }
    }
}

/// A deadline, by what had to be there in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The snapshot.
    Snapshot,
    /// The open device.
    Expose,
    /// Progress of the transfer.
    Progress,
    /// All of it, by `activeDeadlineSeconds`.
    Active,
}

impl Deadline {
    /// All.
    pub const ALL: [Self; 4] = [Self::Snapshot, Self::Expose, Self::Progress, Self::Active];

    /// Its name: a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Expose => "expose",
            Self::Progress => "progress",
            Self::Active => "active",
        }
    }
}

/// Metrics and health.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    leads: AtomicBool,
    works: AtomicBool,
    definitions: Arc<Definitions>,
    leader: IntGauge,
    looks: IntCounterVec,
    look_seconds: HistogramVec,
    finished: IntCounterVec,
    seconds: HistogramVec,
    phases: HistogramVec,
    deadlines: IntCounterVec,
    queue: IntGauge,
    exposed: IntGauge,
    waiting: IntGauge,
    swept: IntCounterVec,
    bases: IntGauge,
    maintenance: Maintenance,
    repositories: Repositories,
    volumes: VolumeGauges,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let registry = registry("snaphaul_controller");
        let r = &registry;
        let telemetry = Self {
            leads: AtomicBool::new(false),
            works: AtomicBool::new(false),
            definitions: Arc::default(),
            leader: gauge(r, "leader", "1 while this process leads."),
            looks: counters(r, "looks_total", "Looks at objects.", &["kind", "result"]),
            look_seconds: histograms(
                r,
                ("look_duration_seconds", "Time of a look."),
                &["kind"],
                &LOOK_BUCKETS,
            ),
            finished: counters(
                r,
                "finished_total",
                "Backups and restores that ended.",
                &["kind", "phase"],
            ),
            seconds: histograms(
                r,
                (
                    "duration_seconds",
                    "Time from the start of a backup or restore to its end.",
                ),
                &["kind"],
                &BACKUP_BUCKETS,
            ),
            phases: histograms(
                r,
                (
                    "phase_duration_seconds",
                    "Time of the steps of a backup or restore.",
                ),
                &["kind", "phase"],
                &BACKUP_BUCKETS,
            ),
            deadlines: counters(
                r,
                "deadlines_missed_total",
                "Backups and restores that ended because something did not come in time.",
                &["kind", "deadline"],
            ),
            queue: gauge(r, "queue_depth", "Objects that wait to be looked at."),
            exposed: gauge(
                r,
                "exposed_volumes",
                "Working copies that exist or are being made.",
            ),
            waiting: gauge(r, "waiting_volumes", "Volumes that wait for a slot."),
            swept: counters(
                r,
                "swept_total",
                "Objects without an owner that were removed.",
                &["kind"],
            ),
            bases: gauge(r, "base_snapshots", "Base snapshots that are kept."),
            maintenance: Maintenance::new(r),
            repositories: Repositories::new(r),
            volumes: VolumeGauges::new(r),
            registry,
        };
        telemetry.touch();
        telemetry
    }

    /// Every series of a closed set is there from the start: what is absent cannot be told from what never happened.
    fn touch(&self) {
        for kind in [Kind::Backup, Kind::Restore].map(Kind::as_str) {
            for phase in ["Completed", "Failed", "Canceled"] {
                self.finished.with_label_values(&[kind, phase]);
            }
            for phase in Phase::ALL {
                self.phases.with_label_values(&[kind, phase.as_str()]);
            }
            for deadline in Deadline::ALL {
                self.deadlines.with_label_values(&[kind, deadline.as_str()]);
            }
            self.seconds.with_label_values(&[kind]);
        }
        for kind in [Kind::Repository, Kind::Backup, Kind::Restore].map(Kind::as_str) {
            for result in ["ok", "error"] {
                self.looks.with_label_values(&[kind, result]);
            }
            self.look_seconds.with_label_values(&[kind]);
        }
        for kind in super::sweep::KINDS {
            self.swept.with_label_values(&[kind]);
        }
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
        self.leader.set(i64::from(leads));
        if !leads {
            self.works(false);
        }
    }

    /// Whether the leader has listed everything.
    pub fn works(&self, works: bool) {
        self.works.store(works, Ordering::Relaxed);
    }

    /// Which of our kinds are missing: the watches fill it, `/readyz` shows it.
    #[must_use]
    pub fn definitions(&self) -> Arc<Definitions> {
        Arc::clone(&self.definitions)
    }

    /// An object was looked at.
    pub fn looked(&self, kind: Kind, well: bool, time: Duration) {
        let result = if well { "ok" } else { "error" };
        self.looks.with_label_values(&[kind.as_str(), result]).inc();
        self.look_seconds
            .with_label_values(&[kind.as_str()])
            .observe(time.as_secs_f64());
    }

    /// A backup or restore reached a final phase.
    pub fn finished(&self, kind: Kind, phase: &str, time: Duration) {
        self.finished
            .with_label_values(&[kind.as_str(), phase])
            .inc();
        self.seconds
            .with_label_values(&[kind.as_str()])
            .observe(time.as_secs_f64());
    }

    /// A backup or restore has a step behind it.
    pub fn passed(&self, kind: Kind, phase: Phase, time: Duration) {
        self.phases
            .with_label_values(&[kind.as_str(), phase.as_str()])
            .observe(time.as_secs_f64());
    }

    /// A backup or restore will end because something did not come in time.
    pub fn missed(&self, kind: Kind, deadline: Deadline) {
        self.deadlines
            .with_label_values(&[kind.as_str(), deadline.as_str()])
            .inc();
    }

    /// How much is under way.
    pub fn load(&self, queued: usize, exposed: usize, waiting: usize) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.queue.set(count(queued));
        self.exposed.set(count(exposed));
        self.waiting.set(count(waiting));
    }

    /// An object without an owner was removed.
    pub fn swept(&self, kind: &'static str) {
        self.swept.with_label_values(&[kind]).inc();
    }

    /// So many bases are kept.
    pub fn bases(&self, count: usize) {
        self.bases.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether a repository is maintained now.
    pub fn maintains(&self, task: Task, now: bool) {
        self.maintenance.runs(task, now);
    }

    /// A run of maintenance ended.
    pub fn maintained(&self, repository: &str, task: Task, result: &Result<Done>, time: Duration) {
        self.maintenance.ended(task, result, time);
        if let Ok(done) = result {
            self.repositories.done(repository, done);
        }
    }

    /// Sets the gauges of a repository that tell whether it can be used.
    pub fn repository(&self, name: &str, ready: bool, status: &SnapshotRepositoryStatus) {
        self.repositories.ready(name, ready, status.points);
        self.repositories.health(name, status);
    }

    /// Sets the gauges of a repository that maintenance gives.
    pub fn repository_health(&self, name: &str, status: &SnapshotRepositoryStatus) {
        self.repositories.health(name, status);
    }

    /// The points of a repository were synced, or could not be.
    pub fn synced(&self, name: &str, done: &Result<Synced>) {
        self.repositories.synced().looked(name, done);
    }

    /// The repository's object is gone.
    pub fn forget_repository(&self, name: &str) {
        self.repositories.forget(name);
    }

    /// A backup of a volume has succeeded.
    pub fn volume(&self, volume: &Volume, state: VolumeState) {
        self.volumes.add(volume, state);
    }

    /// Volumes that have gauges.
    #[must_use]
    pub fn known_volumes(&self) -> std::collections::BTreeSet<Volume> {
        self.volumes.known()
    }

    /// Which volumes there are, with what is known of them: all others are forgotten.
    pub fn volumes(&self, known: impl IntoIterator<Item = (Volume, VolumeState)>) {
        self.volumes.replace(known);
    }
}

impl Pages for Telemetry {
    fn metrics(&self) -> Result<String> {
        text(&self.registry)
    }

    fn not_ready(&self) -> Option<String> {
        // Who waits for the lease is as ready as it can be: it takes over.
        let lists = self.leads.load(Ordering::Relaxed) && !self.works.load(Ordering::Relaxed);
        lists.then(|| "listing what is in the cluster".to_owned())
    }

    fn remark(&self) -> Option<String> {
        self.definitions.complaint()
    }
}

#[cfg(test)]
mod tests;
