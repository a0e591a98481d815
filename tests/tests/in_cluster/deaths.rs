//! Controller, agent and holder killed at random moments.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::cluster::product::agent_name;

use crate::bed::{Bed, CONTROLLER, NODE, is_final, phase};

/// Rounds of a quick run, and of a long one.
const ROUNDS: [u64; 2] = [6, 100];

/// Each round one backup, and one to three deaths while it runs. Every backup ends, and most ends are good ones.
pub(crate) fn anywhere(bed: &mut Bed) -> Result<()> {
    let long = std::env::var_os("SNAPHAUL_TEST_LONG").is_some();
    let rounds = ROUNDS[usize::from(long)];
    let (claim, _) = bed.claim("data", 96)?;
    bed.count()?;
    let mut completed = 0;
    for round in 0..rounds {
        let image = bed.write(&claim, 6)?;
        let name = format!("round-{round}");
        bed.backup(&name, "data", &json!({}), &image)?;
        for _ in 0..=bed.random.below(3) {
            std::thread::sleep(Duration::from_millis(bed.random.below(2_500)));
            if is_final(&phase(&bed.backup_object(&name)?)) {
                break;
            }
            kill_one(bed)?;
            std::thread::sleep(Duration::from_millis(bed.random.below(500)));
            bed.revive()?;
        }
        let object = bed.finished(&name)?;
        eprintln!("{name}: {} {}", phase(&object), object["status"]["message"]);
        if phase(&object) == "Completed" {
            completed += 1;
            bed.assert_restores(&name)?;
        }
        bed.nothing_left()?;
    }
    ensure!(
        (rounds - completed) * 10 <= rounds.max(10),
        "only {completed} of {rounds} backups survived deaths that each may be survived"
    );
    Ok(())
}

/// Kills controller, agent or a holder.
pub(crate) fn kill_one(bed: &mut Bed) -> Result<()> {
    match bed.random.below(3) {
        0 => bed.product.kill(CONTROLLER),
        1 => bed.product.kill(&agent_name(NODE)),
        _ => {
            let holders = bed.node.processes();
            if let Some(pod) = holders.keys().next() {
                bed.node.kill(pod);
            }
            Ok(())
        }
    }
}
