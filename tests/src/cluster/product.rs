//! Controller and agents as processes on this machine, each as the ServiceAccount that its manifest names.
//!
//! Owns: their start, death and logs. Must not: give them rights: the manifests that users apply do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Cluster;
use super::kubeconfig::Credential;
use crate::process::Process;
use crate::server::free_ports;
use crate::snaphaul;

/// The namespace of the product.
pub const SYSTEM: &str = "snaphaul-system";
/// How long an agent's pod may take to be scheduled and ready.
const AGENT_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a log that are shown.
const TAIL: usize = 3000;

/// Flags beside those that every run here needs.
#[derive(Clone, Debug, Default)]
pub struct ProductOptions {
    /// Of the controller.
    pub controller: Vec<String>,
    /// Of each agent.
    pub agent: Vec<String>,
}

/// The product in a cluster; dropping it stops its processes.
#[derive(Debug)]
pub struct Product {
    processes: BTreeMap<String, Process>,
    ports: BTreeMap<String, u16>,
    starts: u32,
    options: ProductOptions,
    folder: PathBuf,
    controller: PathBuf,
}

impl Product {
    /// Applies the manifests, and makes ready what the controller needs; nothing runs yet.
    ///
    /// # Errors
    /// Where the API server refuses a manifest.
    pub fn install(cluster: &Cluster, options: ProductOptions) -> Result<Self> {
        apply_base(cluster)?;
        let folder = cluster.folder().join("product");
        std::fs::create_dir_all(folder.join("run"))?;
        Ok(Self {
            processes: BTreeMap::new(),
            ports: BTreeMap::new(),
            starts: 0,
            options,
            folder,
            controller: cluster.service_account_kubeconfig(SYSTEM, "snaphaul-controller")?,
        })
    }

    /// The folder that stands for `/run/snaphaul` of the nodes.
    #[must_use]
    pub fn holders(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Starts a controller under a name of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_controller(&mut self, name: &str) -> Result<()> {
        let fixed = [
            ("--namespace", SYSTEM),
            ("--identity", name),
            ("--holder-host-path", &self.holders().display().to_string()),
            ("--holder-image", "snaphaul"),
            // Longer than a busy machine keeps the API server from answering. Whoever comes after one that was killed has its
            // name, and need not wait for the end of its lease.
            ("--lease", "20s"),
            ("--repository-every", "3s"),
        ];
        let mut words = vec!["controller".to_owned()];
        words.extend(
            fixed
                .iter()
                .flat_map(|(flag, value)| [*flag, *value])
                .map(str::to_owned),
        );
        words.extend(self.options.controller.iter().cloned());
        let kubeconfig = self.controller.clone();
        self.start(name, &words, &kubeconfig)
    }

    /// Flags of the controllers that are started from now on.
    pub fn set_controller_flags(&mut self, flags: &[&str]) {
        self.options.controller = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// Starts the agent of a node, with a token of the pod that the DaemonSet made there.
    ///
    /// # Errors
    /// Where the pod does not become ready.
    pub fn start_agent(&mut self, cluster: &Cluster, node: &str) -> Result<()> {
        let kubeconfig = agent_kubeconfig(cluster, node)?;
        let words = [
            ("--namespace", SYSTEM.to_owned()),
            ("--node-name", node.to_owned()),
            ("--holder-directory", self.holders().display().to_string()),
        ];
        let mut all = vec!["agent".to_owned()];
        for (flag, value) in words {
            all.extend([flag.to_owned(), value]);
        }
        all.extend(self.options.agent.iter().cloned());
        self.start(&agent_name(node), &all, &kubeconfig)
    }

    fn start(&mut self, name: &str, words: &[String], kubeconfig: &Path) -> Result<()> {
        self.starts += 1;
        // Free a moment ago; a loser of the race fails to listen, loudly.
        let [port] = free_ports::<1>()?;
        self.ports.insert(name.to_owned(), port);
        let mut words = words.to_vec();
        words.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
        let log = self.folder.join(format!("{name}-{}.log", self.starts));
        let scratch = self.folder.join(format!("{name}.work"));
        std::fs::create_dir_all(&scratch)?;
        let kubeconfig = kubeconfig.display().to_string();
        let scratch = scratch.display().to_string();
        let env = [
            ("KUBECONFIG", kubeconfig.as_str()),
            ("HOME", scratch.as_str()),
            ("RUST_BACKTRACE", "1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        let process = Process::start(&snaphaul::binary()?, &words, &env, &log)?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// The flags of agents that start from now on, beside those that every run needs.
    pub fn set_agent_flags(&mut self, flags: &[&str]) {
        self.options.agent = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Ends a process with SIGKILL.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let process = self
            .processes
            .remove(name)
            .with_context(|| format!("{name} runs"))?;
        let _ = kill(Pid::from_raw(process.pid()), Signal::SIGKILL);
        drop(process);
        Ok(())
    }

    /// Ends a process with SIGTERM, then SIGKILL.
    pub fn stop(&mut self, name: &str) {
        self.processes.remove(name);
    }

    /// A running process.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.get(name)
    }

    /// Where a running process serves metrics and health, on this machine.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<u16> {
        self.processes.get(name)?;
        self.ports.get(name).copied()
    }

    /// Names of those that ended by themselves, which none ever should.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        let dead = self.processes.iter().filter(|(_, one)| one.has_ended());
        dead.map(|(name, _)| name.clone()).collect()
    }

    /// The ends of all logs, for the message of a failure.
    #[must_use]
    pub fn tails(&self) -> String {
        let mut text = String::new();
        let mut open = vec![self.folder.clone()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "log") {
                    let log = std::fs::read(&path).unwrap_or_default();
                    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL)..])
                        .into_owned();
                    if !tail.is_empty() {
                        text.push_str(&format!("--- {}\n{tail}\n", path.display()));
                    }
                }
            }
        }
        text
    }
}

/// Applies the base and waits until its definitions are served.
///
/// # Errors
/// Where the API server refuses a manifest.
pub fn apply_base(cluster: &Cluster) -> Result<()> {
    let base = repository_root()?.join("manifests/base");
    let base = base.to_str().context("a plain path")?;
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", base])?;
    let definitions = [
        "podvolumebackups.snaphaul.dev",
        "podvolumerestores.snaphaul.dev",
        "snapshotrepositories.snaphaul.dev",
    ];
    let mut wait = vec![
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd",
    ];
    wait.extend(definitions);
    cluster.kubectl(&wait)?;
    Ok(())
}

/// The name of a node's agent among the processes.
#[must_use]
pub fn agent_name(node: &str) -> String {
    format!("agent-{node}")
}

/// The folder of the sources, where the manifests are.
///
/// # Errors
/// Where the tests were moved away from it.
pub fn repository_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here
        .parent()
        .context("tests lie in the repository")?
        .to_owned())
}

/// A token that is bound to the agent's pod says which node it is for, as the kubelet's do; policies ask for that.
fn agent_kubeconfig(cluster: &Cluster, node: &str) -> Result<PathBuf> {
    let field = format!("--field-selector=spec.nodeName={node}");
    let args = [
        "get",
        "pods",
        "--namespace",
        SYSTEM,
        &field,
        "--selector=app.kubernetes.io/name=snaphaul,app.kubernetes.io/component=agent",
        "--output=jsonpath={.items[?(@.status.phase==\"Running\")].metadata.name}",
    ];
    let pod = cluster.wait_for(AGENT_LIMIT, &args, |name| !name.trim().is_empty())?;
    let pod = pod.split_whitespace().next().context("a pod")?.to_owned();
    let token = cluster.kubectl(&[
        "create",
        "token",
        "snaphaul-agent",
        "--duration=4h",
        "--namespace",
        SYSTEM,
        "--bound-object-kind=Pod",
        "--bound-object-name",
        &pod,
    ])?;
    let file = format!("{SYSTEM}:agent:{node}");
    cluster
        .site
        .write_user(&file, &Credential::Token(token.trim()), SYSTEM)
}
