//! A cluster, a driver with two snapshots of a volume, the objects that stand for them, and the service in front.
//!
//! Owns: all of it. Must not: know what an answer should be.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use changed_blocks::csi::{CsiOptions, CsiSnapshot, CsiSource, DriverMetadata, MetadataService};
use changed_blocks::{Base, ChangedBlocks, Extent};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use mover::attach::csi::profile::Profile;
use mover::kube::changed_blocks::tokens::Account;
use mover::kube::changed_blocks::{self as service, ClusterBlocks, Found, Options, Subject};
use serde_json::json;
use tests::cluster::{Cluster, Parts};
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::Client as Driver;
use tests::csi_driver::NAME;
use tests::metadata_sidecar::MetadataSidecar;
use tests::metadata_sidecar::real::RealSidecar;
use tests::test_driver::TestDriver;
use tokio::runtime::Runtime;

pub(crate) const DRIVER: &str = NAME;
pub(crate) const AUDIENCE: &str = "changed-blocks";
pub(crate) const NAMESPACE: &str = "blocks";
const SIZE: u64 = 8 << 20;
/// Every other of these is written: more ranges than fit two messages.
const STEP: u64 = 64 << 10;

pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) sidecar: MetadataSidecar,
    pub(crate) runtime: Runtime,
    pub(crate) base: String,
    pub(crate) target: String,
    volume: String,
    client: Driver,
    driver: TestDriver,
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let driver = TestDriver::start(|options| options.odd_handles = true)?;
        let client = driver.client()?;
        let made = client.create_volume("source", SIZE, None)?;
        let writer = Attached::block(&driver, "writer", &made)?;
        let device = File::options().write(true).open(writer.path())?;
        device.write_all_at(&[1; 4096], 12288)?;
        device.sync_all()?;
        let base = client.create_snapshot("base", &made.volume_id)?;
        for at in (0..SIZE).step_by(usize::try_from(STEP)?) {
            device.write_all_at(&[2; 8192], at)?;
        }
        device.sync_all()?;
        drop(device);
        let target = client.create_snapshot("target", &made.volume_id)?;
        writer.detach()?;

        let cluster = Cluster::start(Parts::default())?;
        cluster.namespace(NAMESPACE, &[])?;
        let kubeconfig = cluster.kubeconfig();
        let sidecar = MetadataSidecar::start(kubeconfig, driver.socket(), DRIVER, AUDIENCE)?;
        let bench = Self {
            cluster,
            sidecar,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?,
            base: base.snapshot_id,
            target: target.snapshot_id,
            volume: made.volume_id,
            client,
            driver,
        };
        bench.account("agent")?;
        bench.allow("agent")?;
        bench.service(
            AUDIENCE,
            bench.sidecar.authority(),
            &bench.sidecar.address(),
        )?;
        bench.snapshot_object("target", &bench.target, true)?;
        Ok(bench)
    }

    /// The real sidecar in front of the same driver. It wants a default class, by which it finds the driver's secrets.
    pub(crate) fn real_sidecar(&self, program: &Path) -> Result<RealSidecar> {
        self.apply(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": {"name": "default", "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"}},
            "driver": DRIVER, "deletionPolicy": "Retain",
        }))?;
        let kubeconfig = self.cluster.kubeconfig();
        RealSidecar::start(program, kubeconfig, self.driver.socket(), AUDIENCE)
    }

    /// A service account without any right.
    pub(crate) fn account(&self, name: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": NAMESPACE},
        }))
    }

    /// The rights of an agent.
    pub(crate) fn allow(&self, name: &str) -> Result<()> {
        self.allow_cluster(name)?;
        self.allow_here(name, "snapshots", &json!({
            "apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"], "verbs": ["get"],
        }))?;
        self.allow_here(name, "tokens", &json!({
            "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [name], "verbs": ["create"],
        }))
    }

    /// May read which service there is.
    pub(crate) fn allow_cluster(&self, name: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "reads-services"},
            "rules": [{"apiGroups": ["cbt.storage.k8s.io"], "resources": ["snapshotmetadataservices"], "verbs": ["get"]}],
        }))?;
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{name}-services")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reads-services"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }))
    }

    /// One rule more, in the namespace.
    pub(crate) fn allow_here(
        &self,
        name: &str,
        what: &str,
        rule: &serde_json::Value,
    ) -> Result<()> {
        let role = format!("{name}-{what}");
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": role, "namespace": NAMESPACE}, "rules": [rule],
        }))?;
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }))
    }

    /// The object that says where the service is.
    pub(crate) fn service(&self, audience: &str, authority: &str, address: &str) -> Result<()> {
        self.service_in("v1beta1", audience, authority, address)
    }

    pub(crate) fn service_in(
        &self,
        version: &str,
        audience: &str,
        authority: &str,
        address: &str,
    ) -> Result<()> {
        let authority = k8s_openapi::ByteString(authority.as_bytes().to_vec());
        self.apply(&json!({
            "apiVersion": format!("cbt.storage.k8s.io/{version}"), "kind": "SnapshotMetadataService",
            "metadata": {"name": DRIVER},
            "spec": {"audience": audience, "address": address, "caCert": authority},
        }))
    }

    /// As it is for the other cases.
    pub(crate) fn good_service(&self) -> Result<()> {
        self.service(AUDIENCE, self.sidecar.authority(), &self.sidecar.address())
    }

    /// The pair of objects that stands for a snapshot.
    pub(crate) fn snapshot_object(&self, name: &str, handle: &str, ready: bool) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": name},
            "spec": {
                "driver": DRIVER, "deletionPolicy": "Retain", "source": {"snapshotHandle": handle},
                "volumeSnapshotRef": {"name": name, "namespace": NAMESPACE},
            },
        }))?;
        self.apply(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"source": {"volumeSnapshotContentName": name}},
        }))?;
        let content = json!({"status": {"snapshotHandle": handle, "readyToUse": ready}});
        self.status("volumesnapshotcontent", name, &content)?;
        let snapshot =
            json!({"status": {"boundVolumeSnapshotContentName": name, "readyToUse": ready}});
        self.status("volumesnapshot", name, &snapshot)
    }

    fn status(&self, kind: &str, name: &str, patch: &serde_json::Value) -> Result<()> {
        let patch = format!("--patch={patch}");
        let mut args = vec![
            "patch",
            kind,
            name,
            "--subresource=status",
            "--type=merge",
            &patch,
        ];
        args.extend(["--namespace", NAMESPACE]);
        self.cluster.kubectl(&args).map(drop)
    }

    pub(crate) fn apply(&self, object: &serde_json::Value) -> Result<()> {
        self.cluster.apply(&object.to_string()).map(drop)
    }

    /// The API server, as this service account.
    pub(crate) fn client_of(&self, name: &str) -> Result<Client> {
        self.client(&self.cluster.service_account_kubeconfig(NAMESPACE, name)?)
    }

    /// The API server, as the administrator.
    pub(crate) fn administrator(&self) -> Result<Client> {
        self.client(&PathBuf::from(self.cluster.kubeconfig()))
    }

    fn client(&self, kubeconfig: &Path) -> Result<Client> {
        self.runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig)?;
            let config =
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            Ok(Client::try_from(config)?)
        })
    }

    pub(crate) fn subject(&self, name: &str) -> Subject {
        Subject {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            driver: DRIVER.to_owned(),
            driver_version: None,
            volume_handle: self.volume.clone(),
            snapshot_handle: self.target.clone(),
        }
    }

    pub(crate) fn find(&self, client: &Client, name: &str) -> mover::Result<Found> {
        self.find_as(client, name, None)
    }

    pub(crate) fn find_as(
        &self,
        client: &Client,
        name: &str,
        account: Option<&str>,
    ) -> mover::Result<Found> {
        let options = Options {
            account: account.map(|name| Account {
                namespace: NAMESPACE.to_owned(),
                name: name.to_owned(),
            }),
            address: None,
        };
        let (subject, profile) = (self.subject(name), Profile::of(DRIVER));
        let found = service::find(client, &subject, &profile, &options);
        self.runtime.block_on(found)
    }

    /// The service, which must be there.
    pub(crate) fn blocks(&self, client: &Client) -> Result<Box<ClusterBlocks>> {
        match self.find(client, "target")? {
            Found::Service(blocks) => Ok(blocks),
            Found::Absent(reason) => Err(anyhow!("no service: {reason}")),
        }
    }

    /// What changed between both snapshots.
    pub(crate) fn delta(&self, blocks: ClusterBlocks) -> Result<Vec<Extent>> {
        let handle = self.runtime.handle().clone();
        self.told(blocks.source(SIZE, handle), true)
    }

    /// What the target holds.
    pub(crate) fn allocated(&self, blocks: ClusterBlocks) -> Result<Vec<Extent>> {
        let handle = self.runtime.handle().clone();
        self.told(blocks.source(SIZE, handle), false)
    }

    /// The same by the driver's own socket.
    pub(crate) fn by_socket(&self, is_delta: bool) -> Result<Vec<Extent>> {
        let channel = self.client.channel();
        let service = DriverMetadata::new(channel, &self.target, std::collections::BTreeMap::new());
        let handle = self.runtime.handle().clone();
        let snapshot = CsiSnapshot::new(DRIVER, &self.volume, &self.target);
        self.told(CsiSource::new(service, snapshot, SIZE, handle), is_delta)
    }

    fn told<S: MetadataService>(
        &self,
        source: CsiSource<S>,
        is_delta: bool,
    ) -> Result<Vec<Extent>> {
        let mut source = source.with_options(CsiOptions {
            max_results: 10,
            back_off: std::time::Duration::from_millis(10),
            ..CsiOptions::default()
        });
        let mut told = Vec::new();
        let mut sink = |extent| {
            told.push(extent);
            true
        };
        if is_delta {
            let record = CsiSnapshot::new(DRIVER, &self.volume, &self.base).identity();
            source
                .bind(&Base {
                    record: &record,
                    point: "parent",
                    named: None,
                })
                .context("bind")?;
            source.delta(&mut sink)?;
        } else {
            source.allocated(&mut sink)?;
        }
        Ok(told)
    }
}
