//! Restores over claims, and what is in the way of those who would misuse them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;
use tests::cluster::claims::Claim;
use tests::cluster::storage::CLASS;
use tests::image::MIB;

use crate::bed::{Bed, condition, phase};

fn over(claim: &str) -> Value {
    json!({"source": {"backupName": "first"}, "target": {"name": claim}, "mode": "InPlace"})
}

/// A claim is written over with what it held before; meanwhile no pod comes to use it.
pub(crate) fn alone(bed: &mut Bed) -> Result<()> {
    let (claim, image) = bed.claim("data", 64)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.write(&claim, 9)?;
    bed.create(
        "PodVolumeRestore",
        "podvolumerestores",
        "back",
        &over("data"),
    )?;
    bed.wait(crate::bed::LIMIT, "a restore at work", || {
        let phase = phase(&bed.object("podvolumerestores", "back")?);
        Ok(matches!(
            phase.as_str(),
            "Prepared" | "InProgress" | "Completed"
        ))
    })?;
    let user = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"},
        "spec": {"containers": [{"name": "a", "image": "a"}],
                 "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]},
    });
    let pods = in_namespace("/api/v1", &bed.namespace, "pods");
    if let Err(error) = bed.api.create(&pods, &user) {
        let words = format!("{error:#}");
        ensure!(words.contains("is being written over"), "{words}");
    } else {
        // It was quick: a pod is admitted to a claim whose restore has ended, and to no other.
        let now = phase(&bed.object("podvolumerestores", "back")?);
        ensure!(
            now == "Completed",
            "a pod was admitted while the restore was {now}"
        );
        bed.api.delete(&format!("{pods}/user"))?;
    }
    let object = bed.final_object("podvolumerestores", "back")?;
    ensure!(phase(&object) == "Completed", "{}", object["status"]);
    claim.assert_same(&bed.api, &bed.storage.driver, &image)
}

/// A claim can name any volume of the cluster. One that is not bound to it is neither written over nor backed up.
pub(crate) fn of_a_volume_of_somebody_else(bed: &mut Bed) -> Result<()> {
    let (mine, image) = bed.claim("data", 32)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    let victim = Claim::create(&bed.api, CLASS, "default", "victim", 32 * MIB)?;
    let theirs = bed.write(&victim, 12)?;
    let volume = victim.volume(&bed.api)?;
    let forged = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "forged"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": CLASS,
            "volumeName": volume["metadata"]["name"],
            "resources": {"requests": {"storage": (32 * MIB).to_string()}},
        },
    });
    let claims = in_namespace("/api/v1", &bed.namespace, "persistentvolumeclaims");
    bed.api.create(&claims, &forged)?;
    // What a role over everything in a namespace lets a tenant say.
    let status = [
        "patch",
        "persistentvolumeclaim",
        "forged",
        "--namespace",
        &bed.namespace,
        "--subresource=status",
        "--type=merge",
        "--patch",
        r#"{"status": {"phase": "Bound"}}"#,
    ];
    bed.cluster.kubectl(&status)?;
    bed.create(
        "PodVolumeRestore",
        "podvolumerestores",
        "back",
        &over("forged"),
    )?;
    let object = bed.final_object("podvolumerestores", "back")?;
    ensure!(phase(&object) == "Failed", "{}", object["status"]);
    let succeeded = condition(&object, "Succeeded").context("a condition")?;
    ensure!(succeeded["reason"] == "ClaimNotBound", "{succeeded}");
    bed.cluster.kubectl(&status)?;
    bed.backup("theft", "forged", &json!({}), &theirs)?;
    bed.wait(crate::bed::LIMIT, "a reason", || {
        let object = bed.backup_object("theft")?;
        Ok(condition(&object, "Accepted").is_some_and(|is| is["reason"] == "ClaimNotBound"))
    })?;
    bed.cancel("theft")?;
    let object = bed.finished("theft")?;
    ensure!(phase(&object) == "Canceled", "{}", object["status"]);
    victim.assert_same(&bed.api, &bed.storage.driver, &theirs)?;
    mine.assert_same(&bed.api, &bed.storage.driver, &image)?;
    bed.api.delete(&victim.path())
}

/// What has ended goes by itself where it was told to.
pub(crate) fn gone_after_its_time(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    let brief = json!({"ttlSecondsAfterFinished": 1});
    bed.backup("brief", "data", &brief, &image)?;
    let mut spec = over("missing");
    spec["ttlSecondsAfterFinished"] = json!(1);
    spec["source"] = json!({"backupName": "missing"});
    spec["mode"] = json!("NewClaim");
    spec["cancel"] = json!(true);
    bed.create("PodVolumeRestore", "podvolumerestores", "brief", &spec)?;
    for kind in ["podvolumebackups", "podvolumerestores"] {
        let path = format!("{}/brief", bed.list(kind));
        bed.wait(crate::bed::LIMIT, "end of the object", || {
            Ok(bed.api.get(&path)?.is_none())
        })?;
    }
    Ok(())
}
