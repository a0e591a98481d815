//! What the controller manager does, and what a restart keeps.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::Cluster;

const LIMIT: Duration = Duration::from_secs(120);

/// A namespace gets its account and the authority's certificate, and goes with all that is in it.
pub(super) fn namespaces_come_and_go(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("passing", &[])?;
    let root = [
        "get",
        "configmap",
        "kube-root-ca.crt",
        "--namespace=passing",
        "--output=name",
    ];
    cluster.wait_for(LIMIT, &root, |_| true)?;
    let timeout = format!("--timeout={}s", LIMIT.as_secs());
    cluster.kubectl(&["delete", "namespace", "passing", "--wait", &timeout])?;
    let names = cluster.kubectl(&["get", "namespaces", "--output=name"])?;
    ensure!(!names.contains("passing"), "{names}");
    Ok(())
}

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolume
metadata: {name: rig-static}
spec:
  storageClassName: rig-static
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  csi: {driver: none.snaphaul.dev, volumeHandle: one}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: one, namespace: claims}
spec:
  storageClassName: rig-static
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  resources: {requests: {storage: 1Gi}}
";

/// A claim finds its volume; a pod that wants it waits, for there is no node.
pub(super) fn claims_are_bound(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("claims", &[])?;
    cluster.apply(CLAIM)?;
    let phase = [
        "get",
        "pvc",
        "one",
        "--namespace=claims",
        "--output=jsonpath={.status.phase}",
    ];
    cluster.wait_for(LIMIT, &phase, |phase| phase == "Bound")?;
    cluster.kubectl(&["run", "waits", "--image=nothing", "--namespace=claims"])?;
    let reason = [
        "get",
        "pod",
        "waits",
        "--namespace=claims",
        "--output=jsonpath={.status.conditions[0].message}",
    ];
    cluster.wait_for(LIMIT, &reason, |text| text.contains("no nodes available"))?;
    Ok(())
}

/// The same port, the same objects, the same tokens; the controller manager finds its work again.
pub(super) fn restarts_lose_nothing(cluster: &mut Cluster) -> Result<()> {
    cluster.namespace("restarts", &[])?;
    let account = cluster.service_account_kubeconfig("restarts", "default")?;
    let url = cluster.url();
    cluster.stop_api_server();
    ensure!(
        cluster.kubectl(&["get", "namespaces"]).is_err(),
        "a stopped server answered"
    );
    cluster.start_api_server()?;
    ensure!(cluster.url() == url, "the port changed");
    cluster.kubectl(&["get", "namespace", "restarts"])?;
    cluster.kubectl_as(&account).run(&["auth", "whoami"])?;
    cluster.namespace("after-api-server", &[])?;
    cluster.restart_controller_manager()?;
    cluster.namespace("after-controller-manager", &[])
}
