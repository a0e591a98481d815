//! The cluster, the product in it as pods, a bucket, and the pod of a user with a volume.
//!
//! Owns: what the cases have in common, and counting what is left. Must not: break anything by itself.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::bucket::Bucket;
use tests::cluster::api::{Api, in_namespace};
use tests::cluster::deployment::{self, DeploymentOptions};
use tests::cluster::examples;
use tests::cluster::kubectl::Kubectl;
use tests::cluster::leftovers::Holdings;
use tests::cluster::storage::Storage;
use tests::cluster::{Cluster, Parts};
use tests::csi_driver::NAME;
use tests::metadata_sidecar::MetadataSidecar;
use tests::minio::MinIo;
use tests::part;
use tests::repo::{Repo, Secret};
use tests::scratch::Scratch;
use tests::server::S3Server as _;

pub(crate) const NODE: &str = "node-1";
/// The namespace, claim and repository of the examples.
pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const CLAIM: &str = "database";
/// Longest for a backup or restore here; seen are 5 to 20 s on an idle 2-core machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);
/// How long what served a backup may take to be gone: detaching goes through three programs.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
/// Slow enough for a transfer of 96 MiB to be met in its middle.
const UPLOAD: &str = "--limit-upload=8MB/s";
const GROUP: &str = "/apis/snaphaul.dev/v1alpha1";

/// In the order in which they end.
pub(crate) struct Site {
    _metadata: MetadataSidecar,
    pub(crate) storage: Storage,
    pub(crate) api: Api,
    /// Somebody who has what the examples give, and the role `edit` in the namespace.
    pub(crate) developer: Kubectl,
    pub(crate) cluster: Cluster,
    pub(crate) repo: Repo,
    _bucket: MinIo,
    before: Holdings,
    mounts: Vec<String>,
    pub(crate) scratch: Scratch,
}

impl Site {
    pub(crate) fn start() -> Result<Self> {
        let scratch = Scratch::new("in-kubelet")?;
        let bucket = MinIo::start()?;
        let cluster = Cluster::start(Parts::WHOLE)?;
        let storage = Storage::start_on_node(&cluster, NODE, |options| options.attach = true)?;
        let options = DeploymentOptions {
            agent: [UPLOAD, "--report-every=1s"].map(str::to_owned).to_vec(),
            ..DeploymentOptions::default()
        };
        deployment::install(&cluster, &[NODE], &options)?;
        let api = Api::connect(cluster.kubeconfig())?;
        let metadata = metadata_service(&cluster, &storage, &api)?;
        let repo = repository(&cluster, &bucket, &scratch)?;
        let developer = developer(&cluster)?;
        user(&cluster)?;
        let before = Holdings::now(&api, &storage)?;
        let mounts = cluster.node(NODE)?.mounts()?;
        Ok(Self {
            _metadata: metadata,
            storage,
            api,
            developer,
            cluster,
            repo,
            _bucket: bucket,
            before,
            mounts,
            scratch,
        })
    }

    /// Runs a script in the user's pod.
    pub(crate) fn exec(&self, pod: &str, script: &str) -> Result<String> {
        self.cluster.kubectl(&[
            "exec",
            pod,
            "--namespace",
            NAMESPACE,
            "--",
            "sh",
            "-c",
            script,
        ])
    }

    /// The user's pod writes noise over `mib` MiB of its volume, from `at` on; gives the hash of all of it.
    pub(crate) fn write(&self, at: u32, mib: u32) -> Result<String> {
        self.exec(
            "app",
            &format!("dd if=/dev/urandom of=/dev/data bs=1M seek={at} count={mib} conv=notrunc,fsync 2>&1"),
        )?;
        self.hash("app")
    }

    /// The hash of the volume that a pod has.
    pub(crate) fn hash(&self, pod: &str) -> Result<String> {
        let said = self.exec(pod, "sha256sum /dev/data")?;
        Ok(said.split(' ').next().context("a hash")?.to_owned())
    }

    /// Asks for a backup of the user's claim, as a developer.
    pub(crate) fn backup(&self, name: &str) -> Result<()> {
        let text = examples::filled("04-backup.yaml", &[("database-1", name)])?;
        self.developer.apply(&text).map(drop)
    }

    /// A resource of ours as it is now.
    pub(crate) fn object(&self, kind: &str, name: &str) -> Result<Value> {
        let path = format!("{}/{name}", in_namespace(GROUP, NAMESPACE, kind));
        self.api
            .get(&path)?
            .with_context(|| format!("{name} exists"))
    }

    /// Waits until a resource of ours is as it shall be. An API server that is away is asked again.
    pub(crate) fn wait_for(
        &self,
        kind: &str,
        name: &str,
        mut enough: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let object = self.object(kind, name);
            match object {
                Ok(object) if enough(&object) => return Ok(object),
                Ok(object) if begin.elapsed() > LIMIT => {
                    bail!("{name} after {LIMIT:?}: {}", object["status"])
                }
                Err(error) if begin.elapsed() > LIMIT => return Err(error),
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Waits until the agent has moved some of the data, and not all.
    pub(crate) fn wait_for_the_middle(&self, name: &str) -> Result<()> {
        let object = self.wait_for("podvolumebackups", name, |object| {
            is_final(object) || object["status"]["progress"]["bytesDone"].as_i64() > Some(0)
        })?;
        ensure!(!is_final(&object), "too quick: {}", object["status"]);
        Ok(())
    }

    /// Waits for the end of a backup, which must be a good one, and restores it with the command line.
    pub(crate) fn completed(&self, name: &str, hash: &str) -> Result<Value> {
        let object = self.wait_for("podvolumebackups", name, is_final)?;
        let status = &object["status"];
        ensure!(status["phase"] == "Completed", "{status}");
        ensure!(status["node"] == NODE, "{status}");
        let point = status["point"]["id"].as_str().context("a point")?;
        let target = self.scratch.join("restored.img");
        self.repo.restore(point, &target, &[])?;
        let restored = sha256(&target)?;
        std::fs::remove_file(&target)?;
        ensure!(restored == hash, "{name} restores to other bytes");
        Ok(object)
    }

    /// Fails where anything but bases is left of the work.
    pub(crate) fn nothing_left(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let left = self.left();
            match left {
                Ok(left) if left.is_empty() => return Ok(()),
                Ok(left) if begin.elapsed() > SETTLE_LIMIT => bail!("left: {left:#?}"),
                Err(error) if begin.elapsed() > SETTLE_LIMIT => return Err(error),
                _ => std::thread::sleep(POLL),
            }
        }
    }

    fn left(&self) -> Result<Vec<String>> {
        let mut left = Holdings::now(&self.api, &self.storage)?.since(&self.before);
        // Pods of the product have successors with other names, and their own mounts.
        left.retain(|line| !line.starts_with("pod snaphaul-system/snaphaul-controller-"));
        left.retain(|line| !line.starts_with("pod snaphaul-system/snaphaul-agent-"));
        let mounts = self.cluster.node(NODE)?.mounts()?;
        let of_drivers = mounts.into_iter().filter(|mount| mount.contains("csi"));
        left.extend(of_drivers.filter(|mount| !self.mounts.contains(mount)));
        Ok(left)
    }

    /// What is known, for the message of a failure.
    pub(crate) fn diagnosis(&self) -> String {
        let objects = self.cluster.kubectl(&[
            "get",
            "snapshotrepositories,podvolumebackups.snaphaul.dev,podvolumerestores.snaphaul.dev",
            "--all-namespaces",
            "--output=wide",
        ]);
        format!(
            "{}\n{}",
            objects.unwrap_or_default(),
            deployment::diagnosis(&self.cluster)
        )
    }
}

/// Whether nothing will come any more.
pub(crate) fn is_final(object: &Value) -> bool {
    let phase = object["status"]["phase"].as_str();
    matches!(phase, Some("Completed" | "Failed" | "Canceled"))
}

/// A pod of the namespace that has a claim as `/dev/data`.
pub(crate) fn pod_with(name: &str, claim: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "hostNetwork": true, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": "snaphaul.dev/busybox:rig", "imagePullPolicy": "Never",
                "volumeDevices": [{"name": "data", "devicePath": "/dev/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    })
    .to_string()
}

/// Waits until a pod of the namespace runs.
pub(crate) fn wait_for_pod(cluster: &Cluster, name: &str) -> Result<()> {
    let words = [
        "get",
        "pod",
        name,
        "--namespace",
        NAMESPACE,
        "--output=jsonpath={.status.phase}",
    ];
    cluster
        .wait_for(LIMIT, &words, |phase| phase == "Running")
        .map(drop)
}

fn sha256(file: &Path) -> Result<String> {
    let said = part::run(Command::new("sha256sum").arg(file))?;
    Ok(said.split(' ').next().context("a hash")?.to_owned())
}

/// The repository of the examples, and the command line's view of it.
fn repository(cluster: &Cluster, server: &MinIo, scratch: &Scratch) -> Result<Repo> {
    let endpoint = server.endpoint();
    examples::repository(cluster, endpoint)?;
    let words = scratch.join("passphrase");
    std::fs::write(&words, examples::PASSPHRASE)?;
    let bucket = Bucket::new(endpoint, examples::BUCKET);
    let repo = Repo::bucket(&bucket, examples::PREFIX, scratch.path())?;
    Ok(repo.with_secret(Secret::PassphraseFile(words)))
}

/// The namespace and the rights of the examples, and somebody who has them.
fn developer(cluster: &Cluster) -> Result<Kubectl> {
    cluster.apply(&examples::text("03-permission.yaml")?)?;
    let edit = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "developers-edit", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "shop-developers"}],
    });
    cluster.apply(&edit.to_string())?;
    let kubeconfig = cluster.user_kubeconfig("ann", &["shop-developers"])?;
    Ok(cluster.kubectl_as(&kubeconfig))
}

/// The claim of the examples, and a pod that has it all the time.
fn user(cluster: &Cluster) -> Result<()> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": "test",
            "resources": {"requests": {"storage": "384Mi"}},
        },
    });
    cluster.apply(&claim.to_string())?;
    cluster.apply(&pod_with("app", CLAIM))?;
    wait_for_pod(cluster, "app")
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
