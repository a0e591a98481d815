//! Pods and the node that go away in the middle of a backup.

use anyhow::{Context, Result, ensure};
use tests::cluster::deployment::{self, Component};

use crate::site::{LIMIT, NAMESPACE, NODE, Site};

/// Half a minute of work for an agent that is held back.
const MUCH: u32 = 96;
/// More than is in flight at once: an agent that is told to end finishes a backup of which everything was read.
const MORE: u32 = 288;

/// The agent's pod is evicted: it says how far it is, and its successor goes on from there.
pub(crate) fn agent(site: &mut Site) -> Result<()> {
    let hash = site.write(48, MORE)?;
    site.backup("drained")?;
    site.wait_for_the_middle("drained")?;
    deployment::replace_pod(&site.cluster, Component::Agent)?;
    let object = site.completed("drained", &hash)?;
    let attempt = object["status"]["order"]["attempt"].as_i64();
    ensure!(
        attempt > Some(1),
        "one attempt was enough: {}",
        object["status"]
    );
    Ok(())
}

/// The controller's pod is evicted: the agent goes on, and the next controller brings it to its end.
pub(crate) fn controller(site: &mut Site) -> Result<()> {
    let hash = site.write(48, MUCH)?;
    site.backup("led-by-two")?;
    site.wait_for_the_middle("led-by-two")?;
    deployment::replace_pod(&site.cluster, Component::Controller)?;
    let object = site.completed("led-by-two", &hash)?;
    let attempt = object["status"]["order"]["attempt"].as_i64();
    ensure!(
        attempt.is_none_or(|attempt| attempt == 1),
        "the agent was disturbed: {}",
        object["status"]
    );
    Ok(())
}

/// Everything on the node ends at once: agent, controller, holder, user. All come back, and so does the backup.
pub(crate) fn node(site: &mut Site) -> Result<()> {
    let hash = site.write(48, MUCH)?;
    site.backup("rebooted")?;
    site.wait_for_the_middle("rebooted")?;
    site.cluster.node_mut(NODE)?.reboot()?;
    site.storage.restart_on_node(&site.cluster, NODE)?;
    deployment::wait_until_ready(&site.cluster)?;
    site.completed("rebooted", &hash)?;
    // The user's pod sees what it wrote.
    let words = ["exec", "app", "--namespace", NAMESPACE, "--", "true"];
    site.cluster
        .wait_for(LIMIT, &words, |_| true)
        .context("the user's pod")?;
    let now = site.hash("app")?;
    ensure!(now == hash, "the user's volume changed");
    Ok(())
}
