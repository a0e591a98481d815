//! Flags of `agent` and `hold`.
//!
//! Owns: names and help. Must not: look at clusters, sockets or devices.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::units;

const AGENT_NOTES: &str = "\
Runs in the agent's DaemonSet, as root without any capability: devices come from holder pods, open. --memory, --jobs and the --limit
flags count for all volumes of the node together; each slot needs 336MiB.

On SIGTERM running transfers end within --grace. What they stored stays, and the next attempt goes on from there.";

/// Flags of `agent`.
#[derive(Args, Debug)]
#[command(after_help = AGENT_NOTES)]
pub struct AgentArgs {
    /// Name of the node this runs on
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// Namespace of Snaphaul itself, which holds the secrets of repositories
    #[arg(
        long,
        env = "SNAPHAUL_NAMESPACE",
        value_name = "NAME",
        default_value = "snaphaul-system"
    )]
    pub namespace: String,

    /// Folder where the holders of this node put their sockets
    #[arg(long, value_name = "DIR", default_value = "/run/snaphaul")]
    pub holder_directory: PathBuf,

    /// Reach the service that tells what changed here instead of where its SnapshotMetadataService says; its certificate must still
    /// be for the name there
    #[arg(long, value_name = "HOST:PORT")]
    pub snapshot_metadata_address: Option<String>,

    /// Volumes that are moved at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub slots: u16,

    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9117")]
    pub listen: SocketAddr,

    /// Time for running transfers to end after SIGTERM; keep it below the pod's terminationGracePeriodSeconds
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = units::parse_duration)]
    pub grace: Duration,

    /// Time between two reports of progress
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub report_every: Duration,
}

/// What a device is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeFlag {
    /// A backup
    Read,
    /// A restore: nobody else may use the device meanwhile
    Write,
}

/// Flags of `hold`.
#[derive(Args, Debug)]
pub struct HoldArgs {
    /// The device
    #[arg(long, value_name = "DEVICE", default_value = "/dev/snaphaul")]
    pub device: PathBuf,

    /// Folder shared with the agent of the node, where the socket is put
    #[arg(long, value_name = "DIR", default_value = "/run/snaphaul")]
    pub directory: PathBuf,

    /// UID of the backup or restore that the device is for
    #[arg(long, env = "SNAPHAUL_OWNER", value_name = "UID")]
    pub owner: String,

    /// What the device is for
    #[arg(long, value_enum, value_name = "MODE", default_value_t = ModeFlag::Read)]
    pub mode: ModeFlag,

    /// Only ask the holder that runs with these flags whether its device can be opened: for readiness probes
    #[arg(long)]
    pub check: bool,
}
