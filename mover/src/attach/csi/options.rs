//! How a driver is reached and how long it may take.
//!
//! Owns: the options and the places that follow from them. Must not: look at files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::profile::Profiles;
use super::secrets::Secrets;

/// Where the kubelet, and every driver that it starts, look for volumes.
pub const DEFAULT_KUBELET_ROOT: &str = "/var/lib/kubelet";
/// Where runs note what they made, and which bases are kept. On a disk: both survive a boot.
pub const DEFAULT_STATE: &str = "/var/lib/snaphaul";
/// Below the kubelet's folder, in the one subtree besides its pods that drivers mount to share mounts with the host.
const OUR_PLACE: &str = "plugins/kubernetes.io/csi/snaphaul";

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// One try of one call.
    pub call: Duration,
    /// Until a snapshot is ready.
    pub snapshot: Duration,
    /// All tries of any other step: some drivers copy a whole volume.
    pub expose: Duration,
    /// From the answer of the driver to the device that it promised.
    pub device: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(60),
            snapshot: Duration::from_secs(600),
            expose: Duration::from_secs(1800),
            device: Duration::from_secs(30),
        }
    }
}

/// How a driver is reached, and what it is told beside ids.
#[derive(Clone, Debug)]
pub struct CsiOptions {
    /// Its socket.
    pub socket: PathBuf,
    /// The socket of its node part, where that is another process.
    pub node_socket: Option<PathBuf>,
    /// What it needs to be let in.
    pub secrets: Secrets,
    /// Parameters of volumes, as in a storage class.
    pub parameters: BTreeMap<String, String>,
    /// Parameters of snapshots, as in a snapshot class.
    pub snapshot_parameters: BTreeMap<String, String>,
    /// The kubelet's folder, as the driver sees it.
    pub kubelet_root: PathBuf,
    /// Where runs note what they made.
    pub state: PathBuf,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// What is known of drivers.
    pub profiles: Profiles,
}

impl CsiOptions {
    /// With every default.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            node_socket: None,
            secrets: Secrets::default(),
            parameters: BTreeMap::new(),
            snapshot_parameters: BTreeMap::new(),
            kubelet_root: PathBuf::from(DEFAULT_KUBELET_ROOT),
            state: PathBuf::from(DEFAULT_STATE),
            deadlines: Deadlines::default(),
            profiles: Profiles::default(),
        }
    }

    /// Where the devices of runs appear.
    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.kubelet_root.join(OUR_PLACE)
    }

    /// Where runs note what they made.
    #[must_use]
    pub fn journals(&self) -> PathBuf {
        self.state.join("csi/sessions")
    }

    /// Where the bases are noted.
    #[must_use]
    pub fn bases(&self) -> PathBuf {
        self.state.join("csi/bases")
    }

    /// Where runs hold the volumes that they work on.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.state.join("csi/locks")
    }
}
