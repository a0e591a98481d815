//! `snaphaul diff`.
//!
//! Owns: printing extents while they are found. Must not: compare anything itself, or collect the extents.

use changed_blocks::{Extent, ExtentKind};
use serde_json::{Map, Value};

use super::args::{DiffArgs, RepositoryArgs, RunArgs};
use super::open;
use super::output::Output;
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::{Error, Result};
use crate::pipeline::diff;
use crate::pipeline::report::DiffReport;

const ON_STOP: &str = "stopping: the list is incomplete; run it again";

pub(super) fn run(
    run: &Run,
    args: &DiffArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let repository = open::repository(repository, limits, run)?;
    let monitor = run.watch("diff", ON_STOP)?;
    let mut failure: Option<Error> = None;
    let mut sink = |extent: Extent| {
        if failure.is_none() {
            failure = print(&run.output, &extent).err();
        }
    };
    let result = diff::run(&run.context(&repository), &args.from, &args.to, &mut sink);
    drop(monitor);
    let report = result?;
    match failure {
        Some(error) => Err(error),
        None => Outcome::new(&report, Text::Summary(to_text(&report))),
    }
}

pub(super) fn print(output: &Output, extent: &Extent) -> Result<()> {
    let kind = match extent.kind {
        ExtentKind::Data => "data",
        ExtentKind::Zero => "zero",
    };
    if output.mode().json {
        return output.json_line(
            "extent",
            Map::from_iter([
                ("offset".to_owned(), Value::from(extent.offset.0)),
                ("length".to_owned(), Value::from(extent.len.0)),
                ("kind".to_owned(), Value::from(kind)),
            ]),
        );
    }
    output.answer(&format!(
        "{:#014x} {:>14}  {kind}",
        extent.offset.0, extent.len.0
    ))
}

fn to_text(report: &DiffReport) -> String {
    format!(
        "{} differ in {} extents ({})",
        units::size(report.changed_bytes),
        report.extents,
        units::seconds(report.duration_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::OutputMode;
    use crate::cli::output::tests::captured;

    fn printed(json: bool) -> String {
        let (output, out, _) = captured(OutputMode {
            json,
            ..OutputMode::default()
        });
        print(&output, &Extent::data(1 << 20, 4096)).unwrap();
        print(&output, &Extent::zero(1 << 30, 131_072)).unwrap();
        output.flush().unwrap();
        out.text()
    }

    #[test]
    fn extents_are_columns_for_people() {
        let text = printed(false);
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words,
            [
                ["0x000000100000", "4096", "data"],
                ["0x000040000000", "131072", "zero"]
            ]
        );
    }

    #[test]
    fn extents_are_lines_for_scripts() {
        let text = printed(true);
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["type"], "extent");
        assert_eq!(
            (&first["offset"], &first["length"]),
            (&(1 << 20).into(), &4096.into())
        );
        assert_eq!(first["kind"], "data");
        assert_eq!(text.lines().count(), 2);
    }
}
