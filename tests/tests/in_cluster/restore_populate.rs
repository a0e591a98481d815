//! Claims that ask to be filled by a restore.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;
use tests::cluster::claims::Claim;
use tests::cluster::storage::{CLASS, LATE_CLASS};
use tests::image::MIB;

use crate::bed::{Bed, LIMIT, REPOSITORY};
use crate::restores::{self, PLAIN, completed, refused, restore};

fn asking(bed: &Bed, name: &str, class: &str, restore: &str) -> Result<Claim> {
    let source = json!({"apiGroup": "snaphaul.dev", "kind": "PodVolumeRestore", "name": restore});
    let more = json!({"storageClassName": class, "dataSourceRef": source});
    Claim::ask(&bed.api, &bed.namespace, name, 16 * MIB, &more)
}

/// The newest point of a claim, into the claim that asks for it.
fn fill(bed: &Bed, name: &str, of: &str) -> Result<()> {
    let spec = json!({
        "source": {"volume": {"claimName": of}}, "repositoryRef": {"name": REPOSITORY}, "target": {"name": name},
    });
    restore(bed, name, &spec)
}

/// Claims of both binding modes are filled before anybody sees them; one without a point waits, and is no empty volume.
pub(crate) fn populated(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 16)?;
    let (_, later) = bed.claim("later", 16)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.count()?;
    let nothing = asking(bed, "nothing", CLASS, "nothing")?;
    fill(bed, "nothing", "later")?;
    let late = asking(bed, "late", LATE_CLASS, "late")?;
    fill(bed, "late", "data")?;
    asking(bed, "now", CLASS, "now")?;
    fill(bed, "now", "data")?;
    restores::wait_for_reason(bed, "late", "DeviceReady", "WaitingForConsumer")?;
    completed(bed, "now")?;
    restores::assert_same(bed, "now", &image)?;
    waits(bed, &late)?;
    let pod = restores::user(bed, "consumer", "late")?;
    told(bed, &nothing)?;
    completed(bed, "late")?;
    restores::runs(bed, &pod)?;
    restores::end(bed, &pod)?;
    restores::assert_same(bed, "late", &image)?;
    waits(bed, &nothing)?;
    bed.backup("second", "later", &json!({}), &later)?;
    bed.completed("second")?;
    completed(bed, "nothing")?;
    restores::assert_same(bed, "nothing", &later)?;
    restores::remove(bed, &["nothing", "late", "now"])
}

/// Restore and claim come in either order; a claim that asks for another volume than the one that was begun gets none.
pub(crate) fn claims_after(bed: &mut Bed) -> Result<()> {
    restores::plain_class(bed)?;
    let (_, image) = bed.claim("data", 16)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.count()?;
    restores::freeze_agent(bed, true)?;
    for name in ["same", "other"] {
        fill(bed, name, "data")?;
        restores::wait_for_phase(bed, name, "Prepared")?;
    }
    asking(bed, "same", CLASS, "same")?;
    let other = asking(bed, "other", PLAIN, "other")?;
    restores::freeze_agent(bed, false)?;
    completed(bed, "same")?;
    restores::assert_same(bed, "same", &image)?;
    refused(bed, "other", "TargetRefused", "")?;
    waits(bed, &other)?;
    restores::remove(bed, &["same"])?;
    bed.api.delete(&other.path())
}

/// Nobody has given the claim a volume.
fn waits(bed: &Bed, claim: &Claim) -> Result<()> {
    let object = bed.api.get(&claim.path())?.context("the claim exists")?;
    ensure!(
        object["status"]["phase"] == "Pending" && object["spec"]["volumeName"].is_null(),
        "{object}"
    );
    Ok(())
}

/// An event of the claim says what is missing.
fn told(bed: &Bed, claim: &Claim) -> Result<()> {
    let list = in_namespace("/api/v1", &bed.namespace, "events");
    let mut last = Vec::new();
    bed.wait(LIMIT, "an event", || {
        last = bed.api.list(&list)?;
        Ok(last.iter().any(|event| is_about(event, &claim.name)))
    })
    .with_context(|| format!("{last:?}"))
}

fn is_about(event: &Value, claim: &str) -> bool {
    let about = &event["involvedObject"];
    about["kind"] == "PersistentVolumeClaim"
        && about["name"] == claim
        && event["type"] == "Warning"
        && event["message"]
            .as_str()
            .is_some_and(|message| message.contains("no point of claim later"))
}
