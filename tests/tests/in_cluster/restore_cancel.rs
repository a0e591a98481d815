//! Restores that are stopped or deleted, in every phase: nothing of them is left.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::csi_driver::faults::{Fault, Order};
use tests::image::MIB;

use crate::bed::{Bed, LIMIT, phase};
use crate::restores::{self, PLURAL, of_backup, restore};

/// How long a call of the driver lasts: longer than a restore takes to notice that it was stopped.
const SLOW: u64 = 6_000;

/// Stops the first restore and deletes the second; waits until both are at their end, to which `help` may be needed.
fn stop(bed: &mut Bed, names: [&str; 2], help: impl FnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    restores::cancel(bed, names[0])?;
    restores::delete(bed, names[1])?;
    help(bed)?;
    let object = bed.final_object(PLURAL, names[0])?;
    ensure!(phase(&object) == "Canceled", "{}", object["status"]);
    restores::gone(bed, &format!("{}/{}", bed.list(PLURAL), names[1]))
}

fn begin(bed: &Bed, names: [&str; 2], backup: &str) -> Result<()> {
    for name in names {
        restore(bed, name, &of_backup(backup, "NewClaim", name))?;
    }
    Ok(())
}

/// Before anything is made: the backup is missing, the driver is at work, all places are taken.
pub(crate) fn early(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.count()?;
    begin(bed, ["new-1", "new-2"], "missing")?;
    for name in ["new-1", "new-2"] {
        restores::wait_for_reason(bed, name, "Accepted", "NotFound")?;
    }
    stop(bed, ["new-1", "new-2"], |_| Ok(()))?;
    let calls = bed.storage.driver.calls()?.len();
    let slow = Order::next("CreateVolume", Fault::Slow { ms: SLOW }).times(2);
    bed.storage.driver.order(&[slow])?;
    begin(bed, ["making-1", "making-2"], "first")?;
    bed.storage.driver.wait_for(LIMIT, |seen| {
        let made = seen[calls..]
            .iter()
            .filter(|call| call.call == "CreateVolume");
        made.count() == 2
    })?;
    stop(bed, ["making-1", "making-2"], |_| Ok(()))?;
    // What the driver makes now is nobody's any more.
    bed.storage.driver.wait_for(LIMIT, |seen| {
        let made = seen[calls..]
            .iter()
            .filter(|call| call.call == "CreateVolume");
        made.filter(|call| call.end_us.is_some()).count() >= 2
    })?;
    bed.storage.driver.order(&[])?;
    bed.nothing_left()
}

/// The devices are open, and others wait for a place; nothing goes on, for the agent is frozen.
pub(crate) fn exposed(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.count()?;
    restores::freeze_agent(bed, true)?;
    begin(bed, ["open-1", "open-2"], "first")?;
    restore(bed, "open-3", &of_backup("first", "NewClaim", "open-3"))?;
    for name in ["open-1", "open-2", "open-3"] {
        restores::wait_for_phase(bed, name, "Prepared")?;
    }
    begin(bed, ["wait-1", "wait-2"], "first")?;
    for name in ["wait-1", "wait-2"] {
        restores::wait_for_reason(bed, name, "DeviceReady", "WaitingForSlot")?;
    }
    stop(bed, ["wait-1", "wait-2"], |_| Ok(()))?;
    stop(bed, ["open-1", "open-2"], |bed| {
        restores::freeze_agent(bed, false)
    })?;
    restores::completed(bed, "open-3")?;
    restores::assert_same(bed, "open-3", &image)?;
    restores::remove(bed, &["open-3"])
}

/// The agent writes.
pub(crate) fn in_progress(bed: &mut Bed) -> Result<()> {
    big(bed)?;
    bed.count()?;
    begin(bed, ["write-1", "write-2"], "data")?;
    for name in ["write-1", "write-2"] {
        restores::wait_for_phase(bed, name, "InProgress")?;
    }
    stop(bed, ["write-1", "write-2"], |_| Ok(()))
}

/// A claim whose restore takes a while.
fn big(bed: &mut Bed) -> Result<()> {
    let (claim, _) = bed.claim("data", 400)?;
    let random = &mut bed.random;
    let copy = bed.scratch.join("big.img");
    let image = claim.write(&bed.api, &bed.storage.driver, &copy, |device| {
        device.write_noise(0, 380 * MIB, random)
    })?;
    std::fs::remove_file(&image.path)?;
    restores::back_up(bed, "data", "data").map(drop)
}

/// The volume has changed hands by half: its old object is going, its new one is not there yet.
pub(crate) fn between_two_objects(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.count()?;
    let names = ["half-1", "half-2"];
    begin(bed, names, "first")?;
    let mut held = Vec::new();
    for name in names {
        let volume = restores::working_volume(bed, name)?;
        restores::hold(bed, &volume)?;
        held.push(volume);
    }
    for (name, volume) in names.iter().zip(&held) {
        restores::wait_for_step(bed, name, "Recreating")?;
        restores::ending(bed, volume)?;
    }
    stop(bed, names, |bed| {
        for volume in &held {
            restores::release(bed, volume)?;
        }
        Ok(())
    })?;
    bed.nothing_left()?;
    // One that was stopped hinders no other of the same target.
    restore(bed, "again", &of_backup("first", "NewClaim", "half-1"))?;
    restores::completed(bed, "again")?;
    restores::assert_same(bed, "half-1", &image)?;
    restores::remove(bed, &["half-1"])
}
