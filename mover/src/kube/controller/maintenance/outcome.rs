//! What the begin and end of a run mean for the status of its repository.
//!
//! Owns: the fields of the runs, the condition `Healthy`, and what people are told. Must not: read a clock, or speak to anybody.
//!
//! A sample that finds nothing says nothing about damage that an earlier one found elsewhere: points that were found damaged make the
//! repository unhealthy until they are gone, or until all data was read and found right.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Done, Task, Verified, due};
use crate::error::{Error, Result};
use crate::kube::api::SnapshotRepositoryStatus as Status;
use crate::kube::api::conditions::{HEALTHY, Reason};
use crate::kube::api::repository::{Maintenance, MaintenanceRun};
use crate::kube::controller::conditions::{self, Is};
use crate::kube::controller::events::Note;
use crate::kube::controller::repository::explained;
use crate::pipeline::report::GcReport;
use crate::pipeline::verify::verdict;

/// Damaged points that are listed; the rest is counted.
const LISTED: usize = 64;
/// Failures in a row after which nobody may call the repository healthy.
const TOO_MANY: i64 = 3;
/// Longest message of a run, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;

/// When it is, and which version of the object it is about.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// The object's generation.
    pub generation: Option<i64>,
}

/// The last run of a task.
#[must_use]
pub fn last(status: &Status, task: Task) -> Option<&MaintenanceRun> {
    match task {
        Task::Gc => status.last_gc.as_ref(),
        Task::Verify => status.last_verify.as_ref(),
    }
}

/// A run begins. What the one before brought stays until this one has brought something.
#[must_use]
pub fn begun(old: &Status, task: Task, now: Timestamp) -> Status {
    let run = match last(old, task) {
        Some(last) => MaintenanceRun {
            started: Time(now),
            finished: None,
            // One without an end is one that failed.
            failures: last.failures + i64::from(last.finished.is_none()),
            ..last.clone()
        },
        None => MaintenanceRun::began(now),
    };
    let mut status = old.clone();
    set_run(&mut status, task, run);
    status
}

/// A run ended: the new status, and what people are told.
#[must_use]
pub fn ended(
    old: &Status,
    task: Task,
    outcome: &Result<Done>,
    at: Moment,
) -> (Status, Option<Note>) {
    let mut status = old.clone();
    let mut run = last(old, task)
        .cloned()
        .unwrap_or_else(|| MaintenanceRun::began(at.now));
    run.finished = Some(Time(at.now));
    let note = match outcome {
        Err(error) => Some(failed(&mut run, task, error)),
        Ok(done) => {
            run.failures = 0;
            run.completed = Some(Time(at.now));
            match done {
                Done::Gc(report) => collected(&mut status, &mut run, report),
                Done::Verify(verified) => checked(&mut status, &mut run, verified),
            }
        }
    };
    run.message = run.message.map(shortened);
    set_run(&mut status, task, run);
    judge(&mut status, at);
    (status, note)
}

/// Writes down when each task is next; nothing where it is turned off.
pub fn schedule(status: &mut Status, settings: &Maintenance, created: Timestamp, now: Timestamp) {
    let next = |task| {
        let interval = due::interval(settings, task)?;
        Some(Time(due::due(interval, created, last(status, task), now)))
    };
    let (gc, verify) = (next(Task::Gc), next(Task::Verify));
    status.next_gc = gc;
    status.next_verify = verify;
}

fn set_run(status: &mut Status, task: Task, run: MaintenanceRun) {
    let place = match task {
        Task::Gc => &mut status.last_gc,
        Task::Verify => &mut status.last_verify,
    };
    *place = Some(run);
}

fn failed(run: &mut MaintenanceRun, task: Task, error: &Error) -> Note {
    run.failures += 1;
    run.succeeded = false;
    let why = explained(error);
    let what = match task {
        Task::Gc => "garbage could not be collected",
        Task::Verify => "the repository could not be verified",
    };
    run.message = Some(why.clone());
    Note::warning(Reason::MaintenanceFailed, format!("{what}: {why}"))
}

fn collected(status: &mut Status, run: &mut MaintenanceRun, report: &GcReport) -> Option<Note> {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    run.freed_bytes = Some(saturated(report.freed_bytes));
    run.read_bytes = None;
    run.findings = Some(count(report.damaged.len()));
    run.succeeded = report.damaged.is_empty() && report.refused == 0;
    status.unfinished_sessions = Some(count(report.unfinished.len()));
    status.dead_bytes = Some(saturated(report.dead_bytes_left));
    let message = gc_message(report);
    run.message = Some(message.clone());
    if !run.succeeded {
        return Some(Note::warning(Reason::Collected, message));
    }
    // A run that found nothing to do is no news.
    let did_something = report.points_purged + report.sessions_purged + report.freed_bytes > 0;
    did_something.then(|| Note::normal(Reason::Collected, message))
}

fn gc_message(report: &GcReport) -> String {
    let mut text = format!(
        "freed {} bytes: purged {} points and {} dead sessions, deleted {} data and {} map segments, rewrote {}",
        report.freed_bytes,
        report.points_purged,
        report.sessions_purged,
        report.segments_deleted,
        report.map_segments_deleted,
        report.segments_rewritten,
    );
    if !report.damaged.is_empty() {
        let shown = verdict::shortened(&borrowed(&report.damaged));
        text.push_str(&format!(
            "; kept points whose records the store damaged: {shown}; `snaphaul repair` mends what can be mended"
        ));
    }
    if report.refused > 0 {
        text.push_str(&format!(
            "; the store refused to delete {} objects: compare the account's rights with the policy for collectors",
            report.refused
        ));
    }
    if report.locked > 0 {
        text.push_str(&format!("; {} objects are locked", report.locked));
    }
    text
}

fn checked(status: &mut Status, run: &mut MaintenanceRun, verified: &Verified) -> Option<Note> {
    let report = &verified.report;
    let found: Vec<String> = sorted(report.errors.iter().flat_map(|finding| &finding.points));
    let known = i64::try_from(status.damaged_points.len()).unwrap_or(i64::MAX);
    // Those that were too many to be listed are thought of until everything was read.
    let unlisted = match status.damaged_point_count {
        Some(all) if !verified.all_data => all.saturating_sub(known).max(0),
        _ => 0,
    };
    let still = verified.still_there.iter().filter(|_| !verified.all_data);
    let hurt = sorted(found.iter().chain(still));
    let count = i64::try_from(hurt.len())
        .unwrap_or(i64::MAX)
        .saturating_add(unlisted);
    status.damaged_points = hurt.into_iter().take(LISTED).collect();
    status.damaged_point_count = (count > 0).then_some(count);
    run.findings = Some(i64::try_from(report.errors.len()).unwrap_or(i64::MAX));
    run.read_bytes = Some(saturated(report.read_bytes));
    run.freed_bytes = None;
    run.succeeded = report.errors.is_empty();
    match verdict::of(report) {
        Some(error) => {
            let message = explained(&error);
            run.message = Some(message.clone());
            Some(Note::warning(Reason::DamageFound, message))
        }
        None => {
            run.message = Some(format!(
                "nothing is wrong in {} points, {} objects and {} chunks (level {})",
                report.points, report.objects, report.chunks, report.level
            ));
            None
        }
    }
}

/// Sets `Healthy` from what is known of both kinds of runs.
fn judge(status: &mut Status, at: Moment) {
    let of = |task, field: fn(&MaintenanceRun) -> i64| last(status, task).map_or(0, field);
    let failures = of(Task::Gc, |run| run.failures).max(of(Task::Verify, |run| run.failures));
    let (is, reason, message) = if status.damaged_point_count.is_some()
        || of(Task::Verify, |run| run.findings.unwrap_or(0)) > 0
        || of(Task::Gc, |run| run.findings.unwrap_or(0)) > 0
    {
        (Is::False, Reason::DamageFound, damage(status))
    } else if failures >= TOO_MANY {
        let (task, run) = Task::ALL
            .iter()
            .filter_map(|task| Some((task, last(status, *task)?)))
            .max_by_key(|(_, run)| run.failures)
            .map_or(("maintenance", None), |(task, run)| {
                (task.as_str(), Some(run))
            });
        let why = run.and_then(|run| run.message.clone()).unwrap_or_default();
        let message = format!("{task} failed {failures} times in a row: {why}");
        (Is::Unknown, Reason::MaintenanceFailed, message)
    } else if of(Task::Verify, |run| i64::from(run.completed.is_some())) > 0 {
        let text = "the last verification found nothing wrong".to_owned();
        (Is::True, Reason::Verified, text)
    } else {
        let text = "the repository was not verified yet".to_owned();
        (Is::Unknown, Reason::NotVerified, text)
    };
    let time = (at.now, at.generation);
    conditions::set(
        &mut status.conditions,
        HEALTHY,
        (is, reason),
        &message,
        time,
    );
}

fn damage(status: &Status) -> String {
    let mut parts = Vec::new();
    if let Some(count) = status.damaged_point_count {
        let points = verdict::shortened(&borrowed(&status.damaged_points));
        parts.push(format!("{count} damaged points: {points}"));
    }
    for task in [Task::Verify, Task::Gc] {
        let run = last(status, task).filter(|run| run.findings.unwrap_or(0) > 0);
        parts.extend(run.and_then(|run| run.message.clone()));
    }
    if parts.len() == 1 && status.damaged_point_count.is_some() {
        parts.push(
            "back their volumes up again, and delete these backups or set verifyLevel to Data once they are mended"
                .to_owned(),
        );
    }
    parts.join("; ")
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn sorted<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    let set: std::collections::BTreeSet<&String> = texts.collect();
    set.into_iter().cloned().collect()
}

fn saturated(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn shortened(mut text: String) -> String {
    let end = (0..=MAX_MESSAGE_BYTES.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
