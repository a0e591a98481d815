//! What others hold while a backup wants it: a folder with a file of the driver in it, a clone that is in use, a volume that is
//! looked at.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mover::ErrorKind;
use mover::attach::csi::base::Bases;
use mover::attach::csi::{CsiOptions, Driver};
use nix::libc;
use tests::csi::Plugin;
use tests::csi::leaks::Leaks;
use tests::csi_driver::faults::{Fault, Order, When, Wrong};
use tests::snaphaul::{Outcome, Snaphaul};
use tests::test_driver::TestDriver;

use crate::rig::{DELTA, Rig, SMALL, Volume, says};
use crate::together::wait_for_lock;

const LIMIT: Duration = Duration::from_secs(60);
/// What the fault leaves.
const LITTER: &str = "left-by-the-driver";

/// A file that the driver leaves in the staging folder keeps the folder and the journal of the run, which say so, and nothing that
/// costs space. It is never removed; the next run after somebody did removes the rest.
pub(crate) fn litter_of_the_driver(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-litter", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let litter = || Order::next("NodeStageVolume", Fault::Litter);
    // A run that ends well.
    driver.order(&[litter()])?;
    let point = rig.backup(&volume, &[])?.expect(0)?;
    rig.check_point(&volume, &point)?;
    ensure!(
        point.json()?["csi"]["base_kept"] == true,
        "{}",
        point.text()
    );
    told(&point, 1)?;
    only_folders(&rig, &before, (1, 0), 1)?;
    // Runs after it work, and say it again.
    let mut random = rig.random.clone();
    volume.write(4096, 4096, &mut random)?;
    driver.order(&[])?;
    let point = rig.good_backup(&volume, &[])?;
    says(&point, "csi", DELTA)?;
    told(&point, 1)?;
    only_folders(&rig, &before, (1, 0), 1)?;
    // One that fails, and one that restores.
    driver.order(&[
        litter(),
        Order::next("NodePublishVolume", Fault::Refuse { code: 13 }).times(0),
    ])?;
    let failed = rig.backup(&volume, &[])?.expect(69)?;
    ensure!(failed.stderr.contains(LITTER), "{}", failed.stderr);
    only_folders(&rig, &before, (1, 0), 2)?;
    driver.order(&[litter()])?;
    let restored = rig.command(&rig.restore_words("v@latest"))?.run()?;
    let restored = restored.expect(0)?;
    // Those of the two runs before, and its own.
    told(&restored, 3)?;
    only_folders(&rig, &before, (1, 1), 3)?;
    rig.check_volume(&restored.string("volume_id")?, &volume)?;
    // Somebody looks, and takes the files away.
    for file in files(&rig)? {
        ensure!(std::fs::read_to_string(&file)? == "litter");
        std::fs::remove_file(&file)?;
    }
    driver.order(&[])?;
    rig.csi(&["release", "nobody"])?;
    rig.left(&before, 1, 1)
}

/// The warnings name the file, once for each folder.
fn told(outcome: &Outcome, folders: usize) -> Result<()> {
    let warnings = outcome.json()?["warnings"].to_string();
    ensure!(warnings.matches(LITTER).count() == folders, "{warnings}");
    Ok(())
}

/// The files that the fault left.
fn files(rig: &Rig<'_>) -> Result<Vec<PathBuf>> {
    let paths = rig.plugin.leaks()?.paths;
    Ok(paths
        .into_iter()
        .filter(|path| path.ends_with(LITTER))
        .collect())
}

/// These numbers of snapshots and volumes, `folders` with the file of the driver in them, a journal for each, and nothing else.
fn only_folders(
    rig: &Rig<'_>,
    before: &Leaks,
    things: (usize, usize),
    folders: usize,
) -> Result<()> {
    let is_right = |left: &[String]| {
        let count = |what: &str| left.iter().filter(|line| line.starts_with(what)).count();
        // The folder, its part for staging, and the file.
        (count("snapshot "), count("volume ")) == things
            && count("path ") == 3 * folders
            && left.len() == things.0 + things.1 + 3 * folders
    };
    let left = rig.plugin.left_once(before, &is_right)?;
    ensure!(is_right(&left), "left: {left:#?}");
    ensure!(files(rig)?.len() == folders, "{:?}", files(rig)?);
    let journals = rig.scratch.join("state/csi/sessions");
    let open = std::fs::read_dir(&journals).map_or(0, Iterator::count);
    ensure!(open == folders, "{open} journals");
    Ok(())
}

/// A clone that somebody else on the machine takes hold of is refused like any device that is in use, unless a person accepts that; one
/// that nobody does needs no flag, and is no better with it.
pub(crate) fn clone_in_use(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-in-use", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let refused = while_held(driver, &rig, &volume, &[])?.expect(64)?;
    ensure!(
        refused.complaint()?.contains("in use"),
        "{}",
        refused.complaint()?
    );
    rig.left(&before, 0, 0)?;
    let live = while_held(driver, &rig, &volume, &["--allow-live"])?.expect(0)?;
    let is_fuzzy = |outcome: &Outcome| -> Result<bool> {
        let warnings = outcome.json()?["warnings"].to_string();
        Ok(warnings.contains("the point is fuzzy"))
    };
    ensure!(is_fuzzy(&live)?, "{}", live.text());
    rig.check_point(&volume, &live)?;
    rig.csi(&["release", "--all"])?;
    rig.left(&before, 0, 0)?;
    let point = rig.good_backup(&volume, &["--allow-live"])?;
    ensure!(!is_fuzzy(&point)?, "{}", point.text());
    rig.left(&before, 1, 0)
}

/// A backup whose device is held by this process from before it is opened until the end.
fn while_held(
    driver: &TestDriver,
    rig: &Rig<'_>,
    volume: &Volume,
    more: &[&str],
) -> Result<Outcome> {
    let when = When::After;
    driver.order(&[Order::next("NodePublishVolume", Fault::Stall { when })])?;
    let first = driver.calls()?.len();
    let running = rig.command(&rig.backup_words(volume, more))?.start()?;
    driver.wait_for(LIMIT, |all| {
        let own = &all[first..];
        own.iter().any(|one| one.call == "NodePublishVolume")
    })?;
    let calls = driver.calls()?;
    let own = calls[first..].iter();
    let call = own.rev().find(|one| one.call == "NodePublishVolume");
    let target = PathBuf::from(&call.context("it was published")?.subject.target);
    let begin = Instant::now();
    let device = loop {
        match std::fs::metadata(&target) {
            Ok(found) if found.file_type().is_block_device() => break found.rdev(),
            _ if begin.elapsed() > LIMIT => bail!("no device at {}", target.display()),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    // By its own name: what is opened at the target keeps that mounted.
    let (major, minor) = (libc::major(device), libc::minor(device));
    let name = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
    let device = Path::new("/dev").join(name.file_name().context("a device has a name")?);
    let mut options = File::options();
    let holder = options
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(&device)?;
    driver.order(&[])?;
    // No driver takes a device away that is in use; from then on the run is done with it.
    let running = running.until(LIMIT, || {
        let calls = driver.calls()?;
        let mut own = calls[first..].iter();
        Ok(own.any(|one| one.call == "NodeUnpublishVolume"))
    })?;
    drop(holder);
    running.wait()
}

/// Whoever looks at what changed since the snapshot that stays holds the volume: a backup waits, and deletes it only then.
pub(crate) fn looked_at_while_backed_up(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-looked-at", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let first = rig.good_backup(&volume, &[])?;
    // A stream without a range ends before it can fall silent.
    let mut random = rig.random.clone();
    volume.write(8192, 4096, &mut random)?;
    let base = first.json()?["csi"]["snapshot_id"].to_string();
    let base = base.trim_matches('"');
    let newer = rig.client.create_snapshot("newer", &volume.id)?.snapshot_id;
    let wrong = Wrong::Silent;
    driver.order(&[Order::next(
        "GetMetadataDelta",
        Fault::Stream { wrong, after: 0 },
    )])?;
    let begun = driver.calls()?.len();
    let looks = Snaphaul::new(&changed_words(&rig, driver, &volume, (&newer, base)))?.start()?;
    driver.wait_for(LIMIT, |all| {
        let own = &all[begun..];
        own.iter().any(|one| one.call == "GetMetadataDelta")
    })?;
    let mut options = CsiOptions::new(driver.socket());
    options.state = rig.scratch.join("state");
    let bases = Bases::at(options.bases(), options.locks());
    let connected = Driver::connect(&options)?;
    let lock = || bases.lock(&connected.name, &connected.socket, &volume.id);
    let kind = lock().err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::Unavailable), "it is free: {kind:?}");
    let backs_up = rig.command(&rig.backup_words(&volume, &[]))?.start()?;
    wait_for_lock(&backs_up)?;
    driver.order(&[])?;
    looks.wait()?.expect(0)?;
    let point = backs_up.wait()?.expect(0)?;
    rig.check_point(&volume, &point)?;
    let calls = driver.calls()?;
    let of = |call: &str| calls[begun..].iter().find(|one| one.call == call);
    let asked = of("GetMetadataDelta").and_then(|one| one.end_us);
    let deleted = of("DeleteSnapshot").map(|one| one.begin_us);
    ensure!(
        asked.is_some() && asked <= deleted,
        "{}",
        driver.last_calls()
    );
    lock()?;
    Ok(())
}

fn changed_words(
    rig: &Rig<'_>,
    driver: &TestDriver,
    volume: &Volume,
    (source, base): (&str, &str),
) -> Vec<String> {
    let view = |snapshot: &str| format!("csi:{}@{snapshot}", volume.id);
    let mut words = ["changed", &view(source), "--base", &view(base)]
        .map(str::to_owned)
        .to_vec();
    for (flag, path) in [
        ("--csi-socket", driver.socket().to_owned()),
        ("--csi-state", rig.scratch.join("state")),
    ] {
        words.extend([flag.to_owned(), path.display().to_string()]);
    }
    words
}
