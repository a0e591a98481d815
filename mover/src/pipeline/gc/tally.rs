//! What a run has done so far, counted by many threads.
//!
//! Owns: the counters, and the report made of them. Must not: print.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::records::Flight;
use crate::pipeline::report::{GcReport, UnfinishedSession};
use crate::repository::gc::{Cause, Chain, Compaction, DeadObject, OpenKey, Plan};
use crate::repository::ids::SessionKey;
use crate::repository::session::records::Kind;

/// Names of refused objects that are kept.
const REFUSED_NAMES: usize = 20;

/// Counters of one run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    report: Mutex<GcReport>,
    freed: AtomicU64,
    deleted: AtomicU64,
}

impl Tally {
    fn change(&self, change: impl FnOnce(&mut GcReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn started_over(&self) {
        self.change(|report| report.started_over += 1);
    }

    pub(super) fn fenced(&self, key: &OpenKey) {
        self.change(|report| report.fenced.push(key.session().to_string()));
    }

    pub(super) fn copies_added(&self, count: u64) {
        self.change(|report| report.copies_added += count);
    }

    pub(super) fn note_flights(&self, flights: &[Flight]) {
        let unfinished = flights.iter().filter_map(|(key, open)| {
            let open = open.as_ref()?;
            Some(UnfinishedSession {
                session: key.session().to_string(),
                kind: match open.kind {
                    Kind::Backup => "backup",
                    Kind::Restore => "restore",
                    Kind::Verify => "verify",
                },
                volume: open.volume.clone(),
                host: open.origin.host.clone(),
                pid: open.origin.pid,
            })
        });
        self.change(|report| report.unfinished = unfinished.collect());
    }

    /// Says what frees points that are forgotten and look unfinished.
    pub(super) fn note_without_slot(&self, points: &[SessionKey]) {
        for key in points {
            self.warn(format!(
                "point {} was forgotten, but the store lost its manifest, so that it looks like a backup that still runs: if none does, `snaphaul gc --abort {}` frees it",
                key.point(),
                key.session
            ));
        }
    }

    pub(super) fn note_view(&self, plan: &Plan) {
        self.change(|report| {
            report.damaged = plan.damaged().map(|key| key.point().to_string()).collect();
        });
    }

    /// All control objects of one session are gone.
    pub(super) fn purged(&self, chain: &Chain) {
        self.change(|report| match (chain.cause, chain.key) {
            (Cause::Forgotten, OpenKey::Writer(key)) => {
                report.points_purged += 1;
                report.points.push(key.point().to_string());
            }
            _ => report.sessions_purged += 1,
        });
    }

    pub(super) fn deleted(&self, dead: &DeadObject) {
        self.freed.fetch_add(dead.size(), Ordering::Relaxed);
        self.change(|report| match dead {
            DeadObject::Segment { .. } => report.segments_deleted += 1,
            DeadObject::Map { .. } => report.map_segments_deleted += 1,
            DeadObject::Live { .. } => {}
        });
    }

    /// One segment was replaced by another of `written` bytes.
    pub(super) fn rewritten(&self, found: &Compaction<'_>, written: u64) {
        self.freed
            .fetch_add(u64::from(found.size), Ordering::Relaxed);
        self.change(|report| {
            report.segments_rewritten += 1;
            report.written_bytes += written;
        });
    }

    /// Bytes written for a segment whose old generation could not be deleted.
    pub(super) fn written(&self, written: u64) {
        self.change(|report| report.written_bytes += written);
    }

    /// A deletion was carried out.
    pub(super) fn one_deleted(&self) {
        self.deleted.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether any deletion was carried out.
    pub(super) fn any_deleted(&self) -> bool {
        self.deleted.load(Ordering::Relaxed) > 0
    }

    pub(super) fn refused(&self, name: &str) {
        self.change(|report| {
            report.refused += 1;
            if report.refused_objects.len() < REFUSED_NAMES {
                report.refused_objects.push(name.to_owned());
            }
        });
    }

    /// An object that must stay until then.
    pub(super) fn locked(&self, name: &str, until: SystemTime) {
        self.change(|report| {
            report.locked += 1;
            let until = humantime::format_rfc3339_seconds(until).to_string();
            if report
                .locked_until
                .as_ref()
                .is_none_or(|latest| *latest < until)
            {
                report.locked_until = Some(until);
            }
            if report.locked_objects.len() < REFUSED_NAMES {
                report.locked_objects.push(name.to_owned());
            }
        });
    }

    pub(super) fn first_refused(&self) -> Option<String> {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.refused_objects.first().cloned()
    }

    pub(super) fn warn(&self, warning: String) {
        tracing::info!(warning, "gc");
        self.change(|report| report.warnings.push(warning));
    }

    /// Dead bytes, about, in segments that are not rewritten.
    pub(super) fn stays(&self, bytes: u64) {
        self.change(|report| report.dead_bytes_left = bytes);
    }

    pub(super) fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    pub(super) fn into_report(self, dry_run: bool) -> GcReport {
        let freed_bytes = self.freed();
        let report = self
            .report
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut report = GcReport {
            dry_run,
            freed_bytes,
            ..report
        };
        report.points.sort_unstable();
        report.refused_objects.sort_unstable();
        report.locked_objects.sort_unstable();
        if report.refused > 0 {
            report.warnings.push(format!(
                "the store refused to delete {} objects, e.g. `{}`: a later run with the right to delete tries again",
                report.refused, report.refused_objects[0]
            ));
        }
        if let Some(until) = &report.locked_until {
            report.warnings.push(format!(
                "{} objects are locked, the last until {until}: a later run deletes them",
                report.locked
            ));
        }
        for point in &report.damaged {
            report.warnings.push(format!(
                "point {point} is damaged: the store lost its start record or manifest; it is kept by the second copy of its manifest"
            ));
        }
        report
    }
}
