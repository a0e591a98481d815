//! What the base is made of: the image, the rights of its processes, the profile.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::deployment::{self, Component};
use tests::cluster::image;
use tests::cluster::product::SYSTEM;

use crate::site::{NODE, Site};

/// Where the kubelet looks for profiles.
const PROFILES: &str = "/var/lib/kubelet/seccomp";
/// What the agent says where it may not use rings.
const FALLBACK: &str = "io_uring cannot be used";

/// The same program makes the same bytes, and both workloads run them under the name that the manifests give.
pub(crate) fn image_is_reproducible(site: &mut Site) -> Result<()> {
    let archives = ["one.tar", "two.tar"].map(|name| site.scratch.join(name));
    let said = [image::build(&archives[0])?, image::build(&archives[1])?];
    ensure!(said[0] == said[1], "{said:?}");
    let content = [std::fs::read(&archives[0])?, std::fs::read(&archives[1])?];
    ensure!(content[0] == content[1], "archives differ");
    for archive in &archives {
        std::fs::remove_file(archive)?;
    }
    let name = image::name(&said[0])?;
    for component in [Component::Controller, Component::Agent] {
        let pod = deployment::pod(&site.cluster, component)?;
        let words = [
            "get",
            "pod",
            &pod,
            "--namespace",
            SYSTEM,
            "--output=jsonpath={.status.containerStatuses[0].image}",
        ];
        let runs = site.cluster.kubectl(&words)?;
        ensure!(runs.ends_with(name), "{runs} is not {name}");
    }
    Ok(())
}

/// Root without a capability, under the profile that the init container laid down.
pub(crate) fn agent_has_no_privilege(site: &mut Site) -> Result<()> {
    let node = site.cluster.node(NODE)?;
    node.run("test", &["-s", &format!("{PROFILES}/snaphaul-agent.json")])?;
    let log = deployment::log(&site.cluster, Component::Agent)?;
    ensure!(
        log.contains("the agent begins"),
        "its log says nothing: {log}"
    );
    let controller = status_of(site, "controller")?;
    let agent = status_of(site, "agent")?;
    for (status, uid) in [(&controller, "65532"), (&agent, "0")] {
        for line in [
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            ensure!(status.contains(line), "no {line:?}: {status}");
        }
        ensure!(
            status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")),
            "{status}"
        );
    }
    Ok(())
}

/// `/proc/PID/status` of the process of a component, of which there is one on the node.
fn status_of(site: &Site, word: &str) -> Result<String> {
    let script = format!(
        "for process in /proc/[0-9]*; do
           if tr '\\0' ' ' <$process/cmdline 2>/dev/null | grep -q '^snaphaul {word} '; then cat $process/status; fi
         done; true"
    );
    let found = site.cluster.node(NODE)?.run("sh", &["-c", &script])?;
    ensure!(
        found.matches("Name:").count() == 1,
        "not one {word}: {found}"
    );
    Ok(found)
}

/// A profile that forbids rings: threads do the same, and the backup's status says so. Then back to what the base says.
pub(crate) fn rings_denied(site: &mut Site) -> Result<()> {
    let hash = site.write(3, 2)?;
    site.backup("with-rings")?;
    let said = transfer(&site.completed("with-rings", &hash)?);
    ensure!(
        !said.contains(FALLBACK),
        "the base's profile denies rings: {said}"
    );
    deny_rings(site)?;
    let hash = site.write(3, 2)?;
    site.backup("without-rings")?;
    let said = transfer(&site.completed("without-rings", &hash)?);
    ensure!(said.contains(FALLBACK), "nothing was said: {said}");
    use_profile(site, "snaphaul-agent.json")
}

fn transfer(object: &Value) -> String {
    object["status"]["transfer"].to_string()
}

fn deny_rings(site: &Site) -> Result<()> {
    let node = site.cluster.node(NODE)?;
    let name = "without-rings.json";
    let text = node.run("cat", &[&format!("{PROFILES}/snaphaul-agent.json")])?;
    let mut profile: Value = serde_json::from_str(&text)?;
    let calls = profile["syscalls"][0]["names"].as_array_mut();
    let calls = calls.context("a list of calls")?;
    let before = calls.len();
    calls.retain(|call| {
        !call
            .as_str()
            .is_some_and(|call| call.starts_with("io_uring"))
    });
    ensure!(before - calls.len() == 3, "the profile allows other rings");
    let path = std::path::Path::new(PROFILES).join(name);
    std::fs::write(node.outside(&path)?, profile.to_string())?;
    use_profile(site, name)
}

fn use_profile(site: &Site, name: &str) -> Result<()> {
    let profile = json!({"type": "Localhost", "localhostProfile": name});
    let container = json!({"name": "agent", "securityContext": {"seccompProfile": profile}});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}}).to_string();
    let words = [
        "patch",
        Component::Agent.workload(),
        "--namespace",
        SYSTEM,
        "--patch",
        &patch,
    ];
    site.cluster.kubectl(&words)?;
    deployment::wait_until_ready(&site.cluster)
}
