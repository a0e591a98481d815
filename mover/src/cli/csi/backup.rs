//! `snaphaul backup csi:VOLUME_ID`.
//!
//! Owns: snapshot, backup and clean-up as one command, and their report. Must not: move data.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::super::args::{BackupArgs, KeepBaseFlag, RepositoryArgs, RunArgs};
use super::super::backup::{ON_STOP, request, to_text};
use super::super::config::{self, invalid};
use super::super::output::table::Table;
use super::super::run::{Outcome, Run, Text};
use super::super::{memory, open, units};
use super::{is_committed, options, recorded, sweep_up};
use crate::attach::csi::session::{Backup, KeepBase, Subject};
use crate::attach::csi::state::Begun;
use crate::attach::csi::sweep::{IsCommitted, Purpose, with_causes};
use crate::attach::csi::{Driver, PREFIX};
use crate::error::Result;
use crate::pipeline::backup::{self, BackupRequest};
use crate::pipeline::report::BackupReport;
use crate::repository::access::Repository;

/// Hexadecimal digits that tell volumes apart whose ids look the same as a name.
const DIGEST: usize = 8;

/// The report of a backup, with what concerns the driver.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    backup: &'a BackupReport,
    csi: CsiReport,
}

#[derive(Debug, Serialize)]
struct CsiReport {
    driver: String,
    volume_id: String,
    snapshot_id: String,
    /// Whether that snapshot is kept for the next backup.
    base_kept: bool,
    /// Whether it was there before, and so stays.
    snapshot_given: bool,
    /// From "the snapshot exists" to the first byte that was read; null where nothing was.
    first_byte_seconds: Option<f64>,
    /// What of that the driver did not take.
    own_seconds: Option<f64>,
}

pub(in crate::cli) fn run(
    run: &Run,
    args: &BackupArgs,
    repository: &RepositoryArgs,
    limits: &RunArgs,
) -> Result<Outcome> {
    let (id, foreign) = volume_and_snapshot(&args.source)?;
    let request = request(args)?;
    let options = options(&args.driver, Some(&args.volumes), Some(&args.snapshots))?;
    let repository = open::repository(repository, limits, run)?;
    memory::check(run, &repository, repository.keys.volume_id(&request.volume))?;
    let driver = Driver::connect(&options)?;
    let purpose = Purpose::Work(Some(id));
    sweep_up(run, &driver, &options, purpose, Some(&repository))?;
    let recorded = recorded(&repository, &request.volume, &driver.name, id)?;
    let subject = Subject {
        volume: id,
        repository: &repository.config.repository.to_string(),
        name: &request.volume,
        recorded: recorded.as_ref(),
        snapshot: foreign,
        keep: match args.snapshots.keep_base {
            KeepBaseFlag::Auto => KeepBase::Auto,
            KeepBaseFlag::Never => KeepBase::Never,
        },
        allow_live: request.allow_live,
    };
    let committed =
        |begun: &Begun, snapshot: &str| is_committed(Some(&repository), begun, snapshot);
    let session = Backup::begin(&driver, &options, &subject, &committed)?;
    for text in session.told() {
        run.warn(text.clone());
    }
    // From here on a signal stops between two steps, and what was made is taken back.
    let monitor = run.watch(format!("backup {}", request.volume), ON_STOP)?;
    let (session, report, snapshot_id) = point(run, &repository, &request, session, &committed)?;
    if let Some(key) = report.session {
        memory::took(run, &repository, &request.volume, key);
    }
    let (base_kept, left) = session.committed();
    let is_clean = cleaned(run, left).is_some();
    drop(monitor);
    run.metrics.observe_backup(&report);
    for warning in &report.warnings {
        run.warn(warning);
    }
    let times = driver.timing().until_first_byte();
    let csi = CsiReport {
        driver: driver.name.clone(),
        volume_id: id.to_owned(),
        snapshot_id,
        base_kept,
        snapshot_given: foreign.is_some(),
        first_byte_seconds: times.map(|(all, _)| all.as_secs_f64()),
        own_seconds: times.map(|(_, own)| own.as_secs_f64()),
    };
    tracing::info!(
        ?times,
        "first byte after the snapshot existed: in all, and ours"
    );
    let text = format!("{}{}", to_text(&report), csi_text(&csi, is_clean));
    let report = Report {
        backup: &report,
        csi,
    };
    Outcome::new(&report, Text::Summary(text))
}

/// Makes the point. Where there is none, what was made for it is taken back.
fn point(
    run: &Run,
    repository: &Arc<Repository>,
    request: &BackupRequest,
    mut session: Backup,
    committed: &IsCommitted<'_>,
) -> Result<(Backup, BackupReport, String)> {
    let device = match session.device(&run.stop_flag()) {
        Ok(device) => device,
        Err(error) => {
            cleaned(run, session.failed());
            return Err(error);
        }
    };
    let snapshot_id = device.snapshot().to_owned();
    let result = backup::run(&run.context(repository), &device, request);
    // Nobody may hold what is about to be detached.
    drop(device);
    match result {
        Ok(report) => Ok((session, report, snapshot_id)),
        Err(error) => {
            // The commit may have arrived although its answer did not.
            cleaned(run, session.failed_at_the_end(committed));
            Err(error)
        }
    }
}

/// What could not be taken back is told; the next run takes it up.
pub(super) fn cleaned<T>(run: &Run, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            run.warn(format!(
                "something was left behind, which the next run with this driver removes: {}",
                with_causes(&error)
            ));
            None
        }
    }
}

fn csi_text(csi: &CsiReport, is_clean: bool) -> String {
    let mut pairs = vec![(
        "snapshot",
        if csi.snapshot_given {
            format!("{} stays: it is not ours", csi.snapshot_id)
        } else if csi.base_kept {
            format!("{} stays for the next backup", csi.snapshot_id)
        } else if is_clean {
            "removed".to_owned()
        } else {
            // What is left may be something else, which the warning says.
            format!("{} is not kept", csi.snapshot_id)
        },
    )];
    if let (Some(all), Some(own)) = (csi.first_byte_seconds, csi.own_seconds) {
        pairs.push((
            "first byte",
            format!(
                "{} after the snapshot, {} of it ours",
                units::seconds(all),
                units::seconds(own)
            ),
        ));
    }
    Table::pairs(pairs).to_string()
}

/// What the driver calls the volume, and a snapshot of it that is named behind the first `@`: ids of snapshots may hold another one.
pub(super) fn volume_and_snapshot(source: &Path) -> Result<(&str, Option<&str>)> {
    let text = source.to_str().unwrap_or_default();
    let text = text.strip_prefix(PREFIX).unwrap_or_default();
    let (volume, snapshot) = match text.split_once('@') {
        Some((volume, snapshot)) => (volume, Some(snapshot)),
        None => (text, None),
    };
    if volume.is_empty() || snapshot == Some("") {
        return Err(invalid("back up a volume or snapshot without its id").hint(
            "write csi:VOLUME_ID, the volumeHandle of the PersistentVolume, or csi:VOLUME_ID@SNAPSHOT_ID",
        ));
    }
    Ok((volume, snapshot))
}

/// The name of the volume in the repository: `--volume`, or its id as far as that can be a name.
pub(in crate::cli) fn volume_name(flag: Option<&str>, source: &Path) -> Result<String> {
    if let Some(name) = flag {
        return config::checked_name("volume", name);
    }
    let (id, _) = volume_and_snapshot(source)?;
    if let Ok(name) = config::checked_name("volume", id) {
        return Ok(name);
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let text: String = id
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(128)
        .collect();
    let digest = &blake3::hash(id.as_bytes()).to_hex()[..DIGEST];
    let text = if text.is_empty() { "volume" } else { &text };
    config::checked_name("volume", &format!("{text}-{digest}"))
}
