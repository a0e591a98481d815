//! Restores into new claims.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;
use tests::cluster::claims::Claim;
use tests::image::{Image, MIB};

use crate::bed::{Bed, LIMIT, REPOSITORY, phase};
use crate::restores::{self, PLAIN, PLURAL, refused, restore};

/// A new claim of the same class holds what was backed up, bit for bit.
pub(crate) fn new_claim(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 32)?;
    bed.backup("first", "data", &json!({}), &image)?;
    bed.completed("first")?;
    bed.count()?;
    restore(
        bed,
        "back",
        &restores::of_backup("first", "NewClaim", "copy"),
    )?;
    restores::completed(bed, "back")?;
    restores::assert_same(bed, "copy", &image)?;
    restores::remove(bed, &["copy"])
}

/// Two points of one claim.
struct Points {
    ids: [String; 2],
    images: [Image; 2],
    /// When the first was taken, as people see it.
    first_time: Value,
}

fn points(bed: &mut Bed) -> Result<Points> {
    let (claim, first) = bed.claim("data", 16)?;
    bed.backup("first", "data", &json!({}), &first)?;
    let one = bed.completed("first")?;
    let first_time = one["status"]["snapshot"]["creationTime"].clone();
    restores::pass_second(&first_time)?;
    let second = bed.write(&claim, 5)?;
    bed.backup("second", "data", &json!({}), &second)?;
    let two = bed.completed("second")?;
    let id = |object: &Value| -> Result<String> {
        let id = object["status"]["point"]["id"].as_str();
        Ok(id.context("a point")?.to_owned())
    };
    Ok(Points {
        ids: [id(&one)?, id(&two)?],
        images: [first, second],
        first_time,
    })
}

fn by(source: &Value, target: &Value) -> Value {
    json!({"source": source, "repositoryRef": {"name": REPOSITORY}, "target": target})
}

/// Every way to name a point, and every shape of a new claim that differs from the old one's.
pub(crate) fn sources_and_shapes(bed: &mut Bed) -> Result<()> {
    let points = points(bed)?;
    restores::plain_class(bed)?;
    bed.count()?;
    let bigger = json!({"requests": {"storage": "64Mi"}});
    let all = [
        (
            json!({"pointID": points.ids[0]}),
            json!({"name": "by-id", "storageClassName": PLAIN}),
            0,
        ),
        (
            json!({"pointID": points.ids[1]}),
            json!({"name": "bigger", "resources": bigger, "labels": {"team": "a"}}),
            1,
        ),
        (
            json!({"volume": {"claimName": "data"}}),
            json!({"name": "newest"}),
            1,
        ),
        (
            json!({"volume": {"claimName": "data", "asOf": points.first_time}}),
            json!({"name": "as-of"}),
            0,
        ),
    ];
    for (source, target, _) in &all {
        let name = target["name"].as_str().context("a name")?;
        restore(bed, name, &by(source, target))?;
    }
    refusals(bed, &points)?;
    for (_, target, which) in &all {
        let name = target["name"].as_str().context("a name")?;
        restores::completed(bed, name)?;
        restores::assert_same(bed, name, &points.images[*which])?;
    }
    shape(bed)?;
    restores::remove(bed, &["by-id", "bigger", "newest", "as-of"])
}

/// Classes say what becomes of the volume, and whether it grows.
fn shape(bed: &Bed) -> Result<()> {
    let of = |name: &str| restores::claim(bed, name).volume(&bed.api);
    let plain = of("by-id")?;
    ensure!(
        plain["spec"]["storageClassName"] == PLAIN
            && plain["spec"]["persistentVolumeReclaimPolicy"] == "Retain",
        "{plain}"
    );
    let newest = of("newest")?;
    ensure!(
        newest["spec"]["persistentVolumeReclaimPolicy"] == "Delete",
        "{newest}"
    );
    let claim = restores::claim(bed, "bigger");
    let object = bed.api.get(&claim.path())?.context("the claim")?;
    ensure!(object["metadata"]["labels"]["team"] == "a", "{object}");
    let mut last = Value::Null;
    bed.wait(LIMIT, "growth of the claim", || {
        last = bed.api.get(&claim.path())?.context("the claim")?;
        Ok(last["status"]["capacity"]["storage"] == "64Mi")
    })
    .with_context(|| last.to_string())?;
    let attached = claim.attach(&bed.api, &bed.storage.driver)?;
    let size = tests::image::size_of(attached.path())?;
    attached.detach()?;
    ensure!(size == 64 * MIB, "the device has {size} bytes");
    Ok(())
}

/// What cannot be had is refused at once, with words for people.
fn refusals(bed: &Bed, points: &Points) -> Result<()> {
    let storage = |size: &str| json!({"requests": {"storage": size}});
    let id = json!({"pointID": points.ids[0]});
    let all = [
        (
            "too-big",
            id.clone(),
            json!({"name": "x1", "storageClassName": PLAIN, "resources": storage("64Mi")}),
            ("TargetRefused", "does not let claims grow"),
        ),
        (
            "too-small",
            id.clone(),
            json!({"name": "x2", "resources": storage("1Mi")}),
            ("TargetRefused", "asks for 1Mi"),
        ),
        (
            "no-class",
            id.clone(),
            json!({"name": "x3", "storageClassName": "nowhere"}),
            ("NotFound", "no storage class nowhere"),
        ),
        (
            "taken",
            id,
            json!({"name": "data"}),
            ("TargetRefused", "claim data exists"),
        ),
        (
            "no-point",
            json!({"pointID": "0123456789abcdef-01234567"}),
            json!({"name": "x4"}),
            ("NotFound", "no point"),
        ),
    ];
    for (name, source, target, _) in &all {
        restore(bed, name, &by(source, target))?;
    }
    for (name, _, _, (reason, words)) in &all {
        refused(bed, name, reason, words)?;
    }
    Ok(())
}

/// Another namespace gets a point only where the repository grants it.
pub(crate) fn other_namespaces(bed: &mut Bed) -> Result<()> {
    let (_, image) = bed.claim("data", 8)?;
    bed.backup("first", "data", &json!({}), &image)?;
    let object = bed.completed("first")?;
    let point = object["status"]["point"]["id"]
        .as_str()
        .context("a point")?;
    let granted = format!("{}-granted", bed.namespace);
    let stranger = format!("{}-stranger", bed.namespace);
    bed.cluster.namespace(&granted, &[])?;
    bed.cluster.namespace(&stranger, &[])?;
    bed.count()?;
    grant(
        bed,
        &json!([{"from": {"namespace": bed.namespace}, "to": [granted]}]),
    )?;
    let spec = by(&json!({"pointID": point}), &json!({"name": "data"}));
    let begin = |namespace: &str| -> Result<String> {
        let list = in_namespace("/apis/snaphaul.dev/v1alpha1", namespace, PLURAL);
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "PodVolumeRestore", "metadata": {"name": "mine"}, "spec": spec,
        });
        bed.api.create(&list, &object)?;
        Ok(format!("{list}/mine"))
    };
    let paths = [begin(&granted)?, begin(&stranger)?];
    let mut ended = Vec::new();
    for path in &paths {
        let mut last = Value::Null;
        bed.wait(LIMIT, &format!("the end of {path}"), || {
            last = bed.api.get(path)?.context("the restore exists")?;
            Ok(crate::bed::is_final(&phase(&last)))
        })
        .with_context(|| last["status"].to_string())?;
        ended.push(last);
    }
    ensure!(phase(&ended[0]) == "Completed", "{}", ended[0]["status"]);
    ensure!(phase(&ended[1]) == "Failed", "{}", ended[1]["status"]);
    let refusal = crate::bed::condition(&ended[1], "Succeeded").context("a condition")?;
    ensure!(refusal["reason"] == "PointNotGranted", "{refusal}");
    // Whose point it is is nobody's business.
    let message = refusal["message"].as_str().unwrap_or("");
    ensure!(
        !message.contains(&format!("{} ", bed.namespace)),
        "{message}"
    );
    let copy = Claim::named(&granted, "data");
    copy.assert_same(&bed.api, &bed.storage.driver, &image)?;
    let volume = restores::path_of(&copy.volume(&bed.api)?);
    grant(bed, &json!([]))?;
    for namespace in [&granted, &stranger] {
        let words = ["delete", "namespace", namespace, "--wait=false"];
        bed.cluster.kubectl(&words)?;
    }
    restores::gone(bed, &volume)
}

fn grant(bed: &Bed, grants: &Value) -> Result<()> {
    let path = format!("/apis/snaphaul.dev/v1alpha1/snapshotrepositories/{REPOSITORY}");
    let change = json!({"spec": {"grants": grants}});
    bed.api.merge(&path, &change).map(drop)
}
