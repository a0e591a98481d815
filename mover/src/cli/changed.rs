//! `snaphaul changed`.
//!
//! Owns: printing extents while they come, and the picture of where they are. Must not: compare anything itself.

use std::path::Path;

use changed_blocks::ByteLen;
use changed_blocks::heat_map::HeatMap;

use super::args::ChangedArgs;
use super::backup::open_source;
use super::csi;
use super::diff::print;
use super::run::{Outcome, Run, Text};
use super::units;
use crate::device::source::SourceDevice;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::changed::{self, ChangedRequest};
use crate::pipeline::report::{AuditReport, ChangedReport};

const ON_STOP: &str = "stopping: the list is incomplete; run it again";
/// The picture: eight rows of what fits beside the offsets on a terminal of 80 columns.
const WIDTH: usize = 64;
const CELLS: usize = 8 * WIDTH;
/// Lines that a person reads; scripts take `--json`, which has all.
const SHOWN: u64 = 40;

pub(super) fn run(run: &Run, args: &ChangedArgs) -> Result<Outcome> {
    // Nothing is committed: a source that is in use may be looked at.
    let mut held = csi::HeldVolumes::default();
    let (source, _) = open(run, args, &mut held, &args.source)?;
    let base = args.base.as_deref();
    let base = base.map(|base| open(run, args, &mut held, base));
    let (base, named) = base.transpose()?.unzip();
    let monitor = run.watch("changed", ON_STOP)?;
    let mut map = HeatMap::new(ByteLen(source.size()), CELLS);
    let (mut failure, mut shown): (Option<Error>, u64) = (None, 0);
    let all = run.output.mode().json || args.all;
    let mut sink = |extent| {
        map.add(extent);
        if failure.is_none() && (all || shown < SHOWN) {
            failure = print(&run.output, &extent).err();
        }
        shown += 1;
    };
    let request = ChangedRequest {
        source: source.as_ref(),
        base: base.as_deref().zip(named.as_deref()),
        who: args.who.as_deref(),
        audit: args.audit,
    };
    let result = changed::run(&request, &run.stop_flag(), &mut sink);
    drop((monitor, held));
    let report = result?;
    match failure {
        Some(error) => Err(error),
        None => {
            let more = if all { 0 } else { shown.saturating_sub(SHOWN) };
            let text = Text::Summary(to_text(&report, &map, more));
            Ok(Outcome::new(&report, text)?.with_finding(finding(&report)))
        }
    }
}

/// What is looked at, and how a record names it.
fn open(
    run: &Run,
    args: &ChangedArgs,
    held: &mut csi::HeldVolumes,
    source: &Path,
) -> Result<(Box<dyn SourceDevice>, String)> {
    if csi::is_meant(source) {
        let (view, snapshot) = csi::view(source, &args.driver, held, &run.stop_flag())?;
        return Ok((view, snapshot.to_owned()));
    }
    let opened = open_source(source, true)?;
    Ok((opened, source.to_string_lossy().into_owned()))
}

fn to_text(report: &ChangedReport, map: &HeatMap, more: u64) -> String {
    let more = match more {
        0 => String::new(),
        more => format!("and {more} more; --all prints every one\n"),
    };
    let what = match &report.base {
        Some(base) => format!("differ from {base}"),
        None => "are allocated".to_owned(),
    };
    let audit = report.audit.as_ref().map(audited).unwrap_or_default();
    format!(
        "{more}{}{} of {} {what} in {} extents, says {} ({}){audit}",
        map.render(WIDTH),
        units::size(report.changed_bytes),
        units::size(report.size_bytes),
        report.extents,
        report.changed_blocks,
        units::seconds(report.duration_seconds)
    )
}

fn audited(audit: &AuditReport) -> String {
    let ratio = audit
        .over_report
        .map(|ratio| format!(", {ratio:.2} times what is true"))
        .unwrap_or_default();
    let left_out = match audit.untold_bytes {
        0 => "nothing was left out".to_owned(),
        bytes => format!("{} LEFT OUT", units::size(bytes)),
    };
    format!(
        "\naudit: {left_out}; {} of it really so{ratio}; {} read",
        units::size(audit.true_bytes),
        units::size(audit.read_bytes)
    )
}

/// What was left out must end the run as an error.
fn finding(report: &ChangedReport) -> Option<Error> {
    let audit = report.audit.as_ref()?;
    let (offset, length) = audit.wrong.first()?;
    let message = format!(
        "believe {}: {} bytes were left out and {} wrongly called zero, first {length} at byte {offset}",
        report.changed_blocks, audit.untold_bytes, audit.wrong_zero_bytes
    );
    Some(
        Error::new(ErrorKind::Corrupt, message)
            .object(&report.source)
            .hint("back up with --changed-blocks scan, and report it with both states if you can"),
    )
}
