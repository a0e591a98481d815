//! What a driver made before it failed, or made without an answer: it goes, and nothing more is left by each run after.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::csi::leaks::Leaks;
use tests::csi_driver::faults::{Fault, Order, When};
use tests::csi_driver::record::Call;
use tests::test_driver::TestDriver;

use crate::deaths::LIMIT;
use crate::rig::{DELTA, Rig, SMALL, Volume, says};

const NAMED: [&str; 2] = ["CreateSnapshot", "CreateVolume"];

/// Snapshots and volumes beside those that were there before.
fn things(rig: &Rig<'_>, before: &Leaks) -> Result<usize> {
    Ok(rig
        .plugin
        .leaks()?
        .since(before)
        .iter()
        .filter(|line| line.starts_with("snapshot ") || line.starts_with("volume "))
        .count())
}

/// The driver does it and answers INTERNAL or UNKNOWN: once, and as long as two runs last.
pub(crate) fn fails_after_the_work(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-fails-after", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in NAMED {
        for code in [2, 13, 15] {
            let context = || format!("{call} {code}");
            driver.order(&[Order::next(call, Fault::Lose { code })])?;
            rig.backup(&volume, &[])?.expect(69)?.names(call)?;
            rig.left(&before, 1, 0).with_context(context)?;
            driver.order(&[Order::next(call, Fault::Lose { code }).times(0)])?;
            let mut most = 2;
            for _ in 0..2 {
                rig.backup(&volume, &[])?.expect(69).with_context(context)?;
                let left = things(&rig, &before)?;
                ensure!(left <= most, "{}: {left} after {most}", context());
                most = left;
            }
            driver.order(&[])?;
            says(&rig.good_backup(&volume, &[])?, "csi", DELTA).with_context(context)?;
            rig.left(&before, 1, 0).with_context(context)?;
        }
    }
    Ok(())
}

/// No room for the clone: the snapshot goes while there still is none. What was asked for without an answer before keeps the next
/// run from beginning, so that each leaves no more.
pub(crate) fn storage_is_full(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-full", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in NAMED {
        let full = || Order::next(call, Fault::Refuse { code: 8 });
        driver.order(&[full().times(0)])?;
        for _ in 0..2 {
            let refused = rig.backup(&volume, &[])?.expect(69)?;
            let hint = refused.json()?["error"]["hint"].to_string();
            ensure!(hint.contains("out of space"), "{call}: {hint}");
            rig.left(&before, 1, 0).context(call)?;
        }
        driver.order(&[
            Order::next(call, Fault::Refuse { code: 14 }),
            full().after(1).times(0),
        ])?;
        rig.backup(&volume, &[])?.expect(69)?.names(call)?;
        if call == "CreateVolume" {
            refuses_to_begin(&rig, &volume, &before)?;
        }
        // Every snapshot that is listed is one that is known: there is none of this run.
        rig.left(&before, 1, 0).context(call)?;
        driver.order(&[])?;
        says(&rig.good_backup(&volume, &[])?, "csi", DELTA)?;
        rig.left(&before, 1, 0).context(call)?;
    }
    Ok(())
}

/// Whether there is a clone is not known: the next run does not begin. The one after that gives it up, and takes back its own.
fn refuses_to_begin(rig: &Rig<'_>, volume: &Volume, before: &Leaks) -> Result<()> {
    ensure!(things(rig, before)? == 2, "the base and the snapshot");
    let refused = rig.backup(volume, &[])?.expect(69)?;
    let said = refused.complaint()?;
    ensure!(said.contains("begin before what run"), "{said}");
    let hint = refused.json()?["error"]["hint"].to_string();
    ensure!(
        hint.contains("nothing new is made") && hint.contains("the next run gives that up"),
        "{hint}"
    );
    ensure!(things(rig, before)? == 2, "more is left");
    let begun = rig.backup(volume, &[])?.expect(69)?;
    let warnings = begun.json()?["warnings"].to_string();
    ensure!(warnings.contains("is given up"), "{warnings}");
    let hint = begun.json()?["error"]["hint"].to_string();
    ensure!(hint.contains("out of space"), "{hint}");
    Ok(())
}

/// Nobody answered, and then the request is refused for what it says: nothing is left while the driver goes on to refuse it.
pub(crate) fn refused_after_an_unknown_outcome(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-refused-after", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in NAMED {
        // Which volumes are clones not every driver lists: who is only unable now may have made one.
        let unable = &[6, 8, 9][..];
        let unable = if call == "CreateSnapshot" {
            unable
        } else {
            &[]
        };
        for code in [&[3, 5, 11, 12], unable].concat() {
            let context = || format!("{call} {code}");
            driver.order(&[
                Order::next(call, Fault::Refuse { code: 14 }),
                Order::next(call, Fault::Refuse { code }).after(1).times(0),
            ])?;
            let refused = rig.backup(&volume, &[])?;
            ensure!(!refused.status.success(), "{}: a point", context());
            rig.left(&before, 1, 0).with_context(context)?;
            let released = rig.csi(&["release", "nobody"])?;
            ensure!(released.json()?["warnings"] == serde_json::json!([]));
        }
    }
    driver.order(&[])?;
    says(&rig.good_backup(&volume, &[])?, "csi", DELTA)
}

/// What a run asked for is asked for in the same words, whatever the driver can do by then.
pub(crate) fn asked_again_as_before(driver: &mut TestDriver) -> Result<()> {
    for later in [false, true] {
        driver.restart_as(|options| options.controller_multi_writer = !later)?;
        let (scratch, repo, before) = {
            let driver = &*driver;
            let mut rig = Rig::new("csi-same-words", driver)?;
            let volume = rig.volume(&format!("v-{later}"), SMALL)?;
            let before = rig.plugin.leaks()?;
            let calls = driver.calls()?.len();
            let when = When::After;
            driver.order(&[Order::next("CreateVolume", Fault::Stall { when })])?;
            let running = rig.command(&rig.backup_words(&volume, &[]))?.start()?;
            let waits = |one: &Call| one.call == "CreateVolume" && one.end_us.is_none();
            let running = running
                .until(LIMIT, || Ok(driver.calls()?[calls..].iter().any(waits)))
                .with_context(|| rig.shown(driver))?;
            running.signal(Signal::SIGKILL)?;
            ensure!(running.wait()?.status.signal() == Some(9));
            driver.order(&[])?;
            (rig.scratch, rig.repo, before)
        };
        driver.restart_as(|options| options.controller_multi_writer = later)?;
        let rig = Rig::again(&*driver, scratch, repo)?;
        rig.csi(&["release", "--all"])?;
        rig.left(&before, 0, 0)?;
    }
    Ok(())
}

/// The driver refuses what it made before: what bears the name of the run is found in its lists.
pub(crate) fn found_by_its_name(driver: &mut TestDriver) -> Result<()> {
    driver.restart_as(|options| options.named_handles = true)?;
    let driver = &*driver;
    let mut rig = Rig::new("csi-named", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in NAMED {
        for code in [3, 6, 8, 9, 13] {
            driver.order(&[
                Order::next(call, Fault::Lose { code: 4 }),
                Order::next(call, Fault::Refuse { code }).after(1).times(0),
            ])?;
            let refused = rig.backup(&volume, &[])?;
            ensure!(!refused.status.success(), "{call} {code}: a point");
            rig.left(&before, 1, 0)
                .with_context(|| format!("{call} {code}"))?;
        }
    }
    Ok(())
}

/// A driver that only fails, and lists nothing: after some runs nobody waits for it any more, and there is never more than before.
pub(crate) fn given_up_in_the_end(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-given-up", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    for call in NAMED {
        let always = |call, code| Order::next(call, Fault::Refuse { code }).times(0);
        let made = |rig: &Rig<'_>| -> Result<usize> {
            let calls = driver.calls()?.len();
            driver.order(&[
                always(call, 13),
                always("ListVolumes", 12),
                always("ListSnapshots", 12),
            ])?;
            rig.backup(&volume, &[])?.expect(69)?;
            // Who counts what is there reads the lists, too.
            driver.order(&[])?;
            let own = |one: &&Call| one.call == call && one.fault.is_some();
            ensure!(things(rig, &before)? <= 2, "{call}: more is left");
            Ok(driver.calls()?[calls..].iter().filter(own).count())
        };
        // Asked once and three times again; then only again; then that is given up, and a new run begins.
        let asked = [made(&rig)?, made(&rig)?, made(&rig)?];
        ensure!(asked == [4, 3, 7], "{call}: {asked:?}");
        says(&rig.good_backup(&volume, &[])?, "csi", DELTA)?;
        rig.left(&before, 1, 0).context(call)?;
    }
    Ok(())
}

/// A release that leaves something ends with an error, and tells what stays and why.
pub(crate) fn what_stays_is_told(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-stays", driver)?;
    let volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    rig.good_backup(&volume, &[])?;
    // A clone that a run could not delete, and the base.
    driver.order(&[Order::next("DeleteVolume", Fault::Refuse { code: 3 }).times(0)])?;
    rig.backup(&volume, &[])?.expect(0)?;
    let refuse = |call| Order::next(call, Fault::Refuse { code: 3 }).times(0);
    driver.order(&[refuse("DeleteVolume"), refuse("DeleteSnapshot")])?;
    for words in [
        &["release", "--all"][..],
        &["release", volume.id.as_str()],
        &["release"],
    ] {
        let released = rig.csi_command(&rig.csi_words(words))?.run()?.expect(64)?;
        let json = released.json()?;
        let stays = json["stays"].as_array().context("a list")?.clone();
        let with_base = words.len() > 1;
        ensure!(
            stays.len() == 1 + usize::from(with_base),
            "{words:?}: {json}"
        );
        ensure!(stays[0]["run"].is_string() && stays[0]["volume"] == volume.id);
        let why = stays[0]["why"].to_string();
        ensure!(why.contains("DeleteVolume"), "{words:?}: {why}");
        if with_base {
            ensure!(stays[1]["snapshot"].is_string(), "{words:?}: {json}");
        }
        ensure!(released.complaint()?.contains("still there"), "{words:?}");
    }
    // What concerns another volume is told, and no error.
    let released = rig.csi(&["release", "nobody"])?;
    let warnings = released.json()?["warnings"].to_string();
    ensure!(warnings.contains("left behind"), "{warnings}");
    ensure!(released.json()?["stays"] == serde_json::json!([]));
    driver.order(&[])?;
    let released = rig.csi(&["release", "--all"])?;
    ensure!(released.json()?["stays"] == serde_json::json!([]));
    rig.left(&before, 0, 0)
}
