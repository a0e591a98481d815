//! `snaphaul copy`.
//!
//! Owns: two repositories from one set of flags, and the table of what was copied. Must not: move data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::args::{CopyArgs, RepositoryArgs, RunArgs};
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::copy::{self, CopyOptions, Task};
use crate::pipeline::progress::Progress;
use crate::pipeline::report::{CopiedPoint, CopyReport};
use crate::repository::access::Repository;
use crate::repository::session::points::{self, Point, PointStatus};
use crate::repository::session::resolve::resolve;

const ON_STOP: &str =
    "stopping: what is in flight is stored, then run the same command again to resume";

pub(super) fn run(
    run: &Run,
    args: &CopyArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let started = Instant::now();
    let options = CopyOptions {
        compression: args.compression.parse()?,
        takeover_after: args.takeover_after,
    };
    let from = open::repository(repository, limits, run)?;
    let other = target(args, repository);
    let to = if args.to_no_encryption {
        open::unencrypted(&other, limits, run)?
    } else {
        open::repository(&other, limits, run)?
    };
    copy::check_pair(&from, &to)?;
    let mut report = CopyReport {
        to: to.store.url(),
        ..CopyReport::default()
    };
    let mut failed = None;
    let mut volumes: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for point in wanted(run, args, &from)? {
        let volume = point.manifest.volume.clone();
        volumes.entry(volume).or_default().push(point);
    }
    for (volume, points) in volumes {
        let volume = Volume {
            have: points::list(&from, Some(from.keys.volume_id(&volume)))?.points,
            there: points::list(&to, Some(to.keys.volume_id(&volume)))?.points,
            wanted: points,
        };
        volume.copy(run, (&from, &to), &options, &mut report, &mut failed)?;
    }
    report.fetched_bytes = report.points.iter().map(|point| point.fetched_bytes).sum();
    report.stored_bytes = report.points.iter().map(|point| point.stored_bytes).sum();
    report.duration_seconds = started.elapsed().as_secs_f64();
    let text = Text::Summary(to_text(&report));
    Ok(Outcome::new(&report, text)?.with_finding(failed))
}

/// The points of one volume, here and there.
struct Volume {
    have: Vec<Point>,
    there: Vec<Point>,
    wanted: Vec<Point>,
}

impl Volume {
    fn copy(
        mut self,
        run: &Run,
        (from, to): (&Arc<Repository>, &Arc<Repository>),
        options: &CopyOptions,
        report: &mut CopyReport,
        failed: &mut Option<Error>,
    ) -> Result<()> {
        let (_, present) = self.plan(from, to);
        report.present += present;
        let mut tried = BTreeSet::new();
        // Planned anew for each point: the copy made last is the best base of the next.
        while let Some(task) = self
            .plan(from, to)
            .0
            .into_iter()
            .find(|task| tried.insert(task.point.key))
        {
            match one(run, (from, to), &task, options) {
                Ok(copied) => {
                    copied.warnings.iter().for_each(|warning| run.warn(warning));
                    self.there.push(resolve(to, &copied.copy)?);
                    report.points.push(copied);
                }
                // One damaged point must not keep the others from being safe twice.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    run.warn(format!("point {} is not copied: {error}", task.point.id()));
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn plan(&self, from: &Repository, to: &Repository) -> (Vec<Task>, usize) {
        copy::plan((from, &self.have), (to, &self.there), &self.wanted)
    }
}

fn one(
    run: &Run,
    (from, to): (&Arc<Repository>, &Arc<Repository>),
    task: &Task,
    options: &CopyOptions,
) -> Result<CopiedPoint> {
    let progress = Arc::new(Progress::default());
    let label = format!("copy {} {}", task.point.manifest.volume, task.point.id());
    let monitor = run.watch_with(label, ON_STOP, &progress)?;
    let (reading, writing) = (
        run.context_with(from, &progress),
        run.context_with(to, &progress),
    );
    let copied = copy::run(&reading, &writing, task, options);
    drop(monitor);
    copied
}

/// The points that were asked for; damaged ones only by name.
fn wanted(run: &Run, args: &CopyArgs, from: &Arc<Repository>) -> Result<Vec<Point>> {
    if !args.all {
        let named = args.points.iter().map(|text| named(from, text));
        return named.collect();
    }
    let listing = points::list(from, None)?;
    for (key, error) in &listing.unreadable {
        run.warn(format!("point {} is left out: {error}", key.point()));
    }
    let mut intact = Vec::new();
    for point in listing.points {
        match &point.status {
            PointStatus::Complete => intact.push(point),
            PointStatus::Forgotten => {}
            PointStatus::Damaged(why) => {
                run.warn(format!("point {} is left out: {why}", point.id()));
            }
        }
    }
    Ok(intact)
}

fn named(from: &Arc<Repository>, text: &str) -> Result<Point> {
    let point = resolve(from, text)?;
    if point.status == PointStatus::Forgotten {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("copy point {}: it was forgotten", point.id()),
        )
        .object(text)
        .hint("`snaphaul points` lists the points that can be copied"));
    }
    Ok(point)
}

/// How the other repository is reached and opened: with the secret of the first where it has none of its own.
fn target(args: &CopyArgs, repository: &RepositoryArgs) -> RepositoryArgs {
    let own_secret = args.to_passphrase_file.is_some() || args.to_key_file.is_some();
    let secret = |own: &Option<_>, shared: &Option<_>| {
        if own_secret {
            own.clone()
        } else {
            shared.clone()
        }
    };
    RepositoryArgs {
        url: Some(args.to.clone()),
        recovery_sheet: None,
        passphrase_file: secret(&args.to_passphrase_file, &repository.passphrase_file),
        key_file: secret(&args.to_key_file, &repository.key_file),
        s3_endpoint: args.to_s3_endpoint.clone(),
        s3_region: args.to_s3_region.clone(),
        s3_path_style: args.to_s3_path_style,
        s3_ca_file: args.to_s3_ca_file.clone(),
    }
}

fn to_text(report: &CopyReport) -> String {
    let mut table = Table::new(&[
        ("volume", Align::Left),
        ("point", Align::Left),
        ("copy", Align::Left),
        ("size", Align::Right),
        ("fetched", Align::Right),
        ("stored", Align::Right),
        ("took", Align::Right),
    ]);
    for point in &report.points {
        table.row([
            point.volume.clone(),
            point.point.clone(),
            point.copy.clone(),
            units::size(point.size_bytes),
            units::size(point.fetched_bytes),
            units::size(point.stored_bytes),
            units::seconds(point.duration_seconds),
        ]);
    }
    let mut text = if report.points.is_empty() {
        String::new()
    } else {
        table.to_string()
    };
    text.push_str(&format!(
        "{} copied to {}, {} were there already\n",
        report.points.len(),
        report.to,
        report.present
    ));
    text
}
