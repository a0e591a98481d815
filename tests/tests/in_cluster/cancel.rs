//! Backups that are stopped, in every phase: nothing of them is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::product::agent_name;
use tests::csi_driver::faults::{Fault, Order, When};
use tests::image::MIB;

use crate::bed::{Bed, LIMIT, NODE, condition, phase};

/// Little in flight, which is sent all the same.
const SLOW_AGENT: &[&str] = &["--limit-upload", "8MB/s", "--memory", "672MiB"];

/// Begins a backup and waits until the driver is at work on a call for it, which lasts until it is let go.
fn begun_until(bed: &mut Bed, call: &str) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.count()?;
    let calls = bed.storage.driver.calls()?.len();
    let when = When::Before;
    bed.storage
        .driver
        .order(&[Order::next(call, Fault::Stall { when })])?;
    bed.backup("stopped", "data", &json!({}), &image)?;
    bed.storage.driver.wait_for(LIMIT, |seen| {
        seen[calls..].iter().any(|seen| seen.call == call)
    })
}

/// Cancels it, and lets the driver go on once that was noticed.
fn cancelled_meanwhile(bed: &Bed) -> Result<()> {
    bed.cancel("stopped")?;
    bed.wait_for_phase("stopped", &["Canceling", "Canceled"])?;
    bed.storage.driver.order(&[])?;
    cancelled(bed, "stopped")
}

fn cancelled(bed: &Bed, name: &str) -> Result<()> {
    bed.cancel(name)?;
    let object = bed.finished(name)?;
    ensure!(phase(&object) == "Canceled", "{}", object["status"]);
    ensure!(object["status"]["point"].is_null(), "{}", object["status"]);
    Ok(())
}

/// The driver is at work on the snapshot.
pub(crate) fn before_the_snapshot(bed: &mut Bed) -> Result<()> {
    begun_until(bed, "CreateSnapshot")?;
    bed.wait_for_phase("stopped", &["Accepted"])?;
    cancelled_meanwhile(bed)
}

/// The driver is at work on the working copy.
pub(crate) fn while_exposing(bed: &mut Bed) -> Result<()> {
    begun_until(bed, "CreateVolume")?;
    cancelled_meanwhile(bed)
}

/// Others have all the places, and none of them goes on: the agent is away.
pub(crate) fn while_waiting(bed: &mut Bed) -> Result<()> {
    let names = ["one", "two", "three", "four"];
    let mut volumes = Vec::new();
    for name in names {
        volumes.push(bed.claim(name, 4)?.1);
    }
    bed.count()?;
    bed.product.stop(&agent_name(NODE));
    for (name, image) in names.iter().zip(&volumes) {
        bed.backup(name, name, &json!({}), image)?;
    }
    let mut waiting = Vec::new();
    bed.wait(LIMIT, "three that are exposed", || {
        waiting.clear();
        for name in names {
            if phase(&bed.backup_object(name)?) != "Prepared" {
                waiting.push(name);
            }
        }
        Ok(waiting.len() == 1)
    })?;
    let name = waiting.first().context("one that waits")?;
    bed.wait(LIMIT, "the reason", || {
        let object = bed.backup_object(name)?;
        Ok(condition(&object, "DeviceReady").is_some_and(|is| is["reason"] == "WaitingForSlot"))
    })?;
    cancelled(bed, name)?;
    bed.revive()?;
    for other in names.iter().filter(|other| *other != name) {
        bed.completed(other)?;
    }
    Ok(())
}

/// The agent moves data.
pub(crate) fn in_progress(bed: &mut Bed) -> Result<()> {
    with_a_slow_agent(bed, stopped_in_progress)
}

fn stopped_in_progress(bed: &mut Bed) -> Result<()> {
    let image = lasting(bed)?;
    bed.count()?;
    bed.backup("stopped", "data", &json!({}), &image)?;
    let phase = bed.wait_for_phase("stopped", &["InProgress", "Completed"])?;
    ensure!(phase == "InProgress", "it was too quick to be stopped");
    cancelled(bed, "stopped")
}

/// The object is deleted instead: it goes once all of its work is gone.
pub(crate) fn deleted_in_progress(bed: &mut Bed) -> Result<()> {
    with_a_slow_agent(bed, object_deleted_in_progress)
}

fn object_deleted_in_progress(bed: &mut Bed) -> Result<()> {
    let image = lasting(bed)?;
    bed.count()?;
    bed.backup("deleted", "data", &json!({}), &image)?;
    bed.wait_for_phase("deleted", &["InProgress", "Completed"])?;
    let path = format!("{}/deleted", bed.list("podvolumebackups"));
    bed.api.delete(&path)?;
    bed.wait(Duration::from_secs(60), "end of the object", || {
        Ok(bed.api.get(&path)?.is_none())
    })
}

/// A volume whose backup by a slow agent takes half a minute, with more data than is in flight at once: an agent that is told to stop
/// finishes what is on its way.
fn lasting(bed: &mut Bed) -> Result<tests::image::Image> {
    let (claim, _) = bed.claim("data", 256)?;
    let random = &mut bed.random;
    let copy = bed.scratch.join("lasting.img");
    claim.write(&bed.api, &bed.storage.driver, &copy, |device| {
        device.write_noise(0, 240 * MIB, random)
    })
}

/// Does this while the agent is too slow to be done before anybody looks; the next case has a quick one again.
fn with_a_slow_agent(bed: &mut Bed, what: fn(&mut Bed) -> Result<()>) -> Result<()> {
    restart_agent(bed, SLOW_AGENT)?;
    let outcome = what(bed);
    outcome.and(restart_agent(bed, &[]))
}

fn restart_agent(bed: &mut Bed, flags: &[&str]) -> Result<()> {
    bed.product.stop(&agent_name(NODE));
    bed.product.set_agent_flags(flags);
    bed.revive()
}
