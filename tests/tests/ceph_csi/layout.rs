//! What `rbd info` and `rbd snap ls` show of images that are made as ceph-csi makes them.
//!
//! Owns: the facts that sources build on. Must not: ask a source.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::ceph_csi::{CephCsi, Snapshot, Volume, handle};
use tests::rbd_pool::Change;

use crate::{OBJECT, Site, VOLUME};

/// A volume with some data, a snapshot, some more data, and a second snapshot.
fn two_snapshots(csi: &CephCsi) -> Result<(Volume, Snapshot, Snapshot)> {
    let volume = csi.create_volume(VOLUME)?;
    let written = |offset, byte| Change::Write {
        offset,
        data: vec![byte; 65_536],
    };
    csi.pool()
        .apply(&volume.image(), &[written(0, 1), written(OBJECT, 2)])?;
    let first = csi.create_snapshot(&volume)?;
    csi.pool().apply(
        &volume.image(),
        &[written(OBJECT, 3), written(3 * OBJECT, 4)],
    )?;
    let second = csi.create_snapshot(&volume)?;
    Ok((volume, first, second))
}

/// The parent that `rbd info` shows; null where there is none.
fn parent(csi: &CephCsi, image: &str) -> Result<Value> {
    Ok(csi.pool().info(image)?["parent"].clone())
}

pub(crate) fn handles() -> Result<()> {
    let uuid = "0d9b4c4e-72a1-4a6e-9f0b-6a3c5a7d9e10";
    let made = handle("c1uster-ID", 26, uuid);
    ensure!(
        made == format!("0001-000a-c1uster-ID-000000000000001a-{uuid}"),
        "made {made}"
    );
    Ok(())
}

pub(crate) fn of_snapshots(site: &Site) -> Result<()> {
    let csi = &site.csi;
    let (volume, first, second) = two_snapshots(csi)?;
    let on_volume = csi.pool().snapshots(&volume.image_id)?;
    ensure!(
        on_volume.len() == 2,
        "two snapshots on the volume: {on_volume:?}"
    );
    ensure!(
        on_volume[0]["id"].as_u64() < on_volume[1]["id"].as_u64(),
        "older ids are lower: {on_volume:?}"
    );
    for (seen, snapshot) in on_volume.iter().zip([&first, &second]) {
        let namespace = json!({"type": "trash", "original_name": snapshot.image()});
        ensure!(
            seen["namespace"] == namespace,
            "in the trash namespace: {seen}"
        );
        ensure!(seen["name"] != snapshot.image().as_str(), "renamed: {seen}");

        let info = csi.pool().info(&snapshot.image())?;
        let expected = json!({
            "pool": "volumes", "pool_namespace": "", "image": volume.image(), "id": volume.image_id,
            "snapshot": seen["name"], "trash": false, "overlap": VOLUME,
        });
        ensure!(
            info["parent"] == expected,
            "parent {} is not {expected}",
            info["parent"]
        );
        let features = info["features"].as_array().cloned().unwrap_or_default();
        for feature in ["layering", "deep-flatten"] {
            ensure!(features.contains(&json!(feature)), "{feature} in {info}");
        }
        ensure!(
            !features.contains(&json!("exclusive-lock")),
            "no more features than ceph-csi gives: {info}"
        );
        ensure!(
            info["op_features"] == json!(["clone-child"]),
            "a clone of format 2: {info}"
        );

        let on_clone = csi.pool().snapshots(&snapshot.image_id)?;
        ensure!(
            on_clone.len() == 1,
            "one snapshot on the clone: {on_clone:?}"
        );
        ensure!(
            on_clone[0]["name"] == snapshot.image().as_str(),
            "of its name: {on_clone:?}"
        );
        ensure!(
            on_clone[0]["namespace"] == json!({"type": "user"}),
            "that users see: {on_clone:?}"
        );
    }
    let info = csi.pool().info(&volume.image())?;
    ensure!(
        info["op_features"] == json!(["clone-parent", "snap-trash"]),
        "the volume's own state: {info}"
    );
    let pool = csi.pool().id()?;
    let handle = csi.handle("ceph", &second.uuid)?;
    ensure!(
        handle == format!("0001-0004-ceph-{pool:016x}-{}", second.uuid),
        "handle {handle}"
    );
    Ok(())
}

pub(crate) fn of_a_deleted_volume(site: &Site) -> Result<()> {
    let csi = &site.csi;
    let (volume, first, second) = two_snapshots(csi)?;
    let before = csi.pool().content(&first.spec())?;
    csi.delete_volume(&volume)?;
    ensure!(
        csi.pool().info(&volume.image()).is_err(),
        "no image of that name is left"
    );
    let trashed = csi
        .pool()
        .json(&["trash", "ls", "--all", csi.pool().name()])?;
    ensure!(
        trashed
            .as_array()
            .into_iter()
            .flatten()
            .any(|image| image["id"] == volume.image_id.as_str()),
        "{} is not in the trash: {trashed}",
        volume.image_id
    );
    ensure!(
        csi.pool().snapshots(&volume.image_id)?.len() == 2,
        "both snapshots are there by id"
    );
    for snapshot in [&first, &second] {
        let parent = parent(csi, &snapshot.image())?;
        ensure!(
            parent["trash"] == true && parent["id"] == volume.image_id.as_str(),
            "parent {parent}"
        );
    }
    ensure!(
        csi.pool().content(&first.spec())? == before,
        "the snapshot still reads through its trashed parent"
    );
    Ok(())
}

pub(crate) fn of_a_flattened_snapshot(site: &Site) -> Result<()> {
    let csi = &site.csi;
    let (volume, first, second) = two_snapshots(csi)?;
    let before = csi.pool().content(&first.spec())?;
    csi.flatten(&first)?;
    ensure!(parent(csi, &first.image())?.is_null(), "no parent is left");
    let left = csi.pool().snapshots(&volume.image_id)?;
    ensure!(
        left.len() == 1,
        "only the other trashed snapshot is left: {left:?}"
    );
    ensure!(
        left[0]["namespace"]["original_name"] == second.image().as_str(),
        "{left:?}"
    );
    ensure!(
        csi.pool().content(&first.spec())? == before,
        "flattening keeps the content"
    );
    Ok(())
}

pub(crate) fn of_a_deleted_snapshot(site: &Site) -> Result<()> {
    let csi = &site.csi;
    let (volume, first, second) = two_snapshots(csi)?;
    csi.delete_snapshot(&first)?;
    ensure!(
        csi.pool().info(&first.image()).is_err(),
        "the clone is gone"
    );
    let left = csi.pool().snapshots(&volume.image_id)?;
    ensure!(left.len() == 1, "one trashed snapshot is left: {left:?}");
    ensure!(
        left[0]["namespace"]["original_name"] == second.image().as_str(),
        "{left:?}"
    );
    Ok(())
}

pub(crate) fn of_a_restored_volume(site: &Site) -> Result<()> {
    let csi = &site.csi;
    let (_, first, _) = two_snapshots(csi)?;
    let restored = csi.restore_volume(&first)?;
    let parent = parent(csi, &restored.image())?;
    ensure!(
        parent["id"] == first.image_id.as_str() && parent["snapshot"] == first.image().as_str(),
        "parent {parent}"
    );
    ensure!(
        csi.pool().content(&restored.image())? == csi.pool().content(&first.spec())?,
        "it has the snapshot's content"
    );
    let again = csi.create_snapshot(&restored)?;
    let grandparent = self::parent(csi, &again.image())?;
    ensure!(
        grandparent["id"] == restored.image_id.as_str(),
        "a snapshot of it is a clone of it: {grandparent}"
    );
    Ok(())
}
