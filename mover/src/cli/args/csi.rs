//! Flags of `csi`, and those of volumes of CSI drivers in other commands.
//!
//! Owns: names and help. Must not: look at sockets.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::units;

const CSI_EXAMPLES: &str = "\
Examples:
  snaphaul csi info --csi-socket /var/lib/kubelet/plugins/rbd.csi.ceph.com/csi.sock
      what the driver can do, and what that means for backups
  snaphaul backup csi:VOLUME_ID --csi-socket PATH --repo /backup/vms
      snapshot, device, backup of what changed; one snapshot stays for the next time
  snaphaul csi release VOLUME_ID --csi-socket PATH
      removes that snapshot
  snaphaul restore NAME@latest csi:new --csi-socket PATH --repo /backup/vms
      to a new volume, whose id is printed";

/// Flags of `csi`.
#[derive(Args, Debug)]
#[command(after_help = CSI_EXAMPLES)]
pub struct CsiArgs {
    /// Which of the csi commands.
    #[command(subcommand)]
    pub command: CsiCommand,
}

/// The commands of `csi`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum CsiCommand {
    /// Print what a driver can do, and what that means for backups
    Info(CsiInfoArgs),
    /// Remove the snapshot that was kept for the next backup of a volume, and what runs that died left behind
    Release(CsiReleaseArgs),
}

/// Flags of `csi info`.
#[derive(Args, Debug)]
pub struct CsiInfoArgs {
    /// How the driver is reached.
    #[command(flatten)]
    pub driver: CsiDriverArgs,
}

/// Flags of `csi release`.
#[derive(Args, Debug)]
pub struct CsiReleaseArgs {
    /// What the driver calls the volume: the volumeHandle of its PersistentVolume; without it only what runs that died left
    /// behind goes
    pub volume_id: Option<String>,

    /// Every volume of the driver that a snapshot is kept of
    #[arg(long, conflicts_with = "volume_id")]
    pub all: bool,

    /// How the driver is reached.
    #[command(flatten)]
    pub driver: CsiDriverArgs,
}

/// How a driver is reached.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "CSI")]
pub struct CsiDriverArgs {
    /// Socket of the driver, e.g. `/var/lib/kubelet/plugins/NAME/csi.sock`
    #[arg(long, value_name = "PATH")]
    pub csi_socket: Option<PathBuf>,

    /// Socket of its node part, where that is another process
    #[arg(long, value_name = "PATH")]
    pub csi_node_socket: Option<PathBuf>,

    /// Secrets of the driver: a folder with one folder for each group of calls (provisioner, controller-publish, node-stage,
    /// node-publish, snapshotter, snapshotter-list), in which each file is a key; or from a cluster, k8s:NAMESPACE/NAME for one
    /// secret that every call gets, k8s-class:STORAGECLASS[/SNAPSHOTCLASS] for those that classes name
    #[arg(long, value_name = "DIR|k8s:…")]
    pub csi_secrets: Option<PathBuf>,

    /// What is known better of drivers than Snaphaul does, can be given several times: one field that `csi info` prints, e.g.
    /// baseSnapshot=drop, or a file in YAML or JSON with fields by the name of a driver, e.g.
    /// {rbd.csi.ceph.com: {baseSnapshot: drop}}
    #[arg(long, value_name = "NAME=VALUE|FILE")]
    pub csi_profile: Vec<PathBuf>,

    /// Where runs note what they make, so that the next one cleans up after one that died; default /var/lib/snaphaul
    #[arg(long, value_name = "DIR")]
    pub csi_state: Option<PathBuf>,

    /// How long one call may take before it is repeated
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = units::parse_duration)]
    pub csi_timeout: Duration,

    /// How long a step may take in all; default 10min until a snapshot is ready, 30min for any other
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub csi_deadline: Option<Duration>,
}

/// What volumes are made with.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "CSI")]
pub struct CsiVolumeArgs {
    /// Parameter for volumes that are made, as in a storage class; may be given several times
    #[arg(long = "csi-parameter", value_name = "KEY=VALUE")]
    pub csi_parameters: Vec<String>,

    /// The kubelet's folder as the driver sees it; devices appear below plugins/kubernetes.io/csi/snaphaul in there; default
    /// /var/lib/kubelet
    #[arg(long, value_name = "DIR")]
    pub kubelet_root: Option<PathBuf>,
}

/// What snapshots are made with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "CSI")]
pub struct CsiSnapshotArgs {
    /// Parameter for snapshots that are made, as in a snapshot class; may be given several times
    #[arg(long = "csi-snapshot-parameter", value_name = "KEY=VALUE")]
    pub csi_snapshot_parameters: Vec<String>,

    /// Whether the snapshot stays until the next backup, which then reads only what changed
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = KeepBaseFlag::Auto)]
    pub keep_base: KeepBaseFlag,
}

/// Values of `--keep-base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepBaseFlag {
    /// Where the driver needs it to tell what changed
    Auto,
    /// Never: each backup reads what is allocated
    Never,
}
