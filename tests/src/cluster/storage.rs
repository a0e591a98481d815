//! The storage of a cluster: the CSI driver of our own on this machine, behind the real sidecars of kubernetes-csi.
//!
//! Owns: the driver, its sidecars, and the objects that an administrator makes for a driver. Must not: provision anything itself.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Cluster;
use super::api::Api;
use super::sidecars::{Sidecars, test_classes};
use crate::csi::Plugin as _;
use crate::csi_driver::NAME;
use crate::csi_driver::options::Options;
use crate::test_driver::TestDriver;

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
    sidecars: Option<Sidecars>,
    /// The driver.
    pub driver: TestDriver,
}

impl Storage {
    /// Starts the driver with these options, and its sidecars. The cluster must have the snapshot controller.
    ///
    /// # Errors
    /// Where a program is missing or the API server refuses an object.
    pub fn start(cluster: &Cluster, change: impl FnOnce(&mut Options)) -> Result<Self> {
        Self::serve(cluster, TestDriver::start(change)?)
    }

    /// The same on a node with a kubelet, whose pods get the volumes.
    ///
    /// # Errors
    /// As [`Self::start`], or where the node is down.
    pub fn start_on_node(
        cluster: &Cluster,
        node: &str,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        let pid = cluster.node(node)?.pid()?;
        Self::serve(cluster, TestDriver::start_on_node(pid, change)?)
    }

    /// Starts the driver again after its node came up anew; its sidecars have ended with their connection to it.
    ///
    /// # Errors
    /// Where a program does not come up.
    pub fn restart_on_node(&mut self, cluster: &Cluster, node: &str) -> Result<()> {
        self.stop_sidecars();
        self.driver.restart_on_node(cluster.node(node)?.pid()?)?;
        self.start_sidecars(cluster)
    }

    fn serve(cluster: &Cluster, driver: TestDriver) -> Result<Self> {
        install(cluster, driver.options().attach)?;
        let mut storage = Self {
            sidecars: None,
            driver,
        };
        storage.start_sidecars(cluster)?;
        Ok(storage)
    }

    /// Stops every sidecar: nothing is provisioned or snapshotted from now on.
    pub fn stop_sidecars(&mut self) {
        self.sidecars = None;
    }

    /// Starts them after [`Self::stop_sidecars`].
    ///
    /// # Errors
    /// Where one is missing or ends at once.
    pub fn start_sidecars(&mut self, cluster: &Cluster) -> Result<()> {
        self.sidecars = Some(Sidecars::start(cluster, self.driver.socket())?);
        Ok(())
    }

    /// The driver's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.driver.socket()
    }
}

/// What an administrator makes for a driver.
fn install(cluster: &Cluster, attach: bool) -> Result<()> {
    let api = Api::connect(cluster.kubeconfig())?;
    // Whether volumes are attached cannot be changed afterwards.
    api.delete(&format!("/apis/storage.k8s.io/v1/csidrivers/{NAME}"))?;
    cluster.apply(&test_classes(attach))?;
    let late = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": LATE_CLASS},
        "provisioner": NAME, "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
    });
    api.create_once("/apis/storage.k8s.io/v1/storageclasses", &late)
}
