//! Many at once, and many in a row.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::csi::Plugin;
use tests::csi_driver::record::concurrent;
use tests::image::MIB;
use tests::snaphaul::Outcome;
use tests::test_driver::TestDriver;

use crate::rig::{Rig, SMALL, Volume};

/// What a run may take where nobody says more or less.
const MEMORY: u64 = 400 * MIB;
/// The least that a run can be told to take, and volumes that are larger: whoever keeps what he reads takes more.
const LITTLE: u64 = 256 * MIB;
const LARGE: u64 = 320 * MIB;
/// Noise in a large volume: a piece of this size in each eighth.
const PIECE: u64 = MIB;

pub(crate) fn ten_at_once(plugin: &dyn Plugin) -> Result<()> {
    let mut rig = Rig::new("csi-ten", plugin)?;
    let mut volumes = Vec::new();
    for number in 0..10 {
        volumes.push(rig.volume(&format!("v{number}"), 8 * MIB)?);
    }
    let before = plugin.leaks()?;
    for _ in 0..2 {
        let (outcomes, most) = at_once(&rig, &volumes, &[])?;
        // One that ended before the first look was never measured.
        ensure!(
            most.iter().all(|bytes| *bytes <= MEMORY) && most.iter().any(|bytes| *bytes > 0),
            "{most:?}"
        );
        for (outcome, volume) in outcomes.iter().zip(&volumes) {
            rig.check_point(volume, outcome)?;
        }
        rig.left(&before, 10, 0)?;
    }
    Ok(())
}

/// Every byte of ten volumes, each of which has more than a run may take.
pub(crate) fn ten_large_at_once(driver: &mut TestDriver) -> Result<()> {
    let rig = Rig::new("csi-ten-large", driver)?;
    let mut random = rig.random.clone();
    let mut volumes = Vec::new();
    for number in 0..10 {
        let mut volume = rig.empty_volume(&format!("v{number}"), LARGE)?;
        for eighth in 0..8 {
            volume.write(eighth * LARGE / 8 + number * PIECE, PIECE, &mut random)?;
        }
        volumes.push(volume);
    }
    let before = rig.plugin.leaks()?;
    let little = LITTLE.to_string();
    let all = ["--changed-blocks", "scan", "--memory", &*little];
    let (outcomes, most) = at_once(&rig, &volumes, &all)?;
    ensure!(
        most.iter().all(|bytes| (1..=LITTLE).contains(bytes)),
        "{most:?}"
    );
    for outcome in &outcomes {
        ensure!(outcome.number("read_bytes")? >= LARGE, "not all was read");
    }
    // Each is as good as the others: to restore them all takes longer than the backups.
    for number in [0, 9] {
        rig.check_point(&volumes[number], &outcomes[number])?;
    }
    rig.left(&before, 10, 0)
}

/// Backs all of them up at one time, and tells what each run took at most, in bytes.
fn at_once(rig: &Rig<'_>, volumes: &[Volume], more: &[&str]) -> Result<(Vec<Outcome>, Vec<u64>)> {
    let mut runs = Vec::new();
    for volume in volumes {
        runs.push(rig.command(&rig.backup_words(volume, more))?.start()?);
    }
    let mut most = vec![0; runs.len()];
    while runs
        .iter_mut()
        .zip(&mut most)
        .map(|(run, most)| {
            // None where it has just ended.
            *most = run.peak_memory().unwrap_or(0).max(*most);
            run.is_running()
        })
        .collect::<Result<Vec<_>>>()?
        .contains(&true)
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!(
        "most memory of {} runs at once: {} MiB",
        runs.len(),
        most.iter().max().unwrap_or(&0) / MIB
    );
    let ends = runs.into_iter().map(|run| run.wait()?.expect(0));
    Ok((ends.collect::<Result<_>>()?, most))
}

pub(crate) fn hundred_calls_apart(driver: &mut TestDriver) -> Result<()> {
    hundred_in_a_row(driver)?;
    let pairs = concurrent(&driver.calls()?);
    ensure!(pairs.is_empty(), "at one time: {:?}", pairs.first());
    Ok(())
}

pub(crate) fn hundred_in_a_row(plugin: &dyn Plugin) -> Result<()> {
    let mut rig = Rig::new("csi-hundred", plugin)?;
    let mut volume = rig.volume("v", SMALL)?;
    let before = rig.plugin.leaks()?;
    let (mut own, mut random) = (Vec::new(), rig.random.clone());
    for round in 0..100 {
        volume.write(round * 4096 % SMALL, 4096, &mut random)?;
        let outcome = rig.backup(&volume, &[])?.expect(0)?;
        own.extend(outcome.json()?["csi"]["own_seconds"].as_f64());
        if round % 25 == 24 {
            rig.check_point(&volume, &outcome)?;
            rig.left(&before, 1, 0)?;
        }
        if round > 0 && (round + 1) % 31 != 0 {
            // Every thirty points everything is read once.
            let why = outcome.string("changed_blocks_reason")?;
            ensure!(
                why.contains("what changed since") || why.contains("30"),
                "{why}"
            );
        }
    }
    own.sort_by(f64::total_cmp);
    eprintln!(
        "own time until the first byte, of {} runs: median {:.3} s, most {:.3} s",
        own.len(),
        own[own.len() / 2],
        own[own.len() - 1]
    );
    Ok(())
}
