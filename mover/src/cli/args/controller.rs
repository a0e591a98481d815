//! Flags of `controller`.
//!
//! Owns: names and help. Must not: look at clusters.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::cli::units;

const NOTES: &str = "\
Runs in the controller's Deployment. One process leads, others wait for its lease. It moves no data: agents do.

Everything that it decides is in the status and the events of the custom resources; kubectl describe shows why something waits.";

/// Flags of `controller`.
#[derive(Args, Debug)]
#[command(after_help = NOTES)]
pub struct ControllerArgs {
    /// Namespace of Snaphaul itself: secrets of repositories, agents, working copies
    #[arg(
        long,
        env = "SNAPHAUL_NAMESPACE",
        value_name = "NAME",
        default_value = "snaphaul-system"
    )]
    pub namespace: String,

    /// First part of the names of volumes in repositories; default the first 8 digits of the UID of the namespace kube-system
    #[arg(long, env = "SNAPHAUL_CLUSTER_ALIAS", value_name = "NAME")]
    pub cluster_alias: Option<String>,

    /// Name of this process in the lease; default the name of its pod or host, and its process id
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9117")]
    pub listen: SocketAddr,

    /// Image of the pods that open devices; default the image of the controller's own pod
    #[arg(long, env = "SNAPHAUL_IMAGE", value_name = "IMAGE")]
    pub holder_image: Option<String>,

    /// When that image is pulled: Always, IfNotPresent or Never
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"]
    )]
    pub holder_image_pull_policy: String,

    /// Folder on each node where holders put their sockets
    #[arg(long, value_name = "DIR", default_value = "/run/snaphaul")]
    pub holder_host_path: String,

    /// Priority class of the pods that open devices
    #[arg(long, value_name = "NAME")]
    pub holder_priority_class: Option<String>,

    /// Volumes that a node moves at once; one more is prepared. As the agents' --slots
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub slots_per_node: u16,

    /// Objects that are worked on at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// Time for a snapshot to become ready, and for what a backup names to exist
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = units::parse_duration, help_heading = "Deadlines")]
    pub snapshot_deadline: Duration,

    /// Time for a working copy to be made and its device to be opened
    #[arg(long, value_name = "TIME", default_value = "30min", value_parser = units::parse_duration, help_heading = "Deadlines")]
    pub expose_deadline: Duration,

    /// Time without any progress after which a transfer is stopped
    #[arg(long, value_name = "TIME", default_value = "15min", value_parser = units::parse_duration, help_heading = "Deadlines")]
    pub progress_deadline: Duration,

    /// Time without a ready agent after which another node takes over
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = units::parse_duration, help_heading = "Deadlines")]
    pub agent_deadline: Duration,

    /// Time for everything temporary to be removed; a backup or restore ends then, says what is left, and the search for objects without an owner goes on
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::parse_duration, help_heading = "Deadlines")]
    pub clean_deadline: Duration,

    /// Age at which a base snapshot is deleted; the next backup of its volume reads everything that is allocated
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = units::parse_duration)]
    pub base_max_age: Duration,

    /// Time between two searches for objects without an owner
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = units::parse_duration)]
    pub sweep_every: Duration,

    /// Time between two looks at a repository that is ready
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = units::parse_duration)]
    pub repository_every: Duration,

    /// Time after which another process takes the lead if this one is silent
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = units::parse_duration)]
    pub lease: Duration,

    /// ConfigMap in that namespace with what differs from the built-in driver profiles
    #[arg(long, value_name = "NAME", default_value = "snaphaul-driver-profiles")]
    pub driver_profiles: String,

    /// Whether repositories are cleaned and verified as their spec.maintenance says. --limit-upload and --limit-download hold for that
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub maintenance: bool,

    /// Whether there are metrics of each volume
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub per_volume_metrics: bool,
}
