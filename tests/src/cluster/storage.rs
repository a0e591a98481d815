//! The storage of a cluster: the CSI driver of our own behind the real sidecars of kubernetes-csi.
//!
//! ```text
//!   claims ──► csi-provisioner ──┐
//!   VolumeSnapshots ──► snapshot-controller ──► contents ──► csi-snapshotter ──┼──► csi-test-driver
//!   VolumeAttachments ──► csi-attacher (where asked for) ──┘
//! ```
//!
//! Owns: the driver, the sidecars, and the objects that an administrator makes for a driver. Must not: provision anything itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use super::Cluster;
use super::api::Api;
use crate::csi::Plugin as _;
use crate::csi_driver::options::Options;
use crate::part;
use crate::process::Process;
use crate::test_driver::TestDriver;

/// Name of the driver.
pub const DRIVER: &str = "csi.test.snaphaul.dev";
/// The id that the driver gives its node.
pub const DRIVER_NODE: &str = "node-1";
/// The storage class whose claims are bound at once. Also the name of the only snapshot class.
pub const CLASS: &str = "test";
/// The storage class whose claims wait for a pod.
pub const LATE_CLASS: &str = "test-late";

/// The driver and what stands between it and the API server; dropping it stops the sidecars first.
#[derive(Debug)]
pub struct Storage {
    // In the order in which they end.
    sidecars: Vec<(&'static str, Process)>,
    logs: PathBuf,
    kubeconfig: PathBuf,
    /// The driver.
    pub driver: TestDriver,
}

impl Storage {
    /// Starts the driver with these options, and its sidecars.
    ///
    /// # Errors
    /// Where a program is missing or the API server refuses an object.
    pub fn start(cluster: &Cluster, change: impl FnOnce(&mut Options)) -> Result<Self> {
        let driver = TestDriver::start(change)?;
        let attach = driver.options().attach;
        install(&Api::connect(cluster.kubeconfig())?, attach)?;
        let mut storage = Self {
            sidecars: Vec::new(),
            logs: cluster.folder().join("logs"),
            kubeconfig: cluster.kubeconfig().to_owned(),
            driver,
        };
        storage.start_sidecars()?;
        Ok(storage)
    }

    /// Stops every sidecar: nothing is provisioned or snapshotted from now on.
    pub fn stop_sidecars(&mut self) {
        self.sidecars.clear();
    }

    /// Starts those that do not run.
    ///
    /// # Errors
    /// Where one is missing or ends at once.
    pub fn start_sidecars(&mut self) -> Result<()> {
        let socket = format!("--csi-address={}", self.driver.socket().display());
        let retry = "--retry-interval-start=200ms".to_owned();
        let mut wanted = vec![
            ("snapshot-controller", vec![]),
            ("csi-snapshotter", vec![socket.clone(), retry.clone()]),
            ("csi-provisioner", vec![socket.clone(), retry.clone()]),
        ];
        if self.driver.options().attach {
            wanted.push(("csi-attacher", vec![socket, retry]));
        }
        for (name, args) in wanted {
            if self.sidecars.iter().all(|(running, _)| *running != name) {
                self.sidecars.push((name, self.start_one(name, args)?));
            }
        }
        Ok(())
    }

    fn start_one(&self, name: &str, mut args: Vec<String>) -> Result<Process> {
        args.push(format!("--kubeconfig={}", self.kubeconfig.display()));
        let log = self.logs.join(format!("{name}.log"));
        let process = Process::start(&program(name)?, &args, &[], &log)?;
        // None of them says when it is ready; one that cannot start ends.
        std::thread::sleep(Duration::from_millis(200));
        if process.has_ended() {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("{name} ended at once:\n{text}");
        }
        Ok(process)
    }

    /// The log of a sidecar.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The driver's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.driver.socket()
    }
}

fn program(name: &str) -> Result<PathBuf> {
    let path = part::cache().join("bin").join(name);
    if !path.is_file() {
        bail!(
            "{name} is missing at {}: run `tests/run`, which builds it",
            path.display()
        );
    }
    Ok(path)
}

/// What an administrator makes for a driver.
fn install(api: &Api, attach: bool) -> Result<()> {
    let driver = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER},
        "spec": {"attachRequired": attach, "podInfoOnMount": false, "volumeLifecycleModes": ["Persistent"]},
    });
    api.create_once("/apis/storage.k8s.io/v1/csidrivers", &driver)?;
    for (name, mode) in [(CLASS, "Immediate"), (LATE_CLASS, "WaitForFirstConsumer")] {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": DRIVER, "volumeBindingMode": mode, "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
        });
        api.create_once("/apis/storage.k8s.io/v1/storageclasses", &class)?;
    }
    let snapshots = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": CLASS},
        "driver": DRIVER, "deletionPolicy": "Delete",
    });
    api.create_once(
        "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses",
        &snapshots,
    )
}
