//! What the API server knows of the node: Node, Lease, CSINode.

use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};

use super::NodeOptions;
use crate::cluster::api::{Api, in_namespace};

const LEASES: &str = "kube-node-lease";

/// Makes the three, or takes over those of an earlier start.
pub(super) fn register(api: &Api, options: &NodeOptions) -> Result<()> {
    let name = &options.name;
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "labels": labels,
            // The attach/detach controller looks after this node.
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
    });
    api.create_once("/api/v1/nodes", &node)?;
    api.set_status(&format!("/api/v1/nodes/{name}"), &status())?;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASES},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()},
    });
    let spaces = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEASES}});
    api.create_once("/api/v1/namespaces", &spaces)?;
    api.create_once(
        &in_namespace("/apis/coordination.k8s.io/v1", LEASES, "leases"),
        &lease,
    )?;
    let drivers =
        json!([{"name": options.driver, "nodeID": options.driver_node, "topologyKeys": null}]);
    let csi = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": name}, "spec": {"drivers": drivers},
    });
    api.create_once("/apis/storage.k8s.io/v1/csinodes", &csi)
}

/// Says that the node is alive.
pub(super) fn renew(api: &Api, options: &NodeOptions) -> Result<()> {
    let leases = in_namespace("/apis/coordination.k8s.io/v1", LEASES, "leases");
    api.merge(
        &format!("{leases}/{}", options.name),
        &json!({"spec": {"renewTime": now()}}),
    )?;
    Ok(())
}

fn status() -> Value {
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "256Gi"});
    let conditions: Vec<Value> = [
        ("Ready", "True"),
        ("MemoryPressure", "False"),
        ("DiskPressure", "False"),
        ("PIDPressure", "False"),
    ]
    .iter()
    .map(|(kind, status)| {
        json!({
            "type": kind, "status": status, "reason": "Test", "message": "",
            "lastHeartbeatTime": now(), "lastTransitionTime": now(),
        })
    })
    .collect();
    json!({
        "capacity": room, "allocatable": room, "conditions": conditions,
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
    })
}

fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}
