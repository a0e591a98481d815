//! A driver whose bases are change ids that it writes on VolumeSnapshots, as vSphere's are, known by nothing but the ConfigMap of profiles.
//!
//! The driver's volumes of the class here take no handle as a base, and know what changed since a snapshot that is gone. The test writes
//! the annotation in the driver's place.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;
use tests::cluster::claims::Claim;
use tests::cluster::leftovers::Holdings;
use tests::cluster::product::SYSTEM;
use tests::csi_driver::NAME;
use tests::csi_driver::faults::{Fault, Order, When};
use tests::csi_driver::record::Call;
use tests::image::{Image, MIB};

use crate::bed::{Bed, CONTROLLER, LIMIT};

const CLASS: &str = "change-ids";
/// The call that makes the snapshot, and the one that makes the copy of it.
const EARLY: &str = "CreateSnapshot";
const LATE: &str = "CreateVolume";
const ANNOTATION: &str = "driver.test/change-id";
const SERVICE: &str = "by-another-name.test";
const SERVICES: &str = "/apis/cbt.storage.k8s.io/v1beta1/snapshotmetadataservices";
const SNAPSHOTS: &str = "/apis/snapshot.storage.k8s.io/v1";

/// No snapshot stays, and what changed is known all the same; a base that is kept carries the id.
pub(crate) fn of_an_override(bed: &mut Bed) -> Result<()> {
    bed.api.create_once(
        "/apis/storage.k8s.io/v1/storageclasses",
        &json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": CLASS},
            "provisioner": NAME, "parameters": {"changeIds": "true"},
        }),
    )?;
    let service = format!("{SERVICES}/{NAME}");
    let known = bed.api.get(&service)?.context("the driver has a service")?;
    let outcome = under_an_override(bed, &known["spec"]);
    // What this case changed is everybody's.
    let renamed = rename_service(bed, SERVICE, NAME, &known["spec"]);
    let maps = in_namespace("/api/v1", SYSTEM, "configmaps");
    let unmapped = bed.api.delete(&format!("{maps}/snaphaul-driver-profiles"));
    let again = restart_controller(bed);
    outcome.and(renamed).and(unmapped).and(again)
}

fn under_an_override(bed: &mut Bed, service: &Value) -> Result<()> {
    rename_service(bed, NAME, SERVICE, service)?;
    let profile = format!(
        "changeIdAnnotation: {ANNOTATION}\nsnapshotMetadataServiceName: {SERVICE}\nbaseSnapshot: drop\n"
    );
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "snaphaul-driver-profiles"},
        "data": {NAME: profile},
    });
    bed.api
        .create(&in_namespace("/api/v1", SYSTEM, "configmaps"), &map)?;
    restart_controller(bed)?;
    let namespace = bed.namespace.clone();
    let claim = Claim::create(&bed.api, CLASS, &namespace, "data", 48 * MIB)?;
    let image = bed.write(&claim, 12)?;
    bed.count()?;
    let bases = bases(bed)?;
    let first = noted_backup(bed, ("first", EARLY), &json!({}), &image)?;
    told(bed, "first", "")?;
    ensure!(bases_since(bed, &bases)?.is_empty(), "a base was kept");
    let mut before = first;
    for (name, call, more) in [
        ("second", LATE, json!({})),
        ("third", EARLY, json!({"baseSnapshotPolicy": "Keep"})),
    ] {
        let image = bed.write(&claim, 3)?;
        let calls = bed.storage.driver.calls()?.len();
        let id = noted_backup(bed, (name, call), &more, &image)?;
        told(bed, name, "what changed since")?;
        let bytes = bed.backup_object(name)?["status"]["incrementalBytes"].as_i64();
        ensure!(
            bytes.is_some_and(|bytes| bytes < 8 << 20),
            "stored {bytes:?} of a change of three pieces"
        );
        let calls = bed.storage.driver.calls()?.split_off(calls);
        asked_with(&calls, &before)?;
        before = id;
    }
    let kept = bases_since(bed, &bases)?;
    let carries = |object: &Value| object["metadata"]["annotations"][ANNOTATION] == *before;
    ensure!(
        kept.len() == 2 && kept.iter().all(carries),
        "snapshot and content of a base, with the change id {before}: {kept:?}"
    );
    Ok(())
}

fn restart_controller(bed: &mut Bed) -> Result<()> {
    bed.product.stop(CONTROLLER);
    bed.product.start_controller(CONTROLLER)
}

fn rename_service(bed: &Bed, from: &str, to: &str, spec: &Value) -> Result<()> {
    bed.api.delete(&format!("{SERVICES}/{from}"))?;
    bed.api.create_once(
        SERVICES,
        &json!({
            "apiVersion": "cbt.storage.k8s.io/v1beta1", "kind": "SnapshotMetadataService", "metadata": {"name": to},
            "spec": spec,
        }),
    )
}

/// A backup whose snapshot gets its change id while the driver is at work on this call; gives that.
fn noted_backup(
    bed: &mut Bed,
    (name, call): (&str, &str),
    more: &Value,
    image: &Image,
) -> Result<String> {
    let stall = Fault::Stall { when: When::After };
    bed.storage.driver.order(&[Order::next(call, stall)])?;
    bed.backup(name, "data", more, image)?;
    let uid = bed.backup_object(name)?["metadata"]["uid"].clone();
    let uid = uid.as_str().context("a UID")?;
    let list = in_namespace(SNAPSHOTS, &bed.namespace, "volumesnapshots");
    let path = format!("{list}/snaphaul-{uid}");
    let mut snapshot = Value::Null;
    bed.wait(LIMIT, "VolumeSnapshot", || {
        snapshot = bed.api.get(&path)?.unwrap_or_default();
        Ok(snapshot.is_object())
    })?;
    if call == LATE {
        copied(bed, &path)?;
    }
    let uid = snapshot["metadata"]["uid"].as_str().context("a UID")?;
    let id = format!("52 snapshot-{uid}/1");
    bed.api.merge(
        &path,
        &json!({"metadata": {"annotations": {ANNOTATION: id}}}),
    )?;
    bed.storage.driver.order(&[])?;
    bed.completed(name)?;
    Ok(id)
}

/// Waits for the working copy's snapshot, made before the driver has written anything.
fn copied(bed: &Bed, original: &str) -> Result<()> {
    let (_, name) = original.rsplit_once('/').context("a path")?;
    let copy = in_namespace(SNAPSHOTS, SYSTEM, "volumesnapshots");
    let copy = format!("{copy}/{name}");
    bed.wait(LIMIT, "snapshot of the working copy", || {
        let found = bed.api.get(&copy)?;
        Ok(found.is_some_and(|found| found["metadata"]["annotations"][ANNOTATION].is_null()))
    })
}

/// What a backup says of its source of changed blocks.
fn told(bed: &Bed, name: &str, reason: &str) -> Result<()> {
    let told = bed.backup_object(name)?["status"]["changedBlocks"].clone();
    let said = told["reason"].as_str().unwrap_or_default();
    ensure!(told["source"] == "csi" && said.contains(reason), "{told}");
    Ok(())
}

/// The driver was asked what changed since this id, and since nothing else.
fn asked_with(calls: &[Call], base: &str) -> Result<()> {
    let asked: Vec<_> = calls
        .iter()
        .filter(|call| call.call == "GetMetadataDelta")
        .collect();
    ensure!(
        !asked.is_empty() && asked.iter().all(|call| call.subject.base == base),
        "asked since something else than {base}: {asked:?}"
    );
    Ok(())
}

/// Names of the bases that are kept.
fn bases(bed: &Bed) -> Result<std::collections::BTreeSet<String>> {
    Ok(Holdings::now(&bed.api, &bed.storage)?.bases().clone())
}

/// Objects of the bases that were made since.
fn bases_since(bed: &Bed, before: &std::collections::BTreeSet<String>) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for name in bases(bed)?.difference(before) {
        let (kind, place) = name.split_once(' ').context("kind and place")?;
        let (namespace, name) = place.split_once('/').context("namespace and name")?;
        let list = match kind {
            "snapshot" => in_namespace(SNAPSHOTS, namespace, "volumesnapshots"),
            _ => format!("{SNAPSHOTS}/volumesnapshotcontents"),
        };
        objects.extend(bed.api.get(&format!("{list}/{name}"))?);
    }
    Ok(objects)
}
