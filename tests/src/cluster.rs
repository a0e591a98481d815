//! A Kubernetes cluster on the loopback address, from the programs of a real one.
//!
//! ```text
//!   certificates ─► etcd ─► kube-apiserver ─► definitions (snapshots, metadata service)
//!                              ▲    ▲
//!     kubectl, kubeconfigs ────┘    └──── kube-controller-manager · kube-scheduler · snapshot-controller · nodes
//!                                         (where asked for)
//!     CSI driver ◄── Sidecars: csi-provisioner · csi-snapshotter · csi-attacher ──► kube-apiserver
//! ```
//!
//! The API server is a complete one: RBAC and Node authorizers, PodSecurity, ValidatingAdmissionPolicy, tokens of service
//! accounts. Without the controller manager no namespace has a default service account, nothing is collected and no claim is
//! bound; without the scheduler no pod is given a node.
//!
//! ```no_run
//! use tests::cluster::{Cluster, Parts};
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::start(Parts { controller_manager: true, ..Parts::default() })?;
//! cluster.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: agent, namespace: default}}")?;
//! let agent = cluster.service_account_kubeconfig("default", "agent")?;
//! cluster.kubectl_as(&agent).run(&["auth", "whoami"])?;
//! # Ok(())
//! # }
//! ```
//!
//! Owns: everything that it starts, and its end. Must not: build the programs (`tests/run` does, from `tests/tools`).

pub mod api;
pub mod archive;
pub mod audit;
mod certificates;
pub mod claims;
mod control_plane;
mod definitions;
pub mod deployment;
pub mod examples;
pub mod image;
mod kubeconfig;
pub mod kubectl;
pub mod leftovers;
pub mod light_node;
pub mod node;
pub mod product;
pub mod sidecars;
pub mod storage;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::control_plane::Site;
use self::kubeconfig::Credential;
use self::kubectl::Kubectl;
use self::node::Node;
use crate::process::Process;
use crate::server::start_again_once;

/// How often waiting looks: each look starts `kubectl`, which takes a good part of a core as long as it runs.
const POLL: Duration = Duration::from_millis(500);

/// What runs beside etcd and the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// kube-controller-manager: default service accounts, garbage collection, binding of claims, DaemonSets.
    pub controller_manager: bool,
    /// kube-scheduler.
    pub scheduler: bool,
    /// The snapshot controller, which binds snapshots to their contents.
    pub snapshots: bool,
    /// A node, `node-1`, of a real kubelet and containerd. It needs root, the controller manager and the scheduler.
    pub kubelet: bool,
}

impl Parts {
    /// All of them.
    pub const WHOLE: Self = Self {
        controller_manager: true,
        scheduler: true,
        snapshots: true,
        kubelet: true,
    };
    /// All but the node: objects are bound and scheduled, and no pod runs.
    pub const WITHOUT_NODES: Self = Self {
        kubelet: false,
        ..Self::WHOLE
    };
}

/// A running cluster; dropping it stops every program, those that depend on others first.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they end.
    nodes: Vec<Node>,
    snapshot_controller: Option<Process>,
    scheduler: Option<Process>,
    controller_manager: Option<Process>,
    api_server: Option<Process>,
    _etcd: Process,
    kubectl: Kubectl,
    kubeconfig: PathBuf,
    site: Site,
}

impl Cluster {
    /// Starts one with an empty store and waits until it serves.
    ///
    /// # Errors
    /// Where a program is missing or does not come up.
    pub fn start(parts: Parts) -> Result<Self> {
        start_again_once("the cluster", || Self::start_once(parts))
    }

    fn start_once(parts: Parts) -> Result<Self> {
        let site = Site::new()?;
        let kubectl = site.kubectl()?;
        let mut cluster = Self {
            nodes: Vec::new(),
            snapshot_controller: None,
            scheduler: None,
            controller_manager: None,
            api_server: None,
            _etcd: site.start_etcd()?,
            kubeconfig: kubectl.kubeconfig().to_owned(),
            kubectl,
            site,
        };
        cluster.api_server = Some(cluster.site.start_api_server(&cluster.kubectl)?);
        definitions::install(&cluster.kubectl)?;
        if parts.controller_manager {
            cluster.controller_manager = Some(cluster.site.start_controller_manager()?);
            cluster.wait_for_default_account("default")?;
        }
        if parts.scheduler {
            cluster.scheduler = Some(cluster.site.start_scheduler()?);
        }
        if parts.snapshots {
            let controller = sidecars::start_snapshot_controller(&cluster.site)?;
            cluster.snapshot_controller = Some(controller);
        }
        if parts.kubelet {
            cluster.add_node("node-1")?;
        }
        Ok(cluster)
    }

    /// The administrator's kubeconfig: a certificate of the group `system:masters`.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `https://127.0.0.1:PORT` of the API server; a restart keeps it.
    #[must_use]
    pub fn url(&self) -> String {
        self.site.url()
    }

    /// The port of the API server, for `KUBERNETES_SERVICE_PORT`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.site.port()
    }

    /// The certificate, as PEM, that the API server's is signed by.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.site.certificates.authority()
    }

    /// A folder that lives as long as the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.site.folder.path()
    }

    /// The log of one of its programs since its last start, e.g. `kube-apiserver`.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.site.log(program)
    }

    /// Runs `kubectl` as the administrator and gives its standard output.
    ///
    /// # Errors
    /// With both outputs where it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args)
    }

    /// `kubectl` as whoever the kubeconfig names.
    #[must_use]
    pub fn kubectl_as(&self, kubeconfig: &Path) -> Kubectl {
        self.kubectl.with(kubeconfig)
    }

    /// Applies YAML as the administrator.
    ///
    /// # Errors
    /// With the words of the API server where it refuses.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl.apply(yaml)
    }

    /// A kubeconfig with a token of this service account, which must exist. It lives for an hour.
    ///
    /// # Errors
    /// Where the API server makes no token.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.kubectl(&[
            "create",
            "token",
            "--duration=1h",
            "--namespace",
            namespace,
            name,
        ])?;
        let file = format!("{namespace}:{name}");
        self.site
            .write_user(&file, &Credential::Token(token.trim()), namespace)
    }

    /// A kubeconfig with a certificate for any user and groups, e.g. `system:node:a` of `system:nodes`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        self.site.user(user, groups)
    }

    /// Makes a namespace; with the controller manager it has its default service account when this returns.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        for (key, value) in labels {
            self.kubectl(&["label", "namespace", name, &format!("{key}={value}")])?;
        }
        if self.controller_manager.is_some() {
            self.wait_for_default_account(name)?;
        }
        Ok(())
    }

    /// Asks with `kubectl` until `enough` likes the answer; questions that fail are asked again.
    ///
    /// # Errors
    /// With the last answer where `limit` passes.
    pub fn wait_for(
        &self,
        limit: Duration,
        args: &[&str],
        mut enough: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let begin = Instant::now();
        loop {
            let answer = self.kubectl(args);
            match answer {
                Ok(text) if enough(&text) => return Ok(text),
                Ok(text) if begin.elapsed() > limit => {
                    bail!("kubectl {} after {limit:?}: {text}", args.join(" "))
                }
                Err(error) if begin.elapsed() > limit => return Err(error),
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Stops the API server and starts it again on the same port and store. Nothing is answered meanwhile.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn restart_api_server(&mut self) -> Result<()> {
        self.stop_api_server();
        self.start_api_server()
    }

    /// Stops the API server.
    pub fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Starts it after [`Self::stop_api_server`].
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_api_server(&mut self) -> Result<()> {
        self.api_server = Some(self.site.start_api_server(&self.kubectl)?);
        Ok(())
    }

    /// Ends the API server with SIGKILL.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill_api_server(&mut self) -> Result<()> {
        let process = self.api_server.take();
        process.context("the API server runs")?.kill()
    }

    /// Stops the controller manager and starts it again.
    ///
    /// # Errors
    /// Where it was not asked for or does not come up.
    pub fn restart_controller_manager(&mut self) -> Result<()> {
        self.controller_manager
            .take()
            .context("the cluster has no controller manager")?;
        self.start_controller_manager()
    }

    /// Ends the controller manager with SIGKILL.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill_controller_manager(&mut self) -> Result<()> {
        let process = self.controller_manager.take();
        process.context("the controller manager runs")?.kill()
    }

    /// Starts it after [`Self::kill_controller_manager`].
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_controller_manager(&mut self) -> Result<()> {
        self.controller_manager = Some(self.site.start_controller_manager()?);
        Ok(())
    }

    /// Adds a node and waits until it is Ready.
    ///
    /// # Errors
    /// Where it does not become so, or the name is taken.
    pub fn add_node(&mut self, name: &str) -> Result<&Node> {
        let node = Node::start(&self.site, &self.kubectl, name)?;
        self.nodes.push(node);
        self.node(name)
    }

    /// A node by its name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| node.name() == name)
            .with_context(|| format!("no node {name}"))
    }

    /// A node by its name, to restart it.
    ///
    /// # Errors
    /// Where there is none.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let mut nodes = self.nodes.iter_mut();
        nodes
            .find(|node| node.name() == name)
            .with_context(|| format!("no node {name}"))
    }

    /// The API server, to freeze it.
    #[must_use]
    pub fn api_server(&self) -> Option<&Process> {
        self.api_server.as_ref()
    }

    fn wait_for_default_account(&self, namespace: &str) -> Result<()> {
        let limit = Duration::from_secs(90);
        let args = [
            "get",
            "serviceaccount",
            "default",
            "--output=name",
            "--namespace",
            namespace,
        ];
        self.wait_for(limit, &args, |_| true).map(drop)
    }
}
