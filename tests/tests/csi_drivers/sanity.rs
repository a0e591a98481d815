//! csi-sanity of the Kubernetes project: hundreds of small questions to a driver.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use tests::csi::Plugin;
use tests::part;
use tests::scratch::Scratch;

/// Asks all questions for one kind of access.
fn ask(plugin: &dyn Plugin, access: &str) -> Result<()> {
    let before = plugin.leaks()?;
    let program = part::cache().join("bin/csi-sanity");
    if !program.is_file() {
        bail!(
            "csi-sanity is missing at {}: run `tests/run`, which builds it",
            program.display()
        );
    }
    // Not in the kubelet's folder of the rig: what csi-sanity leaves of its own folders is not the driver's.
    let folder = Scratch::new("sanity")?;
    let mut command = Command::new(program);
    command
        .arg(format!(
            "--csi.endpoint=unix://{}",
            plugin.socket().display()
        ))
        .arg(format!("--csi.mountdir={}", folder.join("mount").display()))
        .arg(format!(
            "--csi.stagingdir={}",
            folder.join("staging").display()
        ))
        .arg(format!("--csi.testvolumeaccesstype={access}"))
        .args([
            "--csi.testvolumesize=67108864",
            "--csi.testvolumeexpandsize=100663296",
            "--ginkgo.no-color",
        ]);
    let report = part::run(&mut command)?;
    let passed = report
        .lines()
        .find(|line| line.contains(" Passed |"))
        .unwrap_or_default();
    ensure!(passed.contains("SUCCESS! -- "), "no summary:\n{report}");
    let count = passed
        .split(" -- ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_default();
    ensure!(
        count.parse::<u32>()? >= 70,
        "most questions were skipped: {passed}"
    );
    let left = plugin.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

pub(crate) fn block(plugin: &(dyn Plugin + Sync)) -> Result<()> {
    ask(plugin, "block")
}

pub(crate) fn mount(plugin: &(dyn Plugin + Sync)) -> Result<()> {
    ask(plugin, "mount")
}
