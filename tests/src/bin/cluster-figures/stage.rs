//! A cluster with the product in it, and one repository in a directory.
//!
//! Owns: start and end of all parts, and the objects that every figure needs. Must not: measure.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tests::cluster::api::{Api, in_namespace};
use tests::cluster::light_node::{LightNode, NodeOptions};
use tests::cluster::product::{Product, ProductOptions, SYSTEM, agent_name};
use tests::cluster::storage::{DRIVER_NODE, Storage};
use tests::cluster::{Cluster, Parts};
use tests::csi::Plugin as _;
use tests::csi_driver::NAME;
use tests::repo::Repo;
use tests::scratch::Scratch;

pub(crate) const LIMIT: Duration = Duration::from_secs(120);
pub(crate) const NODE: &str = "worker";
pub(crate) const CONTROLLER: &str = "controller";
pub(crate) const GROUP: &str = "/apis/snaphaul.dev/v1alpha1";
/// The namespace of the claims and backups.
pub(crate) const USER: &str = "figures";
const POLL: Duration = Duration::from_millis(5);

pub(crate) struct Stage {
    // In the order in which they end.
    pub(crate) product: Product,
    _node: LightNode,
    pub(crate) storage: Storage,
    pub(crate) api: Api,
    pub(crate) scratch: Scratch,
    pub(crate) cluster: Cluster,
}

impl Stage {
    pub(crate) fn start(options: ProductOptions) -> Result<Self> {
        let cluster = Cluster::start(Parts::WITHOUT_NODES)?;
        let storage = Storage::start(&cluster, |_| {})?;
        let api = Api::connect(cluster.kubeconfig())?;
        let node = LightNode::start(NodeOptions {
            name: NODE.to_owned(),
            kubeconfig: cluster.kubeconfig().to_owned(),
            driver: NAME.to_owned(),
            driver_node: DRIVER_NODE.to_owned(),
            socket: storage.socket().to_owned(),
            kubelet: storage.driver.kubelet().join("pods"),
            logs: cluster.folder().join("product/pods"),
        })?;
        let product = Product::install(&cluster, options)?;
        cluster.namespace(USER, &[])?;
        let mut stage = Self {
            product,
            _node: node,
            storage,
            api,
            scratch: Scratch::new("figures")?,
            cluster,
        };
        stage.product.start_controller(CONTROLLER)?;
        stage.product.start_agent(&stage.cluster, NODE)?;
        stage.make_repository()?;
        Ok(stage)
    }

    fn make_repository(&self) -> Result<()> {
        let repo = Repo::directory(&self.scratch.join("repository"))?;
        let key = self.scratch.join("repository.key");
        let from = format!("--from-file=key={}", key.display());
        let secret = [
            "create",
            "secret",
            "generic",
            "store-key",
            "--namespace",
            SYSTEM,
            &from,
        ];
        self.cluster.kubectl(&secret)?;
        let folder = repo.folder()?.display().to_string();
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "SnapshotRepository", "metadata": {"name": "store"},
            "spec": {"directory": {"path": folder}, "encryptionSecretRef": {"name": "store-key"}},
        });
        self.api
            .create(&format!("{GROUP}/snapshotrepositories"), &object)?;
        self.wait("the repository", || {
            let path = format!("{GROUP}/snapshotrepositories/store");
            let object = self.api.get(&path)?.context("the repository exists")?;
            let conditions = object["status"]["conditions"].as_array().cloned();
            let mut conditions = conditions.into_iter().flatten();
            Ok(conditions.any(|one| one["type"] == "Ready" && one["status"] == "True"))
        })
    }

    /// Asks until the answer is yes, often: what is waited for is measured.
    pub(crate) fn wait(&self, what: &str, mut enough: impl FnMut() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !enough()? {
            if begin.elapsed() > LIMIT {
                bail!("no {what} after {LIMIT:?}\n{}", self.product.tails());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    pub(crate) fn pid(&self, name: &str) -> Result<i32> {
        let process = self.product.process(name);
        Ok(process.with_context(|| format!("{name} runs"))?.pid())
    }

    pub(crate) fn agent(&self) -> Result<i32> {
        self.pid(&agent_name(NODE))
    }

    pub(crate) fn make_backup(&self, name: &str, claim: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "PodVolumeBackup", "metadata": {"name": name},
            "spec": {"source": {"persistentVolumeClaim": {"name": claim}}, "repositoryRef": {"name": "store"}},
        });
        self.api.create(&backups(), &object).map(drop)
    }

    pub(crate) fn backup(&self, name: &str) -> Result<Value> {
        let object = self.api.get(&format!("{}/{name}", backups()))?;
        object.with_context(|| format!("{name} exists"))
    }

    /// Waits until a backup is Completed.
    pub(crate) fn completed(&self, name: &str) -> Result<()> {
        self.wait(&format!("end of {name}"), || {
            let object = self.backup(name)?;
            let status = &object["status"];
            anyhow::ensure!(status["phase"] != "Failed", "{status}");
            Ok(status["phase"] == "Completed")
        })
    }
}

/// The list of the backups.
pub(crate) fn backups() -> String {
    in_namespace(GROUP, USER, "podvolumebackups")
}
