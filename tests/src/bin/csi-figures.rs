//! Figures of backups through a CSI driver, one line of JSON; `bench/run csi` calls it.
//!
//! `csi-figures [--small]`: snapshots of one volume backed up one after the other, with our own driver, and with csi-driver-host-path
//! where `SNAPHAUL_HOSTPATHPLUGIN` names it. The program to measure is `SNAPHAUL_BIN`. What a run says of its own time, from the
//! snapshot that exists to the first byte that was read, is without the calls to the driver and without the wait for its device.
//!
//! Owns: what is done and what is read off. Must not: judge a figure (`bench/lab` does), or clean up what a run left: that is counted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::hostpath::HostPath;
use tests::image::MIB;
use tests::repo::{Repo, fresh};
use tests::test_driver::TestDriver;

const USAGE: &str = "usage: csi-figures [--small]";
const SIZE: u64 = 64 * MIB;
const PIECE: u64 = 4096;

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1).as_deref() {
        None => 100,
        Some("--small") => 3,
        Some(_) => bail!(USAGE),
    };
    let mut figures = vec![in_a_row("own", &TestDriver::start(|_| {})?, rounds)?];
    if HostPath::program().is_some() {
        figures.push(in_a_row("hostpath", &HostPath::start(&[])?, rounds)?);
    }
    println!("{}", json!({ "drivers": figures }));
    Ok(())
}

fn in_a_row(driver: &str, plugin: &dyn Plugin, rounds: u64) -> Result<Value> {
    let (scratch, repo, mut random) = fresh("csi-figures")?;
    let client = plugin.client()?;
    let made = client.create_volume("figures", SIZE, None)?;
    let writer = Attached::block(plugin, "writer", &made)?;
    let device = File::options().write(true).open(writer.path())?;
    let mut noise = vec![0; usize::try_from(SIZE / 4)?];
    random.fill(&mut noise);
    device.write_all_at(&noise, 0)?;
    device.sync_all()?;
    // What every run uses stays, and is of no run.
    std::fs::create_dir_all(plugin.kubelet().join("plugins/kubernetes.io/csi/snaphaul"))?;
    let before = plugin.leaks()?;
    let (mut own, mut all) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        random.fill(&mut noise[..usize::try_from(PIECE)?]);
        let place = round * 7 % (SIZE / PIECE) * PIECE;
        device.write_all_at(&noise[..usize::try_from(PIECE)?], place)?;
        device.sync_all()?;
        let state = scratch.join("state");
        let outcome = backup(&repo, plugin, &made.volume_id, &state)?;
        own.push(seconds(&outcome, "own_seconds")?);
        all.push(seconds(&outcome, "first_byte_seconds")?);
    }
    // One snapshot is meant to stay, and with some drivers nothing is gone at once.
    let left = plugin.left_once(&before, &|left| left.len() == 1)?;
    let snapshots = left.iter().filter(|line| line.starts_with("snapshot "));
    let snapshots = snapshots.count();
    let journals = std::fs::read_dir(scratch.join("state/csi/sessions"));
    Ok(json!({
        "driver": driver, "rounds": rounds, "own": spread(&mut own), "first_byte": spread(&mut all),
        "snapshots_left": snapshots, "others_left": left.len() - snapshots,
        "journals_left": journals.map_or(0, Iterator::count),
    }))
}

fn backup(
    repo: &Repo,
    plugin: &dyn Plugin,
    volume: &str,
    state: &std::path::Path,
) -> Result<Value> {
    let source = format!("csi:{volume}");
    let command = repo.command(&["backup", &source, "--volume", "figures"])?;
    let command = command
        .flag("--csi-socket", plugin.socket())
        .flag("--kubelet-root", plugin.kubelet())
        .flag("--csi-state", state);
    command.run()?.expect(0)?.json()
}

fn seconds(outcome: &Value, field: &str) -> Result<f64> {
    let seconds = outcome["csi"][field].as_f64();
    seconds.with_context(|| format!("{field} in {outcome}"))
}

/// Median, 95th percentile and worst.
fn spread(seconds: &mut [f64]) -> Value {
    seconds.sort_by(f64::total_cmp);
    let at = |share: usize| seconds[(seconds.len() * share).div_ceil(100).max(1) - 1];
    json!({ "median_seconds": at(50), "p95_seconds": at(95), "worst_seconds": at(100) })
}
