//! Quick restores: the volume is made of the storage's own snapshot, where that is the point.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::csi_driver::faults::{Fault, Order};

use crate::bed::{Bed, CONTROLLER};
use crate::restores::{self, restore};

/// gRPC: RESOURCE_EXHAUSTED.
const EXHAUSTED: i32 = 8;

fn auto(backup: &str, target: &str) -> Value {
    let mut spec = restores::of_backup(backup, "NewClaim", target);
    spec["quickPolicy"] = json!("Auto");
    spec
}

/// Nothing is transferred where the point is the base, in both volume modes, and the base stays; an older point is transferred.
pub(crate) fn from_the_base(bed: &mut Bed) -> Result<()> {
    let (claim, old) = bed.claim("data", 16)?;
    bed.backup("first", "data", &json!({}), &old)?;
    bed.completed("first")?;
    let new = bed.write(&claim, 9)?;
    bed.backup("second", "data", &json!({}), &new)?;
    let status = bed.completed("second")?["status"].clone();
    let (handle, point) = (&status["snapshot"]["handle"], &status["point"]["id"]);
    let base = base(bed, point)?;
    ensure!(base.len() == 1, "{base:?}");
    bed.count()?;
    restore(bed, "quick", &auto("second", "copy"))?;
    let object = restores::completed(bed, "quick")?;
    let status = &object["status"];
    ensure!(
        status["quick"]["state"] == "Copied" && status["quick"]["snapshotHandle"] == *handle,
        "{status}"
    );
    ensure!(
        status["order"].is_null() && status["transfer"].is_null(),
        "{status}"
    );
    restores::assert_same(bed, "copy", &new)?;
    restore(bed, "older", &auto("first", "past"))?;
    let object = restores::completed(bed, "older")?;
    let status = &object["status"];
    ensure!(
        status["quick"].is_null() && status["transfer"]["state"] == "Succeeded",
        "{status}"
    );
    restores::assert_same(bed, "past", &old)?;
    restores::remove(bed, &["copy", "past"])?;
    ensure!(base == self::base(bed, point)?, "the base was touched");
    // The next delta is one from that base.
    let last = bed.write(&claim, 3)?;
    bed.backup("third", "data", &json!({}), &last)?;
    let source = bed.completed("third")?["status"]["changedBlocks"]["source"].clone();
    ensure!(source == "csi", "{source}");
    Ok(())
}

/// The base that is this point: which it is, and what it says.
fn base(bed: &Bed, point: &Value) -> Result<Vec<Value>> {
    let list = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
    let mut all = bed.api.list(list)?;
    all.retain(|one| one["metadata"]["annotations"]["snaphaul.dev/base-point"] == *point);
    Ok(all
        .into_iter()
        .map(|one| json!([one["metadata"]["uid"], one["spec"]]))
        .collect())
}

/// Where the storage makes no volume of the snapshot, the point is transferred after all.
pub(crate) fn given_up(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.backup("first", "data", &json!({}), &image)?;
    let handle = bed.completed("first")?["status"]["snapshot"]["handle"].clone();
    let handle = handle.as_str().context("a handle")?;
    bed.count()?;
    // A third of it is for the copy; the rest is enough for a slow machine.
    bed.lead_with(&["--sweep-every", "5s", "--expose-deadline", "90s"])?;
    let refusal = Order::next("CreateVolume", Fault::Refuse { code: EXHAUSTED });
    let refusal = refusal.about(handle).times(u32::MAX);
    bed.storage.driver.order(&[refusal])?;
    restore(bed, "slow", &auto("first", "copy"))?;
    let ended = restores::completed(bed, "slow");
    bed.storage.driver.order(&[])?;
    let status = ended?["status"].clone();
    ensure!(
        status["quick"]["state"] == "GivenUp" && status["quick"]["message"].is_string(),
        "{status}"
    );
    ensure!(status["transfer"]["state"] == "Succeeded", "{status}");
    restores::assert_same(bed, "copy", &image)?;
    restores::remove(bed, &["copy"])?;
    ensure!(bed.product.process(CONTROLLER).is_some(), "it runs");
    bed.lead_with(&["--sweep-every", "5s"])
}
