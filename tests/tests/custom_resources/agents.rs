//! What an agent may say, with the token that a kubelet would give its pod.

use anyhow::{Result, ensure};
use tests::cluster::Cluster;

use super::objects::{BACKUP, RESTORE, backup, restore};
use super::{refused, text};

const ACCOUNT: &str = "snaphaul-agent";

/// Applies a status as the agent with this token.
fn answer(
    cluster: &Cluster,
    token: &str,
    (kind, name): (&str, &str),
    status: &str,
) -> Result<String> {
    let object = format!(
        "{{apiVersion: snaphaul.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}, namespace: agents}}, status: {{{status}}}}}"
    );
    let path = cluster.folder().join("status.yaml");
    std::fs::write(&path, object)?;
    let apply = [
        "apply",
        "--server-side",
        "--subresource=status",
        "--force-conflicts",
    ];
    let authority = cluster.authority();
    let who = [
        "--field-manager=snaphaul-agent",
        "--token",
        token,
        "--server",
        &cluster.url(),
        "--certificate-authority",
        text(&authority)?,
    ];
    let nobody = cluster.kubectl_as(std::path::Path::new("/dev/null"));
    nobody.run(&[&apply[..], &who, &["--filename", text(&path)?]].concat())
}

/// A token of the agents' account, bound to a node where one is named.
fn token(cluster: &Cluster, node: Option<&str>) -> Result<String> {
    let mut args = vec!["create", "token", ACCOUNT, "--namespace=snaphaul-system"];
    if let Some(node) = node {
        args.extend(["--bound-object-kind=Node", "--bound-object-name", node]);
    }
    Ok(cluster.kubectl(&args)?.trim().to_owned())
}

/// Work for node `one`, as the controller leaves it.
fn prepare(cluster: &Cluster, name: &str) -> Result<()> {
    if cluster.kubectl(&["get", "namespace", "agents"]).is_err() {
        cluster.namespace("agents", &[])?;
        for node in ["one", "two"] {
            cluster.apply(&format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: {node}}}}}"
            ))?;
        }
    }
    cluster.apply(&backup("agents", name, BACKUP))?;
    cluster.apply(&restore("agents", name, RESTORE))?;
    let status = r#"{"status": {"node": "one", "phase": "Prepared", "order":
        {"attempt": 1, "strategy": "Pod", "volume": "c/n/v", "driver": "d", "volumeHandle": "h"}}}"#;
    for kind in [
        "podvolumebackups.snaphaul.dev",
        "podvolumerestores.snaphaul.dev",
    ] {
        let target = [
            "patch",
            kind,
            name,
            "--namespace=agents",
            "--subresource=status",
        ];
        cluster.kubectl(&[&target[..], &["--type=merge", "--patch", status]].concat())?;
    }
    Ok(())
}

const PROGRESS: &str =
    "progress: {totalBytes: 2, bytesDone: 1}, transfer: {attempt: 1, state: Running}";

pub(super) fn an_agent_answers_for_its_own_node(cluster: &Cluster) -> Result<()> {
    prepare(cluster, "own")?;
    let (own, other, loose) = (
        token(cluster, Some("one"))?,
        token(cluster, Some("two"))?,
        token(cluster, None)?,
    );
    for kind in ["PodVolumeBackup", "PodVolumeRestore"] {
        let work = (kind, "own");
        let words = refused("another node's", answer(cluster, &other, work, PROGRESS))?;
        ensure!(
            words.contains("the agent of node two may not write the status of work on node one"),
            "{words}"
        );
        let words = refused("a loose token", answer(cluster, &loose, work, PROGRESS))?;
        ensure!(words.contains("the agent's token says no node"), "{words}");
        answer(cluster, &own, work, PROGRESS)?;
    }
    // Work that has no node yet is nobody's.
    cluster.apply(&backup("agents", "unassigned", BACKUP))?;
    let words = refused(
        "unassigned",
        answer(cluster, &own, ("PodVolumeBackup", "unassigned"), PROGRESS),
    )?;
    ensure!(words.contains("work on node none"), "{words}");
    Ok(())
}

/// The rest of the status is the controller's, also on the agent's own node.
pub(super) fn an_agent_only_answers(cluster: &Cluster) -> Result<()> {
    prepare(cluster, "answers")?;
    let own = token(cluster, Some("one"))?;
    let both = [
        "node: two",
        "phase: Completed",
        "message: done",
        "observedGeneration: 5",
        "startTime: '2026-01-31T06:00:00Z'",
        "completionTime: '2026-01-31T06:00:00Z'",
        "order: {attempt: 2, strategy: Pod, volume: c/n/v, driver: d, volumeHandle: h}",
        "conditions: [{type: Succeeded, status: 'True', reason: Done, message: '', lastTransitionTime: '2026-01-31T06:00:00Z'}]",
    ];
    let of_backups = ["snapshot: {handle: other}"];
    let of_restores = [
        "recorded: {sizeBytes: 1}",
        "volume: {name: a, handle: b, reclaimPolicy: Delete}",
    ];
    for (kind, more) in [
        ("PodVolumeBackup", &of_backups[..]),
        ("PodVolumeRestore", &of_restores[..]),
    ] {
        for status in both.iter().chain(more) {
            let words = refused(status, answer(cluster, &own, (kind, "answers"), status))?;
            ensure!(
                words.contains("the rest is the controller's"),
                "{status}: {words}"
            );
        }
    }
    // What no client could read is refused by the definition, whoever says it.
    for numbers in [
        "totalBytes: 1e30, bytesDone: 1",
        "totalBytes: 1, bytesDone: -1",
    ] {
        let status = format!("progress: {{{numbers}}}");
        let work = ("PodVolumeBackup", "answers");
        let words = refused(numbers, answer(cluster, &own, work, &status))?;
        ensure!(words.contains("status.progress"), "{words}");
    }
    let all = format!(
        "{PROGRESS}, point: {{id: '0123', repositoryID: r}}, incrementalBytes: 1, changedBlocks: {{source: csi, reason: asked}}"
    );
    answer(cluster, &own, ("PodVolumeBackup", "answers"), &all)?;
    answer(cluster, &own, ("PodVolumeRestore", "answers"), PROGRESS)?;
    Ok(())
}
