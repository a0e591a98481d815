//! Restores in place of a claim, and into its own volume.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::claims::Claim;
use tests::cluster::product::repository_root;
use tests::cluster::storage::CLASS;
use tests::image::{Image, MIB};

use crate::bed::{Bed, CONTROLLER, LIMIT};
use crate::restores::{self, PLAIN, PLURAL, completed, of_backup, refused, restore};

/// A claim with a backup and other content since.
fn changed(bed: &mut Bed, name: &str, class: &str) -> Result<Image> {
    let claim = Claim::create(&bed.api, class, &bed.namespace, name, 16 * MIB)?;
    let image = bed.write(&claim, 10)?;
    bed.backup(name, name, &json!({}), &image)?;
    bed.completed(name)?;
    bed.write(&claim, 10)?;
    Ok(image)
}

/// An unused claim gets a new volume and keeps what users set on it; the old volume goes or stays as its policy says. One that is
/// used is left alone.
pub(crate) fn replaced(bed: &mut Bed) -> Result<()> {
    restores::plain_class(bed)?;
    let images = [
        changed(bed, "gone", CLASS)?,
        changed(bed, "stays", PLAIN)?,
        changed(bed, "used", CLASS)?,
    ];
    let old = ["gone", "stays", "used"].map(|name| {
        restores::claim(bed, name)
            .volume(&bed.api)
            .map(|old| restores::path_of(&old))
    });
    let [gone, stays, used] = old;
    let (gone, stays, used) = (gone?, stays?, used?);
    let labels = json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}}});
    bed.api
        .merge(&restores::claim(bed, "gone").path(), &labels)?;
    let pod = restores::user(bed, "user", "used")?;
    restores::runs(bed, &pod)?;
    bed.count()?;
    for name in ["gone", "stays", "used"] {
        restore(bed, name, &of_backup(name, "Replace", name))?;
    }
    refused(bed, "used", "TargetRefused", "in use by pod user")?;
    for (name, image) in ["gone", "stays"].iter().zip(&images) {
        completed(bed, name)?;
        restores::assert_same(bed, name, image)?;
    }
    restores::end(bed, &pod)?;
    let still = restores::claim(bed, "used").volume(&bed.api)?;
    ensure!(restores::path_of(&still) == used, "{still}");
    restores::gone(bed, &gone)?;
    let after = bed.api.get(&restores::claim(bed, "gone").path())?;
    let meta = &after.context("the claim")?["metadata"];
    ensure!(meta["labels"]["team"] == "a", "{meta}");
    ensure!(meta["annotations"]["note"] == "kept", "{meta}");
    let kept = bed.api.get(&stays)?.context("the policy is Retain")?;
    ensure!(kept["status"]["phase"] == "Released", "{kept}");
    let new = restores::claim(bed, "stays").volume(&bed.api)?;
    ensure!(
        new["spec"]["persistentVolumeReclaimPolicy"] == "Retain",
        "{new}"
    );
    restores::remove(bed, &["gone", "stays", "used"])?;
    discard(bed, &stays)
}

/// Deletes a volume that belongs to no claim any more.
fn discard(bed: &Bed, volume: &str) -> Result<()> {
    let delete = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    bed.api.merge(volume, &delete)?;
    restores::gone(bed, volume)
}

/// Once the old claim is gone the new volume is never thrown away: not where a claim of somebody else takes the name.
pub(crate) fn name_taken(bed: &mut Bed) -> Result<()> {
    let image = changed(bed, "data", CLASS)?;
    let claim = restores::claim(bed, "data");
    restores::hold(bed, &claim.path())?;
    bed.count()?;
    restore(bed, "back", &of_backup("data", "Replace", "data"))?;
    restores::ending(bed, &claim.path())?;
    bed.product.kill(CONTROLLER)?;
    restores::release(bed, &claim.path())?;
    restores::gone(bed, &claim.path())?;
    let foreign = Claim::create(&bed.api, CLASS, &bed.namespace, "data", MIB)?;
    let before = foreign.volume(&bed.api)?;
    bed.revive()?;
    let ended = refused(bed, "back", "TargetRefused", "was created meanwhile")?;
    let after = foreign.volume(&bed.api)?;
    ensure!(
        before["metadata"]["uid"] == after["metadata"]["uid"],
        "{after}"
    );
    restores::remove(bed, &["data"])?;
    take(bed, &ended, &image)
}

/// And not where the new claim is deleted before it has its volume, which is between two objects just then.
pub(crate) fn claim_lost(bed: &mut Bed) -> Result<()> {
    let image = changed(bed, "data", CLASS)?;
    let claim = restores::claim(bed, "data");
    let before = uid(bed, &claim)?;
    bed.count()?;
    restore(bed, "back", &of_backup("data", "Replace", "data"))?;
    let working = restores::working_volume(bed, "back")?;
    restores::hold(bed, &working)?;
    restores::ending(bed, &working)?;
    let new = uid(bed, &claim)?;
    ensure!(
        new != before && !new.is_null(),
        "the claim was not replaced"
    );
    bed.api.delete(&claim.path())?;
    restores::gone(bed, &claim.path())?;
    restores::release(bed, &working)?;
    let ended = refused(
        bed,
        "back",
        "TargetRefused",
        "deleted before it had its volume",
    )?;
    take(bed, &ended, &image)
}

fn uid(bed: &Bed, claim: &Claim) -> Result<Value> {
    let object = bed.api.get(&claim.path())?;
    Ok(object.map_or(Value::Null, |mut object| object["metadata"]["uid"].take()))
}

/// Does what the message says: the volume that was kept is had by a new claim, and by no other.
fn take(bed: &Bed, ended: &Value, image: &Image) -> Result<()> {
    let message = ended["status"]["message"].as_str().unwrap_or("");
    let after = |words: &str| -> Result<String> {
        let rest = message.split_once(words).map(|(_, rest)| rest);
        let word = rest.and_then(|rest| rest.split_whitespace().next());
        let word = word.with_context(|| format!("{words:?} in {message:?}"))?;
        Ok(word.trim_end_matches([')', ',']).to_owned())
    };
    let volume = after("stays on PersistentVolume ")?;
    let path = format!("/api/v1/persistentvolumes/{volume}");
    let kept = bed.api.get(&path)?.context("the volume is kept")?;
    ensure!(
        kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain",
        "{kept}"
    );
    // The restore's end, and what cleans up after restores, leave it alone.
    restores::delete(bed, "back")?;
    restores::gone(bed, &format!("{}/back", bed.list(PLURAL)))?;
    let name = after("create a claim ")?;
    let more = json!({
        "volumeName": volume, "volumeMode": after("(volumeMode ")?,
        "storageClassName": kept["spec"]["storageClassName"],
    });
    Claim::ask(&bed.api, &bed.namespace, &name, image.size, &more)?;
    restores::assert_same(bed, &name, image)?;
    restores::remove(bed, &[&name])
}

/// A claim's own volume is written over while nobody uses it; where a pod comes to use it the restore stops and says so.
pub(crate) fn in_place(bed: &mut Bed) -> Result<()> {
    let image = changed(bed, "data", CLASS)?;
    let used = changed(bed, "used", CLASS)?;
    let more = changed(bed, "more", CLASS)?;
    let pod = restores::user(bed, "user", "used")?;
    restores::runs(bed, &pod)?;
    bed.count()?;
    let before = restores::claim(bed, "data").volume(&bed.api)?;
    restore(bed, "data", &of_backup("data", "InPlace", "data"))?;
    restore(bed, "used", &of_backup("used", "InPlace", "used"))?;
    refused(bed, "used", "TargetRefused", "in use by pod user")?;
    restores::end(bed, &pod)?;
    completed(bed, "data")?;
    restores::assert_same(bed, "data", &image)?;
    let after = restores::claim(bed, "data").volume(&bed.api)?;
    ensure!(
        before["metadata"]["uid"] == after["metadata"]["uid"],
        "{after}"
    );
    ensure!(
        before["spec"]["persistentVolumeReclaimPolicy"]
            == after["spec"]["persistentVolumeReclaimPolicy"],
        "{after}"
    );
    restore(bed, "used-again", &of_backup("used", "InPlace", "used"))?;
    comes_into_use(bed, &more)?;
    completed(bed, "used-again")?;
    restores::assert_same(bed, "used", &used)
}

/// The holder is frozen meanwhile, so that the transfer cannot be done before the pod is seen.
fn comes_into_use(bed: &mut Bed, image: &Image) -> Result<()> {
    restores::freeze_agent(bed, true)?;
    restore(bed, "stopped", &of_backup("more", "InPlace", "more"))?;
    restores::wait_for_phase(bed, "stopped", "Prepared")?;
    let holder = restores::freeze_holder(bed, "stopped")?;
    restores::freeze_agent(bed, false)?;
    restores::wait_for_phase(bed, "stopped", "InProgress")?;
    let pod = admitted(bed)?;
    restores::wait_for_phase(bed, "stopped", "Canceling")?;
    restores::thaw(holder)?;
    let ended = refused(bed, "stopped", "TargetRefused", "came into use")?;
    let message = ended["status"]["message"].as_str().unwrap_or("");
    ensure!(message.contains("partly overwritten"), "{message}");
    // The pod has the volume once the restore has let go of it.
    restores::runs(bed, &pod)?;
    restores::end(bed, &pod)?;
    restore(bed, "again", &of_backup("more", "InPlace", "more"))?;
    completed(bed, "again")?;
    restores::assert_same(bed, "more", image)
}

/// A pod that the API server let in all the same: while it does not ask the policy, as one that has not heard of the restore yet.
fn admitted(bed: &Bed) -> Result<String> {
    let policy = repository_root()?.join("manifests/base/policies/in-place.yaml");
    let policy = policy.to_str().context("a plain path")?;
    bed.cluster.kubectl(&["delete", "--filename", policy])?;
    let mut pod = None;
    bed.wait(LIMIT, "pod beside the restore", || {
        pod = restores::user(bed, "late-user", "more").ok();
        Ok(pod.is_some())
    })?;
    let words = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        policy,
    ];
    bed.cluster.kubectl(&words)?;
    pod.context("made above")
}
