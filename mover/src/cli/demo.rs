//! `snaphaul demo`: the whole way of a volume, with figures.
//!
//! ```text
//!   sample disk ─► full backup ─► change ─► incremental backup ─► restore ─► compare ─► verify
//! ```
//!
//! Owns: the story and its table. Must not: take another way than the commands do: it calls the same pipelines.

mod compare;
mod sample;
mod workspace;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use zeroize::Zeroizing;

use super::args::DemoArgs;
use super::open;
use super::output::table::{Align, Table};
use super::run::{Outcome, Run, Text};
use super::units;
use crate::device::queue::EngineChoice;
use crate::device::source::{Source, SourceOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::backup::{self, BackupRequest, ChangedBlocksChoice, ParentChoice};
use crate::pipeline::progress::Progress;
use crate::pipeline::report::{BackupReport, VerifyReport};
use crate::pipeline::restore::{self, RestoreRequest, TargetSpec};
use crate::pipeline::verify::{self, VerifyLevel, VerifyRequest};
use crate::repository::access::{self, InitOptions, Repository};
use crate::repository::format::codec::Compression;
use crate::repository::format::crypto::Cipher;
use crate::repository::format::key_slot::Secret;
use crate::repository::ids::random;
use crate::repository::store::connect::StoreOptions;
use crate::repository::store::probe::{ProbeOptions, probe};
use workspace::Workspace;

const ON_STOP: &str = "stopping the demo";
const VOLUME: &str = "sample";

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Step {
    step: &'static str,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    written_bytes: u64,
    duration_seconds: f64,
}

#[derive(Debug, Serialize)]
struct DemoReport {
    steps: Vec<Step>,
    identical: bool,
    kept: Option<PathBuf>,
}

pub(super) fn run(run: &Run, args: &DemoArgs) -> Result<Outcome> {
    let workspace = Workspace::create(args.dir.as_deref(), args.keep)?;
    let (disk, restored) = (workspace.path("disk.img"), workspace.path("restored.img"));
    let mut steps = vec![sample_disk(run, &disk)?];
    let repository = new_repository(run, &workspace)?;
    let (point, step) = take_point(run, &repository, &disk, "first backup")?;
    steps.push(step);
    tracing::debug!(point, "took the first point");
    sample::change(&disk)?;
    let (point, step) = take_point(run, &repository, &disk, "second backup, 3 % changed")?;
    steps.push(step);
    steps.push(restore_point(run, &repository, &point, &restored)?);
    steps.push(compare_disks(run, &disk, &restored)?);
    steps.push(verify_all(run, &repository)?);
    let kept = args.keep.then(|| workspace.folder().to_path_buf());
    let report = DemoReport {
        steps,
        identical: true,
        kept,
    };
    let text = to_text(&report);
    Outcome::new(&report, Text::Summary(text))
}

fn sample_disk(run: &Run, disk: &Path) -> Result<Step> {
    let started = Instant::now();
    let progress = Arc::new(Progress::default());
    let monitor = run.watch_with("make a sample disk", ON_STOP, &progress)?;
    sample::create(disk, &progress, &run.signals.stop_flag())?;
    drop(monitor);
    Ok(Step {
        step: "make a sample disk",
        written_bytes: Progress::read_of(&progress.done),
        duration_seconds: started.elapsed().as_secs_f64(),
        ..Step::default()
    })
}

/// An encrypted repository with a random key file, as `init --key-file` makes it.
fn new_repository(run: &Run, workspace: &Workspace) -> Result<Arc<Repository>> {
    let key = Zeroizing::new(random::<32>());
    write_key(&workspace.path("key"), &key[..])?;
    let secret = Secret::KeyFile(Zeroizing::new(key.to_vec()));
    let url = workspace.path("repository").display().to_string();
    let store = open::store(
        &StoreOptions {
            url,
            ..StoreOptions::default()
        },
        true,
        run,
    )?;
    let profile = probe(store.as_ref(), ProbeOptions::default())?;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let options = InitOptions {
        cipher: Cipher::Aes256Gcm,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        profile,
        created_unix_secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
    };
    access::init(store, &options, Some(&secret)).map(Arc::new)
}

fn write_key(path: &Path, key: &[u8]) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(key))
        .map_err(|error| {
            Error::new(ErrorKind::Io, "write the demo's key")
                .object(path.display())
                .source(error)
        })
}

fn take_point(
    run: &Run,
    repository: &Arc<Repository>,
    disk: &Path,
    step: &'static str,
) -> Result<(String, Step)> {
    let source = Source::open(disk, &SourceOptions { allow_live: false })?;
    let request = BackupRequest {
        volume: VOLUME.to_owned(),
        parent: ParentChoice::Auto,
        changed_blocks: ChangedBlocksChoice::Auto,
        base: None,
        compression: Compression::Lz4,
        tags: std::collections::BTreeMap::new(),
        group: None,
        allow_live: false,
        takeover_after: std::time::Duration::from_secs(600),
        engine: EngineChoice::Auto,
        order: None,
        recorded: None,
    };
    let progress = Arc::new(Progress::default());
    let monitor = run.watch_with(step, ON_STOP, &progress)?;
    let report = backup::run(&run.context_with(repository, &progress), &source, &request)?;
    drop(monitor);
    tell(run, &report.warnings);
    let figures = step_of(step, &report);
    Ok((report.point, figures))
}

fn step_of(step: &'static str, report: &BackupReport) -> Step {
    Step {
        step,
        read_bytes: report.read_bytes,
        new_bytes: report.new_bytes,
        stored_bytes: report.stored_bytes,
        duration_seconds: report.duration_seconds,
        ..Step::default()
    }
}

fn restore_point(
    run: &Run,
    repository: &Arc<Repository>,
    point: &str,
    target: &Path,
) -> Result<Step> {
    let request = RestoreRequest {
        point: point.to_owned(),
        target: TargetSpec::Path(target.to_path_buf()),
        force: false,
        delta: false,
        range: None,
        salvage: false,
        engine: EngineChoice::Auto,
        forgotten: false,
    };
    let progress = Arc::new(Progress::default());
    let monitor = run.watch_with("restore", ON_STOP, &progress)?;
    let report = restore::run(&run.context_with(repository, &progress), &request)?;
    drop(monitor);
    tell(run, &report.warnings);
    Ok(Step {
        step: "restore the second point",
        read_bytes: Progress::read_of(&progress.read),
        written_bytes: report.written_bytes,
        duration_seconds: report.duration_seconds,
        ..Step::default()
    })
}

fn compare_disks(run: &Run, disk: &Path, restored: &Path) -> Result<Step> {
    let started = Instant::now();
    let read_bytes = compare::identical(disk, restored, &run.signals.stop_flag())?;
    Ok(Step {
        step: "compare it with the disk",
        read_bytes,
        duration_seconds: started.elapsed().as_secs_f64(),
        ..Step::default()
    })
}

fn verify_all(run: &Run, repository: &Arc<Repository>) -> Result<Step> {
    let request = VerifyRequest {
        sample_percent: verify::DEFAULT_SAMPLE_PERCENT,
        points: Vec::new(),
        level: VerifyLevel::Data,
    };
    let progress = Arc::new(Progress::default());
    let monitor = run.watch_with("verify", ON_STOP, &progress)?;
    let report = verify::run(&run.context_with(repository, &progress), &request)?;
    drop(monitor);
    tell(run, &report.warnings);
    no_findings(&report)?;
    Ok(Step {
        step: "verify both points",
        read_bytes: report.read_bytes,
        duration_seconds: report.duration_seconds,
        ..Step::default()
    })
}

/// Nobody but this process touched the repository, so damage would be a bug.
fn no_findings(report: &VerifyReport) -> Result<()> {
    match report.errors.first() {
        None => Ok(()),
        Some(finding) => {
            Err(Error::new(ErrorKind::Internal, "verify the demo's points").object(&finding.object))
        }
    }
}

fn tell(run: &Run, warnings: &[String]) {
    for warning in warnings {
        run.warn(warning);
    }
}

fn to_text(report: &DemoReport) -> String {
    let mut table = Table::new(&[
        ("STEP", Align::Left),
        ("READ", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("WRITTEN", Align::Right),
        ("TOOK", Align::Right),
    ]);
    let figure = |bytes: u64| {
        if bytes == 0 {
            "-".to_owned()
        } else {
            units::size(bytes)
        }
    };
    for step in &report.steps {
        table.row([
            step.step.to_owned(),
            figure(step.read_bytes),
            figure(step.new_bytes),
            figure(step.stored_bytes),
            figure(step.written_bytes),
            units::seconds(step.duration_seconds),
        ]);
    }
    let mut text = format!(
        "A sparse disk of {} with logs, random data, copies and zeros; an encrypted repository in a directory.\n\n{table}\n\
         The restored disk is identical to the original, byte for byte.\n\
         The second backup stored only what changed, and restores on its own.\n",
        units::size(sample::DISK_BYTES)
    );
    if let Some(folder) = &report.kept {
        let folder = folder.display();
        text.push_str(&format!(
            "\nKept in {folder}. Look around:\n  snaphaul points --repo {folder}/repository --key-file {folder}/key\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_step() {
        let report = BackupReport {
            read_bytes: 256 << 20,
            new_bytes: 3 << 20,
            duration_seconds: 1.5,
            ..BackupReport::default()
        };
        let steps = vec![
            step_of("first backup", &report),
            Step {
                step: "restore",
                ..Step::default()
            },
        ];
        let text = to_text(&DemoReport {
            steps,
            identical: true,
            kept: Some(PathBuf::from("/t/d")),
        });
        let row = text
            .lines()
            .find(|line| line.starts_with("first backup"))
            .unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(
            cells[2..],
            ["256", "MiB", "3", "MiB", "-", "-", "1.50", "s"]
        );
        assert!(
            text.contains("--repo /t/d/repository --key-file /t/d/key"),
            "{text}"
        );
    }

    #[test]
    fn findings_are_a_bug() {
        assert!(no_findings(&VerifyReport::default()).is_ok());
    }

    #[test]
    fn the_key_is_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_key(&path, &[1; 32]).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(
            write_key(&path, &[2; 32]).is_err(),
            "a key is never overwritten"
        );
    }
}
