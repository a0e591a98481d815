//! `snaphaul backup`.
//!
//! Owns: flags to request, report to text. Must not: move data.

use std::panic::resume_unwind;
use std::path::Path;

use super::args::{BackupArgs, EngineFlag, RepositoryArgs, RunArgs};
use super::config;
use super::csi;
use super::memory;
use super::open;
use super::output::table::Table;
use super::run::{Outcome, Run, Text};
use super::units;
use crate::device::queue::EngineChoice;
use crate::device::rbd::{self, RbdVolume};
use crate::device::source::{Source, SourceDevice, SourceOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::backup::{self, BackupRequest, ChangedBlocksChoice, ParentChoice};
use crate::pipeline::report::BackupReport;

pub(super) const ON_STOP: &str =
    "stopping: what is in flight is stored, then run the same command again to resume";

pub(super) fn run(
    run: &Run,
    args: &BackupArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    if csi::is_meant(&args.source) {
        return csi::backup(run, args, repository, limits);
    }
    let request = request(args)?;
    // Deriving the keys takes a core, reaching a cluster takes waiting: a fifth of a short backup each.
    let (repository, source) = std::thread::scope(|scope| {
        let source = scope.spawn(|| open_source(&args.source, args.allow_live));
        let repository = open::repository(repository, limits, run);
        (repository, source.join())
    });
    let (repository, source) = (
        repository?,
        source.unwrap_or_else(|panic| resume_unwind(panic))?,
    );
    let volume = repository.keys.volume_id(&request.volume);
    memory::check(run, &repository, volume)?;
    let monitor = run.watch(format!("backup {}", request.volume), ON_STOP)?;
    let result = backup::run(&run.context(&repository), source.as_ref(), &request);
    drop(monitor);
    let report = result?;
    if let Some(key) = report.session {
        memory::took(run, &repository, &request.volume, key);
    }
    run.metrics.observe_backup(&report);
    for warning in &report.warnings {
        run.warn(warning);
    }
    Outcome::new(&report, Text::Summary(to_text(&report)))
}

/// What SOURCE stands for: an RBD image, a file or a block device.
pub(super) fn open_source(source: &Path, allow_live: bool) -> Result<Box<dyn SourceDevice>> {
    let options = SourceOptions { allow_live };
    match source.to_str().filter(|text| rbd::is_meant(text)) {
        Some(image) => Ok(Box::new(RbdVolume::open(image, &options)?)),
        None => Ok(Box::new(Source::open(source, &options)?)),
    }
}

/// The name of the volume: that of the image without its snapshot, or of the file.
fn volume(args: &BackupArgs) -> Result<String> {
    if csi::is_meant(&args.source) {
        return csi::volume_name(args.volume.as_deref(), &args.source);
    }
    let flag = args.volume.as_deref();
    let Some(text) = args.source.to_str().filter(|text| rbd::is_meant(text)) else {
        return config::volume_name(flag, &args.source);
    };
    let image = rbd::image_of(text)?;
    if flag.is_none() && rbd::is_snapshot_handle(text) {
        // Each snapshot would be a volume of its own: no parent, ever, and nobody would be told.
        let message = "take a volume name from a snapshot's handle: each snapshot has another";
        return Err(Error::new(ErrorKind::InvalidRequest, message)
            .object(text)
            .hint("give all snapshots of the volume one name with --volume NAME, so that each builds on the one before"));
    }
    config::volume_name(flag, Path::new(&image))
}

pub(super) fn request(args: &BackupArgs) -> Result<BackupRequest> {
    Ok(BackupRequest {
        volume: volume(args)?,
        parent: match args.parent.as_str() {
            "auto" => ParentChoice::Auto,
            "none" => ParentChoice::None,
            point => ParentChoice::Point(point.to_owned()),
        },
        changed_blocks: changed_blocks(&args.changed_blocks),
        base: args.base.clone(),
        compression: args.compression.parse()?,
        tags: config::tags(&args.tags)?,
        group: args
            .group
            .as_deref()
            .map(|group| config::checked_name("group", group))
            .transpose()?,
        allow_live: args.allow_live,
        takeover_after: args.takeover_after,
        engine: engine(args.engine),
        order: None,
        recorded: None,
    })
}

/// What a flag asks for; a name that no source has is refused once the source is open.
fn changed_blocks(flag: &str) -> ChangedBlocksChoice {
    match flag {
        "auto" => ChangedBlocksChoice::Auto,
        "scan" => ChangedBlocksChoice::Scan,
        "hole-map" => ChangedBlocksChoice::HoleMap,
        "none" => ChangedBlocksChoice::None,
        other => match other.strip_prefix("extents:") {
            Some(file) => ChangedBlocksChoice::ExtentsFile(file.into()),
            None => ChangedBlocksChoice::Source(other.to_owned()),
        },
    }
}

/// The engine that a flag names.
pub(super) fn engine(flag: EngineFlag) -> EngineChoice {
    match flag {
        EngineFlag::Auto => EngineChoice::Auto,
        EngineFlag::IoUring => EngineChoice::IoUring,
        EngineFlag::Threads => EngineChoice::Threads,
    }
}

pub(super) fn to_text(report: &BackupReport) -> String {
    let mut pairs = vec![
        ("point", report.point.clone()),
        ("volume", report.volume.clone()),
        (
            "parent",
            report.parent.clone().unwrap_or_else(|| "none".to_owned()),
        ),
        ("size", units::size(report.size_bytes)),
        ("  zero", units::size(report.zero_bytes)),
        ("  unchanged", units::size(report.unchanged_bytes)),
        ("  deduplicated", units::size(report.deduplicated_bytes)),
        ("  new", units::size(report.new_bytes)),
        ("read", units::size(report.read_bytes)),
        (
            "stored",
            format!(
                "{} in {} objects",
                units::size(report.stored_bytes),
                report.put_requests
            ),
        ),
    ];
    if report.resumed_bytes > 0 {
        pairs.push(("resumed", units::size(report.resumed_bytes)));
    }
    pairs.push((
        "changed blocks",
        format!(
            "{} ({})",
            report.changed_blocks, report.changed_blocks_reason
        ),
    ));
    // A file that is only read whole may never be compared with: scripts are told, people are not.
    let needed = report.base_needed_by.as_ref();
    if let Some(name) = needed.filter(|name| **name == report.changed_blocks) {
        let next =
            format!("{name} needs the snapshot of this point: keep it until the next backup");
        pairs.push(("next delta", next));
    }
    pairs.push((
        "took",
        format!(
            "{}, read {}",
            units::seconds(report.duration_seconds),
            units::rate(report.read_bytes, report.duration_seconds)
        ),
    ));
    Table::pairs(pairs).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn args(line: &str) -> BackupArgs {
        let cli = Cli::try_parse_from(std::iter::once("snaphaul").chain(line.split_whitespace()))
            .unwrap();
        match cli.command {
            Command::Backup(args) => args,
            other => panic!("not a backup: {other:?}"),
        }
    }

    #[test]
    fn flags_become_a_request() {
        let line = "backup /d/x.img --parent 3f9a --changed-blocks scan --tag a=b --group g1 --allow-live \
                    --takeover-after 90s --engine threads";
        let request = request(&args(line)).unwrap();
        assert_eq!(request.volume, "x.img");
        assert_eq!(request.parent, ParentChoice::Point("3f9a".to_owned()));
        assert_eq!(request.changed_blocks, ChangedBlocksChoice::Scan);
        assert_eq!(request.tags.len(), 1);
        assert_eq!(request.group.as_deref(), Some("g1"));
        assert!(request.allow_live);
        assert_eq!(request.takeover_after.as_secs(), 90);
        assert_eq!(request.engine, EngineChoice::Threads);
    }

    #[test]
    fn words_for_the_parent_are_no_points() {
        assert_eq!(
            request(&args("backup x")).unwrap().parent,
            ParentChoice::Auto
        );
        assert_eq!(
            request(&args("backup x --parent none")).unwrap().parent,
            ParentChoice::None
        );
    }

    #[test]
    fn bad_values_are_refused() {
        for line in [
            "backup x --compression rar",
            "backup x --tag a",
            "backup x --group *",
            "backup x --volume @",
        ] {
            assert_eq!(
                request(&args(line)).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{line}"
            );
        }
    }

    #[test]
    fn a_snapshots_handle_is_no_name_of_a_volume() {
        let handle = "0001-0024-fed5480a-f00f-417a-a51d-31d8a8144c03-0000000000000003-eee8e87e-9f8a-4c3b-9b0e-0242ac110004";
        let error = request(&args(&format!("backup rbd:csi-snap={handle}"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.hint_text().unwrap().contains("--volume"), "{error}");
        let named = format!("backup rbd:csi-snap={handle} --volume db");
        assert_eq!(request(&args(&named)).unwrap().volume, "db");
        let volume = request(&args(&format!("backup rbd:csi-vol={handle}"))).unwrap();
        assert!(volume.volume.starts_with("csi-vol-"), "{}", volume.volume);
    }

    #[test]
    fn the_text_tells_where_the_bytes_went() {
        let report = BackupReport {
            point: "ab-cd".to_owned(),
            size_bytes: 1 << 30,
            new_bytes: 3 << 20,
            read_bytes: 1 << 30,
            duration_seconds: 2.0,
            ..BackupReport::default()
        };
        let text = to_text(&report);
        for part in [
            "ab-cd",
            "1 GiB",
            "3 MiB",
            "512 MiB/s",
            "2.00 s",
            "parent          none",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        assert!(!text.contains("resumed"), "{text}");
    }
}
