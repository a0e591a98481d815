//! A point into a device that a holder opened for writing.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::backup::same;
use super::stage::{MIB, Stage};

pub(crate) fn a_point_is_restored(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("restored")?;
    let (image, device) = scene.device("image", 6 * MIB)?;
    let agent = scene.agent(&[])?;
    let backup = scene.backup("tenant-a", "one")?;
    let _source = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    let point = scene.wait(&backup, 1, "Succeeded")?["point"].clone();
    let id = point["id"].as_str().context("a point")?;

    let (target, volume) = scene.device("target", 6 * MIB)?;
    let restore = scene.restore("tenant-b", "one", id)?;
    let _holder = scene.hold(&restore, volume.path(), "write")?;
    scene.patch(&restore, &json!({ "point": point }))?;
    scene.order(&restore, 1, &json!({}))?;
    let status = scene.wait(&restore, 1, "Succeeded")?;
    ensure!(status["progress"]["bytesDone"] == 6 * MIB, "{status:#}");
    same(&image, &target)?;
    ensure!(
        agent.metric("snaphaul_agent_transfers_total{kind=\"restore\",result=\"succeeded\"}")?
            == 1.0
    );

    // A volume that is too small, and a point of another repository.
    let (_, small) = scene.device("small", 5 * MIB)?;
    let refused = scene.restore("tenant-b", "small", id)?;
    let _other = scene.hold(&refused, small.path(), "write")?;
    scene.patch(&refused, &json!({ "point": point }))?;
    scene.order(&refused, 1, &json!({}))?;
    let status = scene.wait(&refused, 1, "Failed")?;
    ensure!(
        status["transfer"]["errorKind"] == "invalid-request",
        "{status:#}"
    );
    scene.patch(
        &refused,
        &json!({ "point": { "id": id, "repositoryID": "0".repeat(32) } }),
    )?;
    scene.order(&refused, 2, &json!({}))?;
    let status = scene.wait(&refused, 2, "Failed")?;
    let message = status["transfer"]["message"]
        .as_str()
        .context("a message")?;
    ensure!(message.contains("another repository"), "{message}");
    Ok(())
}
