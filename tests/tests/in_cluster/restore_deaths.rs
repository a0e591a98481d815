//! Controller, agent and holder killed at random moments of a restore.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::bed::{Bed, is_final, phase};
use crate::restores::{self, PLURAL, of_backup, restore};

/// Rounds of a quick run, and of a long one.
const ROUNDS: [u64; 2] = [3, 60];

/// Each round one restore, by turns into a new claim, in place of a claim and into its volume, and one to three deaths while it
/// runs. Every restore ends, most ends are good ones, and what is good is equal to the last bit.
pub(crate) fn anywhere(bed: &mut Bed) -> Result<()> {
    let long = std::env::var_os("SNAPHAUL_TEST_LONG").is_some();
    let rounds = ROUNDS[usize::from(long)];
    let (claim, image) = bed.claim("data", 96)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.count()?;
    let mut completed = 0;
    for round in 0..rounds {
        bed.write(&claim, 6)?;
        let name = format!("round-{round}");
        let (mode, target) = [
            ("NewClaim", "copy"),
            ("Replace", "data"),
            ("InPlace", "data"),
        ][usize::try_from(round % 3)?];
        restore(bed, &name, &of_backup("first", mode, target))?;
        for _ in 0..=bed.random.below(3) {
            std::thread::sleep(Duration::from_millis(bed.random.below(3_000)));
            if is_final(&phase(&bed.object(PLURAL, &name)?)) {
                break;
            }
            crate::deaths::kill_one(bed)?;
            std::thread::sleep(Duration::from_millis(bed.random.below(500)));
            bed.revive()?;
        }
        let object = bed.final_object(PLURAL, &name)?;
        eprintln!(
            "{name} {mode}: {} {}",
            phase(&object),
            object["status"]["message"]
        );
        if phase(&object) == "Completed" {
            completed += 1;
            restores::assert_same(bed, target, &image)?;
        }
        tidy(bed, mode, &object)?;
    }
    ensure!(
        completed * 10 >= rounds * 9,
        "only {completed} of {rounds} restores survived deaths that each may be survived"
    );
    restores::remove(bed, &["data"])
}

/// Takes away what the user would, so that everything else that is there was left over.
fn tidy(bed: &mut Bed, mode: &str, object: &serde_json::Value) -> Result<()> {
    let done = phase(object) == "Completed";
    match mode {
        "NewClaim" if done => restores::remove(bed, &["copy"])?,
        // The new volume is the claim's: from here it is what was there before.
        "Replace" if done => {
            let volume = restores::claim(bed, "data").volume(&bed.api)?;
            bed.nothing_left_but(&restores::path_of(&volume))?;
            return bed.count();
        }
        _ => {}
    }
    bed.nothing_left()
}
