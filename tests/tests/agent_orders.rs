//! Agent and holder without a controller: the test writes the orders.
//!
//! The agent runs with the rights that its manifest gives it, and takes devices from holders that the light node runs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::api::{Api, in_namespace};
use tests::cluster::claims::Claim;
use tests::cluster::light_node::{LightNode, NodeOptions};
use tests::cluster::product::{Product, ProductOptions, SYSTEM, agent_name};
use tests::cluster::storage::{CLASS, DRIVER_NODE, Storage};
use tests::cluster::{Cluster, Parts};
use tests::csi::Plugin as _;
use tests::csi_driver::NAME;
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;

const GROUP: &str = "/apis/snaphaul.dev/v1alpha1";
const NODE: &str = "worker";
const LIMIT: Duration = Duration::from_secs(60);

struct Site {
    product: Product,
    node: LightNode,
    storage: Storage,
    api: Api,
    repo: Repo,
    random: Random,
    scratch: Scratch,
    cluster: Cluster,
}

/// One cluster for all: orders that are carried out, stopped, taken up again.
#[test]
fn orders() -> Result<()> {
    let mut site = Site::start()?;
    let outcome = all(&mut site);
    outcome.with_context(|| site.said())
}

fn all(site: &mut Site) -> Result<()> {
    carried_out(site)?;
    killed_and_taken_up(site)?;
    holder_lost(site)?;
    stopped(site)
}

fn carried_out(site: &mut Site) -> Result<()> {
    let (uid, image) = site.ordered("good", 48)?;
    let status = site.answered("good", 1)?;
    ensure!(status["transfer"]["state"] == "Succeeded", "{status}");
    site.assert_point(&status, &image)?;
    ensure!(
        status["progress"]["totalBytes"] == status["progress"]["bytesDone"],
        "{status}"
    );
    site.release(&uid)
}

/// What a dead agent left is taken up by the next one, on the same device and attempt.
fn killed_and_taken_up(site: &mut Site) -> Result<()> {
    let (uid, image) = site.ordered("again", 256)?;
    site.wait("the agent at work", |site| {
        Ok(site.status("again")?["transfer"]["state"] == "Running")
    })?;
    site.product.kill(&agent_name(NODE))?;
    site.product.start_agent(&site.cluster, NODE)?;
    let status = site.answered("again", 1)?;
    ensure!(status["transfer"]["state"] == "Succeeded", "{status}");
    site.assert_point(&status, &image)?;
    site.release(&uid)
}

/// Without its holder an order is interrupted, and the next attempt succeeds.
fn holder_lost(site: &mut Site) -> Result<()> {
    let (uid, image) = site.ordered("lost", 512)?;
    site.wait("the agent at work", |site| {
        Ok(site.status("lost")?["transfer"]["state"] == "Running")
    })?;
    site.node.kill(&format!("{SYSTEM}/snaphaul-{uid}"));
    let status = site.answered("lost", 1)?;
    let state = &status["transfer"]["state"];
    if state == "Interrupted" {
        site.pod_ready(&uid)?;
        site.api
            .set_status(&site.path("lost"), &json!({"order": {"attempt": 2}}))?;
    } else {
        ensure!(state == "Succeeded", "{status}");
    }
    let status = site.answered("lost", if state == "Interrupted" { 2 } else { 1 })?;
    ensure!(status["transfer"]["state"] == "Succeeded", "{status}");
    site.assert_point(&status, &image)?;
    site.release(&uid)
}

fn stopped(site: &mut Site) -> Result<()> {
    let (uid, _) = site.ordered("stopped", 512)?;
    site.wait("the agent at work", |site| {
        Ok(site.status("stopped")?["transfer"]["state"] == "Running")
    })?;
    let stop = json!({"order": {"stop": "cancelled"}});
    site.api.set_status(&site.path("stopped"), &stop)?;
    let status = site.answered("stopped", 1)?;
    let state = &status["transfer"]["state"];
    ensure!(state == "Stopped" || state == "Succeeded", "{status}");
    site.release(&uid)
}

impl Site {
    fn start() -> Result<Self> {
        let cluster = Cluster::start(Parts::WITHOUT_NODES)?;
        let storage = Storage::start(&cluster, |_| {})?;
        let node = LightNode::start(NodeOptions {
            name: NODE.to_owned(),
            kubeconfig: cluster.kubeconfig().to_owned(),
            driver: NAME.to_owned(),
            driver_node: DRIVER_NODE.to_owned(),
            socket: storage.socket().to_owned(),
            kubelet: storage.driver.kubelet().join("pods"),
            logs: cluster.folder().join("product/pods"),
        })?;
        let mut product = Product::install(&cluster, ProductOptions::default())?;
        product.start_agent(&cluster, NODE)?;
        let scratch = Scratch::new("agent-orders")?;
        let repo = Repo::directory(&scratch.join("repository"))?;
        let site = Self {
            product,
            node,
            storage,
            api: Api::connect(cluster.kubeconfig())?,
            repo,
            random: Random::from_environment("agent_orders"),
            scratch,
            cluster,
        };
        site.make_repository()?;
        Ok(site)
    }

    fn make_repository(&self) -> Result<()> {
        let id = self.repo.init()?.string("repository")?;
        let from = format!(
            "--from-file=key={}",
            self.scratch.join("repository.key").display()
        );
        self.cluster.kubectl(&[
            "create",
            "secret",
            "generic",
            "store-key",
            "--namespace",
            SYSTEM,
            &from,
        ])?;
        let folder = self.repo.folder()?.display().to_string();
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "SnapshotRepository", "metadata": {"name": "store"},
            "spec": {"directory": {"path": folder}, "encryptionSecretRef": {"name": "store-key"}},
        });
        let list = format!("{GROUP}/snapshotrepositories");
        self.api.create(&list, &object)?;
        self.api
            .set_status(&format!("{list}/store"), &json!({"repositoryID": id}))
            .map(drop)
    }

    fn path(&self, name: &str) -> String {
        format!(
            "{}/{name}",
            in_namespace(GROUP, "default", "podvolumebackups")
        )
    }

    fn status(&self, name: &str) -> Result<Value> {
        let object = self
            .api
            .get(&self.path(name))?
            .context("the backup exists")?;
        Ok(object["status"].clone())
    }

    /// A backup whose device is held, and whose order is written.
    fn ordered(&mut self, name: &str, mib: u64) -> Result<(String, Image)> {
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "PodVolumeBackup", "metadata": {"name": name},
            "spec": {"source": {"persistentVolumeClaim": {"name": name}}, "repositoryRef": {"name": "store"}},
        });
        let made = self
            .api
            .create(&in_namespace(GROUP, "default", "podvolumebackups"), &object)?;
        let uid = made["metadata"]["uid"]
            .as_str()
            .context("a uid")?
            .to_owned();
        let claim = Claim::create(
            &self.api,
            CLASS,
            SYSTEM,
            &format!("snaphaul-{uid}"),
            mib * MIB,
        )?;
        let copy: PathBuf = self.scratch.join(&format!("{name}.img"));
        let random = &mut self.random;
        let image = claim.write(&self.api, &self.storage.driver, &copy, |device| {
            device.write_noise(0, mib * MIB / 2, random)?;
            device.edit(5, random)
        })?;
        self.hold(&uid)?;
        self.pod_ready(&uid)?;
        let volume = claim.volume(&self.api)?;
        let status = json!({
            "phase": "Prepared", "node": NODE,
            "order": {
                "attempt": 1, "strategy": "Pod", "volume": format!("test/default/{name}"), "driver": NAME,
                "volumeHandle": volume["spec"]["csi"]["volumeHandle"], "sizeBytes": mib * MIB, "recorded": "{\"a\": 1}",
            },
        });
        self.api.set_status(&self.path(name), &status)?;
        Ok((uid, image))
    }

    fn hold(&self, uid: &str) -> Result<()> {
        let holders = self.product.holders().display().to_string();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("snaphaul-{uid}")},
            "spec": {
                "containers": [{
                    "name": "hold", "image": "snaphaul", "command": ["snaphaul"],
                    "args": ["hold", "--owner", uid, "--directory", "/run/snaphaul", "--device", "/dev/snaphaul", "--mode", "read"],
                    "readinessProbe": {"exec": {"command": ["snaphaul", "hold", "--owner", uid, "--directory", "/run/snaphaul", "--check"]}},
                    "volumeDevices": [{"name": "device", "devicePath": "/dev/snaphaul"}],
                    "volumeMounts": [{"name": "sockets", "mountPath": "/run/snaphaul"}],
                }],
                "volumes": [
                    {"name": "device", "persistentVolumeClaim": {"claimName": format!("snaphaul-{uid}")}},
                    {"name": "sockets", "hostPath": {"path": holders}},
                ],
            },
        });
        self.api
            .create(&in_namespace("/api/v1", SYSTEM, "pods"), &pod)
            .map(drop)
    }

    fn pod_ready(&self, uid: &str) -> Result<()> {
        let path = format!("{}/snaphaul-{uid}", in_namespace("/api/v1", SYSTEM, "pods"));
        self.wait("the holder to be ready", |site| {
            let pod = site.api.get(&path)?.context("the pod exists")?;
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let mut ready = conditions.filter(|one| one["type"] == "Ready");
            Ok(ready.any(|one| one["status"] == "True"))
        })
    }

    /// The status once this attempt has its final answer.
    fn answered(&self, name: &str, attempt: i64) -> Result<Value> {
        let mut last = Value::Null;
        self.wait("the answer", |site| {
            last = site.status(name)?;
            let transfer = &last["transfer"];
            Ok(transfer["attempt"] == attempt && transfer["state"] != "Running")
        })
        .with_context(|| last.to_string())?;
        Ok(last)
    }

    fn assert_point(&self, status: &Value, image: &Image) -> Result<()> {
        let point = status["point"]["id"].as_str().context("a point")?;
        let target = self.scratch.join("restored.img");
        self.repo.restore(point, &target, &[])?;
        image.assert_same(&target)?;
        Ok(std::fs::remove_file(&target)?)
    }

    /// Takes the holder and the claim away; nothing of them may stay on the machine.
    fn release(&self, uid: &str) -> Result<()> {
        let name = format!("snaphaul-{uid}");
        self.api.delete(&format!(
            "{}/{name}",
            in_namespace("/api/v1", SYSTEM, "pods")
        ))?;
        self.api.delete(&format!(
            "{}/{name}",
            in_namespace("/api/v1", SYSTEM, "persistentvolumeclaims")
        ))?;
        self.wait("nothing to be left", |site| {
            let left = site.storage.driver.leaks()?;
            ensure!(
                left.loop_devices.is_empty() && left.volumes.is_empty() && left.mounts.is_empty(),
                "{left:?}"
            );
            Ok(true)
        })
    }

    fn wait(&self, what: &str, mut enough: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let begin = std::time::Instant::now();
        loop {
            match enough(self) {
                Ok(true) => return Ok(()),
                Err(error) if begin.elapsed() > LIMIT => {
                    return Err(error.context(format!("waited for {what}")));
                }
                Ok(false) if begin.elapsed() > LIMIT => bail!("no {what} after {LIMIT:?}"),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn said(&self) -> String {
        let logs = self.product.tails();
        format!("node: {:?}\n{logs}", self.node.trouble())
    }
}
