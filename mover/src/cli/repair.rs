//! `snaphaul repair`.
//!
//! Owns: flags to request, report to text. Must not: repair anything itself.

use super::args::{RepairArgs, RepositoryArgs, RunArgs};
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::repair::{self, RepairRequest};
use crate::pipeline::report::RepairReport;

const ON_STOP: &str = "stopping: what was repaired stays repaired; run it again for the rest";
/// Lines a person wants to see; `--json` has all.
const SHOWN: usize = 50;

pub(super) fn run(
    run: &Run,
    args: &RepairArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let request = RepairRequest {
        // `--all` excludes points, so that no points means all in both spellings.
        points: args.points.clone(),
        dry_run: args.dry_run,
    };
    let repository = open::repository(repository, limits, run)?;
    let monitor = run.watch("repair", ON_STOP)?;
    let result = repair::run(&run.context(&repository), &request);
    drop(monitor);
    let report = result?;
    for warning in &report.warnings {
        run.warn(warning);
    }
    Ok(Outcome::new(&report, Text::Summary(to_text(&report)))?.with_finding(finding(&report)))
}

fn finding(report: &RepairReport) -> Option<Error> {
    let first = report.lost.first()?;
    Some(
        Error::new(
            ErrorKind::Corrupt,
            format!("repair everything: {} losses stay", report.lost.len()),
        )
        .object(&first.object)
        .hint("back the hurt volumes up again, which stores anew what their sources still have; `snaphaul restore --salvage` saves the rest of a point"),
    )
}

fn to_text(report: &RepairReport) -> String {
    let mut text = String::new();
    let done = if report.dry_run { "CAN BE" } else { "REPAIR" };
    if !report.repaired.is_empty() {
        let mut table = table(done);
        for repaired in report.repaired.iter().take(SHOWN) {
            table.row([
                repaired.kind.clone(),
                repaired.object.clone(),
                repaired.volume.clone().unwrap_or_default(),
                repaired.message.clone(),
            ]);
        }
        text.push_str(&format!("{table}{}\n", more(report.repaired.len())));
    }
    if !report.lost.is_empty() {
        let mut table = table("LOST");
        for lost in report.lost.iter().take(SHOWN) {
            table.row([
                lost.kind.clone(),
                lost.object.clone(),
                lost.volume.clone().unwrap_or_default(),
                lost.message.clone(),
            ]);
        }
        text.push_str(&format!("{table}{}\n", more(report.lost.len())));
        for lost in report.lost.iter().take(SHOWN) {
            for (offset, length) in lost.ranges.iter().take(SHOWN) {
                text.push_str(&format!(
                    "{}: lost {length} bytes at {offset} of {}\n",
                    lost.object,
                    lost.points.join(" ")
                ));
            }
        }
    }
    let repaired = if report.dry_run {
        "can be repaired"
    } else {
        "repaired"
    };
    let pairs = Table::pairs([
        ("points", report.points.to_string()),
        (repaired, report.repaired.len().to_string()),
        ("lost", report.lost.len().to_string()),
        ("took", units::seconds(report.duration_seconds)),
    ]);
    format!("{text}{pairs}")
}

fn table(first: &'static str) -> Table {
    Table::new(&[
        (first, Align::Left),
        ("OBJECT", Align::Left),
        ("VOLUME", Align::Left),
        ("WHAT AND HOW", Align::Left),
    ])
}

fn more(len: usize) -> String {
    match len.checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("and {more} more; --json lists all\n"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::report::{Repaired, VerifyFinding};

    #[test]
    fn everything_repaired_and_lost_is_told() {
        let repaired = Repaired {
            kind: "copied".to_owned(),
            object: "config.b".to_owned(),
            message: "it was gone; it was written again from `config`".to_owned(),
            ..Repaired::default()
        };
        let lost = VerifyFinding {
            kind: "lost".to_owned(),
            object: "map/1".to_owned(),
            message: "it is gone".to_owned(),
            volume: Some("db".to_owned()),
            points: vec!["p1".to_owned()],
            ranges: vec![(4096, 512)],
        };
        let report = RepairReport {
            repaired: vec![repaired; 60],
            lost: vec![lost],
            ..RepairReport::default()
        };
        let text = to_text(&report);
        assert!(text.contains("written again from `config`"), "{text}");
        assert!(text.contains("and 10 more; --json lists all"), "{text}");
        assert!(
            text.contains("map/1: lost 512 bytes at 4096 of p1"),
            "{text}"
        );
        assert_eq!(finding(&report).unwrap().kind(), ErrorKind::Corrupt);
        assert!(finding(&RepairReport::default()).is_none());
    }
}
