//! More volumes than slots.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::bed::{Bed, LIMIT, phase};

/// As many as a night brings, where time does not matter.
const MANY: usize = 50;
const FEW: usize = 12;
/// Volumes that may be exposed on a node at once, one more than its slots.
const EXPOSED: usize = 3;

/// Many volumes at once on a node with two slots: all are backed up, and never are more than three exposed.
pub(crate) fn many(bed: &mut Bed) -> Result<()> {
    let mut volumes = Vec::new();
    let is_long = std::env::var_os("SNAPHAUL_TEST_LONG").is_some();
    for index in 0..if is_long { MANY } else { FEW } {
        let name = format!("data-{index}");
        let (_, image) = bed.claim(&name, 2)?;
        volumes.push((name, image));
    }
    bed.count()?;
    let policy = json!({"baseSnapshotPolicy": "Drop"});
    for (name, image) in &volumes {
        bed.backup(name, name, &policy, image)?;
    }
    let mut most = 0;
    for (name, _) in &volumes {
        let begin = Instant::now();
        loop {
            most = most.max(bed.node.processes().len());
            let object = bed.backup_object(name)?;
            if crate::bed::is_final(&phase(&object)) {
                break;
            }
            // Those before it have ended, and two run at a time: it is at work by now, or the next to be.
            ensure!(
                begin.elapsed() < LIMIT,
                "{name} does not end: {}",
                object["status"]
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        bed.completed(name)?;
    }
    ensure!(most <= EXPOSED, "{most} volumes were exposed at once");
    ensure!(most > 1, "they ran one after the other");
    Ok(())
}
