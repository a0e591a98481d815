//! Metrics of `sync`.
//!
//! Owns: names, and by which word a look counts. Must not: survive their repository.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use crate::error::Result;
use crate::kube::controller::sync::Done;
use crate::metrics::register::{counters, gauges};

const LABELS: &[&str] = &["repository"];
/// How a look ends.
const RESULTS: [&str; 3] = ["ok", "more", "failed"];

#[derive(Debug)]
pub(super) struct Synced {
    there: IntGaugeVec,
    created: IntCounterVec,
    removed: IntCounterVec,
    looks: IntCounterVec,
}

impl Synced {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            there: gauges(
                r,
                "repository_synced_backups",
                "PodVolumeBackups that sync made and that are there.",
                LABELS,
            ),
            created: counters(
                r,
                "repository_sync_created_total",
                "PodVolumeBackups that sync made.",
                LABELS,
            ),
            removed: counters(
                r,
                "repository_sync_removed_total",
                "PodVolumeBackups that sync removed, their points being gone.",
                LABELS,
            ),
            looks: counters(
                r,
                "repository_sync_looks_total",
                "Looks of sync at the repository.",
                &["repository", "result"],
            ),
        }
    }

    pub(super) fn looked(&self, name: &str, done: &Result<Done>) {
        for result in RESULTS {
            self.looks.with_label_values(&[name, result]);
        }
        let result = match done {
            Err(_) => "failed",
            Ok(done) if done.failure.is_some() => "failed",
            Ok(done) if done.more => "more",
            Ok(_) => "ok",
        };
        self.looks.with_label_values(&[name, result]).inc();
        let Ok(done) = done else { return };
        for (family, number) in [(&self.created, done.created), (&self.removed, done.removed)] {
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            family.with_label_values(&[name]).inc_by(number);
        }
        let there = i64::try_from(done.backups).unwrap_or(i64::MAX);
        self.there.with_label_values(&[name]).set(there);
    }

    pub(super) fn forget(&self, name: &str) {
        let _ = self.there.remove_label_values(&[name]);
        for family in [&self.created, &self.removed] {
            let _ = family.remove_label_values(&[name]);
        }
        for result in RESULTS {
            let _ = self.looks.remove_label_values(&[name, result]);
        }
    }
}
