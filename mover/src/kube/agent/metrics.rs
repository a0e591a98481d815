//! What an agent counts.
//!
//! Owns: names and labels, all of closed sets, and what its health pages say. Must not: decide anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{CounterVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::request_times::RequestTimesMetric;
use super::transfer::{Phase, Success};
use super::work::Kind;
use crate::error::Result;
use crate::kube::http::Pages;
use crate::metrics::register::{
    counter, counters, gauge, histograms, registered, registry, saturated, sums, text,
};
use crate::pipeline::progress::{Progress, Stage};
use crate::repository::store::RequestCounts;

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
/// How devices are read and written.
const ENGINES: [&str; 2] = ["io_uring", "threads"];
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

/// Nanoseconds of each stage at one moment, at work and waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StageSums([(u64, u64); Stage::ALL.len()]);

impl StageSums {
    pub(super) fn of(progress: &Progress) -> Self {
        Self(Stage::ALL.map(|stage| progress.stages.of(stage)))
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
    engines: IntCounterVec,
    busy: CounterVec,
    waiting_seconds: CounterVec,
    queued: IntGauge,
    requests: IntCounterVec,
    transferred: IntCounterVec,
    retries: IntCounter,
    errors: IntCounter,
    throttles: IntCounter,
    times: RequestTimesMetric,
    ready: AtomicBool,
    draining: AtomicBool,
}

impl AgentMetrics {
    pub(super) fn new(slots: usize) -> Self {
        let registry = registry("snaphaul_agent");
        let r = &registry;
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
            sources: counters(
                r,
                "changed_block_sources_total",
                "Backups by who said what changed.",
                &["source"],
            ),
            told: counters(
                r,
                "changed_block_told_bytes_total",
                "Bytes that were read because the source told of them.",
                &["source"],
            ),
            differing: counters(
                r,
                "changed_block_differing_bytes_total",
                "Bytes among them that were neither zero nor as before: what is told for each is the source's precision.",
                &["source"],
            ),
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
                &["kind", "stage"],
            ),
            waiting_seconds: sums(
                r,
                "stage_waiting_seconds_total",
                "Time that threads of a stage waited for other stages.",
                &["kind", "stage"],
            ),
            queued: gauge(
                r,
                "queue_bytes",
                "Bytes that one stage handed on and the next has not taken yet.",
            ),
            liars: counter(
                r,
                "changed_block_liars_total",
                "Sources of changed blocks that were caught.",
            ),
            requests: counters(
                r,
                "store_requests_total",
                "Requests to stores.",
                &["operation"],
            ),
            transferred: counters(
                r,
                "store_transferred_bytes_total",
                "Bodies moved.",
                &["direction"],
            ),
            retries: counter(r, "store_retries_total", "Requests that were sent again."),
            errors: counter(
                r,
                "store_errors_total",
                "Requests that failed; an object that is not there is an answer.",
            ),
            throttles: counter(
                r,
                "store_throttles_total",
                "Requests that the store answered by asking for fewer, or not in time.",
            ),
            times: registered(r, RequestTimesMetric::new()),
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
        for stage in Stage::ALL.map(Stage::as_str) {
            for kind in Kind::ALL.map(Kind::as_str) {
                self.busy.with_label_values(&[kind, stage]);
                self.waiting_seconds.with_label_values(&[kind, stage]);
            }
        }
        for source in SOURCES {
            for family in [&self.sources, &self.told, &self.differing] {
                family.with_label_values(&[source]);
            }
        }
        for engine in ENGINES {
            self.engines.with_label_values(&[engine]);
        }
        self.observe_store(&RequestCounts::default());
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

    /// Adds what the stages did with their time between two looks.
    pub(super) fn observe_stages(&self, kind: Kind, before: &StageSums, now: &StageSums) {
        for ((stage, before), now) in Stage::ALL.iter().zip(&before.0).zip(&now.0) {
            let labels = [kind.as_str(), stage.as_str()];
            let added = |before: u64, now: u64| {
                Duration::from_nanos(now.saturating_sub(before)).as_secs_f64()
            };
            self.busy
                .with_label_values(&labels)
                .inc_by(added(before.0, now.0));
            self.waiting_seconds
                .with_label_values(&labels)
                .inc_by(added(before.1, now.1));
        }
    }

    /// Bytes of a transfer between its stages: what there were, and what there are.
    pub(super) fn observe_queue(&self, before: u64, now: u64) {
        self.queued.add(saturated(now) - saturated(before));
    }

    /// The engine that moved the data of a transfer, where any was moved.
    pub(super) fn observe_engine(&self, engine: Option<&str>) {
        if let Some(engine) = engine.filter(|engine| ENGINES.contains(engine)) {
            self.engines.with_label_values(&[engine]).inc();
        }
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

    /// Adds what a transfer asked of its store.
    pub(super) fn observe_store(&self, counts: &RequestCounts) {
        for (operation, count) in [
            ("put", counts.put),
            ("get", counts.get),
            ("head", counts.head),
            ("list", counts.list),
            ("delete", counts.delete),
        ] {
            self.requests.with_label_values(&[operation]).inc_by(count);
        }
        let sent = self.transferred.with_label_values(&["sent"]);
        sent.inc_by(counts.put_bytes);
        let received = self.transferred.with_label_values(&["received"]);
        received.inc_by(counts.get_bytes);
        self.retries.inc_by(counts.retries);
        self.errors.inc_by(counts.errors);
        self.throttles.inc_by(counts.throttles);
        self.times.add(&counts.times);
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
        metrics.observe_queue(0, 7);
        metrics.observe_queue(7, 3);
        metrics.observe_engine(Some("threads"));
        metrics.observe_engine(None);
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
