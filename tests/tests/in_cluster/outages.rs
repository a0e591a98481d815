//! The cluster's own programs die in the middle of a backup, which comes to a good end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::image::{Image, MIB};

use crate::bed::{Bed, LIMIT, is_final, phase};

const POLL: Duration = Duration::from_millis(100);

/// The API server is killed and starts again on the same data and port: whoever watches must begin anew.
pub(crate) fn api_server(bed: &mut Bed) -> Result<()> {
    let image = running(bed)?;
    bed.cluster.kill_api_server()?;
    bed.cluster.start_api_server()?;
    survived(bed, &image)
}

/// The controller manager, which detaches, binds and collects, is killed and starts again.
pub(crate) fn controller_manager(bed: &mut Bed) -> Result<()> {
    let image = running(bed)?;
    bed.cluster.kill_controller_manager()?;
    bed.cluster.start_controller_manager()?;
    survived(bed, &image)
}

/// A backup that an agent is at work on.
fn running(bed: &mut Bed) -> Result<Image> {
    let (claim, _) = bed.claim("data", 256)?;
    let random = &mut bed.random;
    let copy = bed.scratch.join("outage.img");
    let image = claim.write(&bed.api, &bed.storage.driver, &copy, |device| {
        device.write_noise(0, 240 * MIB, random)
    })?;
    bed.count()?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.wait_for_phase("first", &["InProgress", "Completed"])?;
    Ok(image)
}

/// It ends well, and so does the next: no watch is deaf.
fn survived(bed: &mut Bed, image: &Image) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT
        && !bed
            .backup_object("first")
            .is_ok_and(|object| is_final(&phase(&object)))
    {
        bed.restart_ended()?;
        std::thread::sleep(POLL);
    }
    let object = bed.completed("first")?;
    let attempt = object["status"]["order"]["attempt"].as_i64();
    ensure!(
        attempt.is_none_or(|attempt| attempt == 1),
        "the agent was disturbed: {}",
        object["status"]
    );
    bed.backup("second", "data", &json!({}), image)?;
    bed.completed("second").map(drop)
}
