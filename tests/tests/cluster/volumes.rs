//! Volumes and snapshots of a driver through the sidecars, without a node.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::Cluster;
use tests::cluster::sidecars::{Sidecars, test_classes};
use tests::csi::Plugin;
use tests::test_driver::TestDriver;

const LIMIT: Duration = Duration::from_secs(120);

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: source, namespace: volumes}
spec:
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  resources: {requests: {storage: 8Mi}}
";
const SNAPSHOT: &str = "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: snapshot, namespace: volumes}
spec: {source: {persistentVolumeClaimName: source}}
";
const CLONE: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: clone, namespace: volumes}
spec:
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  resources: {requests: {storage: 8Mi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: snapshot}
";

/// Claim, snapshot, claim from the snapshot; then everything is deleted, and the driver has nothing any more.
pub(super) fn come_and_go(cluster: &mut Cluster) -> Result<()> {
    let driver = TestDriver::start(|_| {})?;
    let before = driver.leaks()?;
    let _sidecars = Sidecars::start(cluster, driver.socket())?;
    cluster.apply(&test_classes(false))?;
    cluster.namespace("volumes", &[])?;
    let wait = |kind: &str, name: &str, path: &str, wanted: &str| {
        let output = format!("--output=jsonpath={{{path}}}");
        let args = ["get", kind, name, "--namespace=volumes", &output];
        cluster.wait_for(LIMIT, &args, |text| text == wanted)
    };
    cluster.apply(CLAIM)?;
    wait("pvc", "source", ".status.phase", "Bound")?;
    cluster.apply(SNAPSHOT)?;
    wait("volumesnapshot", "snapshot", ".status.readyToUse", "true")?;
    cluster.apply(CLONE)?;
    wait("pvc", "clone", ".status.phase", "Bound")?;
    let leaks = driver.leaks()?;
    ensure!(
        leaks.volumes.len() == 2 && leaks.snapshots.len() == 1,
        "{leaks:?}"
    );

    let timeout = format!("--timeout={}s", LIMIT.as_secs());
    for object in ["pvc/clone", "volumesnapshot/snapshot", "pvc/source"] {
        cluster.kubectl(&["delete", object, "--namespace=volumes", &timeout])?;
    }
    let volumes = ["get", "pv", "--output=jsonpath={.items[*].spec.csi.driver}"];
    cluster.wait_for(LIMIT, &volumes, |drivers| !drivers.contains("csi.test"))?;
    let left = driver.left_since(&before)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
