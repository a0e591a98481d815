//! Counters of one run, in Prometheus form.
//!
//! ```text
//!   reports, Progress, RequestCounts ──► RunMetrics (own registry) ──► text ──► FILE, by rename
//! ```
//!
//! Owns: metric names, labels and the registry (a contract: README lists every name). Must not: decide anything, or reach for
//! what it observes. Names begin with `snaphaul_` and end with the unit; labels come from fixed sets.

mod file;
pub(crate) mod register;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntGauge, IntGaugeVec, Registry};

use crate::error::Result;
use crate::pipeline::progress::Progress;
use crate::pipeline::report::{BackupReport, GcReport, RestoreReport, VerifyReport};
use crate::repository::store::RequestCounts;
use register::{float, gauge, gauges, registry, saturated};

pub use file::write_atomically;

/// The metrics of one run. All are gauges: the values of the last run, as a file collector wants them.
#[derive(Debug)]
pub struct RunMetrics {
    registry: Registry,
    exit_code: IntGaugeVec,
    end: Gauge,
    duration: Gauge,
    warnings: IntGauge,
    volume: IntGauge,
    data: IntGaugeVec,
    resumed: IntGauge,
    sampled: IntGauge,
    liar: IntGauge,
    lost: IntGauge,
    verified_points: IntGauge,
    verified_objects: IntGauge,
    verified_chunks: IntGauge,
    findings: IntGauge,
    collected: IntGaugeVec,
    collected_bytes: IntGaugeVec,
    requests: IntGaugeVec,
    transferred: IntGaugeVec,
    retries: IntGauge,
    memory: IntGauge,
    engine: IntGaugeVec,
}

impl RunMetrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let registry = registry("snaphaul");
        let r = &registry;
        Self {
            exit_code: family(r, "run_exit_code", "Exit code of the last run.", "command"),
            end: float(
                r,
                "run_end_timestamp_seconds",
                "When the last run ended, since 1970.",
            ),
            duration: float(r, "run_duration_seconds", "Wall time of the last run."),
            warnings: gauge(r, "run_warnings_count", "Warnings of the last run."),
            volume: gauge(
                r,
                "volume_size_bytes",
                "Size of the volume, or of the restored range.",
            ),
            data: family(
                r,
                "run_data_bytes",
                "Bytes of the volume by what became of them.",
                "kind",
            ),
            resumed: gauge(
                r,
                "backup_resumed_bytes",
                "Taken over from a killed backup.",
            ),
            sampled: gauge(
                r,
                "backup_sampled_bytes",
                "Read again to check the change source.",
            ),
            liar: gauge(
                r,
                "backup_liar_count",
                "Sources of changed blocks that were caught.",
            ),
            lost: gauge(r, "restore_lost_bytes", "Could not be restored."),
            verified_points: gauge(r, "verify_points_count", "Points verified."),
            verified_objects: gauge(r, "verify_objects_count", "Objects looked at."),
            verified_chunks: gauge(r, "verify_chunks_count", "Chunks read and checked."),
            findings: gauge(
                r,
                "verify_findings_count",
                "Damaged or missing objects found.",
            ),
            collected: collected(r),
            collected_bytes: collected_bytes(r),
            requests: family(
                r,
                "store_requests_count",
                "Requests to the store.",
                "operation",
            ),
            transferred: family(r, "store_transferred_bytes", "Bodies moved.", "direction"),
            retries: gauge(r, "store_retries_count", "Requests that were sent again."),
            memory: gauge(
                r,
                "run_memory_peak_bytes",
                "Largest resident memory of the process.",
            ),
            engine: family(
                r,
                "io_engine_info",
                "1 for the engine that moved the data.",
                "engine",
            ),
            registry,
        }
    }

    /// Takes over the counters of a pipeline that failed: how far it came.
    pub fn observe_progress(&self, progress: &Progress) {
        self.set_data([
            ("done", Progress::read_of(&progress.done)),
            ("read", Progress::read_of(&progress.read)),
            ("zero", Progress::read_of(&progress.zero)),
            ("unchanged", Progress::read_of(&progress.unchanged)),
            ("deduplicated", Progress::read_of(&progress.deduplicated)),
            ("new", Progress::read_of(&progress.new)),
            ("stored", Progress::read_of(&progress.stored)),
        ]);
    }

    /// Takes over the result of a backup.
    pub fn observe_backup(&self, report: &BackupReport) {
        self.set_data([
            ("done", report.size_bytes),
            ("read", report.read_bytes),
            ("zero", report.zero_bytes),
            ("unchanged", report.unchanged_bytes),
            ("deduplicated", report.deduplicated_bytes),
            ("new", report.new_bytes),
            ("stored", report.stored_bytes),
        ]);
        self.volume.set(saturated(report.size_bytes));
        self.resumed.set(saturated(report.resumed_bytes));
        self.sampled.set(saturated(report.sampled_bytes));
        self.liar
            .set(i64::from(report.changed_blocks_liar.is_some()));
    }

    /// Takes over the result of a restore.
    pub fn observe_restore(&self, report: &RestoreReport) {
        self.set_data([
            ("done", report.size_bytes),
            ("zero", report.zero_bytes),
            ("unchanged", report.skipped_bytes),
            ("new", report.written_bytes),
        ]);
        self.volume.set(saturated(report.size_bytes));
        self.lost.set(saturated(
            report.lost.iter().map(|range| range.length).sum(),
        ));
    }

    /// Says which engine moved the data, where any did.
    pub fn observe_engine(&self, engine: Option<&str>) {
        for known in ["io_uring", "threads"] {
            let value = i64::from(engine == Some(known));
            self.engine.with_label_values(&[known]).set(value);
        }
    }

    fn set_data<const N: usize>(&self, kinds: [(&str, u64); N]) {
        for (kind, bytes) in kinds {
            self.data.with_label_values(&[kind]).set(saturated(bytes));
        }
    }

    /// Takes over the result of a verification.
    pub fn observe_verify(&self, report: &VerifyReport) {
        self.set_data([("read", report.read_bytes)]);
        self.verified_points.set(saturated(report.points));
        self.verified_objects.set(saturated(report.objects));
        self.verified_chunks.set(saturated(report.chunks));
        self.findings.set(saturated(
            u64::try_from(report.errors.len()).unwrap_or(u64::MAX),
        ));
    }

    /// Takes over the result of a garbage collection.
    pub fn observe_gc(&self, report: &GcReport) {
        let count = |items: usize| u64::try_from(items).unwrap_or(u64::MAX);
        for (kind, number) in [
            ("points", report.points_purged),
            ("sessions", report.sessions_purged),
            ("segments", report.segments_deleted),
            ("map_segments", report.map_segments_deleted),
            ("rewritten", report.segments_rewritten),
            ("refused", report.refused),
            ("fenced", count(report.fenced.len())),
            ("unfinished", count(report.unfinished.len())),
            ("damaged", count(report.damaged.len())),
        ] {
            self.collected
                .with_label_values(&[kind])
                .set(saturated(number));
        }
        for (kind, bytes) in [
            ("freed", report.freed_bytes),
            ("written", report.written_bytes),
        ] {
            self.collected_bytes
                .with_label_values(&[kind])
                .set(saturated(bytes));
        }
    }

    /// Counts the warnings a person was told.
    pub fn observe_warnings(&self, warnings: usize) {
        self.warnings
            .set(saturated(u64::try_from(warnings).unwrap_or(u64::MAX)));
    }

    /// Takes over what the store was asked.
    pub fn observe_store(&self, counts: &RequestCounts) {
        for (operation, count) in [
            ("put", counts.put),
            ("get", counts.get),
            ("head", counts.head),
            ("list", counts.list),
            ("delete", counts.delete),
        ] {
            self.requests
                .with_label_values(&[operation])
                .set(saturated(count));
        }
        self.transferred
            .with_label_values(&["sent"])
            .set(saturated(counts.put_bytes));
        self.transferred
            .with_label_values(&["received"])
            .set(saturated(counts.get_bytes));
        self.retries.set(saturated(counts.retries));
    }

    /// Records the end of the run: which command, how it ended, when, and after how long.
    pub fn observe_end(&self, command: &str, exit_code: u8, now: SystemTime, duration: Duration) {
        self.exit_code
            .with_label_values(&[command])
            .set(i64::from(exit_code));
        self.end.set(
            now.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        );
        self.duration.set(duration.as_secs_f64());
        self.memory.set(saturated(peak_memory_bytes().unwrap_or(0)));
    }

    /// The text form.
    ///
    /// # Errors
    /// `Internal`, if the registry cannot be written.
    pub fn to_text(&self) -> Result<String> {
        register::text(&self.registry)
    }
}

impl Default for RunMetrics {
    fn default() -> Self {
        Self::new()
    }
}

fn family(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    gauges(registry, name, help, &[label])
}

fn collected(registry: &Registry) -> IntGaugeVec {
    let help = "What the last garbage collection did, by kind.";
    family(registry, "gc_objects_count", help, "kind")
}

fn collected_bytes(registry: &Registry) -> IntGaugeVec {
    let help = "Bytes freed and written by the last garbage collection.";
    family(registry, "gc_data_bytes", help, "kind")
}

/// `VmHWM` of proc(5), which is in KiB.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests;
