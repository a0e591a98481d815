//! Orders that succeed.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::stage::{MIB, Stage};

/// Bytes that a slow agent has to send: seconds at its rate.
pub(crate) const BIG: u64 = 64 * MIB;

pub(crate) fn backups_build_on_each_other(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("chain")?;
    let (image, device) = scene.device("image", 8 * MIB)?;
    let agent = scene.agent(&[])?;
    let first = scene.backup("tenant-a", "first")?;
    let recorded = json!({ "claim": "db", "labels": { "long": "x".repeat(5000) } }).to_string();
    let _holder = scene.hold(&first, device.path(), "read")?;
    scene.order(
        &first,
        1,
        &json!({ "recorded": recorded, "sizeBytes": 8 * MIB }),
    )?;
    let status = scene.wait(&first, 1, "Succeeded")?;
    let point = status["point"]["id"]
        .as_str()
        .context("a point")?
        .to_owned();
    ensure!(
        status["point"]["repositoryID"] == scene.id.as_str(),
        "{status:#}"
    );
    ensure!(status["incrementalBytes"] == 8 * MIB, "{status:#}");
    ensure!(
        status["progress"] == json!({ "totalBytes": 8 * MIB, "bytesDone": 8 * MIB }),
        "{status:#}"
    );
    ensure!(status["changedBlocks"]["source"] == "scan", "{status:#}");
    ensure!(status["transfer"]["baseNeeded"] == false, "{status:#}");
    let restored = scene.scratch.join("restored");
    scene
        .repo
        .ok(&["restore", &point, &restored.display().to_string()])?;
    same(&image, &restored)?;

    // What was recorded comes out as it went in.
    let shown = scene.repo.ok(&["show", &point])?.json()?;
    let tags = shown["tags"].as_object().context("tags")?;
    let parts = tags
        .iter()
        .filter(|(name, _)| name.starts_with("snaphaul.dev/recorded."));
    let text: String = parts.filter_map(|(_, value)| value.as_str()).collect();
    ensure!(text == recorded, "{shown:#}");
    ensure!(
        tags["snaphaul.dev/owner-uid"] == first.uid.as_str(),
        "{shown:#}"
    );

    let mut random = tests::random::Random::new(7);
    write_through(device.path(), 3 * MIB, &mut random)?;
    let second = scene.backup("tenant-a", "second")?;
    let _other = scene.hold(&second, device.path(), "read")?;
    scene.order(&second, 1, &json!({}))?;
    let status = scene.wait(&second, 1, "Succeeded")?;
    let new = status["incrementalBytes"].as_u64().context("bytes")?;
    ensure!(
        new > 0 && new <= MIB,
        "only what changed is new: {status:#}"
    );
    let events =
        scene
            .stage
            .cluster
            .kubectl(&["get", "events", "--namespace=tenant-a", "--output=json"])?;
    ensure!(events.contains("TransferSucceeded"), "{events}");
    let succeeded =
        agent.metric("snaphaul_agent_transfers_total{kind=\"backup\",result=\"succeeded\"}")?;
    ensure!(succeeded == 2.0, "{succeeded}");
    ensure!(
        agent.metric("snaphaul_agent_data_bytes_total{data=\"done\",kind=\"backup\"}")?
            >= 16.0 * 1048576.0
    );
    let log = std::fs::read_to_string(&agent.log)?;
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Writes past the page cache of the image, so that device and file agree.
fn write_through(
    device: &std::path::Path,
    offset: u64,
    random: &mut tests::random::Random,
) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; 65536];
    random.fill(&mut bytes);
    let file = std::fs::File::options().write(true).open(device)?;
    file.write_all_at(&bytes, offset)?;
    Ok(file.sync_all()?)
}

pub(crate) fn same(one: &std::path::Path, other: &std::path::Path) -> Result<()> {
    let size = tests::image::size_of(one)?;
    ensure!(size == tests::image::size_of(other)?, "sizes differ");
    let difference = tests::image::first_difference(one, other, 0, size)?;
    ensure!(difference.is_none(), "they differ at {difference:?}");
    Ok(())
}

/// With one slot, a namespace that came later waits for one volume of the other, not for all.
pub(crate) fn namespaces_take_turns(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("turns")?;
    let (_image, device) = scene.device("image", 2 * MIB)?;
    let mut all = Vec::new();
    for (namespace, name) in [
        ("tenant-a", "1"),
        ("tenant-a", "2"),
        ("tenant-a", "3"),
        ("tenant-b", "1"),
    ] {
        let backup = scene.backup(namespace, name)?;
        let holder = scene.hold(&backup, device.path(), "read")?;
        scene.order(
            &backup,
            1,
            &json!({ "volume": format!("test/{namespace}/{name}") }),
        )?;
        all.push((backup, holder));
    }
    let agent = scene.agent(&["--slots", "1"])?;
    for (backup, _) in &all {
        scene.wait(backup, 1, "Succeeded")?;
    }
    let log = std::fs::read_to_string(&agent.log)?;
    let taken: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("take an order"))
        .filter_map(|line| {
            line.split("namespace=")
                .nth(1)?
                .split([' ', '"'])
                .find(|word| !word.is_empty())
        })
        .collect();
    ensure!(
        taken.len() == 4 && taken[..2].contains(&"tenant-b"),
        "{taken:?}\n{log}"
    );
    Ok(())
}

/// An agent dies between commit and answer: the next one finds the point instead of making another.
pub(crate) fn a_point_that_nobody_told_of_is_found(stage: &mut Stage) -> Result<()> {
    let mut scene = stage.scene("found")?;
    let (_image, device) = scene.device("image", 2 * MIB)?;
    let backup = scene.backup("tenant-a", "one")?;
    let agent = scene.agent(&[])?;
    let holder = scene.hold(&backup, device.path(), "read")?;
    scene.order(&backup, 1, &json!({}))?;
    let first = scene.wait(&backup, 1, "Succeeded")?;
    agent.kill()?;
    drop(holder);
    scene.patch(
        &backup,
        &json!({ "transfer": { "state": "Running" }, "point": null }),
    )?;
    let _agent = scene.agent(&[])?;
    let again = scene.wait(&backup, 1, "Succeeded")?;
    ensure!(again["point"] == first["point"], "{again:#}");
    ensure!(
        again["incrementalBytes"] == first["incrementalBytes"],
        "{again:#}"
    );
    let points = scene.repo.ok(&["points"])?.json()?;
    ensure!(
        points["points"]
            .as_array()
            .is_some_and(|all| all.len() == 1),
        "{points:#}"
    );
    Ok(())
}
