//! What the cases about restores ask of the bed.
//!
//! Owns: restores, users of claims, storage classes, files of mounted claims. Must not: judge by itself what a case is about.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::cluster::api::in_namespace;
use tests::cluster::claims::Claim;
use tests::cluster::product::{SYSTEM, agent_name};
use tests::csi_driver::NAME;
use tests::image::Image;

use crate::bed::{Bed, LIMIT, NODE, REPOSITORY, condition, phase};

pub(crate) const PLURAL: &str = "podvolumerestores";
/// A storage class whose claims cannot grow and whose volumes stay when their claim goes.
pub(crate) const PLAIN: &str = "plain";
/// The finalizer by which a case holds up an object.
const HOLD: &str = "tests.snaphaul.dev/hold";
const VOLUMES: &str = "/api/v1/persistentvolumes";

/// Makes a restore.
pub(crate) fn restore(bed: &Bed, name: &str, spec: &Value) -> Result<()> {
    bed.create("PodVolumeRestore", PLURAL, name, spec)
}

/// One of a backup into a claim, which may be told more of.
pub(crate) fn of_backup(backup: &str, mode: &str, target: &str) -> Value {
    json!({"source": {"backupName": backup}, "mode": mode, "target": {"name": target}})
}

/// Waits for a restore that must be Completed.
pub(crate) fn completed(bed: &Bed, name: &str) -> Result<Value> {
    let object = bed.final_object(PLURAL, name)?;
    ensure!(
        phase(&object) == "Completed",
        "{name}: {}",
        object["status"]
    );
    Ok(object)
}

/// Waits for a restore that must fail with this reason, and say these words.
pub(crate) fn refused(bed: &Bed, name: &str, reason: &str, words: &str) -> Result<Value> {
    let object = bed.final_object(PLURAL, name)?;
    ensure!(phase(&object) == "Failed", "{name}: {}", object["status"]);
    let succeeded = condition(&object, "Succeeded").context("the condition Succeeded")?;
    ensure!(
        succeeded["status"] == "False" && succeeded["reason"] == reason,
        "{name} is to fail with {reason}: {succeeded}"
    );
    let message = succeeded["message"].as_str().unwrap_or("");
    ensure!(
        message.contains(words),
        "{name} is to say {words:?}: {message}"
    );
    Ok(object)
}

/// Waits until a restore is in this phase.
pub(crate) fn wait_for_phase(bed: &Bed, name: &str, wanted: &str) -> Result<()> {
    let mut last = Value::Null;
    bed.wait(LIMIT, &format!("{name} to be {wanted}"), || {
        last = bed.object(PLURAL, name)?;
        let now = phase(&last);
        ensure!(
            now == wanted || !crate::bed::is_final(&now),
            "{name} ended before it was {wanted}: {}",
            last["status"]
        );
        Ok(now == wanted)
    })
    .with_context(|| last["status"].to_string())
}

/// Waits until a restore gives this reason for a condition that does not hold.
pub(crate) fn wait_for_reason(bed: &Bed, name: &str, kind: &str, reason: &str) -> Result<()> {
    let mut last = Value::Null;
    bed.wait(LIMIT, &format!("{name} to say {reason}"), || {
        last = bed.object(PLURAL, name)?;
        Ok(condition(&last, kind).is_some_and(|is| is["reason"] == reason))
    })
    .with_context(|| last["status"].to_string())
}

/// Waits until the hand-over of a restore is at this step.
pub(crate) fn wait_for_step(bed: &Bed, name: &str, step: &str) -> Result<()> {
    let mut last = Value::Null;
    bed.wait(LIMIT, &format!("{name} to be at {step}"), || {
        last = bed.object(PLURAL, name)?;
        Ok(last["status"]["volume"]["step"] == step)
    })
    .with_context(|| last["status"].to_string())
}

/// Asks for the end of a restore by its spec.
pub(crate) fn cancel(bed: &Bed, name: &str) -> Result<()> {
    let path = format!("{}/{name}", bed.list(PLURAL));
    let change = json!({"spec": {"cancel": true}});
    bed.api.merge(&path, &change).map(drop)
}

/// Deletes the object of a restore, without waiting.
pub(crate) fn delete(bed: &Bed, name: &str) -> Result<()> {
    bed.api.delete(&format!("{}/{name}", bed.list(PLURAL)))
}

/// Waits until an object is gone.
pub(crate) fn gone(bed: &Bed, path: &str) -> Result<()> {
    let mut last = None;
    bed.wait(LIMIT, &format!("end of {path}"), || {
        last = bed.api.get(path)?;
        Ok(last.is_none())
    })
    .with_context(|| last.unwrap_or_default().to_string())
}

/// A claim of the case's namespace.
pub(crate) fn claim(bed: &Bed, name: &str) -> Claim {
    Claim::named(&bed.namespace, name)
}

/// Fails unless a claim begins with these bytes.
pub(crate) fn assert_same(bed: &Bed, name: &str, image: &Image) -> Result<()> {
    claim(bed, name).assert_same(&bed.api, &bed.storage.driver, image)
}

/// Deletes claims and the storage behind them, whatever their class says.
pub(crate) fn remove(bed: &Bed, names: &[&str]) -> Result<()> {
    for name in names {
        let claim = claim(bed, name);
        let volume = path_of(&claim.volume(&bed.api)?);
        let delete = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
        bed.api.merge(&volume, &delete)?;
        bed.api.delete(&claim.path())?;
        gone(bed, &volume)?;
    }
    Ok(())
}

/// The path of a PersistentVolume's object.
pub(crate) fn path_of(volume: &Value) -> String {
    let name = volume["metadata"]["name"].as_str().unwrap_or("");
    format!("{VOLUMES}/{name}")
}

/// The path of the volume that a restore writes to, which is waited for.
pub(crate) fn working_volume(bed: &Bed, name: &str) -> Result<String> {
    let mut path = String::new();
    bed.wait(LIMIT, &format!("the volume of {name}"), || {
        let object = bed.object(PLURAL, name)?;
        let volume = object["status"]["volume"]["name"].as_str().unwrap_or("");
        path = format!("{VOLUMES}/{volume}");
        Ok(!volume.is_empty())
    })?;
    Ok(path)
}

/// Keeps an object that is deleted until [`release`].
pub(crate) fn hold(bed: &Bed, path: &str) -> Result<()> {
    let object = bed.api.get(path)?.context("what is held exists")?;
    let mut finalizers = object["metadata"]["finalizers"].clone();
    match &mut finalizers {
        Value::Array(all) => all.push(json!(HOLD)),
        none => *none = json!([HOLD]),
    }
    let change = json!({"metadata": {"finalizers": finalizers}});
    bed.api.merge(path, &change).map(drop)
}

/// Lets an object go that [`hold`] kept. Others may have changed the list since.
pub(crate) fn release(bed: &Bed, path: &str) -> Result<()> {
    let Some(object) = bed.api.get(path)? else {
        return Ok(());
    };
    let all = object["metadata"]["finalizers"].as_array();
    let left: Vec<&Value> = all
        .into_iter()
        .flatten()
        .filter(|one| **one != HOLD)
        .collect();
    let change = json!({"metadata": {"finalizers": left}});
    bed.api.merge(path, &change).map(drop)
}

/// Waits until an object is being deleted.
pub(crate) fn ending(bed: &Bed, path: &str) -> Result<()> {
    bed.wait(LIMIT, &format!("deletion of {path}"), || {
        let object = bed
            .api
            .get(path)?
            .with_context(|| format!("{path} is held"))?;
        Ok(!object["metadata"]["deletionTimestamp"].is_null())
    })
}

/// A storage class of the driver; made once for all cases.
pub(crate) fn class(bed: &Bed, name: &str, more: &Value) -> Result<()> {
    let mut object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": NAME, "volumeBindingMode": "Immediate",
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    bed.api
        .create_once("/apis/storage.k8s.io/v1/storageclasses", &object)
}

/// The class [`PLAIN`].
pub(crate) fn plain_class(bed: &Bed) -> Result<()> {
    let more = json!({"allowVolumeExpansion": false, "reclaimPolicy": "Retain"});
    class(bed, PLAIN, &more)
}

/// A pod of a user that has a claim of volumeMode Block.
pub(crate) fn user(bed: &Bed, name: &str, claim: &str) -> Result<String> {
    let list = in_namespace("/api/v1", &bed.namespace, "pods");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "containers": [{
                "name": "user", "image": "user",
                "volumeDevices": [{"name": "data", "devicePath": "/dev/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    });
    bed.api.create(&list, &pod)?;
    Ok(format!("{list}/{name}"))
}

/// Waits until a pod has its volumes and runs.
pub(crate) fn runs(bed: &Bed, pod: &str) -> Result<()> {
    let mut last = Value::Null;
    bed.wait(LIMIT, &format!("{pod} to run"), || {
        last = bed.api.get(pod)?.context("the pod exists")?;
        Ok(last["status"]["phase"] == "Running")
    })
    .with_context(|| format!("{}; {:?}", last["status"], bed.node.trouble()))
}

/// Ends a pod and waits until its volumes are free.
pub(crate) fn end(bed: &Bed, pod: &str) -> Result<()> {
    bed.api.delete(pod)?;
    gone(bed, pod)
}

/// Freezes the agent, or lets it go on.
pub(crate) fn freeze_agent(bed: &Bed, on: bool) -> Result<()> {
    let agent = bed
        .product
        .process(&agent_name(NODE))
        .context("the agent")?;
    if on { agent.freeze() } else { agent.thaw() }
}

/// Freezes the holder of a restore; gives its process.
pub(crate) fn freeze_holder(bed: &Bed, name: &str) -> Result<Pid> {
    let object = bed.object(PLURAL, name)?;
    let uid = object["metadata"]["uid"].as_str().context("a uid")?;
    let pod = format!("{SYSTEM}/snaphaul-{uid}");
    let pid = bed.node.processes().get(&pod).copied();
    let pid = Pid::from_raw(pid.with_context(|| format!("{pod} runs"))?);
    kill(pid, Signal::SIGSTOP)?;
    Ok(pid)
}

/// Lets a holder go on that [`freeze_holder`] stopped.
pub(crate) fn thaw(holder: Pid) -> Result<()> {
    Ok(kill(holder, Signal::SIGCONT)?)
}

/// Backs up a claim that is no device of its own to compare.
pub(crate) fn back_up(bed: &Bed, name: &str, claim: &str) -> Result<Value> {
    let spec = json!({
        "source": {"persistentVolumeClaim": {"name": claim}}, "repositoryRef": {"name": REPOSITORY},
    });
    bed.create("PodVolumeBackup", "podvolumebackups", name, &spec)?;
    bed.completed(name)
}

/// Names and contents of the files of a folder.
pub(crate) fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder)?.display().to_string();
                found.insert(name, std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// Waits a moment longer than the clock's second, so that what comes now has a later time for people, too.
pub(crate) fn pass_second(time: &Value) -> Result<()> {
    let time = humantime::parse_rfc3339_weak(time.as_str().context("a time")?)?;
    while std::time::SystemTime::now() < time + Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
