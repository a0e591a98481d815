//! The node of the quick cluster tests: volumes reach its pods, and nothing of a pod stays.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tests::cluster::api::{Api, in_namespace};
use tests::cluster::claims::Claim;
use tests::cluster::leftovers::Holdings;
use tests::cluster::light_node::{LightNode, NodeOptions};
use tests::cluster::storage::{CLASS, DRIVER_NODE, LATE_CLASS, Storage};
use tests::cluster::{Cluster, Parts};
use tests::csi::Plugin as _;
use tests::csi_driver::NAME;
use tests::image::MIB;
use tests::random::Random;
use tests::scratch::Scratch;

const LIMIT: Duration = Duration::from_secs(60);

/// A claim is bound, filled, snapshotted, copied from its snapshot, given to a pod, and all of it goes again.
#[test]
fn a_pod_gets_a_copy_of_a_snapshot() -> Result<()> {
    let cluster = Cluster::start(Parts::WITHOUT_NODES)?;
    let scratch = Scratch::new("light-node")?;
    for attach in [false, true] {
        round(&cluster, &scratch, attach)?;
    }
    Ok(())
}

fn round(cluster: &Cluster, scratch: &Scratch, attach: bool) -> Result<()> {
    let storage = Storage::start(cluster, |options| options.attach = attach)?;
    let api = Api::connect(cluster.kubeconfig())?;
    let _node = LightNode::start(NodeOptions {
        name: "worker".to_owned(),
        kubeconfig: cluster.kubeconfig().to_owned(),
        driver: NAME.to_owned(),
        driver_node: DRIVER_NODE.to_owned(),
        socket: storage.socket().to_owned(),
        kubelet: storage.driver.kubelet().join("pods"),
        logs: cluster.folder().join("pods"),
    })?;
    let namespace = format!("attach-{attach}");
    cluster.namespace(&namespace, &[])?;
    let before = Holdings::now(&api, &storage)?;
    let claim = Claim::create(&api, CLASS, &namespace, "data", 8 * MIB)?;
    let mut random = Random::from_environment("light_node");
    let copy = scratch.join(&format!("{namespace}.img"));
    let image = if attach {
        None
    } else {
        Some(claim.write(&api, &storage.driver, &copy, |device| {
            device.edit(5, &mut random)
        })?)
    };
    snapshot(cluster, &api, &namespace)?;
    copy_of_snapshot(&api, &namespace)?;
    pod(&api, &namespace)?;
    let pods = format!("{}/user", in_namespace("/api/v1", &namespace, "pods"));
    wait("the pod", || {
        let pod = api.get(&pods)?.context("the pod exists")?;
        Ok(pod["status"]["phase"] == "Running")
    })?;
    let mounts = storage.driver.leaks()?.mounts;
    let device = mounts.iter().find(|path| path.is_file() || !path.is_dir());
    let device = device.with_context(|| format!("a device among {mounts:?}"))?;
    if let Some(image) = image {
        image.assert_same(device)?;
    }
    api.delete(&pods)?;
    for kind in ["persistentvolumeclaims/copy", "persistentvolumeclaims/data"] {
        api.delete(&in_namespace("/api/v1", &namespace, kind))?;
    }
    let snapshots = "/apis/snapshot.storage.k8s.io/v1";
    api.delete(&in_namespace(snapshots, &namespace, "volumesnapshots/mine"))?;
    wait("the end of everything", || {
        let left = Holdings::now(&api, &storage)?.since(&before);
        anyhow::ensure!(left.is_empty(), "{left:#?}");
        Ok(true)
    })
}

fn snapshot(cluster: &Cluster, api: &Api, namespace: &str) -> Result<()> {
    let list = in_namespace(
        "/apis/snapshot.storage.k8s.io/v1",
        namespace,
        "volumesnapshots",
    );
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "mine"},
        "spec": {"volumeSnapshotClassName": CLASS, "source": {"persistentVolumeClaimName": "data"}},
    });
    api.create(&list, &snapshot)?;
    let words = [
        "get",
        "volumesnapshot",
        "mine",
        "--namespace",
        namespace,
        "--output=jsonpath={.status.readyToUse}",
    ];
    cluster
        .wait_for(LIMIT, &words, |ready| ready == "true")
        .map(drop)
}

fn copy_of_snapshot(api: &Api, namespace: &str) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "copy"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": LATE_CLASS,
            "resources": {"requests": {"storage": "8Mi"}},
            "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "mine"},
        },
    });
    api.create(
        &in_namespace("/api/v1", namespace, "persistentvolumeclaims"),
        &object,
    )
    .map(drop)
}

fn pod(api: &Api, namespace: &str) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"},
        "spec": {
            "containers": [{
                "name": "main", "image": "none", "command": ["sleep", "1"],
                "volumeDevices": [{"name": "data", "devicePath": "/dev/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "copy"}}],
        },
    });
    api.create(&in_namespace("/api/v1", namespace, "pods"), &object)
        .map(drop)
}

fn wait(what: &str, mut enough: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = std::time::Instant::now();
    loop {
        match enough() {
            Ok(true) => return Ok(()),
            Err(error) if begin.elapsed() > LIMIT => {
                return Err(error.context(format!("waited for {what}")));
            }
            Ok(false) if begin.elapsed() > LIMIT => anyhow::bail!("no {what} after {LIMIT:?}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
