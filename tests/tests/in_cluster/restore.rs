//! Restores into claims.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::cluster::claims::Claim;

use crate::bed::{Bed, phase};

/// A new claim of the same class holds what was backed up, bit for bit.
pub(crate) fn new_claim(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 32)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    let spec = json!({"source": {"backupName": "first"}, "target": {"name": "copy"}});
    bed.create("PodVolumeRestore", "podvolumerestores", "back", &spec)?;
    let object = bed.final_object("podvolumerestores", "back")?;
    ensure!(phase(&object) == "Completed", "{}", object["status"]);
    Claim::named(&bed.namespace, "copy").assert_same(&bed.api, &bed.storage.driver, &image)
}
