//! Bases that are noted elsewhere, by another spelling, not at all, or under an id that another snapshot has now.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context as _, Result, ensure};
use tests::csi::Plugin as _;
use tests::csi_driver::faults::{Fault, Order};
use tests::csi_driver::record::concurrent;
use tests::test_driver::TestDriver;

use crate::rig::{DELTA, Rig, SMALL, Volume, files, says, with_flag};

const NOT_NOTED: &str = "was not noted here";

/// Two nodes back one volume up in turns, each with notes of its own: the base is found, and there is one.
pub(crate) fn nodes_in_turns(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-nodes", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let mut random = rig.random.clone();
    rig.good_backup(&volume, &[])?;
    let other = rig.scratch.join("other").display().to_string();
    let here = rig.scratch.join("state").display().to_string();
    for round in 0..4 {
        let state = if round % 2 == 0 { &other } else { &here };
        volume.write(round * 8192, 4096, &mut random)?;
        let words = with_flag(rig.backup_words(&volume, &[]), "--csi-state", state)?;
        let outcome = rig.command(&words)?.run()?.expect(0)?;
        rig.check_point(&volume, &outcome)?;
        says(&outcome, "csi", DELTA)?;
        let warnings = outcome.json()?["warnings"].to_string();
        ensure!(warnings.contains(NOT_NOTED), "round {round}: {warnings}");
        rig.left(&before, 1, 0)
            .with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// A driver that tells one snapshot a page, whatever it is asked for.
pub(crate) fn many_pages(_: &mut TestDriver) -> Result<()> {
    let driver = &TestDriver::start(|options| (options.page, options.filters) = (1, false))?;
    let mut rig = Rig::new("csi-pages", driver)?;
    let (mut volume, other) = (rig.volume("v", SMALL)?, rig.volume("other", SMALL)?);
    for number in 0..5 {
        rig.client
            .create_snapshot(&format!("other-{number}"), &other.id)?;
    }
    let before = rig.plugin.leaks()?;
    let mut random = rig.random.clone();
    rig.good_backup(&volume, &[])?;
    // A token that is taken back once, and one that never holds.
    for (times, is_found) in [(1, true), (0, false)] {
        std::fs::remove_dir_all(rig.scratch.join("state"))?;
        volume.write(8192, 4096, &mut random)?;
        let order = Order::next("ListSnapshots", Fault::StaleToken).after(2);
        driver.order(&[order.times(times)])?;
        let outcome = rig.good_backup(&volume, &[])?;
        driver.order(&[])?;
        says(&outcome, "csi", DELTA)?;
        let warnings = outcome.json()?["warnings"].to_string();
        ensure!(
            warnings.contains(NOT_NOTED) == is_found,
            "{times}: {warnings}"
        );
        ensure!(
            is_found || warnings.contains("twice"),
            "{times}: {warnings}"
        );
        rig.left(&before, if is_found { 1 } else { 2 }, 0)?;
    }
    Ok(())
}

/// The id of the base is another snapshot's by now: it is neither the start of a delta, nor kept, nor deleted.
pub(crate) fn recycled_handle(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-recycled", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let mut random = rig.random.clone();
    let first = rig.good_backup(&volume, &[])?.json()?["csi"]["snapshot_id"].clone();
    let first = first.as_str().context("an id")?.to_owned();
    let later = || Order::next("ListSnapshots", Fault::OtherTime).times(0);
    driver.order(&[later()])?;
    std::fs::remove_dir_all(rig.scratch.join("state"))?;
    volume.write(8192, 4096, &mut random)?;
    let outcome = rig.good_backup(&volume, &[])?;
    let warnings = outcome.json()?["warnings"].to_string();
    ensure!(
        warnings.contains("another one has that id now"),
        "{warnings}"
    );
    let why = outcome.string("changed_blocks_reason")?;
    ensure!(!why.contains(DELTA), "{why}");
    rig.left(&before, 2, 0)?;
    // A release deletes nothing that is somebody else's, and forgets it.
    rig.csi(&["release", "--all"])?;
    rig.left(&before, 2, 0)?;
    ensure!(files(&rig.scratch.join("state/csi/bases")).is_empty());
    ensure!(rig.client.snapshots()?.contains(&first));
    Ok(())
}

/// One socket, however it is written: one lock, one journal, one base.
pub(crate) fn spellings_of_a_socket(driver: &mut TestDriver) -> Result<()> {
    let driver = &*driver;
    let mut rig = Rig::new("csi-spellings", driver)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let mut random = rig.random.clone();
    rig.good_backup(&volume, &[])?;
    let socket = driver.socket().display().to_string();
    let link = rig.scratch.join("link");
    std::os::unix::fs::symlink(driver.socket().parent().context("a folder")?, &link)?;
    let by_link = link.join("csi.sock").display().to_string();
    let words = |rig: &Rig<'_>, volume: &Volume, spelling: &str| {
        with_flag(rig.backup_words(volume, &[]), "--csi-socket", spelling)
    };
    for spelling in [
        &by_link,
        &format!("unix://{by_link}"),
        &format!("unix:{socket}"),
        &socket,
    ] {
        volume.write(8192, 4096, &mut random)?;
        let outcome = rig
            .command(&words(&rig, &volume, spelling)?)?
            .run()?
            .expect(0)?;
        rig.check_point(&volume, &outcome)?;
        says(&outcome, "csi", DELTA).with_context(|| spelling.clone())?;
        let warnings = outcome.json()?["warnings"].to_string();
        ensure!(!warnings.contains(NOT_NOTED), "{spelling}: {warnings}");
        rig.left(&before, 1, 0).with_context(|| spelling.clone())?;
        // What died under one name is taken back under another; earlier versions wrote the name that they were given.
        let died = rig.command(&words(&rig, &volume, spelling)?)?;
        let died = died
            .env("SNAPHAUL_TEST_DIE_AT", "after:publish-wanted")
            .run()?;
        ensure!(died.status.signal() == Some(9), "{}", died.stderr);
        for folder in ["state/csi/sessions", "state/csi/bases"] {
            as_spelled(&rig, folder, &socket, &by_link)?;
        }
        let outcome = rig.good_backup(&volume, &[])?;
        says(&outcome, "csi", DELTA).with_context(|| spelling.clone())?;
        rig.left(&before, 1, 0).with_context(|| spelling.clone())?;
    }
    // Both at once: one waits for the other.
    let start = |spelling: &str| rig.command(&words(&rig, &volume, spelling)?)?.start();
    for run in [start(&socket)?, start(&by_link)?] {
        run.wait()?.expect(0)?;
    }
    rig.left(&before, 1, 0)?;
    let pairs = concurrent(&driver.calls()?);
    ensure!(pairs.is_empty(), "at one time: {:?}", pairs.first());
    let refused = rig
        .command(&words(&rig, &volume, "@csi")?)?
        .run()?
        .expect(64)?;
    let hint = refused.json()?["error"]["hint"].to_string();
    ensure!(hint.contains("abstract namespace"), "{hint}");
    Ok(())
}

/// Writes the files of a folder as an earlier version did that was given the socket by another name, the names of notes included.
fn as_spelled(rig: &Rig<'_>, folder: &str, socket: &str, spelled: &str) -> Result<()> {
    let canonical = std::fs::canonicalize(socket)?.display().to_string();
    for file in files(&rig.scratch.join(folder)) {
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.contains(&canonical), "{text}");
        let text = text.replace(&canonical, spelled);
        if folder.ends_with("bases") {
            std::fs::remove_file(&file)?;
            std::fs::write(file.with_file_name("0123456789abcdef.json"), text)?;
        } else {
            std::fs::write(&file, text)?;
        }
    }
    Ok(())
}
