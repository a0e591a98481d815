//! `snaphaul restore`.
//!
//! Owns: flags to request, report to text. Must not: move data.

use std::path::Path;

use super::args::{RepositoryArgs, RestoreArgs, RunArgs};
use super::backup::engine;
use super::config::invalid;
use super::csi;
use super::memory;
use super::open;
use super::output::table::Table;
use super::run::{Outcome, Run, Text};
use super::units;
use crate::device::rbd;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::report::RestoreReport;
use crate::pipeline::restore::{self, RestoreRequest, TargetSpec};

pub(super) const ON_STOP: &str =
    "stopping: the target is incomplete; run again with --delta to write only what is missing";
/// Lost ranges a person wants to see; `--json` has all.
const SHOWN_RANGES: usize = 20;

pub(super) fn run(
    run: &Run,
    args: &RestoreArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    if csi::is_meant(&args.target) {
        return csi::restore(run, args, repository, limits);
    }
    let request = request(args)?;
    let repository = open::repository(repository, limits, run)?;
    if let Some(volume) = args.point.strip_suffix("@latest") {
        memory::check(run, &repository, repository.keys.volume_id(volume))?;
    }
    let monitor = run.watch(format!("restore {}", args.point), ON_STOP)?;
    let result = restore::run(&run.context(&repository), &request);
    drop(monitor);
    let report = result.map_err(|error| how_to_resume(error, args))?;
    run.metrics.observe_restore(&report);
    for warning in &report.warnings {
        run.warn(warning);
    }
    Ok(Outcome::new(&report, Text::Summary(to_text(&report)))?.with_finding(finding(&report)))
}

pub(super) fn request(args: &RestoreArgs) -> Result<RestoreRequest> {
    let to_stdout = args.target == Path::new("-");
    if to_stdout && (args.delta || args.force) {
        return Err(invalid("read or overwrite stdout")
            .hint("--delta and --force need a file or device as the target"));
    }
    Ok(RestoreRequest {
        point: args.point.clone(),
        target: if to_stdout {
            TargetSpec::Stdout
        } else {
            target(&args.target)
        },
        force: args.force,
        delta: args.delta,
        range: args.range,
        salvage: args.salvage,
        engine: engine(args.engine),
        forgotten: args.forgotten,
    })
}

fn target(text: &Path) -> TargetSpec {
    match text.to_str().filter(|text| rbd::is_meant(text)) {
        Some(image) => TargetSpec::Rbd(image.to_owned()),
        None => TargetSpec::Path(text.to_owned()),
    }
}

/// A stopped restore goes on with another flag than a stopped backup.
fn how_to_resume(error: Error, args: &RestoreArgs) -> Error {
    match error.kind() {
        ErrorKind::Interrupted if args.target != Path::new("-") => {
            error.hint("run the same command with --delta to write only what is missing")
        }
        _ => error,
    }
}

pub(super) fn finding(report: &RestoreReport) -> Option<Error> {
    if report.lost.is_empty() {
        return None;
    }
    let bytes = report.lost.iter().map(|range| range.length).sum();
    Some(
        Error::new(
            ErrorKind::Corrupt,
            format!("restore everything: {} in {} ranges are lost and read as zero", units::size(bytes), report.lost.len()),
        )
        .object(&report.target)
        .hint("try an older or newer point for the lost ranges: `snaphaul verify` says which points are hurt"),
    )
}

pub(super) fn to_text(report: &RestoreReport) -> String {
    let mut text = Table::pairs([
        ("point", report.point.clone()),
        ("target", report.target.clone()),
        ("size", units::size(report.size_bytes)),
        ("  written", units::size(report.written_bytes)),
        ("  zero", units::size(report.zero_bytes)),
        ("  already right", units::size(report.skipped_bytes)),
        (
            "took",
            format!(
                "{}, {}",
                units::seconds(report.duration_seconds),
                units::rate(
                    report.written_bytes.saturating_add(report.skipped_bytes),
                    report.duration_seconds
                )
            ),
        ),
    ])
    .to_string();
    for range in report.lost.iter().take(SHOWN_RANGES) {
        text.push_str(&format!(
            "lost {} bytes at {}: {}\n",
            range.length, range.offset, range.why
        ));
    }
    if let Some(more) = report
        .lost
        .len()
        .checked_sub(SHOWN_RANGES)
        .filter(|more| *more > 0)
    {
        text.push_str(&format!("and {more} more; --json lists all\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::pipeline::report::LostRange;

    fn args(line: &str) -> RestoreArgs {
        let cli = Cli::try_parse_from(std::iter::once("snaphaul").chain(line.split_whitespace()))
            .unwrap();
        match cli.command {
            Command::Restore(args) => args,
            other => panic!("not a restore: {other:?}"),
        }
    }

    fn with_lost(count: usize) -> RestoreReport {
        let lost = |n: usize| LostRange {
            offset: n as u64,
            length: 2,
            why: "gone".to_owned(),
        };
        RestoreReport {
            lost: (0..count).map(lost).collect(),
            ..RestoreReport::default()
        }
    }

    #[test]
    fn flags_become_a_request() {
        let request = request(&args("restore p t --force --range 4KiB:8KiB --salvage")).unwrap();
        assert!(request.force && request.salvage && !request.delta);
        assert_eq!(request.range, Some((4096, 8192)));
        assert!(matches!(request.target, TargetSpec::Path(path) if path == Path::new("t")));
    }

    #[test]
    fn a_dash_is_stdout_and_takes_no_delta() {
        assert!(matches!(
            request(&args("restore p -")).unwrap().target,
            TargetSpec::Stdout
        ));
        assert_eq!(
            request(&args("restore p - --delta")).unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }

    #[test]
    fn an_interrupted_restore_resumes_with_delta() {
        let stopped = || Error::new(ErrorKind::Interrupted, "stopped on request").hint("run again");
        assert!(
            how_to_resume(stopped(), &args("restore p t"))
                .hint_text()
                .unwrap()
                .contains("--delta")
        );
        assert_eq!(
            how_to_resume(stopped(), &args("restore p -")).hint_text(),
            Some("run again")
        );
    }

    #[test]
    fn lost_ranges_are_a_finding() {
        assert!(finding(&with_lost(0)).is_none());
        assert_eq!(finding(&with_lost(3)).unwrap().kind(), ErrorKind::Corrupt);
        let text = to_text(&with_lost(25));
        assert_eq!(text.matches("lost 2 bytes").count(), SHOWN_RANGES);
        assert!(text.ends_with("and 5 more; --json lists all\n"), "{text}");
    }
}
