//! Metrics and health of a controller.
//!
//! Owns: the registry, and the pages that are served. Must not: use labels that are not from a closed set, except for the gauges of each volume.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::watches::Kind;
use crate::error::{Error, ErrorKind, Result};
use crate::kube::http::Pages;

/// Seconds of a look: from an answer out of memory to a store that times out.
const LOOK_BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Seconds of a backup: from an empty delta to a first full.
const BACKUP_BUCKETS: [f64; 10] = [
    5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 43200.0, 86400.0,
];
const VOLUME_LABELS: [&str; 3] = ["namespace", "persistentvolumeclaim", "repository"];

/// Metrics and health.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    leads: AtomicBool,
    works: AtomicBool,
    leader: IntGauge,
    looks: IntCounterVec,
    look_seconds: HistogramVec,
    finished: IntCounterVec,
    backup_seconds: HistogramVec,
    queue: IntGauge,
    exposed: IntGauge,
    waiting: IntGauge,
    swept: IntCounterVec,
    bases: IntGauge,
    last_success: GaugeVec,
    base_age: GaugeVec,
    ready: IntGaugeVec,
    points: IntGaugeVec,
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
        let registry = Registry::new_custom(Some("snaphaul_controller".to_owned()), None)
            .expect("the prefix is a valid name");
        let r = &registry;
        Self {
            leads: AtomicBool::new(false),
            works: AtomicBool::new(false),
            leader: gauge(r, "leader", "1 while this process leads."),
            looks: counters(r, "looks_total", "Looks at objects.", &["kind", "result"]),
            look_seconds: histograms(
                r,
                "look_duration_seconds",
                "Time of a look.",
                "kind",
                &LOOK_BUCKETS,
            ),
            finished: counters(
                r,
                "finished_total",
                "Backups and restores that ended.",
                &["kind", "phase"],
            ),
            backup_seconds: histograms(
                r,
                "duration_seconds",
                "Time from the start of a backup or restore to its end.",
                "kind",
                &BACKUP_BUCKETS,
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
            last_success: gauges(
                r,
                "volume_last_success_timestamp_seconds",
                "When the last successful backup of the volume ended.",
            ),
            base_age: gauges(
                r,
                "volume_base_timestamp_seconds",
                "When the base snapshot of the volume was taken.",
            ),
            ready: repository_gauges(r, "repository_ready", "1 while the repository can be used."),
            points: repository_gauges(r, "repository_points", "Points at the last look."),
            registry,
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
        self.backup_seconds
            .with_label_values(&[kind.as_str()])
            .observe(time.as_secs_f64());
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

    /// Sets the gauges of a volume: labels, seconds of the last success and of its base.
    pub fn volume(&self, labels: [&str; 3], success: Option<f64>, base: Option<f64>) {
        if let Some(seconds) = success {
            self.last_success.with_label_values(&labels).set(seconds);
        }
        match base {
            Some(seconds) => self.base_age.with_label_values(&labels).set(seconds),
            None => {
                let _ = self.base_age.remove_label_values(&labels);
            }
        }
    }

    /// The volume is gone.
    pub fn forget_volume(&self, labels: [&str; 3]) {
        let _ = self.last_success.remove_label_values(&labels);
        let _ = self.base_age.remove_label_values(&labels);
    }

    /// Sets the gauges of a repository.
    pub fn repository(&self, name: &str, ready: bool, points: Option<i64>) {
        self.ready.with_label_values(&[name]).set(i64::from(ready));
        if let Some(points) = points {
            self.points.with_label_values(&[name]).set(points);
        }
    }

    /// The repository's object is gone.
    pub fn forget_repository(&self, name: &str) {
        let _ = self.ready.remove_label_values(&[name]);
        let _ = self.points.remove_label_values(&[name]);
    }
}

impl Pages for Telemetry {
    fn metrics(&self) -> Result<String> {
        let mut text = Vec::new();
        let failed = || Error::new(ErrorKind::Internal, "write the metrics");
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|error| failed().source(error))?;
        String::from_utf8(text).map_err(|error| failed().source(error))
    }

    fn not_ready(&self) -> Option<String> {
        // Who waits for the lease is as ready as it can be: it takes over.
        let lists = self.leads.load(Ordering::Relaxed) && !self.works.load(Ordering::Relaxed);
        lists.then(|| "listing what is in the cluster".to_owned())
    }
}

const VALID: &str = "names and labels are constants and differ";

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect(VALID);
    registry.register(Box::new(gauge.clone())).expect(VALID);
    gauge
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
    registry.register(Box::new(family.clone())).expect(VALID);
    family
}

fn gauges(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    let family = GaugeVec::new(Opts::new(name, help), &VOLUME_LABELS).expect(VALID);
    registry.register(Box::new(family.clone())).expect(VALID);
    family
}

fn repository_gauges(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    let family = IntGaugeVec::new(Opts::new(name, help), &["repository"]).expect(VALID);
    registry.register(Box::new(family.clone())).expect(VALID);
    family
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let family = HistogramVec::new(options, &[label]).expect(VALID);
    registry.register(Box::new(family.clone())).expect(VALID);
    family
}
