//! Pods on the node: they run, answer `kubectl exec`, and see block volumes.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::csi::Plugin;

use super::site::Site;

const LIMIT: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "--namespace=default";

fn pod(name: &str, more: &str, container: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  {more}
  containers:
    - name: main
      image: snaphaul.dev/busybox:rig
      imagePullPolicy: Never
      {container}
"
    )
}

fn wait_for_pod(site: &Site, name: &str, phase: &str) -> Result<()> {
    let args = [
        "get",
        "pod",
        name,
        NAMESPACE,
        "--output=jsonpath={.status.phase}",
    ];
    let seen = site.cluster.wait_for(LIMIT, &args, |text| text == phase);
    let Err(error) = seen else { return Ok(()) };
    let events = site.cluster.kubectl(&["describe", "pod", name, NAMESPACE]);
    Err(error.context(events.unwrap_or_default()))
}

fn exec(site: &Site, name: &str, command: &str) -> Result<String> {
    site.cluster
        .kubectl(&["exec", name, NAMESPACE, "--", "sh", "-c", command])
}

fn delete(site: &Site, objects: &[&str]) -> Result<()> {
    let timeout = format!("--timeout={}s", LIMIT.as_secs());
    for object in objects {
        site.cluster
            .kubectl(&["delete", object, NAMESPACE, &timeout])?;
    }
    Ok(())
}

/// The scheduler chooses the node, the kubelet runs it, exec and logs go through the API server.
pub(super) fn runs_and_answers(site: &mut Site) -> Result<()> {
    let speaks = "command: [sh, -c, 'echo here; exec sleep infinity']";
    site.cluster.apply(&pod("speaks", "", speaks))?;
    wait_for_pod(site, "speaks", "Running")?;
    let answer = exec(site, "speaks", "id -u")?;
    ensure!(answer.trim() == "0", "{answer}");
    let log = site.cluster.kubectl(&["logs", "speaks", NAMESPACE])?;
    ensure!(log.trim() == "here", "{log}");
    delete(site, &["pod/speaks"])
}

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default}
spec:
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  resources: {requests: {storage: 8Mi}}
";
const WITH_VOLUME: &str = "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]";

/// Provisioned, attached, staged, published; what the pod writes lies in the driver's image, and deletion takes all of it back.
pub(super) fn sees_a_block_volume(site: &mut Site) -> Result<()> {
    let before = site.driver.leaks()?;
    let mounts = site.cluster.node("node-1")?.mounts()?;
    site.cluster.apply(CLAIM)?;
    let device = "volumeDevices: [{name: data, devicePath: /dev/data}]";
    site.cluster.apply(&pod("uses", WITH_VOLUME, device))?;
    wait_for_pod(site, "uses", "Running")?;
    let size = exec(site, "uses", "blockdev --getsize64 /dev/data")?;
    ensure!(size.trim() == (8 << 20).to_string(), "{size}");
    exec(
        site,
        "uses",
        "echo written by a pod | dd of=/dev/data bs=4096 conv=sync,fsync",
    )?;
    let images = std::fs::read_dir(site.driver.state().join("images"))?;
    let images: Vec<_> = images.flatten().map(|entry| entry.path()).collect();
    let found = images.iter().any(|image| {
        std::fs::read(image).is_ok_and(|content| content.starts_with(b"written by a pod"))
    });
    ensure!(found, "in none of {images:?}");
    delete(site, &["pod/uses", "pvc/data"])?;
    let volumes = ["get", "pv,volumeattachments", "--output=name"];
    site.cluster
        .wait_for(LIMIT, &volumes, |names| names.trim().is_empty())?;
    let left = site.driver.left_since(&before)?;
    ensure!(left.is_empty(), "{left:?}");
    let node = site.cluster.node("node-1")?;
    let now: Vec<_> = node
        .mounts()?
        .into_iter()
        .filter(|mount| !mounts.contains(mount))
        .collect();
    let now: Vec<_> = now.iter().filter(|mount| mount.contains("csi")).collect();
    ensure!(now.is_empty(), "{now:?}");
    Ok(())
}

/// A pod that does not ask for the machine's network runs, in one of its own.
pub(super) fn own_network(site: &mut Site) -> Result<()> {
    let alone = pod("alone", "", "").replace("hostNetwork: true", "hostNetwork: false");
    site.cluster.apply(&alone)?;
    wait_for_pod(site, "alone", "Running")?;
    let seen = exec(site, "alone", "ls -l /proc/self/ns/net")?;
    let machine = std::fs::read_link("/proc/self/ns/net")?;
    let machine = machine.display().to_string();
    ensure!(
        seen.contains("net:[") && !seen.contains(&machine),
        "{seen} is {machine}"
    );
    delete(site, &["pod/alone"])
}

/// A container goes on while the kubelet is away.
pub(super) fn kubelet_restarts(site: &mut Site) -> Result<()> {
    site.cluster.apply(&pod("stays", "", ""))?;
    wait_for_pod(site, "stays", "Running")?;
    exec(site, "stays", "touch /tmp/before")?;
    site.cluster.node_mut("node-1")?.restart_kubelet()?;
    // It learns again which pods it has.
    let look = ["exec", "stays", NAMESPACE, "--", "ls", "/tmp/before"];
    site.cluster.wait_for(LIMIT, &look, |_| true)?;
    delete(site, &["pod/stays"])
}

/// Everything on the node ends, and pods are started again.
pub(super) fn node_reboots(site: &mut Site) -> Result<()> {
    site.cluster.apply(&pod("returns", "", ""))?;
    wait_for_pod(site, "returns", "Running")?;
    site.cluster.node_mut("node-1")?.reboot()?;
    site.restart_driver()?;
    let restarts = [
        "get",
        "pod",
        "returns",
        NAMESPACE,
        "--output=jsonpath={.status.containerStatuses[0].restartCount}",
    ];
    site.cluster
        .wait_for(LIMIT, &restarts, |count| count != "0")?;
    site.cluster
        .wait_for(LIMIT, &["exec", "returns", NAMESPACE, "--", "true"], |_| {
            true
        })?;
    delete(site, &["pod/returns"])
}

/// A pod that is still at work when everything ends must not keep anything; the last case looks.
pub(super) fn stays_to_the_end(site: &mut Site) -> Result<()> {
    site.cluster.apply(CLAIM)?;
    let device = "volumeDevices: [{name: data, devicePath: /dev/data}]";
    site.cluster.apply(&pod("last", WITH_VOLUME, device))?;
    wait_for_pod(site, "last", "Running")
}
