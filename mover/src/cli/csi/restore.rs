//! `snaphaul restore POINT csi:new`.
//!
//! Owns: a new volume, the restore to it, and its id as the answer. Must not: move data.

use serde::Serialize;

use super::super::args::{RepositoryArgs, RestoreArgs, RunArgs};
use super::super::config::invalid;
use super::super::restore::{ON_STOP, finding, request, to_text};
use super::super::run::{Outcome, Run, Text};
use super::super::{memory, open};
use super::{options, sweep_up};
use crate::attach::csi::sweep::Purpose;
use crate::attach::csi::{Driver, NEW, NewVolume, PREFIX};
use crate::error::Result;
use crate::pipeline::report::RestoreReport;
use crate::pipeline::restore::{self, TargetSpec};
use crate::repository::session::resolve::resolve;

/// The report of a restore, with the volume that it made.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    restore: &'a RestoreReport,
    driver: &'a str,
    volume_id: &'a str,
}

pub(in crate::cli) fn run(
    run: &Run,
    args: &RestoreArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    if args.target.to_str() != Some(NEW) {
        return Err(
            invalid("restore to a volume that exists: only csi:new is a target")
                .object(args.target.display())
                .hint("csi:new makes a volume; one that exists is restored to by its device"),
        );
    }
    if args.delta {
        return Err(invalid("compare a new volume with the point").hint("leave --delta out"));
    }
    let mut request = request(args)?;
    let options = options(&args.driver, Some(&args.volumes), None)?;
    let repository = open::repository(repository, limits, run)?;
    if let Some(volume) = args.point.strip_suffix("@latest") {
        memory::check(run, &repository, repository.keys.volume_id(volume))?;
    }
    let point = resolve(&repository, &args.point)?;
    // The name may stand for another point a moment later.
    request.point = point.id().to_string();
    let size = args.range.map_or(point.manifest.size, |(_, length)| length);
    let driver = Driver::connect(&options)?;
    let purpose = Purpose::Work(None);
    sweep_up(run, &driver, &options, purpose, Some(&repository))?;
    let repository_id = repository.config.repository.to_string();
    let mut volume = NewVolume::begin(&driver, &options, &repository_id)?;
    let monitor = run.watch(format!("restore {}", args.point), ON_STOP)?;
    let stop = run.stop_flag();
    let result = volume.device(size, &stop).and_then(|device| {
        request.target = TargetSpec::Path(device);
        // Nobody else has it, whatever its blocks held before.
        request.force = true;
        restore::run(&run.context(&repository), &request)
    });
    let mut report = match result {
        Ok(report) => report,
        Err(error) => {
            super::backup::cleaned(run, volume.failed());
            return Err(error.context("restore to a new volume, which is deleted again"));
        }
    };
    let (id, left) = volume.handed_over()?;
    if let Err(error) = left {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        run.warn(format!(
            "the new volume {id} is complete and stays, but something of it was left behind on this node, which the next run with \
             this driver removes: {error}{}",
            cause.map(|cause| format!(": {cause}")).unwrap_or_default()
        ));
    }
    drop(monitor);
    report.target = format!("{PREFIX}{id}");
    run.metrics.observe_restore(&report);
    for warning in &report.warnings {
        run.warn(warning);
    }
    let text = format!("{}volume id  {id}\n", to_text(&report));
    let answer = Report {
        restore: &report,
        driver: &driver.name,
        volume_id: &id,
    };
    Ok(Outcome::new(&answer, Text::Summary(text))?.with_finding(finding(&report)))
}
