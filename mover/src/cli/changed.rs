//! `snaphaul changed`.
//!
//! Owns: printing extents while they come, and the picture of where they are. Must not: compare anything itself.

use changed_blocks::ByteLen;
use changed_blocks::heat_map::HeatMap;

use super::args::ChangedArgs;
use super::backup::open_source;
use super::diff::print;
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::{Error, Result};
use crate::pipeline::changed::{self, ChangedRequest};
use crate::pipeline::report::ChangedReport;

const ON_STOP: &str = "stopping: the list is incomplete; run it again";
/// The picture: eight rows of what fits beside the offsets on a terminal of 80 columns.
const WIDTH: usize = 64;
const CELLS: usize = 8 * WIDTH;
/// Lines that a person reads; scripts take `--json`, which has all.
const SHOWN: u64 = 40;

pub(super) fn run(run: &Run, args: &ChangedArgs) -> Result<Outcome> {
    // Nothing is committed: a source that is in use may be looked at.
    let source = open_source(&args.source, true)?;
    let base = args
        .base
        .as_deref()
        .map(|base| open_source(base, true))
        .transpose()?;
    let named = args
        .base
        .as_ref()
        .map(|base| base.to_string_lossy().into_owned());
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
    };
    let result = changed::run(&request, &run.stop_flag(), &mut sink);
    drop(monitor);
    let report = result?;
    match failure {
        Some(error) => Err(error),
        None => {
            let more = if all { 0 } else { shown.saturating_sub(SHOWN) };
            Outcome::new(&report, Text::Summary(to_text(&report, &map, more)))
        }
    }
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
    format!(
        "{more}{}{} of {} {what} in {} extents, says {} ({})",
        map.render(WIDTH),
        units::size(report.changed_bytes),
        units::size(report.size_bytes),
        report.extents,
        report.changed_blocks,
        units::seconds(report.duration_seconds)
    )
}
