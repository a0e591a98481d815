//! What the stages of transfers do with their time, and what lies between them.
//!
//! Owns: these metrics. Must not: measure: pipelines do.

use std::time::Duration;

use prometheus::{CounterVec, IntCounterVec, IntGauge, Registry};

use crate::kube::agent::work::Kind;
use crate::metrics::register::{counters, gauge, saturated, sums};
use crate::pipeline::progress::{Progress, Stage};

/// How devices are read and written.
const ENGINES: [&str; 2] = ["io_uring", "threads"];

/// Nanoseconds of each stage at one moment, at work and waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kube::agent) struct StageSums([(u64, u64); Stage::ALL.len()]);

impl StageSums {
    pub(in crate::kube::agent) fn of(progress: &Progress) -> Self {
        Self(Stage::ALL.map(|stage| progress.stages.of(stage)))
    }
}

#[derive(Debug)]
pub(in crate::kube::agent) struct StageMetrics {
    engines: IntCounterVec,
    busy: CounterVec,
    waiting: CounterVec,
    queued: IntGauge,
}

impl StageMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let labels = &["kind", "stage"];
        let metrics = Self {
            engines: counters(
                r,
                "io_engine_transfers_total",
                "Transfers by the engine that read or wrote the device.",
                &["engine"],
            ),
            busy: sums(
                r,
                "stage_busy_seconds_total",
                "Time that threads of a stage worked.",
                labels,
            ),
            waiting: sums(
                r,
                "stage_waiting_seconds_total",
                "Time that threads of a stage waited for other stages.",
                labels,
            ),
            queued: gauge(
                r,
                "queue_bytes",
                "Bytes that one stage handed on and the next has not taken yet.",
            ),
        };
        for stage in Stage::ALL.map(Stage::as_str) {
            for kind in Kind::ALL.map(Kind::as_str) {
                metrics.busy.with_label_values(&[kind, stage]);
                metrics.waiting.with_label_values(&[kind, stage]);
            }
        }
        for engine in ENGINES {
            metrics.engines.with_label_values(&[engine]);
        }
        metrics
    }

    /// Adds what the stages did with their time between two looks.
    pub(in crate::kube::agent) fn observe(&self, kind: Kind, before: &StageSums, now: &StageSums) {
        let added =
            |before: u64, now: u64| Duration::from_nanos(now.saturating_sub(before)).as_secs_f64();
        for ((stage, before), now) in Stage::ALL.iter().zip(&before.0).zip(&now.0) {
            let labels = [kind.as_str(), stage.as_str()];
            self.busy
                .with_label_values(&labels)
                .inc_by(added(before.0, now.0));
            self.waiting
                .with_label_values(&labels)
                .inc_by(added(before.1, now.1));
        }
    }

    /// Bytes of a transfer between its stages: what there were, and what there are.
    pub(in crate::kube::agent) fn observe_queue(&self, before: u64, now: u64) {
        self.queued.add(saturated(now) - saturated(before));
    }

    /// The engine that moved the data of a transfer, where any was moved.
    pub(in crate::kube::agent) fn observe_engine(&self, engine: Option<&str>) {
        if let Some(engine) = engine.filter(|engine| ENGINES.contains(engine)) {
            self.engines.with_label_values(&[engine]).inc();
        }
    }
}
