//! The configuration files of containerd and the kubelet.
//!
//! Owns: their content. Must not: start anything.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

/// A network plug-in (version 0.4.0 of their specification, <https://www.cni.dev/docs/spec-v04/>) that connects nothing: a pod that
/// asks for no network of the machine has one of its own with nobody in it, and an address of a range for documentation. containerd
/// asks it as `loopback`, which it wants beside any other, as well.
const PLUGIN: &str = r#"#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
ADD) echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],
    "ips":[{"version":"4","address":"192.0.2.1/24","interface":0}]}' ;;
esac
"#;

/// Writes `containerd.toml`. Without a configuration of a network the node is never Ready.
pub(super) fn containerd(folder: &Path, sandbox_image: &str) -> Result<()> {
    let cni = folder.join("cni");
    let plugin = cni.join("loopback");
    std::fs::write(&plugin, PLUGIN)?;
    std::fs::set_permissions(&plugin, Permissions::from_mode(0o755))?;
    let network = json!({"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]});
    std::fs::write(cni.join("10-none.conflist"), network.to_string())?;
    let text = format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox_image}"
# Lowering a score takes CAP_SYS_RESOURCE, which a test machine may lack.
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{cni}"
bin_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        cni = cni.display()
    );
    Ok(std::fs::write(folder.join("containerd.toml"), text)?)
}

/// Writes `kubelet.yaml`; `ports` are its own and its health check's, `files` the authority, its certificate and its key.
pub(super) fn kubelet(
    folder: &Path,
    ports: [u16; 2],
    files: [&PathBuf; 3],
    cgroup: &str,
) -> Result<()> {
    let [authority, certificate, key] = files;
    let settings = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": ports[0],
        "healthzPort": ports[1],
        "readOnlyPort": 0,
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        // A test machine's disk is as full as it is.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "10s",
        "maxPods": 250,
    });
    Ok(std::fs::write(
        folder.join("kubelet.yaml"),
        settings.to_string(),
    )?)
}
