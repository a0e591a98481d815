//! A free volume of somebody else, which the binding controller prefers to a new one.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::claims::Claim;
use tests::csi::Plugin as _;
use tests::csi_driver::NAME;
use tests::image::Image;

use crate::bed::{Bed, condition, phase};
use crate::restores::{self, of_backup, refused, restore};

/// A class of its own: what is free there is found by these claims alone.
const SHARED: &str = "shared";
/// Its free volume goes with whoever gets it, as its owner has said.
const SPARE: &str = "spare";
const SPARE_PATH: &str = "/api/v1/persistentvolumes/spare";

/// Neither a backup nor a restore reads, writes or deletes a volume that its working claim was bound to and that was there before.
pub(crate) fn free_volume(bed: &mut Bed) -> Result<()> {
    restores::class(bed, SHARED, &json!({}))?;
    let claim = Claim::create(&bed.api, SHARED, &bed.namespace, "data", 8 << 20)?;
    let image = bed.write(&claim, 8)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    let (spare, handle, content) = spare(bed)?;
    bed.count()?;
    free(bed, &spare)?;
    bed.backup("second", "data", &json!({}), &image)?;
    let object = bed.finished("second")?;
    ensure!(phase(&object) == "Failed", "{}", object["status"]);
    let succeeded = condition(&object, "Succeeded").context("a condition")?;
    let message = succeeded["message"].as_str().unwrap_or("");
    ensure!(
        succeeded["reason"] == "ExposeFailed" && message.contains("PersistentVolume spare"),
        "{succeeded}"
    );
    untouched(bed, &handle, &content)?;
    bed.api.delete(SPARE_PATH)?;
    restores::gone(bed, SPARE_PATH)?;
    free(bed, &spare)?;
    restore(bed, "back", &of_backup("first", "NewClaim", "copy"))?;
    refused(bed, "back", "ExposeFailed", "PersistentVolume spare")?;
    untouched(bed, &handle, &content)?;
    bed.api.delete(SPARE_PATH)?;
    restores::gone(bed, SPARE_PATH)?;
    bed.storage.driver.client()?.delete_volume(&handle)?;
    Ok(())
}

/// A volume of the driver without an object, its handle, and what is on it.
fn spare(bed: &mut Bed) -> Result<(Value, String, Image)> {
    let claim = Claim::create(&bed.api, SHARED, &bed.namespace, SPARE, 32 << 20)?;
    let content = bed.write(&claim, 20)?;
    let volume = claim.volume(&bed.api)?;
    let path = restores::path_of(&volume);
    let keep = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
    bed.api.merge(&path, &keep)?;
    bed.api.delete(&claim.path())?;
    restores::gone(bed, &claim.path())?;
    bed.api.delete(&path)?;
    restores::gone(bed, &path)?;
    let handle = volume["spec"]["csi"]["volumeHandle"].as_str();
    let handle = handle.context("a handle")?.to_owned();
    Ok((volume["spec"]["csi"].clone(), handle, content))
}

fn free(bed: &Bed, csi: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": SPARE, "annotations": {"pv.kubernetes.io/provisioned-by": NAME}},
        "spec": {
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": "32Mi"}, "csi": csi,
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": SHARED, "volumeMode": "Block",
        },
    });
    bed.api.create("/api/v1/persistentvolumes", &object)?;
    bed.wait(crate::bed::LIMIT, "a free volume", || {
        let object = bed.api.get(SPARE_PATH)?;
        Ok(object.is_some_and(|object| object["status"]["phase"] == "Available"))
    })
}

/// The storage is there, with the content it had, once nothing of backup or restore is left.
fn untouched(bed: &Bed, handle: &str, content: &Image) -> Result<()> {
    bed.nothing_left_but(SPARE_PATH)?;
    let spare = bed.api.get(SPARE_PATH)?.context("the volume is there")?;
    ensure!(
        spare["spec"]["persistentVolumeReclaimPolicy"] == "Retain",
        "it would go with its claim: {spare}"
    );
    let volume = csi_proto::csi::Volume {
        volume_id: handle.to_owned(),
        volume_context: context(&spare),
        ..csi_proto::csi::Volume::default()
    };
    let attached = tests::csi::attached::Attached::block(&bed.storage.driver, "spare", &volume)?;
    let same = content.assert_same(attached.path());
    attached.detach()?;
    same
}

fn context(volume: &Value) -> std::collections::BTreeMap<String, String> {
    let attributes = volume["spec"]["csi"]["volumeAttributes"].as_object();
    let all = attributes.into_iter().flatten();
    all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
