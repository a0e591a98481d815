//! Metrics of each repository.
//!
//! Owns: names, and what of a status they show. Must not: survive their repository.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::synced::Synced;
use crate::kube::api::SnapshotRepositoryStatus;
use crate::kube::api::conditions::HEALTHY;
use crate::kube::api::repository::MaintenanceRun;
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::maintenance::Done;
use crate::metrics::register::{counters, floats, gauges};

const LABELS: &[&str] = &["repository"];

#[derive(Debug)]
pub(super) struct Repositories {
    ready: IntGaugeVec,
    points: IntGaugeVec,
    healthy: IntGaugeVec,
    damaged: IntGaugeVec,
    findings: IntGaugeVec,
    unfinished: IntGaugeVec,
    dead: IntGaugeVec,
    failures: IntGaugeVec,
    completed: GaugeVec,
    freed: IntCounterVec,
    purged: IntCounterVec,
    fenced: IntCounterVec,
    read: IntCounterVec,
    synced: Synced,
}

impl Repositories {
    pub(super) fn new(r: &Registry) -> Self {
        let task = &["repository", "task"];
        let gauge = |name, help| gauges(r, name, help, LABELS);
        let counter = |name, help| counters(r, name, help, LABELS);
        Self {
            ready: gauge("repository_ready", "1 while the repository can be used."),
            points: gauge("repository_points", "Points at the last look."),
            healthy: gauge(
                "repository_healthy",
                "1 where nothing wrong is known, 0 where stored data is damaged; absent until verified.",
            ),
            damaged: gauge(
                "repository_damaged_points",
                "Points that were found damaged and are still there.",
            ),
            findings: gauge(
                "repository_verify_findings",
                "Damaged or missing objects that the last verification found.",
            ),
            unfinished: gauge(
                "repository_unfinished_sessions",
                "Sessions that neither ended nor were given up at the last garbage collection.",
            ),
            dead: gauge(
                "repository_dead_bytes",
                "Bytes that nothing needs and that the last garbage collection left in objects in use.",
            ),
            failures: gauges(
                r,
                "repository_maintenance_failures",
                "Runs of maintenance in a row that could not do their work.",
                task,
            ),
            completed: floats(
                r,
                "repository_maintenance_timestamp_seconds",
                "When the last run of maintenance ended that did its work.",
                task,
            ),
            freed: counter(
                "repository_gc_freed_bytes_total",
                "Bytes that garbage collection deleted.",
            ),
            purged: counter(
                "repository_gc_purged_points_total",
                "Forgotten points of which garbage collection left nothing.",
            ),
            fenced: counter(
                "repository_gc_fenced_sessions_total",
                "Silent sessions that garbage collection gave up.",
            ),
            read: counter(
                "repository_verify_read_bytes_total",
                "Bytes that verifications read from the store.",
            ),
            synced: Synced::new(r),
        }
    }

    pub(super) fn ready(&self, name: &str, ready: bool, points: Option<i64>) {
        self.ready.with_label_values(&[name]).set(i64::from(ready));
        if let Some(points) = points {
            self.points.with_label_values(&[name]).set(points);
        }
        // From the start, so that the first bytes are seen as an increase.
        for family in [&self.freed, &self.purged, &self.fenced, &self.read] {
            family.with_label_values(&[name]);
        }
    }

    pub(super) fn synced(&self) -> &Synced {
        &self.synced
    }

    pub(super) fn health(&self, name: &str, status: &SnapshotRepositoryStatus) {
        let is = |is| conditions::is(&status.conditions, HEALTHY, is);
        let healthy = match (is(Is::True), is(Is::False)) {
            (true, _) => Some(1),
            (_, true) => Some(0),
            _ => None,
        };
        set(&self.healthy, name, healthy);
        set(&self.unfinished, name, status.unfinished_sessions);
        set(&self.dead, name, status.dead_bytes);
        let verified = status.last_verify.as_ref();
        let findings = verified.and_then(|run| run.findings);
        set(&self.findings, name, findings);
        let damaged = findings.map(|_| status.damaged_point_count.unwrap_or(0));
        set(&self.damaged, name, damaged);
        for (task, run) in [("gc", &status.last_gc), ("verify", &status.last_verify)] {
            self.run((name, task), run.as_ref());
        }
    }

    fn run(&self, (name, task): (&str, &str), run: Option<&MaintenanceRun>) {
        let labels = [name, task];
        let failures = run.map_or(0, |run| run.failures);
        self.failures.with_label_values(&labels).set(failures);
        if let Some(time) = run.and_then(|run| run.completed.as_ref()) {
            self.completed.with_label_values(&labels).set(seconds(time));
        }
    }

    pub(super) fn done(&self, name: &str, done: &Done) {
        let add = |family: &IntCounterVec, number: u64| {
            family.with_label_values(&[name]).inc_by(number);
        };
        match done {
            Done::Gc(report) => {
                add(&self.freed, report.freed_bytes);
                add(&self.purged, report.points_purged);
                let fenced = u64::try_from(report.fenced.len()).unwrap_or(u64::MAX);
                add(&self.fenced, fenced);
            }
            Done::Verify(verified) => add(&self.read, verified.report.read_bytes),
        }
    }

    pub(super) fn forget(&self, name: &str) {
        for family in [
            &self.ready,
            &self.points,
            &self.healthy,
            &self.damaged,
            &self.findings,
            &self.unfinished,
            &self.dead,
        ] {
            let _ = family.remove_label_values(&[name]);
        }
        for family in [&self.freed, &self.purged, &self.fenced, &self.read] {
            let _ = family.remove_label_values(&[name]);
        }
        self.synced.forget(name);
        for task in ["gc", "verify"] {
            let _ = self.failures.remove_label_values(&[name, task]);
            let _ = self.completed.remove_label_values(&[name, task]);
        }
    }
}

fn set(family: &IntGaugeVec, name: &str, value: Option<i64>) {
    match value {
        Some(value) => family.with_label_values(&[name]).set(value),
        None => {
            let _ = family.remove_label_values(&[name]);
        }
    }
}

/// Seconds since 1970.
#[expect(
    clippy::cast_precision_loss,
    reason = "seconds since 1970 fit a double"
)]
pub(super) fn seconds(time: &Time) -> f64 {
    time.0.as_second() as f64
}
