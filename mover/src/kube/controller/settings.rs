//! How a controller behaves.
//!
//! Owns: the values, with their defaults. Must not: read flags (`cli::controller` does).

use std::net::SocketAddr;
use std::time::Duration;

use super::holder::HolderSettings;
use crate::kube::access::Bandwidth;

/// Everything that flags decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The namespace of controller, agents, secrets and intermediates.
    pub namespace: String,
    /// First part of every volume's name; without it the beginning of the cluster's UID.
    pub cluster_alias: Option<String>,
    /// Name of this process in the lease.
    pub identity: String,
    /// The controller's own pod, where it runs in one.
    pub pod: Option<String>,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// What holders have in common.
    pub holder: HolderSettings,
    /// Volumes that a node's agent moves at once.
    pub slots_per_node: usize,
    /// Objects that are worked on at once.
    pub workers: usize,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// Age at which a base snapshot is given up.
    pub base_max_age: Duration,
    /// Time between two sweeps.
    pub sweep_every: Duration,
    /// Time between two looks at a repository that is ready.
    pub repository_every: Duration,
    /// For how long a lease is valid without being renewed.
    pub lease: Duration,
    /// Whether repositories are collected and verified.
    pub maintains: bool,
    /// Bandwidth of that.
    pub maintenance_bandwidth: Bandwidth,
    /// Whether there are metrics of each volume.
    pub per_volume_metrics: bool,
    /// Name of the ConfigMap with driver profiles in the system namespace.
    pub profiles_config_map: String,
}

/// How long things may take before they count as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the order of a snapshot until it is ready; also for what must exist before.
    pub snapshot: Duration,
    /// From the first object of a working copy until its device is open.
    pub expose: Duration,
    /// Without a byte being moved.
    pub no_progress: Duration,
    /// Until something that was named and does not exist counts as a mistake.
    pub not_found: Duration,
    /// An agent's pod may be away so long before its work goes elsewhere.
    pub agent_lost: Duration,
    /// For an agent to stop when asked to.
    pub stop: Duration,
    /// For everything temporary to be removed after the verdict; what is left then is named, and left to the sweep.
    pub clean: Duration,
    /// A repository may be unreachable so long before a deletion that needs it goes on without.
    pub unreachable: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            snapshot: minutes(10),
            expose: minutes(30),
            no_progress: minutes(15),
            not_found: Duration::from_secs(30),
            agent_lost: minutes(1),
            stop: minutes(2),
            clean: minutes(60),
            unreachable: minutes(10),
        }
    }
}
