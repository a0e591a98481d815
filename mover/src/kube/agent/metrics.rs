//! What an agent counts.
//!
//! Owns: names and labels, all of closed sets, and what its health pages say. Must not: decide anything.

mod request_times;
mod stages;
mod store;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::transfer::{Phase, Success};
use super::work::Kind;
use crate::error::Result;
use crate::kube::http::Pages;
use crate::metrics::register::{counter, counters, gauge, histograms, registry, text};
use crate::pipeline::progress::Progress;
use crate::repository::store::RequestCounts;
use stages::StageMetrics;
pub(super) use stages::StageSums;
use store::StoreMetrics;

/// Ends of transfers.
const RESULTS: [&str; 5] = [
    "succeeded",
    "failed",
    "interrupted",
    "stopped",
    "superseded",
];
/// Sources of changed blocks that have a name of their own here.
const SOURCES: [&str; 8] = [
    "csi", "rbd", "thin", "fiemap", "hole-map", "scan", "none", "other",
];
/// Seconds, from a fast device to a slow volume.
const BUCKETS: [f64; 10] = [
    0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 14400.0, 86400.0,
];

/// Counters of a transfer at one moment, by what became of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved([u64; Moved::NAMES.len()]);

impl Moved {
    const NAMES: [&'static str; 9] = [
        "done",
        "read",
        "zero",
        "unchanged",
        "deduplicated",
        "resumed",
        "sampled",
        "new",
        "stored",
    ];

    pub(super) fn of(progress: &Progress) -> Self {
        Self(
            [
                &progress.done,
                &progress.read,
                &progress.zero,
                &progress.unchanged,
                &progress.deduplicated,
                &progress.resumed,
                &progress.sampled,
                &progress.new,
                &progress.stored,
            ]
            .map(Progress::read_of),
        )
    }
}

/// The metrics of an agent.
#[derive(Debug)]
pub(super) struct AgentMetrics {
    registry: Registry,
    running: IntGauge,
    waiting: IntGauge,
    transfers: IntCounterVec,
    phases: HistogramVec,
    data: IntCounterVec,
    sources: IntCounterVec,
    told: IntCounterVec,
    differing: IntCounterVec,
    liars: IntCounter,
    stages: StageMetrics,
    store: StoreMetrics,
    ready: AtomicBool,
    draining: AtomicBool,
}

impl AgentMetrics {
    pub(super) fn new(slots: usize) -> Self {
        let registry = registry("snaphaul_agent");
        let r = &registry;
        let by_source = |name, help| counters(r, name, help, &["source"]);
        let metrics = Self {
            running: gauge(r, "slots_in_use", "Volumes that are moved now."),
            waiting: gauge(
                r,
                "waiting_volumes",
                "Orders that wait for a slot of this node.",
            ),
            transfers: counters(
                r,
                "transfers_total",
                "Transfers that ended.",
                &["kind", "result"],
            ),
            phases: histograms(
                r,
                ("phase_duration_seconds", "Time of the steps of a transfer."),
                &["kind", "phase"],
                &BUCKETS,
            ),
            data: counters(
                r,
                "data_bytes_total",
                "Bytes of volumes by what became of them.",
                &["kind", "data"],
            ),
            sources: by_source(
                "changed_block_sources_total",
                "Backups by who said what changed.",
            ),
            told: by_source(
                "changed_block_told_bytes_total",
                "Bytes that were read because the source told of them.",
            ),
            differing: by_source(
                "changed_block_differing_bytes_total",
                "Bytes among them that were neither zero nor as before: their share is the source's precision.",
            ),
            liars: counter(
                r,
                "changed_block_liars_total",
                "Sources of changed blocks that were caught.",
            ),
            stages: StageMetrics::new(r),
            store: StoreMetrics::new(r),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            registry,
        };
        gauge(
            &metrics.registry,
            "slots",
            "Volumes that may be moved at once.",
        )
        .set(i64::try_from(slots).unwrap_or(i64::MAX));
        metrics.touch();
        metrics
    }

    /// Every series is there from the start: what is absent cannot be told from what never happened.
    fn touch(&self) {
        for kind in Kind::ALL.map(Kind::as_str) {
            for result in RESULTS {
                self.transfers.with_label_values(&[kind, result]);
            }
            for phase in Phase::ALL {
                self.phases.with_label_values(&[kind, phase.as_str()]);
            }
            for data in Moved::NAMES {
                self.data.with_label_values(&[kind, data]);
            }
        }
        for source in SOURCES {
            for family in [&self.sources, &self.told, &self.differing] {
                family.with_label_values(&[source]);
            }
        }
    }

    pub(super) fn set_load(&self, running: usize, waiting: usize) {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Whether everything that is ordered is known.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A transfer ended.
    pub(super) fn observe_end(&self, kind: Kind, result: &'static str) {
        self.transfers
            .with_label_values(&[kind.as_str(), result])
            .inc();
    }

    pub(super) fn observe_phases(&self, kind: Kind, phases: &[(Phase, Duration)]) {
        for (phase, time) in phases {
            self.phases
                .with_label_values(&[kind.as_str(), phase.as_str()])
                .observe(time.as_secs_f64());
        }
    }

    /// Adds what came between two looks. A try that was begun again counts from nothing, and so does the difference.
    pub(super) fn observe_moved(&self, kind: Kind, before: &Moved, now: &Moved) {
        for (index, name) in Moved::NAMES.iter().enumerate() {
            let (before, now) = (before.0[index], now.0[index]);
            let added = now.checked_sub(before).unwrap_or(now);
            self.data
                .with_label_values(&[kind.as_str(), name])
                .inc_by(added);
        }
    }

    /// What the stages do.
    pub(super) fn stages(&self) -> &StageMetrics {
        &self.stages
    }

    /// Adds what a transfer asked of its store.
    pub(super) fn observe_store(&self, counts: &RequestCounts) {
        self.store.add(counts);
    }

    pub(super) fn observe_success(&self, success: &Success) {
        if let Success::Backup(report, _) = success {
            let known = SOURCES
                .iter()
                .find(|known| **known == report.changed_blocks);
            let source = known.copied().unwrap_or("other");
            self.sources.with_label_values(&[source]).inc();
            let told = report.read_bytes.saturating_sub(report.sampled_bytes);
            let differing = report.new_bytes.saturating_add(report.deduplicated_bytes);
            self.told.with_label_values(&[source]).inc_by(told);
            self.differing
                .with_label_values(&[source])
                .inc_by(differing.min(told));
            if report.changed_blocks_liar.is_some() {
                self.liars.inc();
            }
        }
    }
}

impl Pages for AgentMetrics {
    fn metrics(&self) -> Result<String> {
        text(&self.registry)
    }

    fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("the agent ends".to_owned());
        }
        let ready = self.ready.load(Ordering::Relaxed);
        (!ready).then(|| "the orders of this node are not known yet".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = AgentMetrics::new(3).metrics().unwrap();
        for line in [
            "snaphaul_agent_slots 3",
            "snaphaul_agent_transfers_total{kind=\"restore\",result=\"superseded\"} 0",
            "snaphaul_agent_data_bytes_total{data=\"stored\",kind=\"backup\"} 0",
            "snaphaul_agent_phase_duration_seconds_count{kind=\"backup\",phase=\"device\"} 0",
            "snaphaul_agent_store_requests_total{operation=\"put\"} 0",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn every_metric_is_documented_with_its_labels_and_no_other() {
        use crate::metrics::register::{documented, known};
        let metrics = AgentMetrics::new(1);
        assert_eq!(documented("snaphaul_agent_"), known(&metrics.registry));
    }

    #[test]
    fn a_backup_tells_how_precise_its_source_was() {
        let metrics = AgentMetrics::new(1);
        let report = crate::pipeline::report::BackupReport {
            changed_blocks: "csi".to_owned(),
            read_bytes: 100,
            sampled_bytes: 20,
            new_bytes: 30,
            deduplicated_bytes: 10,
            ..crate::pipeline::report::BackupReport::default()
        };
        let point = crate::kube::api::backup::PointStatus::default();
        metrics.observe_success(&Success::Backup(Box::new(report), point));
        metrics.stages().observe_queue(0, 7);
        metrics.stages().observe_queue(7, 3);
        metrics.stages().observe_engine(Some("threads"));
        metrics.stages().observe_engine(None);
        let text = metrics.metrics().unwrap();
        for line in [
            "snaphaul_agent_changed_block_told_bytes_total{source=\"csi\"} 80",
            "snaphaul_agent_changed_block_differing_bytes_total{source=\"csi\"} 40",
            "snaphaul_agent_queue_bytes 3",
            "snaphaul_agent_io_engine_transfers_total{engine=\"threads\"} 1",
            "snaphaul_agent_stage_busy_seconds_total{kind=\"backup\",stage=\"read\"} 0",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn what_was_moved_is_added_up_over_a_new_beginning() {
        let metrics = AgentMetrics::new(1);
        let progress = Progress::default();
        Progress::add(&progress.done, 10);
        let first = Moved::of(&progress);
        metrics.observe_moved(Kind::Backup, &Moved::default(), &first);
        progress.start_over();
        Progress::add(&progress.done, 4);
        metrics.observe_moved(Kind::Backup, &first, &Moved::of(&progress));
        let text = metrics.metrics().unwrap();
        assert!(
            text.contains("data_bytes_total{data=\"done\",kind=\"backup\"} 14"),
            "{text}"
        );
    }

    #[test]
    fn ready_once_all_is_known_and_not_at_the_end() {
        let metrics = AgentMetrics::new(1);
        assert!(metrics.not_ready().is_some());
        metrics.set_ready(true);
        assert!(metrics.not_ready().is_none());
        metrics.set_draining();
        assert!(metrics.not_ready().is_some());
    }
}
