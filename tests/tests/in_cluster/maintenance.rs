//! What the controller does to repositories without being asked.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;
use tests::image::MIB;

use crate::bed::{Bed, CONTROLLER, LIMIT, condition, phase};

/// Objects of at least this size hold data; records are smaller.
const LARGE: u64 = 256 << 10;

/// Sets fields of `spec.maintenance`.
fn maintain(bed: &Bed, settings: &Value) -> Result<()> {
    bed.api
        .merge(
            &bed.repository_path(),
            &json!({"spec": {"maintenance": settings}}),
        )
        .map(drop)
}

/// With the policy Delete the point goes with its object, and then its bytes go by themselves.
pub(crate) fn garbage_goes(bed: &mut Bed) -> Result<()> {
    let (claim, _) = bed.claim("data", 48)?;
    let image = bed.write(&claim, 60)?;
    bed.count()?;
    let before = bed.repo.objects("")?;
    let delete = json!({"deletionPolicy": "Delete", "baseSnapshotPolicy": "Drop"});
    bed.backup("gone", "data", &delete, &image)?;
    let object = bed.finished("gone")?;
    ensure!(phase(&object) == "Completed", "{}", object["status"]);
    let stored = large(bed, &before)?;
    let bytes: u64 = stored.iter().map(|(_, bytes)| bytes).sum();
    ensure!(bytes > MIB, "the backup stored {stored:?}");
    let path = format!("{}/gone", bed.list("podvolumebackups"));
    bed.api.delete(&path)?;
    bed.wait(LIMIT, "end of the object", || {
        Ok(bed.api.get(&path)?.is_none())
    })?;
    let freed = "snaphaul_controller_repository_gc_freed_bytes_total{repository=\"store\"}";
    let freed_before = bed.metric(CONTROLLER, freed)?.unwrap_or(0.0);
    maintain(bed, &json!({"gcInterval": "2s"}))?;
    let gone = bed.wait(LIMIT, "end of the bytes", || {
        let left = bed.repo.objects("")?;
        Ok(stored.iter().all(|(name, _)| !left.contains(name)))
    });
    gone.with_context(|| bed.repository_status())?;
    bed.wait(LIMIT, "the result in the status", || {
        let status = bed.repository_object()?["status"].clone();
        let last = &status["lastGc"];
        Ok(last["succeeded"] == true
            && last["completed"].is_string()
            && last["failures"] == 0
            && status["nextGc"].is_string())
    })
    .with_context(|| bed.repository_status())?;
    bed.wait(LIMIT, "the freed bytes as a metric", || {
        let now = bed.metric(CONTROLLER, freed)?.unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "some mebibytes")]
        let enough = bytes as f64;
        Ok(now - freed_before >= enough)
    })?;
    event(bed, "Collected")?;
    maintain(bed, &json!({"gcInterval": "0s"}))
}

/// Large objects that were not there before, and their sizes.
fn large(bed: &Bed, before: &[String]) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for name in bed.repo.objects("")? {
        if !before.contains(&name) {
            let bytes = bed.repo.read(&name)?.len() as u64;
            found.extend((bytes >= LARGE).then_some((name, bytes)));
        }
    }
    Ok(found)
}

/// A byte that the store turned over is found, told with whom it hurts, and not told any more once it is right again.
pub(crate) fn damage_is_told(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 32)?;
    bed.count()?;
    let before = bed.repo.objects("")?;
    bed.backup("hurt", "data", &json!({}), &image)?;
    let object = bed.completed("hurt")?;
    let point = object["status"]["point"]["id"].as_str().context("an id")?;
    let stored = large(bed, &before)?;
    let largest = stored.into_iter().max_by_key(|(_, bytes)| *bytes);
    let (segment, _) = largest.context("data was stored")?;
    let body = bed.repo.read(&segment)?;
    let mut wrong = body.clone();
    wrong[body.len() / 2] ^= 1;
    bed.repo.write(&segment, &wrong)?;
    maintain(bed, &json!({"verifyInterval": "2s", "verifyLevel": "Data"}))?;
    bed.wait(LIMIT, "word of the damage", || healthy(bed, "False"))
        .with_context(|| bed.repository_status())?;
    let repository = bed.repository_object()?;
    let told = condition(&repository, "Healthy").context("a condition")?;
    ensure!(told["reason"] == "DamageFound", "{told}");
    let message = told["message"].as_str().unwrap_or_default();
    for part in [point, "/data", "back the"] {
        ensure!(message.contains(part), "no {part} in: {message}");
    }
    ensure!(
        repository["status"]["damagedPoints"] == json!([point]),
        "{}",
        repository["status"]
    );
    ensure!(repository["status"]["lastVerify"]["findings"].as_i64() >= Some(1));
    let metric = |name: &str| {
        let series = format!("snaphaul_controller_repository_{name}{{repository=\"store\"}}");
        bed.metric(CONTROLLER, &series)
    };
    bed.wait(LIMIT, "metrics of the damage", || {
        Ok(metric("healthy")? == Some(0.0) && metric("damaged_points")? == Some(1.0))
    })?;
    event(bed, "DamageFound")?;
    // Still ready: whatever is right can be restored, and backups heal what is not.
    ensure!(condition(&repository, "Ready").is_some_and(|ready| ready["status"] == "True"));
    bed.repo.write(&segment, &body)?;
    bed.wait(LIMIT, "health", || healthy(bed, "True"))
        .with_context(|| bed.repository_status())?;
    bed.wait(LIMIT, "the metric of health", || {
        Ok(metric("healthy")? == Some(1.0) && metric("damaged_points")? == Some(0.0))
    })?;
    maintain(
        bed,
        &json!({"verifyInterval": "0s", "verifyLevel": "Sample"}),
    )
}

/// A store that is away makes maintenance fail with its reason, again and again but not at once, until it is back.
pub(crate) fn failures_are_told(bed: &mut Bed) -> Result<()> {
    bed.count()?;
    let folder = bed.repo.folder()?.to_owned();
    let away = folder.with_extension("away");
    std::fs::rename(&folder, &away)?;
    // The condition Ready is as old as the last look: until the next one the run is tried, and says why it cannot.
    let outcome = maintain(bed, &json!({"verifyInterval": "1s"})).and_then(|()| {
        bed.wait(LIMIT, "word of the failure", || {
            let object = bed.repository_object()?;
            let is_ready =
                condition(&object, "Ready").is_some_and(|ready| ready["status"] == "True");
            let failed = object["status"]["lastVerify"]["failures"].as_i64() >= Some(1);
            Ok(failed || !is_ready)
        })
    });
    std::fs::rename(&away, &folder)?;
    outcome.with_context(|| bed.repository_status())?;
    bed.wait_for_repository("True")?;
    bed.wait(LIMIT, "a verification that ends well", || {
        let last = bed.repository_object()?["status"]["lastVerify"].clone();
        Ok(last["succeeded"] == true && last["failures"] == 0)
    })
    .with_context(|| bed.repository_status())?;
    maintain(bed, &json!({"verifyInterval": "0s"}))
}

fn healthy(bed: &Bed, status: &str) -> Result<bool> {
    let repository = bed.repository_object()?;
    Ok(condition(&repository, "Healthy").is_some_and(|found| found["status"] == status))
}

/// Waits for an event about the repository; those about objects without a namespace are in `default`.
fn event(bed: &Bed, reason: &str) -> Result<()> {
    let list = in_namespace("/apis/events.k8s.io/v1", "default", "events");
    bed.wait(LIMIT, &format!("event {reason}"), || {
        let events = bed.api.list(&list)?;
        Ok(events.iter().any(|event| {
            event["reason"] == reason && event["regarding"]["kind"] == "SnapshotRepository"
        }))
    })
}
