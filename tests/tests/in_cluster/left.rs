//! A driver that does not answer holds up nobody: what it leaves is named, and removed once it is back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::csi_driver::faults::{Fault, Order};

use crate::bed::{Bed, LIMIT, condition, is_final, phase};

/// gRPC's UNAVAILABLE.
const UNAVAILABLE: i32 = 14;
/// For deletions that are tried again after growing pauses, and for the sweep, which leaves young objects alone.
const REMOVED: Duration = Duration::from_secs(300);

/// The driver deletes nothing any more. The backup ends all the same, its namespace goes, and nothing is forgotten.
pub(crate) fn by_a_driver_that_is_gone(bed: &mut Bed) -> Result<()> {
    bed.lead_with(&["--clean-deadline", "5s", "--sweep-every", "5s"])?;
    let outcome = driver_gone(bed);
    bed.storage.driver.order(&[])?;
    let outcome = outcome.and_then(|()| bed.nothing_left_within(REMOVED));
    bed.lead_with(&[])?;
    outcome
}

fn driver_gone(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 64)?;
    bed.count()?;
    let refuse = |call: &str| Order::next(call, Fault::Refuse { code: UNAVAILABLE }).times(0);
    bed.storage
        .driver
        .order(&[refuse("DeleteVolume"), refuse("DeleteSnapshot")])?;
    bed.backup(
        "stuck",
        "data",
        &json!({"baseSnapshotPolicy": "Drop"}),
        &image,
    )?;
    let mut last = json!(null);
    bed.wait(LIMIT, "end of a backup whose driver is gone", || {
        last = bed.backup_object("stuck")?;
        Ok(is_final(&phase(&last)))
    })
    .with_context(|| last["status"].to_string())?;
    ensure!(phase(&last) == "Completed", "the point is there: {last}");
    let cleaned = condition(&last, "Cleaned").context("the condition Cleaned")?;
    ensure!(
        cleaned["status"] == "False" && cleaned["reason"] == "LeftBehind",
        "{cleaned}"
    );
    let message = last["status"]["message"].as_str().unwrap_or("");
    let handle = last["status"]["snapshot"]["handle"].as_str();
    let contents = bed
        .api
        .list("/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents")?;
    let named = contents.iter().find(|content| {
        let status = content["status"]["snapshotHandle"].as_str();
        handle.is_some() && status == handle
    });
    ensure!(named.is_some(), "no object names the driver's snapshot");
    ensure!(
        message.contains("still there: persistentvolume/"),
        "{message}"
    );
    // Nothing of ours keeps the namespace.
    bed.cluster
        .kubectl(&["delete", "namespace", &bed.namespace, "--wait=false"])?;
    let path = format!("/api/v1/namespaces/{}", bed.namespace);
    bed.wait(LIMIT, "end of the namespace", || {
        Ok(bed.api.get(&path)?.is_none())
    })
}
