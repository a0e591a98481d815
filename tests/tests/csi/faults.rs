//! Drivers that answer badly: every fault ends in a right point or a clear failure, and nothing is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::csi_driver::faults::{Fault, Order, When, Wrong};
use tests::csi_driver::record::concurrent;
use tests::test_driver::TestDriver;

use crate::rig::{DELTA, Rig, SMALL, Volume, says, texts};

const LIMIT: Duration = Duration::from_secs(60);
const MAKING: [&str; 5] = [
    "CreateSnapshot",
    "CreateVolume",
    "ControllerPublishVolume",
    "NodeStageVolume",
    "NodePublishVolume",
];
const UNDOING: [&str; 5] = [
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "ControllerUnpublishVolume",
    "DeleteVolume",
    "DeleteSnapshot",
];

/// What may still be running, or was done without an answer, is asked for again until it is known.
pub(crate) fn repeated(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-repeated", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let mut random = rig.random.clone();
    let quick = ["--csi-timeout", "500ms"];
    for call in MAKING.into_iter().chain(UNDOING) {
        let faults = [
            Fault::Refuse { code: 10 },
            Fault::Refuse { code: 14 },
            Fault::Lose { code: 4 },
            Fault::Lose { code: 14 },
            Fault::Slow { ms: 900 },
        ];
        for fault in faults {
            let context = || format!("{call} {fault:?}");
            let first = driver.calls()?.len();
            driver.order(&[Order::next(call, fault.clone()).times(2)])?;
            volume.write(0, 4096, &mut random)?;
            let point = rig.good_backup(&volume, &quick).with_context(context)?;
            says(&point, "csi", DELTA).with_context(context)?;
            rig.left(&before, 1, 0).with_context(context)?;
            let hit = driver.calls()?[first..]
                .iter()
                .any(|one| one.fault.is_some());
            ensure!(
                hit || matches!(fault, Fault::Slow { .. }),
                "{} was not hit",
                context()
            );
        }
    }
    for fault in [Fault::NotReady, Fault::LateDevice { ms: 700 }] {
        let call = if fault == Fault::NotReady {
            "CreateSnapshot"
        } else {
            "NodePublishVolume"
        };
        driver.order(&[Order::next(call, fault.clone()).times(2)])?;
        rig.good_backup(&volume, &[])
            .with_context(|| format!("{fault:?}"))?;
        rig.left(&before, 1, 0)
            .with_context(|| format!("{fault:?}"))?;
    }
    Ok(())
}

/// A final answer ends the run at once, with a reason, and what was made goes.
pub(crate) fn final_answers(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-final", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in MAKING {
        // Whose name is wrong: only that of the volume comes from the user.
        let missing = if call == "CreateSnapshot" { 64 } else { 69 };
        for (code, exit) in [
            (3, 64),
            (5, missing),
            (7, 64),
            (8, 69),
            (9, 69),
            (11, 64),
            (12, 64),
            (13, 69),
            (16, 64),
        ] {
            let context = || format!("{call} {code}");
            driver.order(&[Order::next(call, Fault::Refuse { code }).times(0)])?;
            let outcome = rig
                .backup(&volume, &[])?
                .expect(exit)
                .with_context(context)?;
            ensure!(
                outcome.complaint()?.contains(call),
                "{}",
                outcome.complaint()?
            );
            let hint = outcome.json()?["error"]["hint"].to_string();
            ensure!(hint.len() > 10, "{}: no hint", context());
            driver.order(&[])?;
            if (code, call) == (13, "CreateVolume") {
                // It may be there, as far as anybody knows: the next run asks again what came of it.
                rig.csi(&["release", "nobody"])?;
            }
            // The base before stays.
            rig.left(&before, 1, 0).with_context(context)?;
        }
    }
    says(&rig.good_backup(&volume, &[])?, "csi", DELTA)
}

/// A refusal of the run that cleans up says nothing of what the run before made: it is kept in mind until the driver tells.
pub(crate) fn refused_clean_up(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-refused-clean-up", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    for call in ["CreateSnapshot", "CreateVolume"] {
        for code in [6, 7, 8, 9, 13, 16] {
            let context = || format!("{call} {code}");
            // It is made, nobody hears of it, and from then on the driver refuses. No list tells what was made.
            driver.order(&[
                Order::next(call, Fault::Lose { code: 4 }),
                Order::next(call, Fault::Refuse { code }).after(1).times(0),
                Order::next("ListVolumes", Fault::Refuse { code: 12 }).times(0),
            ])?;
            let outcome = rig.backup(&volume, &[])?;
            ensure!(!outcome.status.success(), "{}: a point", context());
            let warnings = outcome.stderr.clone();
            ensure!(
                warnings.contains("left behind"),
                "{}: {warnings}",
                context()
            );
            driver.order(&[])?;
            rig.csi(&["release", "nobody"])?;
            rig.left(&before, 0, 0).with_context(context)?;
        }
    }
    Ok(())
}

/// A driver that dies during a call, and comes back.
pub(crate) fn driver_dies(driver: &mut TestDriver) -> Result<()> {
    let mut orders = Vec::new();
    for call in MAKING.into_iter().chain(UNDOING) {
        for when in [When::Before, When::After] {
            orders.push((call, when));
        }
    }
    // The rig borrows the driver for its life, and each death needs the driver itself.
    for (call, when) in orders {
        one_death(driver, call, when).with_context(|| format!("{call} {when:?}"))?;
    }
    Ok(())
}

fn one_death(driver: &mut TestDriver, call: &str, when: When) -> Result<()> {
    driver.order(&[])?;
    let (running, left) = {
        let mut rig = Rig::new("csi-driver-dies", driver)?;
        let volume = rig.volume(&format!("v-{call}-{when:?}"), SMALL)?;
        let before = rig.plugin.leaks()?;
        driver.order(&[Order::next(call, Fault::Die { when })])?;
        let keep = if call == "DeleteSnapshot" {
            "never"
        } else {
            "auto"
        };
        let words = rig.backup_words(&volume, &["--keep-base", keep]);
        let running = rig.command(&words)?.start()?;
        ((running, volume), (rig.scratch, rig.repo, before, keep))
    };
    let ((running, volume), (scratch, repo, before, keep)) = (running, left);
    let journals = scratch.join("state/csi/sessions");
    // A run that ends while the driver lives was never hit by the order.
    let running = running
        .until(LIMIT, || Ok(!driver.listens()))
        .with_context(|| format!("{}\n{}", driver.last_calls(), texts(&journals)))?;
    driver.restart()?;
    let outcome = running.wait()?.expect(0)?;
    let rig = Rig::again(driver, scratch, repo)?;
    rig.check_point(&volume, &outcome)?;
    rig.left(&before, usize::from(keep == "auto"), 0)
}

/// What cannot be removed now is told, and removed by the next run.
pub(crate) fn clean_up_fails(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-clean-up", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in UNDOING {
        for code in [3, 9, 13, 14] {
            let context = || format!("{call} {code}");
            driver.order(&[Order::next(call, Fault::Refuse { code }).times(0)])?;
            let point = rig.backup(&volume, &["--csi-deadline", "300ms"])?;
            let point = point.expect(0).with_context(context)?;
            rig.check_point(&volume, &point).with_context(context)?;
            let warnings = point.json()?["warnings"].to_string();
            ensure!(
                warnings.contains("left behind"),
                "{}: {warnings}",
                context()
            );
            driver.order(&[])?;
            let next = rig.good_backup(&volume, &[]).with_context(context)?;
            says(&next, "csi", DELTA).with_context(context)?;
            rig.left(&before, 1, 0).with_context(context)?;
        }
    }
    let pairs = concurrent(&driver.calls()?);
    ensure!(pairs.is_empty(), "at one time: {:?}", pairs.first());
    Ok(())
}

/// Whatever a driver says of its snapshots, the point is right.
pub(crate) fn metadata(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-metadata", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    let mut random = rig.random.clone();
    let streams = [
        Wrong::Truncated,
        Wrong::Broken,
        Wrong::Disorder,
        Wrong::Overlap,
        Wrong::NegativeOffset,
        Wrong::NegativeSize,
        Wrong::PastEnd,
        Wrong::AcrossEnd,
        Wrong::OtherCapacity,
        Wrong::NegativeCapacity,
        Wrong::ZeroSize,
    ];
    let streams = streams.map(|wrong| Fault::Stream { wrong, after: 0 });
    let codes = [5, 9, 11, 12].map(|code| Fault::Refuse { code });
    for fault in streams.into_iter().chain(codes) {
        let context = || format!("{fault:?}");
        driver.order(&[Order::next("GetMetadataDelta", fault.clone())])?;
        for place in 0..4 {
            volume.write(place * (1 << 20), 4096, &mut random)?;
        }
        let first = driver.calls()?.len();
        rig.good_backup(&volume, &[]).with_context(context)?;
        rig.left(&before, 1, 0).with_context(context)?;
        // A stream that nobody reads to its end is recorded a moment later.
        driver
            .wait_for(LIMIT, |all| {
                all[first..].iter().any(|one| one.fault.is_some())
            })
            .with_context(|| format!("{} was not hit", context()))?;
        if matches!(fault, Fault::Refuse { .. }) {
            let calls = driver.calls()?;
            ensure!(
                calls[first..]
                    .iter()
                    .any(|one| one.call == "GetMetadataAllocated"),
                "{}: more was read than what is allocated",
                context()
            );
        }
    }
    leaves_out(driver, &mut rig, &mut volume)?;
    rig.left(&before, 1, 0)
}

/// A range that changed and is not told: the point is right all the same, and nobody asks the driver again.
fn leaves_out(driver: &TestDriver, rig: &mut Rig<'_>, volume: &mut Volume) -> Result<()> {
    let (wrong, after) = (Wrong::Missing, 0);
    driver.order(&[Order::next(
        "GetMetadataDelta",
        Fault::Stream { wrong, after },
    )])?;
    let mut random = rig.random.clone();
    for place in 0..4 {
        volume.write(place * (1 << 20), 4096, &mut random)?;
    }
    let caught = rig.good_backup(volume, &[])?;
    ensure!(
        caught.json()?["changed_blocks_liar"].is_string(),
        "it is not caught: {}",
        caught.text()
    );
    volume.write(0, 4096, &mut random)?;
    let first = driver.calls()?.len();
    rig.good_backup(volume, &[])?;
    let mut asked = driver.calls()?.split_off(first).into_iter();
    ensure!(
        !asked.any(|one| one.call == "GetMetadataDelta"),
        "it is asked again"
    );
    Ok(())
}
