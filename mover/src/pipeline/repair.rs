//! Repair: mends what can be mended without the source, and says what cannot.
//!
//! ```text
//!   verify (metadata) ─► findings ─┬─ config, keys, copy      ─► written again from the other copy
//!                                  ├─ open, snap, live, map   ─► the point is committed again, proved to hold the same
//!                                  └─ everything else         ─► lost: which ranges of which points, and what to do
//! ```
//!
//! Owns: the run and its report. Must not: guess (`rebuild` proves), rewrite an object with other bytes than it had, or repair
//! anything that it does not report. A repair that is stopped leaves what verify finds, and may be run again.

mod point;
mod rebuild;
mod recommit;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::report::{RepairReport, Repaired, VerifyFinding};
use crate::pipeline::restore::losses::describe;
use crate::pipeline::verify::{self, VerifyLevel, VerifyRequest};
use crate::repository::access::mend_roots;
use crate::repository::ids::{SessionKey, name};
use crate::repository::segments::SegmentReader;
use crate::repository::session::points::{self, PointStatus};

/// What to repair.
#[derive(Clone, Debug)]
pub struct RepairRequest {
    /// Points by id, prefix or `NAME@latest`; empty means all.
    pub points: Vec<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Repairs points and the roots of the repository. What is left damaged is in the report's `lost`; the caller must not call that a
/// success.
///
/// # Errors
/// `NotFound` for an unknown point, `Interrupted` on request, and what the store answers, `AccessDenied` above all: repair writes.
pub fn run(context: &Context, request: &RepairRequest) -> Result<RepairReport> {
    let started = Instant::now();
    if !request.dry_run {
        context.repository.config.check_writable()?;
    }
    let look = VerifyRequest {
        points: request.points.clone(),
        level: VerifyLevel::Metadata,
        sample_percent: verify::DEFAULT_SAMPLE_PERCENT,
    };
    let (found, points) = verify::check(context, &look, !request.dry_run)?;
    let mut repair = Repair {
        context,
        dry_run: request.dry_run,
        reader: Arc::new(SegmentReader::new(&context.repository)),
        report: RepairReport {
            dry_run: request.dry_run,
            points: points.len() as u64,
            warnings: found.warnings,
            ..RepairReport::default()
        },
    };
    repair.roots()?;
    let settled = repair.points(&points, &found.errors)?;
    repair.leave(found.errors, &settled);
    if !request.dry_run {
        context.repository.store.sync()?;
    }
    repair.report.duration_seconds = started.elapsed().as_secs_f64();
    Ok(repair.report)
}

/// A run of repair.
struct Repair<'a> {
    context: &'a Context,
    dry_run: bool,
    reader: Arc<SegmentReader>,
    report: RepairReport,
}

impl Repair<'_> {
    /// Config and key slots, two copies each.
    fn roots(&mut self) -> Result<()> {
        let roots = mend_roots(&self.context.repository, self.dry_run)?;
        for (object, message) in roots.mended {
            self.report.repaired.push(Repaired {
                kind: "copied".to_owned(),
                object,
                message,
                ..Repaired::default()
            });
        }
        for error in roots.lost {
            self.report.lost.push(VerifyFinding {
                kind: "damaged".to_owned(),
                object: error.object_name().unwrap_or(name::CONFIG).to_owned(),
                message: error.to_string(),
                volume: None,
                points: Vec::new(),
                ranges: Vec::new(),
            });
        }
        Ok(())
    }

    /// Mends the points that findings hurt by more than lost chunks; gives the ids of those that were settled, either way.
    fn points(
        &mut self,
        points: &[SessionKey],
        findings: &[VerifyFinding],
    ) -> Result<BTreeSet<String>> {
        let hurt: BTreeSet<&str> = findings
            .iter()
            .filter(|finding| is_metadata(&finding.object))
            .flat_map(|finding| finding.points.iter().map(String::as_str))
            .collect();
        let mut settled = BTreeSet::new();
        for key in points {
            let id = key.point().to_string();
            if !hurt.contains(id.as_str()) {
                continue;
            }
            let (volume, done) = match points::load(&self.context.repository, key) {
                Ok(found) => {
                    let found = found.filter(|point| point.status != PointStatus::Forgotten);
                    let Some(point) = found else {
                        let gone = format!("point {id} was forgotten or removed meanwhile");
                        self.report.warnings.push(gone);
                        settled.insert(id);
                        continue;
                    };
                    let done = self.point(&point);
                    (Some(point.manifest.volume), done)
                }
                // It became unreadable since it was looked at.
                Err(error) => (None, Err(error)),
            };
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let gone = format!("point {id} was forgotten or removed meanwhile: {error}");
                    self.report.warnings.push(gone);
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.report.lost.push(hopeless(&id, volume, &error));
                }
                Err(error) => return Err(error),
            }
            settled.insert(id);
        }
        Ok(settled)
    }

    /// What nobody mended is told as it was found.
    fn leave(&mut self, findings: Vec<VerifyFinding>, settled: &BTreeSet<String>) {
        let left = findings.into_iter().filter(|finding| {
            let is_root =
                finding.object.starts_with(name::CONFIG) || finding.object.starts_with(name::KEYS);
            let is_settled = is_metadata(&finding.object)
                && !finding.points.is_empty()
                && finding.points.iter().all(|point| settled.contains(point));
            !is_root && !is_settled
        });
        self.report.lost.extend(left);
    }
}

/// A point that nothing can be done for; the others are mended all the same.
fn hopeless(id: &str, volume: Option<String>, error: &Error) -> VerifyFinding {
    let next = error
        .hint_text()
        .map_or(String::new(), |hint| format!("; {hint}"));
    VerifyFinding {
        kind: "damaged".to_owned(),
        object: error.object_name().unwrap_or_default().to_owned(),
        message: format!("{}{next}", describe(error)),
        volume,
        points: vec![id.to_owned()],
        ranges: Vec::new(),
    }
}

/// Whether an object belongs to a point and holds no chunks.
fn is_metadata(object: &str) -> bool {
    [name::OPEN, name::SNAP, name::COPY, name::LIVE, name::MAP]
        .iter()
        .any(|prefix| object.starts_with(prefix))
}

#[cfg(test)]
mod tests;
