//! Two nodes, each with an agent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::claims::Claim;
use tests::cluster::light_node::LightNode;
use tests::cluster::product::agent_name;

use crate::bed::{Bed, LIMIT, NODE, phase};

const SECOND: &str = "second";
/// How long a node that was taken away may show.
const GONE_LIMIT: Duration = Duration::from_secs(120);

/// Two volumes, each bound to a node of its own, are exposed on both at once. An agent takes those of its node and leaves the other's
/// alone, though nobody serves it.
pub(crate) fn two(bed: &mut Bed) -> Result<()> {
    let node = bed.second_node(SECOND)?;
    let outcome = on_both(bed);
    leave(bed, node).and(outcome)
}

fn on_both(bed: &mut Bed) -> Result<()> {
    bed.product.start_agent(&bed.cluster, SECOND)?;
    let mut images = Vec::new();
    for node in [NODE, SECOND] {
        let (claim, image) = bed.claim(&format!("of-{node}"), 24)?;
        bind_to(bed, &claim, node)?;
        images.push((node, image));
    }
    bed.count()?;
    for node in [NODE, SECOND] {
        bed.product.stop(&agent_name(node));
    }
    for (node, image) in &images {
        let name = format!("of-{node}");
        bed.backup(&name, &name, &json!({}), image)?;
    }
    for (node, _) in &images {
        let name = format!("of-{node}");
        bed.wait_for_phase(&name, &["Prepared"])?;
        let object = bed.backup_object(&name)?;
        ensure!(object["status"]["node"] == *node, "{}", object["status"]);
    }
    // Both are exposed now. One agent comes back, and has more than enough time for both.
    bed.product.start_agent(&bed.cluster, NODE)?;
    bed.completed(&format!("of-{NODE}"))?;
    let other = bed.backup_object(&format!("of-{SECOND}"))?;
    ensure!(
        phase(&other) == "Prepared" && other["status"]["transfer"].is_null(),
        "the agent of {NODE} took it: {}",
        other["status"]
    );
    bed.product.start_agent(&bed.cluster, SECOND)?;
    let object = bed.completed(&format!("of-{SECOND}"))?;
    ensure!(object["status"]["node"] == SECOND, "{}", object["status"]);
    bed.nothing_left()
}

/// A node that was cordoned gets no holder where another can be had; a volume of that node alone waits, and says for what.
pub(crate) fn cordoned(bed: &mut Bed) -> Result<()> {
    let node = bed.second_node(SECOND)?;
    let outcome = beside_a_cordoned_one(bed);
    let back = cordon(bed, false);
    leave(bed, node).and(back).and(outcome)
}

fn beside_a_cordoned_one(bed: &mut Bed) -> Result<()> {
    bed.product.start_agent(&bed.cluster, SECOND)?;
    let (_, free) = bed.claim("free", 8)?;
    let (claim, bound) = bed.claim("bound", 8)?;
    bind_to(bed, &claim, NODE)?;
    bed.count()?;
    cordon(bed, true)?;
    bed.backup("free", "free", &json!({}), &free)?;
    bed.backup("bound", "bound", &json!({}), &bound)?;
    let object = bed.completed("free")?;
    ensure!(object["status"]["node"] == SECOND, "{}", object["status"]);
    let mut last = String::new();
    bed.wait(LIMIT, "a word about the node", || {
        let object = bed.backup_object("bound")?;
        last = object["status"].to_string();
        let message = object["status"]["message"].as_str().unwrap_or_default();
        Ok(message.contains("cordoned") && message.contains(NODE))
    })
    .with_context(|| last)?;
    cordon(bed, false)?;
    let object = bed.completed("bound")?;
    ensure!(object["status"]["node"] == NODE, "{}", object["status"]);
    bed.nothing_left()
}

/// As `kubectl cordon` and `uncordon`.
fn cordon(bed: &Bed, is_cordoned: bool) -> Result<()> {
    let change = json!({"spec": {"unschedulable": is_cordoned.then_some(true)}});
    let path = format!("/api/v1/nodes/{NODE}");
    bed.api.merge(&path, &change).map(drop)
}

/// As the volume of a driver with topology.
fn bind_to(bed: &Bed, claim: &Claim, node: &str) -> Result<()> {
    let volume = claim.volume(&bed.api)?;
    let name = volume["metadata"]["name"].as_str().context("a name")?;
    let only = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [only]}]}});
    let path = format!("/api/v1/persistentvolumes/{name}");
    let change = json!({"spec": {"nodeAffinity": affinity}});
    bed.api.merge(&path, &change).map(drop)
}

/// The node goes, and its agent with it: no later case may be given it.
fn leave(bed: &mut Bed, node: LightNode) -> Result<()> {
    bed.product.stop(&agent_name(SECOND));
    drop(node);
    bed.revive()?;
    bed.api.delete(&format!("/api/v1/nodes/{SECOND}"))?;
    let pods = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{SECOND}");
    bed.wait(GONE_LIMIT, "end of the node's pods", || {
        Ok(bed.api.list(&pods)?.is_empty())
    })
}
