//! Runs that die: at every line of their journal, and during every call.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::csi_driver::faults::{Fault, Order, When};
use tests::csi_driver::record::{Call, concurrent};
use tests::test_driver::TestDriver;

use crate::rig::{DELTA, Rig, SMALL, says};
use crate::steps::learned;

pub(crate) const VARIABLE: &str = "SNAPHAUL_TEST_DIE_AT";
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// In which a signal is heard: less than one call may take.
const HEARD: Duration = Duration::from_secs(30);

/// Every line of the journal of a backup that has a base before, on a driver with attachment.
pub(crate) const BACKUP: [&str; 17] = [
    "begin",
    "snapshot-wanted",
    "snapshot-made",
    "volume-wanted",
    "volume-made",
    "folder-wanted",
    "attach-wanted",
    "stage-wanted",
    "publish-wanted",
    "keep-base",
    "base-noted",
    "unpublished",
    "unstaged",
    "detached",
    "volume-deleted",
    "old-base-deleted",
    "folder-removed",
];

/// And of a restore to a new volume.
pub(crate) const RESTORE: [&str; 12] = [
    "begin",
    "volume-wanted",
    "volume-made",
    "folder-wanted",
    "attach-wanted",
    "stage-wanted",
    "publish-wanted",
    "volume-kept",
    "unpublished",
    "unstaged",
    "detached",
    "folder-removed",
];
/// The line of it from which on the volume is the user's.
const KEPT: usize = 7;

pub(crate) fn backup_dies_anywhere(driver: &mut TestDriver) -> Result<()> {
    let mut rig = Rig::new("csi-deaths", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let lines = learned(&rig, rig.command(&rig.backup_words(&volume, &[]))?)?;
    ensure!(lines == BACKUP, "the lines are {lines:?}");
    let mut random = rig.random.clone();
    for (number, step) in BACKUP.iter().enumerate() {
        for when in ["before", "after"] {
            let at = format!("{when}:{step}");
            volume.write(u64::try_from(number)? * 8192, 4096, &mut random)?;
            let died = rig
                .command(&rig.backup_words(&volume, &[]))?
                .env(VARIABLE, &at)
                .run()?;
            ensure!(died.status.signal() == Some(9), "{at}: {}", died.stderr);
            let next = rig.good_backup(&volume, &[]).with_context(|| at.clone())?;
            // Whether the point was committed or not, its base is there, or that of the one before.
            says(&next, "csi", DELTA).with_context(|| at.clone())?;
            rig.left(&before, 1, 0).with_context(|| at.clone())?;
        }
    }
    let pairs = concurrent(&driver.calls()?);
    ensure!(pairs.is_empty(), "at one time: {:?}", pairs.first());
    Ok(())
}

pub(crate) fn restore_dies_anywhere(driver: &mut TestDriver) -> Result<()> {
    let mut rig = Rig::new("csi-restore-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &["--keep-base", "never"])?;
    let lines = learned(&rig, rig.command(&rig.restore_words("v@latest"))?)?;
    ensure!(lines == RESTORE, "the lines are {lines:?}");
    for id in rig.client.volumes()?.difference(&before.volumes) {
        rig.client.delete_volume(id)?;
    }
    for (number, step) in RESTORE.into_iter().enumerate() {
        for when in ["before", "after"] {
            let at = format!("{when}:{step}");
            let died = rig
                .command(&rig.restore_words("v@latest"))?
                .env(VARIABLE, &at)
                .run()?;
            ensure!(died.status.signal() == Some(9), "{at}: {}", died.stderr);
            let next = rig.csi(&["release", "--all"])?;
            let is_complete = number > KEPT || at == "after:volume-kept";
            rig.left(&before, 0, usize::from(is_complete))
                .with_context(|| at.clone())?;
            if is_complete {
                let warning = next.json()?["warnings"][0].to_string();
                let id = rig.plugin.leaks()?.since(&before);
                let id = id[0]
                    .strip_prefix("volume ")
                    .context("a volume")?
                    .to_owned();
                ensure!(warning.contains(&id), "{warning}");
                rig.check_volume(&id, &volume)?;
                rig.client.delete_volume(&id)?;
            }
        }
    }
    rig.left(&before, 0, 0)
}

/// A new volume that is complete stays, whatever cannot be detached.
pub(crate) fn restore_cannot_detach(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-restore-attached", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &["--keep-base", "never"])?;
    for call in &CALLS[5..8] {
        driver.order(&[Order::next(call, Fault::Refuse { code: 3 }).times(0)])?;
        let restored = rig
            .command(&rig.restore_words("v@latest"))?
            .run()?
            .expect(0)?;
        let id = restored.string("volume_id")?;
        let warnings = restored.json()?["warnings"].to_string();
        ensure!(
            warnings.contains(&id) && warnings.contains("stays"),
            "{call}: {warnings}"
        );
        driver.order(&[])?;
        rig.csi(&["release", "--all"])?;
        rig.left(&before, 0, 1).context(*call)?;
        rig.check_volume(&id, &volume)?;
        rig.client.delete_volume(&id)?;
    }
    rig.left(&before, 0, 0)
}

/// Every call that a backup with a base before makes.
const CALLS: [&str; 10] = [
    "CreateSnapshot",
    "CreateVolume",
    "ControllerPublishVolume",
    "NodeStageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "ControllerUnpublishVolume",
    "DeleteVolume",
    "DeleteSnapshot",
];

pub(crate) fn dies_during_a_call(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-mid-call", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let mut random = rig.random.clone();
    for (number, call) in CALLS.into_iter().enumerate() {
        for when in [When::Before, When::After] {
            volume.write(u64::try_from(number)? * 8192, 4096, &mut random)?;
            let context = || format!("{call} {when:?}");
            let running = stalled(driver, &rig, &volume, (call, when)).with_context(context)?;
            running.signal(Signal::SIGKILL)?;
            running.wait()?;
            driver.order(&[])?;
            let next = rig.good_backup(&volume, &[]).with_context(context)?;
            says(&next, "csi", DELTA).with_context(context)?;
            rig.left(&before, 1, 0).with_context(context)?;
        }
    }
    Ok(())
}

/// A backup that waits for the answer to a call.
fn stalled(
    driver: &TestDriver,
    rig: &Rig<'_>,
    volume: &crate::rig::Volume,
    (call, when): (&str, When),
) -> Result<tests::snaphaul::Running> {
    let calls = driver.calls()?.len();
    driver.order(&[Order::next(call, Fault::Stall { when })])?;
    let running = rig.command(&rig.backup_words(volume, &[]))?.start()?;
    let running = running.until(LIMIT, || {
        let all = driver.calls()?;
        let begun = |one: &Call| one.call == call && one.end_us.is_none();
        Ok(all[calls..].iter().any(begun))
    });
    running.with_context(|| rig.shown(driver))
}

pub(crate) fn stopped_during_a_call(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-stopped", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    for call in &CALLS[..5] {
        let running = stalled(driver, &rig, &volume, (call, When::After)).context(*call)?;
        let calls = driver.calls()?.len();
        running.signal(Signal::SIGTERM)?;
        // Whoever hears it leaves the call that has no answer and makes another, to take back what it made; nobody else does
        // that before the call is out of time.
        let running = running
            .until(HEARD, || Ok(driver.calls()?.len() > calls))
            .with_context(|| format!("{call}: the stop is not heard\n{}", rig.shown(driver)))?;
        // The driver is busy with the call until then, and refuses what takes it back.
        driver.order(&[])?;
        running.wait()?.expect(75).context(*call)?;
        rig.left(&before, 0, 0).context(*call)?;
    }
    Ok(())
}
