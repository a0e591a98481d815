//! Secrets of a driver that classes name, read from a real API server.

use anyhow::{Result, bail, ensure};
use mover::ErrorKind;
use mover::attach::csi::secrets::Group;
use mover::kube::secrets::{self, SecretPlace};
use serde_json::json;

use crate::bench::{Bench, DRIVER, NAMESPACE};

const VALUE: &str = "a value that nobody shows";

pub(crate) fn of_classes(bench: &mut Bench) -> Result<()> {
    for (name, key) in [("volumes", "userKey"), ("snapshots", "adminKey")] {
        bench.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
            "stringData": {key: VALUE},
        }))?;
    }
    let parameters = |group: &str, name: &str| {
        json!({
            format!("csi.storage.k8s.io/{group}-secret-name"): name,
            format!("csi.storage.k8s.io/{group}-secret-namespace"): NAMESPACE,
        })
    };
    for (name, secret) in [("fixed", "volumes"), ("by-claim", "${pvc.name}")] {
        bench.apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": DRIVER, "parameters": parameters("provisioner", secret),
        }))?;
    }
    bench.apply(&json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": "snapshots"}, "driver": DRIVER, "deletionPolicy": "Delete",
        "parameters": parameters("snapshotter", "snapshots"),
    }))?;
    let administrator = bench.administrator()?;
    let wait = |storage: &str, snapshot: Option<&str>| {
        let read = secrets::read_of_classes(&administrator, storage, snapshot);
        bench.runtime.block_on(read)
    };
    let found = wait("fixed", Some("snapshots"))?;
    ensure!(found.of(Group::Provisioner)["userKey"] == VALUE);
    ensure!(found.of(Group::Snapshotter)["adminKey"] == VALUE);
    ensure!(found.of(Group::NodeStage).is_empty());
    ensure!(!format!("{found:?}").contains(VALUE));
    let Err(error) = wait("by-claim", None) else {
        bail!("no claim is known here");
    };
    ensure!(error.kind() == ErrorKind::InvalidRequest, "{error:?}");

    let place = SecretPlace {
        namespace: NAMESPACE.to_owned(),
        name: "volumes".to_owned(),
    };
    let agent = bench.client_of("agent")?;
    let read = secrets::read_for_all(&agent, &place);
    let Err(error) = bench.runtime.block_on(read) else {
        bail!("an agent may not read secrets here");
    };
    ensure!(error.kind() == ErrorKind::AccessDenied, "{error:?}");
    let hint = error.hint_text().unwrap_or_default();
    ensure!(hint.contains("get secrets"), "{hint}");
    Ok(())
}
