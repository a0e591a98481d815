//! The cluster, the product in it, and a repository; what every case begins with and must leave.
//!
//! Owns: making resources, waiting for their end, judging what is left. Must not: break anything by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::api::{Api, in_namespace};
use tests::cluster::claims::Claim;
use tests::cluster::leftovers::Holdings;
use tests::cluster::light_node::{LightNode, NodeOptions};
use tests::cluster::product::{Product, ProductOptions, SYSTEM, agent_name};
use tests::cluster::storage::{CLASS, DRIVER_NODE, Storage};
use tests::cluster::{Cluster, Parts};
use tests::csi::Plugin as _;
use tests::csi_driver::NAME;
use tests::http_get;
use tests::image::{Image, MIB};
use tests::metadata_sidecar::MetadataSidecar;
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;

/// No backup of a small volume takes longer, however slow the machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// How long intermediates may take to be gone once nothing wants them.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long a finalizer may stay on what has ended.
const FINALIZER_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const GROUP: &str = "/apis/snaphaul.dev/v1alpha1";
pub(crate) const NODE: &str = "worker";
pub(crate) const CONTROLLER: &str = "controller";
pub(crate) const REPOSITORY: &str = "store";

pub(crate) struct Bed {
    // In the order in which they end.
    pub(crate) product: Product,
    pub(crate) node: LightNode,
    _metadata: MetadataSidecar,
    pub(crate) storage: Storage,
    pub(crate) api: Api,
    pub(crate) repo: Repo,
    pub(crate) random: Random,
    /// Namespace of the case.
    pub(crate) namespace: String,
    /// What Completed backups must restore to, by their name.
    images: BTreeMap<String, Image>,
    before: Option<Holdings>,
    copies: u32,
    /// Cases that ran, this one included.
    pub(crate) ran: BTreeSet<String>,
    pub(crate) scratch: Scratch,
    pub(crate) cluster: Cluster,
}

impl Bed {
    pub(crate) fn start() -> Result<Self> {
        let cluster = Cluster::start(Parts::WITHOUT_NODES)?;
        let storage = Storage::start(&cluster, |_| {})?;
        let api = Api::connect(cluster.kubeconfig())?;
        let metadata = metadata_service(&cluster, &storage, &api)?;
        let node = light_node(&cluster, &storage, NODE)?;
        let product = Product::install(&cluster, options())?;
        let scratch = Scratch::new("in-cluster")?;
        let mut bed = Self {
            product,
            node,
            _metadata: metadata,
            storage,
            api,
            repo: Repo::directory(&scratch.join("repository"))?,
            random: Random::from_environment("in_cluster"),
            namespace: String::new(),
            images: BTreeMap::new(),
            before: None,
            copies: 0,
            ran: BTreeSet::new(),
            scratch,
            cluster,
        };
        bed.product.start_controller(CONTROLLER)?;
        bed.product.start_agent(&bed.cluster, NODE)?;
        bed.make_repository()?;
        Ok(bed)
    }

    /// Another node beside [`NODE`], on the same driver. It runs until it is dropped.
    pub(crate) fn second_node(&self, name: &str) -> Result<LightNode> {
        light_node(&self.cluster, &self.storage, name)
    }

    /// Applies the manifests again, and the repository, whose secrets stayed.
    pub(crate) fn reinstall(&self) -> Result<()> {
        tests::cluster::product::apply_base(&self.cluster)?;
        self.name_repository()
    }

    fn make_repository(&self) -> Result<()> {
        let key = self.scratch.join("repository.key");
        let from = format!("--from-file=key={}", key.display());
        self.cluster.kubectl(&[
            "create",
            "secret",
            "generic",
            "store-key",
            "--namespace",
            SYSTEM,
            &from,
        ])?;
        self.name_repository()
    }

    fn name_repository(&self) -> Result<()> {
        let folder = self.repo.folder()?.display().to_string();
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": "SnapshotRepository", "metadata": {"name": REPOSITORY},
            "spec": {"directory": {"path": folder}, "encryptionSecretRef": {"name": "store-key"}},
        });
        self.api
            .create(&format!("{GROUP}/snapshotrepositories"), &object)?;
        self.wait_for_repository("True")
    }

    /// Path of the repository's object.
    pub(crate) fn repository_path(&self) -> String {
        let _ = self;
        format!("{GROUP}/snapshotrepositories/{REPOSITORY}")
    }

    /// The repository's object.
    pub(crate) fn repository_object(&self) -> Result<Value> {
        self.api
            .get(&self.repository_path())?
            .context("the repository exists")
    }

    /// Its status, for the message of a failure.
    pub(crate) fn repository_status(&self) -> String {
        self.repository_object().map_or_else(
            |error| error.to_string(),
            |object| object["status"].to_string(),
        )
    }

    /// What a running process of the product serves.
    pub(crate) fn page(&self, process: &str, path: &str) -> Result<String> {
        let port = self.product.port(process).context("the process runs")?;
        http_get::get(port, path)
    }

    /// The value of a series of a running process.
    pub(crate) fn metric(&self, process: &str, series: &str) -> Result<Option<f64>> {
        http_get::series(&self.page(process, "/metrics")?, series)
    }

    /// Waits until the repository's condition `Ready` has this status.
    pub(crate) fn wait_for_repository(&self, status: &str) -> Result<()> {
        let path = self.repository_path();
        self.wait(LIMIT, &format!("repository Ready={status}"), || {
            let object = self.api.get(&path)?.context("the repository exists")?;
            Ok(condition(&object, "Ready").is_some_and(|found| found["status"] == status))
        })
    }

    /// A namespace for a case.
    pub(crate) fn begin(&mut self, name: &str) -> Result<()> {
        self.namespace = name.replace('_', "-");
        self.images.clear();
        self.cluster.namespace(&self.namespace, &[])?;
        self.before = None;
        Ok(())
    }

    /// Begins to count what is left: after claims were made, before backups are.
    pub(crate) fn count(&mut self) -> Result<()> {
        self.before = Some(Holdings::now(&self.api, &self.storage)?);
        Ok(())
    }

    /// What holds after every case.
    pub(crate) fn settle(&mut self) -> Result<()> {
        for kind in ["podvolumebackups", "podvolumerestores"] {
            for object in self.api.list(&self.list(kind))? {
                let phase = phase(&object);
                ensure!(is_final(&phase), "{kind} is {phase} in the end: {object}");
            }
        }
        self.nothing_left()?;
        for object in self.api.list(&self.list("podvolumebackups"))? {
            let name = object["metadata"]["name"].as_str().unwrap_or("");
            if phase(&object) == "Completed" && self.images.contains_key(name) {
                self.assert_restores(name)?;
            }
        }
        let dead = self.product.dead();
        ensure!(dead.is_empty(), "ended by themselves: {dead:?}");
        Ok(())
    }

    /// Whether every case has run in this cluster.
    pub(crate) fn ran_everything(&self) -> bool {
        self.ran.len() == crate::CASES.len()
    }

    /// Starts the controller again, with these flags beside the usual ones.
    pub(crate) fn lead_with(&mut self, flags: &[&str]) -> Result<()> {
        self.product.stop(CONTROLLER);
        self.product.set_controller_flags(flags);
        self.product.start_controller(CONTROLLER)
    }

    /// Fails where anything but bases is left.
    pub(crate) fn nothing_left(&self) -> Result<()> {
        self.left(&[], SETTLE_LIMIT)
    }

    /// The same where it takes longer.
    pub(crate) fn nothing_left_within(&self, limit: Duration) -> Result<()> {
        self.left(&[], limit)
    }

    /// The same with one PersistentVolume, given by its path, that may be there.
    pub(crate) fn nothing_left_but(&self, volume: &str) -> Result<()> {
        let (_, name) = volume.rsplit_once('/').context("a path")?;
        let object = self.api.get(volume)?;
        let handle = object
            .as_ref()
            .and_then(|object| object["spec"]["csi"]["volumeHandle"].as_str());
        let mut known = vec![format!("volume /{name}")];
        known.extend(handle.map(|handle| format!("volume {handle}")));
        self.left(&known, SETTLE_LIMIT)
    }

    fn left(&self, known: &[String], limit: Duration) -> Result<()> {
        let Some(before) = &self.before else {
            return Ok(());
        };
        let begin = Instant::now();
        loop {
            let mut left = Holdings::now(&self.api, &self.storage)?.since(before);
            left.retain(|line| !known.contains(line));
            if left.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > limit {
                bail!("left: {left:#?}; trouble: {:?}", self.node.trouble());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The case's end: a failure carries what the processes said.
    pub(crate) fn end(&mut self, outcome: Result<()>) -> Result<()> {
        let said = match &outcome {
            Ok(()) => String::new(),
            Err(_) => format!("{}{}", self.objects(), self.tails()),
        };
        // What a failed case left must not fail the next.
        let _ = self
            .cluster
            .kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
        let _ = self.storage.driver.order(&[]);
        for name in self.product.dead() {
            self.product.stop(&name);
        }
        let revived = self.revive();
        outcome.with_context(|| said).and(revived)
    }

    fn objects(&self) -> String {
        let kinds = "podvolumebackups,podvolumerestores,pvc,volumesnapshots,events";
        let words = |namespace: &str| {
            self.cluster
                .kubectl(&["get", kinds, "--namespace", namespace, "--output=wide"])
                .unwrap_or_else(|error| error.to_string())
        };
        format!("{}\n{}", words(&self.namespace), words(SYSTEM))
    }

    fn tails(&self) -> String {
        format!("node: {:?}\n{}", self.node.trouble(), self.product.tails())
    }

    /// The list of a kind of ours in the namespace of the case.
    pub(crate) fn list(&self, kind: &str) -> String {
        in_namespace(GROUP, &self.namespace, kind)
    }

    /// A claim with random content, and a copy of it.
    pub(crate) fn claim(&mut self, name: &str, mib: u64) -> Result<(Claim, Image)> {
        let claim = Claim::create(&self.api, CLASS, &self.namespace, name, mib * MIB)?;
        let image = self.write(&claim, 12)?;
        Ok((claim, image))
    }

    /// Changes the content of a claim at random; gives a copy of all of it.
    pub(crate) fn write(&mut self, claim: &Claim, edits: u64) -> Result<Image> {
        let copy = self.copy();
        let random = &mut self.random;
        claim.write(&self.api, &self.storage.driver, &copy, |device| {
            device.edit(edits, random)
        })
    }

    fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        self.scratch.join(&format!("copy-{}.img", self.copies))
    }

    /// Makes a backup of a claim; `more` is merged into the spec. `image` is what it must restore to.
    pub(crate) fn backup(
        &mut self,
        name: &str,
        claim: &str,
        more: &Value,
        image: &Image,
    ) -> Result<()> {
        let mut spec = json!({
            "source": {"persistentVolumeClaim": {"name": claim}},
            "repositoryRef": {"name": REPOSITORY},
        });
        merge(&mut spec, more);
        self.images.insert(name.to_owned(), image.clone());
        self.create("PodVolumeBackup", "podvolumebackups", name, &spec)
    }

    /// Makes a resource of ours.
    pub(crate) fn create(&self, kind: &str, plural: &str, name: &str, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "snaphaul.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        self.api.create(&self.list(plural), &object).map(drop)
    }

    /// A backup as it is now.
    pub(crate) fn backup_object(&self, name: &str) -> Result<Value> {
        self.object("podvolumebackups", name)
    }

    /// A resource of ours as it is now.
    pub(crate) fn object(&self, plural: &str, name: &str) -> Result<Value> {
        let path = format!("{}/{name}", self.list(plural));
        self.api
            .get(&path)?
            .with_context(|| format!("{name} exists"))
    }

    /// Waits for the end of a backup and gives it.
    pub(crate) fn finished(&self, name: &str) -> Result<Value> {
        self.final_object("podvolumebackups", name)
    }

    /// Waits for the end of a resource of ours and gives it.
    pub(crate) fn final_object(&self, plural: &str, name: &str) -> Result<Value> {
        let mut last = Value::Null;
        self.wait(LIMIT, &format!("the end of {name}"), || {
            last = self.object(plural, name)?;
            Ok(is_final(&phase(&last)))
        })
        .with_context(|| last["status"].to_string())?;
        Ok(last)
    }

    /// Waits for a backup that must be Completed.
    pub(crate) fn completed(&self, name: &str) -> Result<Value> {
        let object = self.finished(name)?;
        ensure!(
            phase(&object) == "Completed",
            "{name}: {}",
            object["status"]
        );
        let succeeded = condition(&object, "Succeeded").context("the condition Succeeded")?;
        ensure!(
            succeeded["status"] == "True" && succeeded["reason"] == "Done",
            "{succeeded}"
        );
        ensure!(
            object["status"]["point"]["id"].is_string(),
            "no point: {object}"
        );
        // The finalizer goes with the look after the one that ended it.
        self.wait(FINALIZER_LIMIT, "end of the finalizer", || {
            let meta = &self.backup_object(name)?["metadata"];
            Ok(meta["finalizers"].as_array().is_none_or(Vec::is_empty))
        })?;
        Ok(object)
    }

    /// Waits until a backup is in one of these phases.
    pub(crate) fn wait_for_phase(&self, name: &str, phases: &[&str]) -> Result<String> {
        let mut now = String::new();
        self.wait(LIMIT, &format!("{name} to be {phases:?}"), || {
            now = phase(&self.backup_object(name)?);
            Ok(phases.contains(&now.as_str()))
        })
        .with_context(|| format!("is {now}"))?;
        Ok(now)
    }

    /// Asks for the end of a backup.
    pub(crate) fn cancel(&self, name: &str) -> Result<()> {
        let path = format!("{}/{name}", self.list("podvolumebackups"));
        self.api
            .merge(&path, &json!({"spec": {"cancel": true}}))
            .map(drop)
    }

    /// Restores a point with the command line and compares.
    pub(crate) fn assert_restores(&self, name: &str) -> Result<()> {
        let image = self.images.get(name).context("a copy was kept")?;
        let object = self.backup_object(name)?;
        let point = object["status"]["point"]["id"]
            .as_str()
            .context("a point")?;
        self.assert_point(point, image)
    }

    /// The same for a point by its id.
    pub(crate) fn assert_point(&self, point: &str, image: &Image) -> Result<()> {
        let target = self.scratch.join("restored.img");
        let _ = std::fs::remove_file(&target);
        self.repo.restore(point, &target, &[])?;
        image.assert_same(&target)?;
        Ok(std::fs::remove_file(&target)?)
    }

    /// Asks until the answer is yes. An API server that is away is asked again.
    pub(crate) fn wait(
        &self,
        limit: Duration,
        what: &str,
        mut enough: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            let answer = enough();
            match answer {
                Ok(true) => return Ok(()),
                Ok(false) if begin.elapsed() > limit => bail!("no {what} after {limit:?}"),
                Err(error) if begin.elapsed() > limit => return Err(error),
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Starts again what ended by itself, as a kubelet does: a controller ends where it loses its lease.
    pub(crate) fn restart_ended(&mut self) -> Result<()> {
        for name in self.product.dead() {
            self.product.stop(&name);
        }
        self.revive()
    }

    /// Starts what does not run of controller and agent.
    pub(crate) fn revive(&mut self) -> Result<()> {
        if self.product.process(CONTROLLER).is_none() {
            self.product.start_controller(CONTROLLER)?;
        }
        if self.product.process(&agent_name(NODE)).is_none() {
            self.product.start_agent(&self.cluster, NODE)?;
        }
        Ok(())
    }
}

/// What is swept and shown as metrics is soon seen.
fn options() -> ProductOptions {
    ProductOptions {
        controller: ["--sweep-every", "5s"].map(str::to_owned).to_vec(),
        ..ProductOptions::default()
    }
}

fn light_node(cluster: &Cluster, storage: &Storage, name: &str) -> Result<LightNode> {
    LightNode::start(NodeOptions {
        name: name.to_owned(),
        kubeconfig: cluster.kubeconfig().to_owned(),
        driver: NAME.to_owned(),
        driver_node: DRIVER_NODE.to_owned(),
        socket: storage.socket().to_owned(),
        kubelet: storage.driver.kubelet().join(format!("pods-{name}")),
        logs: cluster.folder().join("product/pods").join(name),
    })
}

/// The driver's service that tells what changed, as its sidecar would serve it.
fn metadata_service(cluster: &Cluster, storage: &Storage, api: &Api) -> Result<MetadataSidecar> {
    const AUDIENCE: &str = "snapshot-metadata.test";
    let sidecar = MetadataSidecar::start(cluster.kubeconfig(), storage.socket(), NAME, AUDIENCE)?;
    let authority = k8s_openapi::ByteString(sidecar.authority().as_bytes().to_vec());
    let service = json!({
        "apiVersion": "cbt.storage.k8s.io/v1beta1", "kind": "SnapshotMetadataService", "metadata": {"name": NAME},
        "spec": {"audience": AUDIENCE, "address": sidecar.address(), "caCert": authority},
    });
    api.create(
        "/apis/cbt.storage.k8s.io/v1beta1/snapshotmetadataservices",
        &service,
    )?;
    Ok(sidecar)
}

/// The phase, `New` where nobody has looked.
pub(crate) fn phase(object: &Value) -> String {
    object["status"]["phase"]
        .as_str()
        .unwrap_or("New")
        .to_owned()
}

pub(crate) fn is_final(phase: &str) -> bool {
    matches!(phase, "Completed" | "Failed" | "Canceled")
}

/// A condition by its type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|entry| entry["type"] == kind)
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}
