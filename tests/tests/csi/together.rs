//! Runs beside others of the same volume, runs whose commit has no answer, and runs that find nothing of what was noted.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mover::ErrorKind;
use mover::attach::csi::session::{Backup, KeepBase, Subject};
use mover::attach::csi::{CsiOptions, Driver};
use mover::pipeline::progress::StopFlag;
use nix::sys::signal::Signal;
use tests::csi::Plugin;
use tests::csi_driver::faults::{Fault, Order, When};
use tests::csi_driver::record::concurrent;
use tests::snaphaul::{Running, Snaphaul};
use tests::test_driver::TestDriver;

use crate::rig::{DELTA, Rig, SMALL, Volume, says};

const LIMIT: Duration = Duration::from_secs(60);

/// A run swept before another one died, waits for the volume that it held, and takes back what it left: it looks again.
pub(crate) fn dies_while_another_waits(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-waits", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let dies = stalled(driver, &rig, &volume, "NodeStageVolume")?;
    let calls = driver.calls()?.len();
    let waits = rig.command(&rig.backup_words(&volume, &[]))?.start()?;
    // It has asked for the capabilities of the node, the last thing before it sweeps and then waits for the volume.
    driver.wait_for(LIMIT, |all| {
        let own = &all[calls..];
        own.iter()
            .any(|one| one.call == "NodeGetCapabilities" && one.end_us.is_some())
    })?;
    wait_for_lock(&waits)?;
    dies.signal(Signal::SIGKILL)?;
    ensure!(dies.wait()?.status.signal() == Some(9));
    driver.order(&[])?;
    let outcome = waits.wait()?.expect(0)?;
    rig.check_point(&volume, &outcome)?;
    says(&outcome, "csi", DELTA)?;
    let warnings = outcome.json()?["warnings"].to_string();
    ensure!(warnings.contains("left behind when it died"), "{warnings}");
    rig.left(&before, 1, 0)?;
    // The driver may still be at the call of the one that died: nobody can know.
    let mut pairs = concurrent(&driver.calls()?);
    pairs.retain(|(one, two)| one.fault.is_none() && two.fault.is_none());
    ensure!(pairs.is_empty(), "at one time: {:?}", pairs.first());
    Ok(())
}

/// Waits until the process sleeps between two looks at a lock that another one holds: the only time that it sleeps for a while.
pub(crate) fn wait_for_lock(running: &Running) -> Result<()> {
    let call = format!("/proc/{}/syscall", running.id());
    let sleeps = format!("{} ", nix::libc::SYS_clock_nanosleep);
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if std::fs::read_to_string(&call).is_ok_and(|text| text.starts_with(&sleeps)) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("it does not come to the lock")
}

/// Two runs of one volume: one after the other, and in the end there is one base.
pub(crate) fn two_of_one_volume(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-two", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let start = || rig.command(&rig.backup_words(&volume, &[]))?.start();
    let runs = [start()?, start()?];
    for run in runs {
        let outcome = run.wait()?.expect(0)?;
        rig.check_point(&volume, &outcome)?;
    }
    rig.left(&before, 1, 0)?;
    let pairs = concurrent(&driver.calls()?);
    ensure!(pairs.is_empty(), "at one time: {:?}", pairs.first());
    says(&rig.good_backup(&volume, &[])?, "csi", DELTA)?;
    rig.left(&before, 1, 0)
}

/// A run dies while it takes back what another one left that died.
pub(crate) fn dies_during_the_sweep(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-sweep", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in [
        "NodeUnpublishVolume",
        "NodeUnstageVolume",
        "ControllerUnpublishVolume",
        "DeleteVolume",
        "DeleteSnapshot",
    ] {
        for when in [When::Before, When::After] {
            let context = || format!("{call} {when:?}");
            let died = rig
                .command(&rig.backup_words(&volume, &[]))?
                .env("SNAPHAUL_TEST_DIE_AT", "after:publish-wanted")
                .run()?;
            ensure!(died.status.signal() == Some(9), "{}", died.stderr);
            let sweeps = stalled_at(driver, &rig, &volume, (call, when)).with_context(context)?;
            sweeps.signal(Signal::SIGKILL)?;
            sweeps.wait()?;
            driver.order(&[])?;
            let next = rig.good_backup(&volume, &[]).with_context(context)?;
            says(&next, "csi", DELTA).with_context(context)?;
            rig.left(&before, 1, 0).with_context(context)?;
        }
    }
    Ok(())
}

fn stalled(driver: &TestDriver, rig: &Rig<'_>, volume: &Volume, call: &str) -> Result<Running> {
    stalled_at(driver, rig, volume, (call, When::After))
}

/// A backup that waits for the answer to a call.
fn stalled_at(
    driver: &TestDriver,
    rig: &Rig<'_>,
    volume: &Volume,
    (call, when): (&str, When),
) -> Result<Running> {
    let calls = driver.calls()?.len();
    driver.order(&[Order::next(call, Fault::Stall { when })])?;
    let running = rig.command(&rig.backup_words(volume, &[]))?.start()?;
    driver.wait_for(LIMIT, |all| {
        all[calls..]
            .iter()
            .any(|one| one.call == call && one.end_us.is_none())
    })?;
    Ok(running)
}

/// The folder of notes is gone: the base of the newest point is found again by what the point says, and goes when its time comes.
pub(crate) fn notes_are_lost(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-lost-notes", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let mut random = rig.random.clone();
    rig.good_backup(&volume, &[])?;
    for more in [&[][..], &["--keep-base", "never"]] {
        std::fs::remove_dir_all(rig.scratch.join("state"))?;
        volume.write(8192, 4096, &mut random)?;
        let outcome = rig.good_backup(&volume, more)?;
        says(&outcome, "csi", DELTA)?;
        let warnings = outcome.json()?["warnings"].to_string();
        ensure!(warnings.contains("was not noted here"), "{warnings}");
        rig.left(&before, usize::from(more.is_empty()), 0)?;
    }
    // What is gone is not found again, and nobody is told of it.
    std::fs::remove_dir_all(rig.scratch.join("state"))?;
    let outcome = rig.good_backup(&volume, &[])?;
    let warnings = outcome.json()?["warnings"].to_string();
    ensure!(!warnings.contains("was not noted here"), "{warnings}");
    rig.left(&before, 1, 0)
}

/// The answer to the commit is lost: what becomes of the snapshot follows from what the repository says of the point.
pub(crate) fn commit_without_an_answer(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-lost-commit", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let mut options = CsiOptions::new(driver.socket());
    options.kubelet_root = driver.kubelet().to_owned();
    options.state = rig.scratch.join("state");
    let connected = Driver::connect(&options)?;
    let subject = Subject {
        volume: &volume.id,
        repository: "r",
        name: "v",
        keep: KeepBase::Auto,
        recorded: None,
        snapshot: None,
        allow_live: false,
    };
    let lost = |committed: mover::Result<Option<bool>>| -> Result<(String, mover::Result<()>)> {
        let mut backup = Backup::begin(&connected, &options, &subject, &|_, _| Ok(Some(false)))?;
        let device = backup.device(&StopFlag::default())?;
        let snapshot = device.snapshot().to_owned();
        drop(device);
        let answer = std::cell::Cell::new(Some(committed));
        let end = backup.failed_at_the_end(&|_, asked| {
            assert_eq!(asked, snapshot);
            answer.take().unwrap_or(Ok(None))
        });
        Ok((snapshot, end))
    };
    // It was not committed: nothing stays.
    lost(Ok(Some(false)))?.1?;
    rig.left(&before, 0, 0)?;
    // It was: the snapshot is the base.
    let (first, end) = lost(Ok(Some(true)))?;
    end?;
    rig.left(&before, 1, 0)?;
    // Nobody can tell, or the repository does not answer: the snapshot waits for a run that knows, and the base before stays.
    let unavailable = mover::Error::new(ErrorKind::Unavailable, "ask the repository");
    for committed in [Ok(None), Err(unavailable)] {
        let is_error = committed.is_err();
        let (second, end) = lost(committed)?;
        ensure!(end.is_err() == is_error, "{end:?}");
        let snapshots = rig.client.snapshots()?;
        ensure!(snapshots.contains(&first) && snapshots.contains(&second));
        // The next run does: it was not.
        lost(Ok(Some(false)))?.1?;
        rig.left(&before, 1, 0)?;
        ensure!(rig.client.snapshots()?.contains(&first));
    }
    Ok(())
}

/// A snapshot that somebody else made: read, compared with, and never deleted; asked about without a device.
pub(crate) fn snapshots_of_others(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-others", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let older = rig.client.create_snapshot("older", &volume.id)?.snapshot_id;
    let mut random = rig.random.clone();
    volume.write(8192, 4096, &mut random)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    rig.left(&before, 1, 0)?;
    volume.write(65536, 4096, &mut random)?;
    let newer = rig.client.create_snapshot("newer", &volume.id)?.snapshot_id;
    // It takes the place of our base, which no delta needs any more.
    let whole = volume.id.clone();
    volume.id = format!("{whole}@{newer}");
    let outcome = rig.good_backup(&volume, &[])?;
    says(&outcome, "csi", DELTA)?;
    ensure!(outcome.json()?["csi"]["snapshot_given"] == true);
    rig.left(&before, 1, 0)?;
    ensure!(rig.client.snapshots()?.contains(&newer));
    // One that is older than the newest point: nobody is asked for a delta into the past.
    volume.id = format!("{whole}@{older}");
    let outcome = rig.backup(&volume, &[])?.expect(0)?;
    let why = outcome.string("changed_blocks_reason")?;
    ensure!(why.contains("was taken before"), "{why}");
    rig.left(&before, 1, 0)?;
    // One of another volume, or none.
    volume.id = format!("{whole}@nothing");
    rig.backup(&volume, &[])?.expect(64)?;
    let changed = |source: &str, base: &str| -> Result<tests::snaphaul::Outcome> {
        let socket = driver.socket().display().to_string();
        let state = rig.scratch.join("state").display().to_string();
        let (source, base) = (
            format!("csi:{whole}@{source}"),
            format!("csi:{whole}@{base}"),
        );
        let words = [
            "changed",
            &*source,
            "--base",
            &*base,
            "--csi-socket",
            &*socket,
            "--csi-state",
            &*state,
        ];
        Snaphaul::new(&words)?.run()?.expect(0)
    };
    let told = changed(&newer, &older)?;
    let text = String::from_utf8_lossy(&told.stdout);
    ensure!(
        text.contains("0x000000002000") && text.contains("0x000000010000"),
        "{text}"
    );
    rig.left(&before, 1, 0)
}
