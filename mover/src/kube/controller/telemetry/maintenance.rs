//! Metrics of runs of maintenance.
//!
//! Owns: names, and by which word a run counts. Must not: know repositories.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::BACKUP_BUCKETS;
use crate::error::{ErrorKind, Result};
use crate::kube::controller::maintenance::{Done, Task};
use crate::metrics::register::{counters, gauges, histograms};

#[derive(Debug)]
pub(super) struct Maintenance {
    running: IntGaugeVec,
    runs: IntCounterVec,
    seconds: HistogramVec,
}

impl Maintenance {
    pub(super) fn new(r: &Registry) -> Self {
        let metrics = Self {
            running: gauges(
                r,
                "maintenance_running",
                "1 while a repository is maintained.",
                &["task"],
            ),
            runs: counters(
                r,
                "maintenance_runs_total",
                "Runs of maintenance that ended.",
                &["task", "result"],
            ),
            seconds: histograms(
                r,
                (
                    "maintenance_duration_seconds",
                    "Time of a run of maintenance.",
                ),
                &["task"],
                &BACKUP_BUCKETS,
            ),
        };
        for task in Task::ALL.map(Task::as_str) {
            metrics.running.with_label_values(&[task]);
            for result in ["ok", "findings", "failed", "stopped"] {
                metrics.runs.with_label_values(&[task, result]);
            }
            metrics.seconds.with_label_values(&[task]);
        }
        metrics
    }

    pub(super) fn runs(&self, task: Task, now: bool) {
        self.running
            .with_label_values(&[task.as_str()])
            .set(i64::from(now));
    }

    pub(super) fn ended(&self, task: Task, result: &Result<Done>, time: Duration) {
        let word = match result {
            Ok(Done::Verify(verified)) if !verified.report.errors.is_empty() => "findings",
            Ok(Done::Gc(report)) if !report.damaged.is_empty() => "findings",
            Ok(_) => "ok",
            Err(error) if error.kind() == ErrorKind::Interrupted => "stopped",
            Err(_) => "failed",
        };
        self.runs.with_label_values(&[task.as_str(), word]).inc();
        self.seconds
            .with_label_values(&[task.as_str()])
            .observe(time.as_secs_f64());
    }
}
