//! The ways on which runs die: refused, without a base, with a stale one, late, and while they clean up.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::csi_driver::faults::{Fault, Order, When};
use tests::csi_driver::record::Call;
use tests::test_driver::TestDriver;

use crate::deaths::{LIMIT, VARIABLE};
use crate::rig::{DELTA, Rig, SMALL, Volume, files, says, with_flag};
use crate::steps::{
    DEVICE, REFUSED_RESTORE, REFUSED_SNAPSHOT, REFUSED_VOLUME, STALE_BASE, SWEEP, SWEEP_COMMITTED,
    SWEEP_GIVES_UP, SWEEP_IN_VAIN, SWEEP_LATE, SWEEP_SNAPSHOT, SWEEP_VOLUME, WITHOUT_BASE, Way,
};

/// Runs that are refused something, and take back what they have.
pub(crate) fn refused_runs_die(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-refused-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &["--keep-base", "never"])?;
    for (call, code, steps) in [
        ("CreateSnapshot", 3, REFUSED_SNAPSHOT),
        ("CreateVolume", 11, REFUSED_VOLUME),
        ("NodeStageVolume", 3, REFUSED_RESTORE),
    ] {
        let mut way = Way {
            steps,
            elsewhere: &[],
            words: &mut |rig| {
                driver.order(&[Order::next(call, Fault::Refuse { code }).times(0)])?;
                Ok(if call == "NodeStageVolume" {
                    rig.restore_words("v@latest")
                } else {
                    rig.backup_words(&volume, &[])
                })
            },
            after: &mut |rig| {
                driver.order(&[])?;
                rig.csi(&["release", "--all"])?;
                rig.left(&before, 0, 0)
            },
        };
        way.walk(&rig).context(call)?;
    }
    Ok(())
}

/// Runs that leave no base, and remove the one before.
pub(crate) fn runs_without_a_base_die(driver: &mut TestDriver) -> Result<()> {
    let mut rig = Rig::new("csi-baseless-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let never = ["--keep-base", "never"];
    let mut way = Way {
        steps: WITHOUT_BASE,
        elsewhere: DEVICE,
        words: &mut |rig| {
            rig.backup(&volume, &[])?.expect(0)?;
            Ok(rig.backup_words(&volume, &never))
        },
        after: &mut |rig| {
            rig.good_backup(&volume, &never)?;
            rig.left(&before, 0, 0)
        },
    };
    way.walk(&rig)
}

/// Runs that find a note of a time since which somebody else, who found no base, backed the volume up.
pub(crate) fn runs_with_a_stale_base_die(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-stale-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let other = rig.scratch.join("other").display().to_string();
    let mut way = Way {
        steps: STALE_BASE,
        elsewhere: DEVICE,
        words: &mut |rig| {
            let unlisted = Order::next("ListSnapshots", Fault::Refuse { code: 13 });
            driver.order(&[unlisted.times(0)])?;
            let words = with_flag(rig.backup_words(&volume, &[]), "--csi-state", &other)?;
            rig.command(&words)?.run()?.expect(0)?;
            driver.order(&[])?;
            Ok(rig.backup_words(&volume, &[]))
        },
        after: &mut |rig| {
            says(&rig.good_backup(&volume, &[])?, "csi", DELTA)?;
            rig.left(&before, 1, 0)
        },
    };
    way.walk(&rig)
}

/// Runs that die while they take back what others left that died.
pub(crate) fn sweeps_die(driver: &mut TestDriver) -> Result<()> {
    let mut rig = Rig::new("csi-sweep-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    for (died_at, steps) in [
        ("after:publish-wanted", SWEEP),
        ("after:snapshot-wanted", SWEEP_SNAPSHOT),
        ("after:volume-wanted", SWEEP_VOLUME),
    ] {
        let mut way = Way {
            steps,
            elsewhere: &[],
            words: &mut |rig| {
                dead(rig, &volume, died_at)?;
                Ok(rig.csi_words(&["release", "--all"]))
            },
            after: &mut |rig| {
                rig.csi(&["release", "--all"])?;
                rig.left(&before, 0, 0)
            },
        };
        way.walk(&rig).context(died_at)?;
    }
    Ok(())
}

/// The same where the driver only fails when it is asked what it made: as long as that is not given up, and when it is.
pub(crate) fn sweeps_in_vain_die(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-vain-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    for (asked, steps) in [(0, SWEEP_IN_VAIN), (2, SWEEP_GIVES_UP)] {
        let mut way = Way {
            steps,
            elsewhere: &[],
            words: &mut |rig| {
                driver.order(&[])?;
                dead(rig, &volume, "after:volume-wanted")?;
                driver
                    .order(&[Order::next("CreateVolume", Fault::Refuse { code: 13 }).times(0)])?;
                let words = rig.csi_words(&["release", "--all"]);
                for _ in 0..asked {
                    rig.csi_command(&words)?.run()?.expect(69)?;
                }
                Ok(words)
            },
            after: &mut |rig| {
                driver.order(&[])?;
                rig.csi(&["release", "--all"])?;
                rig.left(&before, 0, 0)
            },
        };
        way.walk(&rig)
            .with_context(|| format!("asked {asked} times"))?;
    }
    Ok(())
}

/// The same where the run that died had committed its point.
pub(crate) fn sweeps_of_committed_runs_die(driver: &mut TestDriver) -> Result<()> {
    let mut rig = Rig::new("csi-committed-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let mut way = Way {
        steps: SWEEP_COMMITTED,
        elsewhere: &[],
        words: &mut |rig| {
            dead(rig, &volume, "before:keep-base")?;
            Ok(rig.backup_words(&volume, &[]))
        },
        after: &mut |rig| {
            says(&rig.good_backup(&volume, &[])?, "csi", DELTA)?;
            rig.left(&before, 1, 0)
        },
    };
    way.walk(&rig)
}

/// The same where another base was noted meanwhile.
pub(crate) fn sweeps_of_late_runs_die(driver: &mut TestDriver) -> Result<()> {
    let mut rig = Rig::new("csi-late-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let mut number = 0;
    let mut way = Way {
        steps: SWEEP_LATE,
        elsewhere: &[],
        words: &mut |rig| {
            rig.backup(&volume, &[])?.expect(0)?;
            dead(rig, &volume, "after:keep-base")?;
            number += 1;
            let newer = rig
                .client
                .create_snapshot(&format!("newer-{number}"), &volume.id)?;
            noted(rig, &newer.snapshot_id)?;
            Ok(rig.csi_words(&["release", "nobody"]))
        },
        after: &mut |rig| {
            rig.csi(&["release", "nobody"])?;
            rig.left(&before, 1, 0)?;
            rig.csi(&["release", "--all"])?;
            rig.left(&before, 0, 0)
        },
    };
    way.walk(&rig)
}

/// A run that dies there.
fn dead(rig: &Rig<'_>, volume: &Volume, at: &str) -> Result<()> {
    let words = rig.backup_words(volume, &[]);
    let died = rig.command(&words)?.env(VARIABLE, at).run()?;
    ensure!(died.status.signal() == Some(9), "{at}: {}", died.stderr);
    Ok(())
}

/// Makes the one note of a base name another snapshot, as a later run would have left it.
fn noted(rig: &Rig<'_>, snapshot: &str) -> Result<()> {
    let notes = files(&rig.scratch.join("state/csi/bases"));
    ensure!(notes.len() == 1, "{notes:?}");
    let mut note: Value = serde_json::from_slice(&std::fs::read(&notes[0])?)?;
    note["snapshot"] = snapshot.into();
    note.as_object_mut().context("an object")?.remove("created");
    Ok(std::fs::write(&notes[0], note.to_string())?)
}

/// A release that dies before and after the snapshot went: the next one ends it.
pub(crate) fn releases_die(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-release-deaths", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    for when in [When::Before, When::After] {
        rig.good_backup(&volume, &[])?;
        let calls = driver.calls()?.len();
        driver.order(&[Order::next("DeleteSnapshot", Fault::Stall { when })])?;
        let words = rig.csi_words(&["release", &volume.id]);
        let running = rig.csi_command(&words)?.start()?;
        let waits = |one: &Call| one.call == "DeleteSnapshot" && one.end_us.is_none();
        let running = running
            .until(LIMIT, || Ok(driver.calls()?[calls..].iter().any(waits)))
            .with_context(|| rig.shown(driver))?;
        running.signal(Signal::SIGKILL)?;
        ensure!(running.wait()?.status.signal() == Some(9));
        driver.order(&[])?;
        ensure!(files(&rig.scratch.join("state/csi/bases")).len() == 1);
        rig.csi(&["release", &volume.id])?;
        rig.left(&before, 0, 0)
            .with_context(|| format!("{when:?}"))?;
        ensure!(files(&rig.scratch.join("state/csi/bases")).is_empty());
    }
    Ok(())
}
