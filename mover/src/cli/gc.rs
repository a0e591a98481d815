//! `snaphaul gc`.
//!
//! Owns: flags to request, report to text. Must not: delete anything itself.

use super::args::{GcArgs, RepositoryArgs, RunArgs};
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::Result;
use crate::pipeline::gc::{self, GcRequest};
use crate::pipeline::report::GcReport;

const ON_STOP: &str = "stopping: what is deleted so far was garbage; run it again to go on";
/// Points and sessions a person wants to see; `--json` has all.
const SHOWN: usize = 20;

pub(super) fn run(
    run: &Run,
    args: &GcArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let request = GcRequest {
        dry_run: args.dry_run,
        fence_after: args.fence_after,
        abort: args.abort.clone(),
        any_host: args.any_host,
        rewrite: !args.no_rewrite,
        thorough: args.thorough,
        ..GcRequest::default()
    };
    let repository = open::repository(repository, limits, run)?;
    let monitor = run.watch("gc", ON_STOP)?;
    let result = gc::run(&run.context(&repository), &request);
    drop(monitor);
    let report = result?;
    run.metrics.observe_gc(&report);
    for warning in &report.warnings {
        run.warn(warning);
    }
    Outcome::new(&report, Text::Summary(to_text(&report)))
}

fn to_text(report: &GcReport) -> String {
    let mut text = String::new();
    if !report.unfinished.is_empty() {
        let mut table = Table::new(&[
            ("UNFINISHED SESSION", Align::Left),
            ("KIND", Align::Left),
            ("VOLUME", Align::Left),
            ("HOST", Align::Left),
            ("PROCESS", Align::Right),
        ]);
        for session in report.unfinished.iter().take(SHOWN) {
            table.row([
                session.session.clone(),
                session.kind.to_owned(),
                session.volume.clone(),
                session.host.clone(),
                session.pid.to_string(),
            ]);
        }
        text.push_str(&format!("{table}{}\n", more(report.unfinished.len())));
    }
    if report.dry_run && !report.points.is_empty() {
        let mut table = Table::new(&[("POINT TO PURGE", Align::Left)]);
        for point in report.points.iter().take(SHOWN) {
            table.row([point.clone()]);
        }
        text.push_str(&format!("{table}{}\n", more(report.points.len())));
    }
    text.push_str(&totals(report).to_string());
    text
}

fn more(count: usize) -> String {
    match count.checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("and {more} more; --json lists all\n"),
        None => String::new(),
    }
}

fn totals(report: &GcReport) -> Table {
    let named = |would, done| if report.dry_run { would } else { done };
    let sessions = report.sessions_purged;
    let mut pairs = vec![
        (
            named("would purge", "purged"),
            format!("{} points, {sessions} dead sessions", report.points_purged),
        ),
        (
            named("would delete", "deleted"),
            format!(
                "{} data and {} map segments",
                report.segments_deleted, report.map_segments_deleted
            ),
        ),
        (
            named("would rewrite", "rewrote"),
            format!("{} sparse segments", report.segments_rewritten),
        ),
        (
            named("would free", "freed"),
            units::size(report.freed_bytes),
        ),
        (
            named("would write", "wrote"),
            units::size(report.written_bytes),
        ),
    ];
    if report.dead_bytes_left > 0 {
        let left = units::size(report.dead_bytes_left);
        pairs.push((
            "left dead",
            format!("about {left} in segments that stay as they are"),
        ));
    }
    let count = |items: usize| u64::try_from(items).unwrap_or(u64::MAX);
    let some = [
        (named("would fence", "fenced"), count(report.fenced.len())),
        ("kept unfinished", count(report.unfinished.len())),
        ("refused by store", report.refused),
        ("locked", report.locked),
        ("copies added", report.copies_added),
        ("started over", report.started_over),
    ];
    let some = some.into_iter().filter(|(_, number)| *number > 0);
    pairs.extend(some.map(|(name, number)| (name, number.to_string())));
    pairs.push(("took", units::seconds(report.duration_seconds)));
    Table::pairs(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::report::UnfinishedSession;

    fn report(dry_run: bool) -> GcReport {
        GcReport {
            dry_run,
            points: (0..25).map(|n| format!("p{n:02}")).collect(),
            points_purged: 25,
            segments_deleted: 3,
            freed_bytes: 96 << 20,
            unfinished: vec![UnfinishedSession {
                session: "ab".repeat(16),
                kind: "backup",
                volume: "db".to_owned(),
                host: "node1".to_owned(),
                pid: 77,
            }],
            ..GcReport::default()
        }
    }

    #[test]
    fn a_dry_run_says_what_would_be_done_and_to_which_points() {
        let text = to_text(&report(true));
        for part in [
            "would free",
            "96 MiB",
            "p19",
            "and 5 more",
            "node1",
            "would purge",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        assert!(!text.contains("p20"), "{text}");
    }

    #[test]
    fn a_run_says_what_was_done() {
        let text = to_text(&report(false));
        assert!(text.contains("freed") && !text.contains("would"), "{text}");
        assert!(text.contains("25 points"), "{text}");
        assert!(!text.contains("refused"), "{text}");
    }
}
