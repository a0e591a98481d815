//! More volumes than slots.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::product::agent_name;

use crate::bed::{Bed, LIMIT, NODE, phase};

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

/// An agent whose pod is ready and which takes no order: the order is given again, and says why.
pub(crate) fn not_taken(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.count()?;
    // Its pod stays: nobody tells the API server that the process is gone.
    bed.product.stop(&agent_name(NODE));
    bed.lead_with(&["--progress-deadline", "5s"])?;
    bed.backup("slow", "data", &json!({}), &image)?;
    let mut last = String::new();
    let again = bed.wait(LIMIT, "a second order", || {
        let object = bed.backup_object("slow")?;
        last = object["status"].to_string();
        let told = bed.cluster.kubectl(&[
            "get",
            "events",
            "--namespace",
            &bed.namespace,
            "--output=jsonpath={.items[*].message}",
        ])?;
        let attempt = object["status"]["order"]["attempt"].as_i64();
        Ok(attempt > Some(1) && told.contains("did not take the order"))
    });
    // An agent that is back reports less often than that.
    bed.lead_with(&[])?;
    bed.revive()?;
    again.with_context(|| last)?;
    bed.completed("slow").map(drop)
}
