//! `spec.sync`: what the repository holds becomes backups again, and is run by nobody.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::{in_namespace, status_code};
use tests::image::Image;

use crate::bed::{Bed, CONTROLLER, LIMIT, REPOSITORY, condition, phase};
use crate::restores::{self, restore};

const BACKUPS: &str = "podvolumebackups";
const LOOKS: &str =
    "snaphaul_controller_repository_sync_looks_total{repository=\"store\",result=\"ok\"}";
/// Looks after which what was not made is not going to be.
const ENOUGH: f64 = 3.0;

/// A completed backup of the claim, whose object is deleted again: only the point stays.
fn lost(bed: &mut Bed, name: &str, claim: &str, image: &Image) -> Result<String> {
    bed.backup(name, claim, &json!({}), image)?;
    let object = bed.completed(name)?;
    let point = object["status"]["point"]["id"].as_str();
    let point = point.context("a point")?.to_owned();
    delete(bed, name)?;
    Ok(point)
}

fn path(bed: &Bed, name: &str) -> String {
    format!("{}/{name}", bed.list(BACKUPS))
}

/// Deletes a backup and waits for its end.
fn delete(bed: &Bed, name: &str) -> Result<()> {
    let path = path(bed, name);
    bed.api.delete(&path)?;
    bed.wait(LIMIT, &format!("end of {name}"), || {
        Ok(bed.api.get(&path)?.is_none())
    })
}

fn change(bed: &Bed, spec: &Value) -> Result<()> {
    let change = json!({"spec": spec});
    bed.api.merge(&bed.repository_path(), &change).map(drop)
}

/// Waits until so many looks have found nothing more to do.
fn looks(bed: &Bed) -> Result<()> {
    let before = bed.metric(CONTROLLER, LOOKS)?.unwrap_or(0.0);
    bed.wait(LIMIT, "looks at the repository", || {
        Ok(bed.metric(CONTROLLER, LOOKS)?.unwrap_or(0.0) >= before + ENOUGH)
    })
    .with_context(|| bed.repository_status())
}

/// Waits for the resource of a point, with its status.
fn back(bed: &Bed, point: &str, whose: &str) -> Result<Value> {
    let name = format!("point-{point}");
    let path = path(bed, &name);
    let mut last = Value::Null;
    bed.wait(LIMIT, &name, || {
        last = bed.api.get(&path)?.unwrap_or_default();
        Ok(phase(&last) == "Completed")
    })
    .with_context(|| format!("{last}; {}", bed.repository_status()))?;
    let status = &last["status"];
    let of = &status["point"];
    ensure!(
        of["id"] == point && of["repositoryID"].is_string(),
        "{status}"
    );
    ensure!(
        last["metadata"]["labels"]["snaphaul.dev/synced"] == whose,
        "{last}"
    );
    ensure!(
        last["spec"]["deletionPolicy"] == "Retain" && last["metadata"]["finalizers"].is_null(),
        "{last}"
    );
    let done = condition(&last, "Succeeded").context("a condition")?;
    ensure!(
        done["status"] == "True" && done["reason"] == "Done",
        "{done}"
    );
    ensure!(
        status["node"].is_null()
            && status["transfer"].is_null()
            && status["snapshot"]["name"].is_null(),
        "it was run: {status}"
    );
    Ok(last)
}

fn absent(bed: &Bed, point: &str) -> Result<()> {
    let found = bed.api.get(&path(bed, &format!("point-{point}")))?;
    ensure!(found.is_none(), "is there: {found:?}");
    Ok(())
}

/// Ends what a case asked for.
fn off(bed: &Bed) -> Result<()> {
    change(bed, &json!({"sync": "None", "grants": []}))?;
    bed.wait(LIMIT, "end of status.sync", || {
        let object = bed.repository_object()?;
        Ok(object["status"]["sync"].is_null() && condition(&object, "Synced").is_none())
    })
    .with_context(|| bed.repository_status())
}

/// Backups that are gone are there again, restore, stay away once they are deleted, and go with their points.
pub(crate) fn brings_back(bed: &mut Bed) -> Result<()> {
    let (claim, first) = bed.claim("data", 16)?;
    let one = lost(bed, "first", "data", &first)?;
    let second = bed.write(&claim, 5)?;
    let two = lost(bed, "second", "data", &second)?;
    let third = bed.write(&claim, 5)?;
    bed.backup("third", "data", &json!({}), &third)?;
    let three = bed.completed("third")?["status"]["point"]["id"].clone();
    let three = three.as_str().context("a point")?;
    bed.count()?;
    change(bed, &json!({"sync": "All"}))?;
    back(bed, &one, "own")?;
    let object = back(bed, &two, "own")?;
    told(bed)?;
    // The newest has its own; nothing else is there.
    absent(bed, three)?;
    let all = bed.api.list(&bed.list(BACKUPS))?;
    ensure!(all.len() == 3, "{all:?}");
    let name = format!("point-{one}");
    let mut spec = restores::of_backup(&name, "NewClaim", "copy");
    // Nobody was asked whether he may use the repository when sync made the backup.
    restore(bed, "unasked", &spec)?;
    let refused = bed.final_object(restores::PLURAL, "unasked")?["status"]["message"].clone();
    ensure!(
        refused
            .as_str()
            .is_some_and(|text| text.contains("repositoryRef")),
        "{refused}"
    );
    spec["repositoryRef"] = json!({"name": REPOSITORY});
    restore(bed, "back", &spec)?;
    restores::completed(bed, "back")?;
    restores::assert_same(bed, "copy", &first)?;
    restores::remove(bed, &["copy"])?;
    // What somebody deletes stays away, and its point stays.
    delete(bed, &name)?;
    delete(bed, "third")?;
    looks(bed)?;
    absent(bed, &one)?;
    absent(bed, three)?;
    bed.assert_point(&one, &first)?;
    left_half_made(bed, &one, &object)?;
    // With the other policy the point goes, too.
    let name = format!("point-{two}");
    let delete_too = json!({"spec": {"deletionPolicy": "Delete"}});
    bed.api.merge(&path(bed, &name), &delete_too)?;
    bed.wait(LIMIT, "finalizer", || {
        let object = bed.backup_object(&name)?;
        Ok(object["metadata"]["finalizers"].is_array())
    })?;
    delete(bed, &name)?;
    bed.repo
        .fails(64, &["restore", &two, &text(&bed.scratch.join("gone"))])?;
    // A point that somebody forgets takes its resource along, whatever is asked for by then.
    off(bed)?;
    bed.backup_object(&format!("point-{one}"))?;
    bed.repo.ok(&["forget", &one])?;
    bed.wait(LIMIT, "end of what has no point", || {
        Ok(bed.api.get(&path(bed, &format!("point-{one}")))?.is_none())
    })
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// Status, condition, metric and event say what was made.
fn told(bed: &Bed) -> Result<()> {
    let made = "snaphaul_controller_repository_synced_backups{repository=\"store\"}";
    bed.wait(LIMIT, "word of what was synced", || {
        let object = bed.repository_object()?;
        let is_synced = condition(&object, "Synced")
            .is_some_and(|found| found["status"] == "True" && found["reason"] == "PointsSynced");
        let backups = object["status"]["sync"]["backups"].as_i64() >= Some(2);
        Ok(is_synced && backups && bed.metric(CONTROLLER, made)? >= Some(2.0))
    })
    .with_context(|| bed.repository_status())?;
    let list = in_namespace("/apis/events.k8s.io/v1", "default", "events");
    bed.wait(LIMIT, "event PointsSynced", || {
        let events = bed.api.list(&list)?;
        Ok(events.iter().any(|event| event["reason"] == "PointsSynced"))
    })
}

/// What a crash between the two requests leaves is never run: it gets its status, or goes where it has no point.
fn left_half_made(bed: &mut Bed, point: &str, like: &Value) -> Result<()> {
    bed.product.stop(CONTROLLER);
    let half = |point: &str| -> Result<()> {
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "PodVolumeBackup",
            "metadata": {"name": format!("point-{point}"), "labels": like["metadata"]["labels"]},
            "spec": like["spec"],
        });
        bed.api.create(&bed.list(BACKUPS), &object).map(drop)
    };
    let none = "ffffffffffffffff-00000000";
    half(point)?;
    half(none)?;
    bed.product.start_controller(CONTROLLER)?;
    back(bed, point, "own")?;
    bed.wait(LIMIT, "end of what never had a point", || {
        let found = bed.api.get(&path(bed, &format!("point-{none}")))?;
        ensure!(
            found.as_ref().is_none_or(|found| phase(found) == "New"),
            "it was run: {found:?}"
        );
        Ok(found.is_none())
    })
}

/// A namespace that was lost and made again sees its old points where a grant says so, and cannot delete them.
pub(crate) fn of_a_lost_namespace(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    let point = lost(bed, "first", "data", &image)?;
    let place = format!("/api/v1/namespaces/{}", bed.namespace);
    bed.api.delete(&place)?;
    bed.wait(LIMIT, "end of the namespace", || {
        Ok(bed.api.get(&place)?.is_none())
    })?;
    bed.cluster.namespace(&bed.namespace, &[])?;
    bed.count()?;
    change(bed, &json!({"sync": "Latest"}))?;
    looks(bed)?;
    absent(bed, &point)?;
    let grant = json!([{"from": {"namespace": bed.namespace}, "to": [bed.namespace]}]);
    change(bed, &json!({ "grants": grant }))?;
    back(bed, &point, "granted")?;
    let name = format!("point-{point}");
    let delete_too = json!({"spec": {"deletionPolicy": "Delete"}});
    let answer = bed.api.merge(&path(bed, &name), &delete_too);
    let error = answer
        .err()
        .context("a granted point is not to be deleted")?;
    ensure!(status_code(&error) == Some(403), "{error:#}");
    let mut spec = restores::of_backup(&name, "NewClaim", "data");
    spec["repositoryRef"] = json!({"name": REPOSITORY});
    restore(bed, "back", &spec)?;
    restores::completed(bed, "back")?;
    restores::assert_same(bed, "data", &image)?;
    restores::remove(bed, &["data"])?;
    delete(bed, &name)?;
    bed.assert_point(&point, &image)?;
    off(bed)
}
