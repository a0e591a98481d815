//! What a backup lives in is deleted under it, in several orders: nothing hangs, and no point is lost.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::image::{Image, MIB};

use crate::bed::{Bed, CONTROLLER, LIMIT, phase};

const DEFINITIONS: [&str; 3] = [
    "podvolumebackups.snaphaul.dev",
    "podvolumerestores.snaphaul.dev",
    "snapshotrepositories.snaphaul.dev",
];

/// Their kinds.
const DEFINED: [&str; 3] = ["PodVolumeBackup", "PodVolumeRestore", "SnapshotRepository"];

/// The namespace, and the claim in it.
pub(crate) fn namespace(bed: &mut Bed) -> Result<()> {
    let (point, image) = begun(bed)?;
    delete_namespace(bed)?;
    namespace_is_gone(bed)?;
    kept(bed, &point, &image)
}

/// The controller first: the namespace waits for the next one, and goes.
pub(crate) fn controller_and_namespace(bed: &mut Bed) -> Result<()> {
    let (point, image) = begun(bed)?;
    bed.product.kill(CONTROLLER)?;
    delete_namespace(bed)?;
    bed.revive()?;
    namespace_is_gone(bed)?;
    kept(bed, &point, &image)
}

/// The definitions, and with them every object; they are applied again afterwards.
pub(crate) fn definitions(bed: &mut Bed) -> Result<()> {
    let (point, image) = begun(bed)?;
    delete_definitions(bed)?;
    definitions_are_gone(bed)?;
    bed.reinstall()?;
    kept(bed, &point, &image)
}

/// The controller, the definitions, and the namespace besides, while nobody leads. The next controller begins where some definitions are
/// gone, and serves the others; those that are applied again are served, too.
pub(crate) fn controller_definitions_and_namespace(bed: &mut Bed) -> Result<()> {
    let (point, image) = begun(bed)?;
    bed.product.kill(CONTROLLER)?;
    delete_definitions(bed)?;
    // No repository has a finalizer: its definition is gone before anybody leads again.
    is_gone(bed, "snapshotrepositories.snaphaul.dev")?;
    delete_namespace(bed)?;
    bed.revive()?;
    definitions_are_gone(bed)?;
    namespace_is_gone(bed)?;
    let mut said = String::new();
    bed.wait(LIMIT, "a word about the definitions", || {
        said = bed.page(CONTROLLER, "/readyz")?;
        Ok(DEFINED.iter().all(|kind| said.contains(kind)))
    })
    .with_context(|| said)?;
    bed.reinstall()?;
    kept(bed, &point, &image)
}

/// A point that is complete, whose object would take it along, and a backup that an agent is at work on.
fn begun(bed: &mut Bed) -> Result<(String, Image)> {
    let (claim, image) = bed.claim("data", 128)?;
    let delete = json!({"deletionPolicy": "Delete"});
    bed.backup("first", "data", &delete, &image)?;
    // Its finalizer stays, for it would take its point along.
    let object = bed.finished("first")?;
    ensure!(phase(&object) == "Completed", "{}", object["status"]);
    let point = object["status"]["point"]["id"].as_str();
    let point = point.context("a point")?.to_owned();
    bed.count()?;
    let random = &mut bed.random;
    let copy = bed.scratch.join("removal.img");
    let next = claim.write(&bed.api, &bed.storage.driver, &copy, |device| {
        device.write_noise(0, 120 * MIB, random)
    })?;
    bed.backup("second", "data", &delete, &next)?;
    bed.wait_for_phase("second", &["InProgress", "Completed"])?;
    Ok((point, image))
}

/// The point restores, all that served the backup goes, and the next backup works.
fn kept(bed: &mut Bed, point: &str, image: &Image) -> Result<()> {
    bed.nothing_left()?;
    bed.assert_point(point, image)?;
    bed.namespace = format!("{}-again", bed.namespace);
    bed.cluster.namespace(&bed.namespace, &[])?;
    let (_, image) = bed.claim("data", 8)?;
    bed.count()?;
    bed.backup("next", "data", &json!({}), &image)?;
    bed.completed("next").map(drop)
}

fn delete_namespace(bed: &Bed) -> Result<()> {
    bed.api
        .delete(&format!("/api/v1/namespaces/{}", bed.namespace))
}

fn namespace_is_gone(bed: &Bed) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}", bed.namespace);
    let mut last = String::new();
    bed.wait(LIMIT, "end of the namespace", || {
        let found = bed.api.get(&path)?;
        last = found.as_ref().map_or_else(String::new, ToString::to_string);
        Ok(found.is_none())
    })
    .with_context(|| last)
}

fn delete_definitions(bed: &Bed) -> Result<()> {
    for name in DEFINITIONS {
        bed.api.delete(&definition(name))?;
    }
    Ok(())
}

fn definitions_are_gone(bed: &Bed) -> Result<()> {
    for name in DEFINITIONS {
        is_gone(bed, name)?;
    }
    ensure!(bed.product.dead().is_empty(), "ended by themselves");
    Ok(())
}

fn is_gone(bed: &Bed, name: &str) -> Result<()> {
    let mut last = String::new();
    bed.wait(LIMIT, &format!("end of {name}"), || {
        let found = bed.api.get(&definition(name))?;
        last = found.map_or_else(String::new, |found| found["status"].to_string());
        Ok(last.is_empty())
    })
    .with_context(|| last)
}

fn definition(name: &str) -> String {
    format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
}
