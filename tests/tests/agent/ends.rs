//! Orders that end early, and what the next attempt makes of it.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::backup::{BIG, same};
use super::stage::{LIMIT, Scene, Stage, kill_holder};

/// So slow that there is time to do something about it, and with little in flight, which is sent all the same.
const SLOW: &[&str] = &["--limit-upload", "2MB/s", "--memory", "672MiB"];

pub(crate) fn a_stop_is_heard(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("stopped")?;
    let (_image, device) = scene.device("image", BIG)?;
    let agent = scene.agent(SLOW)?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    scene.wait_for_bytes(&backup)?;
    scene.patch(
        &backup,
        &json!({ "order": { "stop": "cancelled by a person" } }),
    )?;
    let status = scene.wait(&backup, 1, "Stopped")?;
    let message = status["transfer"]["message"]
        .as_str()
        .context("a message")?;
    ensure!(message.contains("cancelled by a person"), "{message}");
    ensure!(status["point"].is_null(), "{status:#}");
    let points = scene.repo.ok(&["points"])?.json()?;
    ensure!(
        points["points"].as_array().is_some_and(Vec::is_empty),
        "{points:#}"
    );
    ensure!(agent.metric("snaphaul_agent_slots_in_use")? == 0.0);
    // A stop that is there before the order is taken needs no device.
    let early = scene.backup("tenant-a", "early")?;
    scene.order(&early, 1, &json!({ "stop": "too late anyway" }))?;
    scene.wait(&early, 1, "Stopped")?;
    Ok(())
}

pub(crate) fn a_killed_agent_is_taken_up(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("killed")?;
    let (image, device) = scene.device("image", BIG)?;
    let agent = scene.agent(SLOW)?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    scene.wait_for_bytes(&backup)?;
    agent.kill()?;
    let agent = scene.agent(&[])?;
    let status = scene.wait(&backup, 1, "Succeeded")?;
    let resumed =
        agent.metric("snaphaul_agent_data_bytes_total{data=\"resumed\",kind=\"backup\"}")?;
    ensure!(resumed > 0.0, "what the killed agent stored is taken over");
    is_restorable(&scene, &status["point"]["id"], &image)
}

pub(crate) fn a_drained_agent_says_so(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("drained")?;
    let (image, device) = scene.device("image", BIG)?;
    let agent = scene.agent(SLOW)?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    scene.wait_for_bytes(&backup)?;
    let before = std::time::Instant::now();
    agent.terminate()?;
    scene.wait(&backup, 1, "Interrupted")?;
    ensure!(before.elapsed() < LIMIT / 4, "{:?}", before.elapsed());
    let agent = scene.agent(&[])?;
    scene.order(&backup, 2, &json!({}))?;
    let status = scene.wait(&backup, 2, "Succeeded")?;
    let resumed =
        agent.metric("snaphaul_agent_data_bytes_total{data=\"resumed\",kind=\"backup\"}")?;
    ensure!(resumed > 0.0, "what the first attempt stored is taken over");
    is_restorable(&scene, &status["point"]["id"], &image)
}

pub(crate) fn a_holder_that_dies_interrupts(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("lost")?;
    let (image, device) = scene.device("image", BIG)?;
    let _agent = scene.agent(SLOW)?;
    let backup = scene.backup("tenant-a", "one")?;
    let holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    scene.wait_for_bytes(&backup)?;
    kill_holder(&holder)?;
    let status = scene.wait(&backup, 1, "Interrupted")?;
    let message = status["transfer"]["message"]
        .as_str()
        .context("a message")?;
    ensure!(message.contains("holder"), "{message}");
    // Without a holder there is no device either: that may change.
    scene.order(&backup, 2, &json!({}))?;
    scene.wait(&backup, 2, "Interrupted")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 3, &json!({}))?;
    let status = scene.wait(&backup, 3, "Succeeded")?;
    is_restorable(&scene, &status["point"]["id"], &image)
}

/// The controller gave the work to another attempt while the first one still runs.
pub(crate) fn a_newer_attempt_takes_the_work_away(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("newer")?;
    let (image, device) = scene.device("image", BIG)?;
    let agent = scene.agent(SLOW)?;
    let backup = scene.backup("tenant-a", "one")?;
    let _holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    scene.wait_for_bytes(&backup)?;
    scene.order(&backup, 2, &json!({}))?;
    let status = scene.wait(&backup, 2, "Succeeded")?;
    ensure!(
        agent.metric("snaphaul_agent_transfers_total{kind=\"backup\",result=\"superseded\"}")?
            == 1.0
    );
    let points = scene.repo.ok(&["points"])?.json()?;
    ensure!(
        points["points"]
            .as_array()
            .is_some_and(|all| all.len() == 1),
        "{points:#}"
    );
    is_restorable(&scene, &status["point"]["id"], &image)
}

fn is_restorable(
    scene: &Scene<'_>,
    point: &serde_json::Value,
    image: &std::path::Path,
) -> Result<()> {
    let restored = scene.scratch.join("restored");
    let point = point.as_str().context("a point")?;
    scene
        .repo
        .ok(&["restore", point, &restored.display().to_string()])?;
    same(image, &restored)
}
