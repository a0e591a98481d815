//! `snaphaul verify`.
//!
//! Owns: flags to request, report to text. Must not: check anything itself.

use super::args::{LevelFlag, RepositoryArgs, RunArgs, VerifyArgs};
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::Result;
use crate::pipeline::report::VerifyReport;
use crate::pipeline::restore;
use crate::pipeline::verify::{self, VerifyLevel, VerifyRequest, verdict};

const ON_STOP: &str = "stopping: nothing was changed; run it again from the start";
/// Findings a person wants to see; `--json` has all.
const SHOWN_FINDINGS: usize = 50;

pub(super) fn run(
    run: &Run,
    args: &VerifyArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let request = request(args);
    let repository = open::repository(repository, limits, run)?;
    let monitor = run.watch("verify", ON_STOP)?;
    let context = run.context(&repository);
    let result = match &args.restore_test {
        Some(point) => restore::test(&context, point),
        None => verify::run(&context, &request),
    };
    drop(monitor);
    let report = result?;
    run.metrics.observe_verify(&report);
    for warning in &report.warnings {
        run.warn(warning);
    }
    Ok(Outcome::new(&report, Text::Summary(to_text(&report)))?.with_finding(verdict::of(&report)))
}

fn request(args: &VerifyArgs) -> VerifyRequest {
    VerifyRequest {
        // `--all` excludes points, so that no points means all in both spellings.
        points: args.points.clone(),
        level: match args.level {
            LevelFlag::Metadata => VerifyLevel::Metadata,
            LevelFlag::Sample => VerifyLevel::Sample,
            LevelFlag::Data => VerifyLevel::Data,
        },
        sample_percent: args.sample_percent,
    }
}

fn to_text(report: &VerifyReport) -> String {
    let mut text = String::new();
    if !report.errors.is_empty() {
        let mut table = Table::new(&[
            ("KIND", Align::Left),
            ("OBJECT", Align::Left),
            ("VOLUME", Align::Left),
            ("HURT", Align::Right),
            ("POINTS", Align::Left),
        ]);
        for finding in report.errors.iter().take(SHOWN_FINDINGS) {
            table.row([
                finding.kind.clone(),
                finding.object.clone(),
                finding.volume.clone().unwrap_or_default(),
                hurt(&finding.ranges),
                points(&finding.points),
            ]);
        }
        text.push_str(&format!("{table}"));
        for finding in report.errors.iter().take(SHOWN_FINDINGS) {
            text.push_str(&format!("\n{}: {}\n", finding.object, finding.message));
        }
        if report.errors.len() > SHOWN_FINDINGS {
            text.push_str(&format!(
                "and {} more; --json lists all\n",
                report.errors.len() - SHOWN_FINDINGS
            ));
        }
        text.push('\n');
    }
    let mut rows = vec![
        ("level", report.level.clone()),
        ("points", report.points.to_string()),
        ("objects", report.objects.to_string()),
        ("chunks checked", report.chunks.to_string()),
        ("read", units::size(report.read_bytes)),
        ("findings", report.errors.len().to_string()),
        (
            "took",
            format!(
                "{}, {}",
                units::seconds(report.duration_seconds),
                units::rate(report.read_bytes, report.duration_seconds)
            ),
        ),
    ];
    if let Some(hash) = &report.content_hash {
        rows.insert(2, ("put together", units::size(report.restored_bytes)));
        rows.insert(3, ("content hash", hash.clone()));
    }
    format!("{text}{}", Table::pairs(rows))
}

fn hurt(ranges: &[(u64, u64)]) -> String {
    if ranges.is_empty() {
        return "all".to_owned();
    }
    units::size(
        ranges
            .iter()
            .fold(0_u64, |sum, (_, length)| sum.saturating_add(*length)),
    )
}

fn points(points: &[String]) -> String {
    verdict::shortened(&points.iter().map(String::as_str).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::report::VerifyFinding;

    fn report(findings: usize) -> VerifyReport {
        let finding = VerifyFinding {
            kind: "missing".to_owned(),
            object: "seg/1".to_owned(),
            message: "it is gone; back up again".to_owned(),
            volume: Some("db".to_owned()),
            points: (0..5).map(|n| format!("p{n}")).collect(),
            ranges: vec![(0, 1 << 20), (5 << 20, 1 << 20)],
        };
        VerifyReport {
            errors: vec![finding; findings],
            points: 5,
            ..VerifyReport::default()
        }
    }

    #[test]
    fn what_is_damaged_and_whom_it_hurts_is_told() {
        let text = to_text(&report(1));
        assert!(
            text.contains("missing  seg/1   db      2 MiB  p0 p1 p2 and 2 more\n"),
            "{text}"
        );
        assert!(text.contains("seg/1: it is gone; back up again"), "{text}");
        assert!(to_text(&report(60)).contains("and 10 more; --json lists all"));
    }

    #[test]
    fn no_points_means_all() {
        let args = VerifyArgs {
            points: Vec::new(),
            all: true,
            level: LevelFlag::Data,
            sample_percent: 7.0,
            restore_test: None,
        };
        let request = request(&args);
        assert!(request.points.is_empty());
        assert_eq!(request.level, VerifyLevel::Data);
    }
}
