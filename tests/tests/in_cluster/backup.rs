//! Backups that go well, and those that are refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;

use crate::bed::{Bed, condition, phase};

/// Nothing was there before: everything that is allocated is stored.
pub(crate) fn full(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 48)?;
    bed.count()?;
    bed.backup("first", "data", &json!({}), &image)?;
    let object = bed.completed("first")?;
    let status = &object["status"];
    ensure!(status["node"] == crate::bed::NODE, "{status}");
    for field in ["startTime", "completionTime"] {
        ensure!(status[field].is_string(), "no {field}: {status}");
    }
    ensure!(status["snapshot"]["handle"].is_string(), "{status}");
    for kind in ["Accepted", "SnapshotReady", "DeviceReady"] {
        condition(&object, kind).with_context(|| format!("no {kind}: {status}"))?;
    }
    Ok(())
}

/// The second builds on the first, and stores about what changed.
pub(crate) fn incremental(bed: &mut Bed) -> Result<()> {
    let (claim, image) = bed.claim("data", 64)?;
    bed.count()?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    for round in 0..3 {
        let name = format!("next-{round}");
        let image = bed.write(&claim, 3)?;
        bed.backup(&name, "data", &json!({}), &image)?;
        let object = bed.completed(&name)?;
        let bytes = object["status"]["incrementalBytes"].as_i64();
        ensure!(
            bytes.is_some_and(|bytes| bytes < 8 << 20),
            "stored {bytes:?} of a change of three pieces: {object}"
        );
        let told = &object["status"]["changedBlocks"];
        ensure!(told["source"] == "csi", "the driver was not asked: {told}");
    }
    Ok(())
}

/// A snapshot that the user made is read and stays as it is.
pub(crate) fn snapshot_of_the_user(bed: &mut Bed) -> Result<()> {
    let (claim, image) = bed.claim("data", 32)?;
    let list = in_namespace(
        "/apis/snapshot.storage.k8s.io/v1",
        &bed.namespace,
        "volumesnapshots",
    );
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "mine"},
        "spec": {"volumeSnapshotClassName": "test", "source": {"persistentVolumeClaimName": "data"}},
    });
    bed.api.create(&list, &snapshot)?;
    let path = format!("{list}/mine");
    let mut before = Value::Null;
    bed.wait(Duration::from_secs(60), "snapshot", || {
        before = bed.api.get(&path)?.context("the snapshot exists")?;
        Ok(before["status"]["readyToUse"] == true)
    })?;
    bed.count()?;
    // What is written now is not in the snapshot.
    bed.write(&claim, 5)?;
    let source = json!({"source": {"volumeSnapshot": {"name": "mine"}}});
    bed.backup("first", "data", &source, &image)?;
    bed.completed("first")?;
    bed.nothing_left()?;
    let after = bed.api.get(&path)?.context("the user's snapshot stays")?;
    ensure!(after["spec"] == before["spec"], "{after}");
    ensure!(after["metadata"]["uid"] == before["metadata"]["uid"]);
    ensure!(
        after["metadata"]["labels"] == before["metadata"]["labels"],
        "{after}"
    );
    Ok(())
}

/// Nothing stays where the user wants nothing to stay.
pub(crate) fn dropped_base(bed: &mut Bed) -> Result<()> {
    let (claim, image) = bed.claim("data", 16)?;
    bed.count()?;
    let drop = json!({"baseSnapshotPolicy": "Drop"});
    bed.backup("first", "data", &drop, &image)?;
    bed.completed("first")?;
    let image = bed.write(&claim, 3)?;
    bed.backup("second", "data", &drop, &image)?;
    bed.completed("second").map(std::mem::drop)
}

/// What cannot work ends at once, with a reason that a person understands.
pub(crate) fn refusals(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.count()?;
    bed.backup("no-claim", "missing", &json!({}), &image)?;
    let nowhere = json!({"repositoryRef": {"name": "missing"}});
    bed.backup("no-repository", "data", &nowhere, &image)?;
    for name in ["no-claim", "no-repository"] {
        let object = bed.finished(name)?;
        ensure!(phase(&object) == "Failed", "{object}");
        let message = object["status"]["message"].as_str().unwrap_or("");
        ensure!(message.contains("missing"), "{name} says {message:?}");
        let succeeded = condition(&object, "Succeeded").context("a condition")?;
        ensure!(
            succeeded["status"] == "False" && succeeded["reason"] == "NotFound",
            "{succeeded}"
        );
    }
    Ok(())
}

/// With the policy Delete the point goes with its object; with Retain it stays.
pub(crate) fn deleted_with_its_point(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 16)?;
    bed.count()?;
    let mut points = Vec::new();
    for (name, policy) in [("kept", "Retain"), ("gone", "Delete")] {
        bed.backup(name, "data", &json!({"deletionPolicy": policy}), &image)?;
        let object = bed.finished(name)?;
        ensure!(phase(&object) == "Completed", "{}", object["status"]);
        let point = object["status"]["point"]["id"]
            .as_str()
            .context("a point")?;
        points.push(point.to_owned());
        let path = format!("{}/{name}", bed.list("podvolumebackups"));
        bed.api.delete(&path)?;
        bed.wait(crate::bed::LIMIT, "end of the object", || {
            Ok(bed.api.get(&path)?.is_none())
        })?;
    }
    bed.assert_point(&points[0], &image)?;
    let target = bed.scratch.join("gone.img");
    let gone = bed
        .repo
        .command(&["restore", &points[1], &target.display().to_string()])?
        .run()?;
    ensure!(!gone.status.success(), "the point is still there");
    Ok(())
}

/// A repository that cannot be reached makes backups wait or fail with its name; once it is back they work.
pub(crate) fn repository_away_and_back(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 16)?;
    bed.count()?;
    let folder = bed.repo.folder()?.to_owned();
    let away = folder.with_extension("away");
    std::fs::rename(&folder, &away)?;
    bed.backup("during", "data", &json!({}), &image)?;
    // Long enough for it to be tried; whether it waits or has failed is both right, a point is not.
    std::thread::sleep(Duration::from_secs(8));
    let during = phase(&bed.backup_object("during")?);
    std::fs::rename(&away, &folder)?;
    ensure!(during != "Completed", "a backup to nowhere is Completed");
    bed.finished("during")?;
    bed.wait_for_repository("True")?;
    bed.backup("after", "data", &json!({}), &image)?;
    bed.completed("after").map(drop)
}
