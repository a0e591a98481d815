//! The flags as they are written on the command line, and their help.
//!
//! Owns: names, defaults and help texts of all flags (a contract; golden files in `mover/tests/golden/help`). Must not: look
//! at files, the environment (other than through clap) or the repository; `cli::config` gives the flags their meaning.

#[cfg(feature = "kubernetes")]
mod agent;
mod commands;
#[cfg(feature = "kubernetes")]
mod controller;
mod csi;
mod forget;
mod gc;
mod global;
mod keys;
#[cfg(feature = "kubernetes")]
mod seccomp;

use clap::{Parser, Subcommand};

#[cfg(feature = "kubernetes")]
pub use agent::{AgentArgs, HoldArgs, ModeFlag};
pub use commands::{
    BackupArgs, ChangedArgs, CompletionsArgs, CopyArgs, DemoArgs, DiffArgs, EngineFlag, InitArgs,
    LevelFlag, LockFlag, PointsArgs, RecoverArgs, RepairArgs, RestoreArgs, ShowArgs, VerifyArgs,
};
#[cfg(feature = "kubernetes")]
pub use controller::ControllerArgs;
pub use csi::{
    CsiArgs, CsiCommand, CsiDriverArgs, CsiInfoArgs, CsiReleaseArgs, CsiSnapshotArgs,
    CsiVolumeArgs, KeepBaseFlag,
};
pub use forget::{ForgetArgs, KeepArgs};
pub use gc::GcArgs;
pub use global::{RepositoryArgs, RunArgs};
pub use keys::{ExportArgs, KeyArgs, KeyCommand, NewSecretArgs, RemoveArgs};
#[cfg(feature = "kubernetes")]
pub use seccomp::SeccompArgs;

const OVERVIEW: &str = "\
First steps:
  snaphaul demo                                      see it work, with figures
  snaphaul init    --repo /backup/vms                make a repository
  snaphaul backup  disk.img --repo /backup/vms       take a point of a disk
  snaphaul backup  disk.img --repo /backup/vms       again: stores what changed
  snaphaul points  --repo /backup/vms                list the points
  snaphaul restore disk.img@latest new.img --repo /backup/vms

A POINT is an id from `snaphaul points`, the unique beginning of one, or NAME@latest for the newest point of a volume.

Exit codes:
   0  done
  64  correct the command: flags, names, keys, access, a refused source or target
  65  stored data is damaged
  69  a store, source or target failed: try again
  70  a bug of ours
  75  stopped by a signal: run again to resume";

/// Backs up block volumes fast, encrypted and verifiable, and restores any point directly
///
/// Snaphaul reads a disk image or block device, keeps only what changed since the last point, and stores it compressed and
/// encrypted in a directory or an S3 bucket. Every point restores on its own: no chain is replayed.
#[derive(Debug, Parser)]
#[command(
    name = "snaphaul",
    bin_name = "snaphaul",
    version,
    max_term_width = 120,
    after_help = OVERVIEW,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Which command.
    #[command(subcommand)]
    pub command: Command,
    /// Where the repository is and how it is opened.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// How the run behaves and reports.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a repository in a directory or bucket
    Init(InitArgs),
    /// Take a point of a disk image or block device
    Backup(BackupArgs),
    /// List the points of the repository
    Points(PointsArgs),
    /// Show everything that is recorded about one point
    Show(ShowArgs),
    /// List the byte ranges in which two points differ
    Diff(DiffArgs),
    /// List the byte ranges of a disk that hold data, or changed since another state of it
    Changed(ChangedArgs),
    /// Check that points can be restored
    Verify(VerifyArgs),
    /// Mend what can be mended without the source, and say what cannot
    Repair(RepairArgs),
    /// Write a point to a file, a block device or stdout
    Restore(RestoreArgs),
    /// Copy points into another repository, with other keys, in another kind of store
    Copy(CopyArgs),
    /// Give points up, by name or by a policy; gc frees their space
    Forget(ForgetArgs),
    /// Bring back what was deleted or overwritten in a bucket that keeps versions
    Recover(RecoverArgs),
    /// Free the space that only forgotten points and dead sessions use
    Gc(GcArgs),
    /// Manage the keys that open the repository
    Key(KeyArgs),
    /// Look at a CSI driver, and remove what backups of its volumes keep
    Csi(CsiArgs),
    /// Decide what happens to the backups and restores of a Kubernetes cluster
    #[cfg(feature = "kubernetes")]
    Controller(ControllerArgs),
    /// Move the data of backups and restores of one node of a Kubernetes cluster
    #[cfg(feature = "kubernetes")]
    Agent(AgentArgs),
    /// Hold a device for the agent of a node: what runs in the pod beside a volume
    #[cfg(feature = "kubernetes")]
    Hold(HoldArgs),
    /// Back up, change, back up again and restore a sample disk, and show the figures
    Demo(DemoArgs),
    /// Print the definitions of the custom resources, for `kubectl apply`
    #[cfg(feature = "kubernetes")]
    Crds,
    /// Print the seccomp profile of the agent, or lay it down where a kubelet looks
    #[cfg(feature = "kubernetes")]
    Seccomp(SeccompArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

impl Command {
    /// The name of the command as written, used as a metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(_) => "backup",
            Self::Points(_) => "points",
            Self::Show(_) => "show",
            Self::Diff(_) => "diff",
            Self::Changed(_) => "changed",
            Self::Verify(_) => "verify",
            Self::Repair(_) => "repair",
            Self::Restore(_) => "restore",
            Self::Copy(_) => "copy",
            Self::Forget(_) => "forget",
            Self::Recover(_) => "recover",
            Self::Gc(_) => "gc",
            Self::Key(_) => "key",
            Self::Csi(_) => "csi",
            #[cfg(feature = "kubernetes")]
            Self::Controller(_) => "controller",
            #[cfg(feature = "kubernetes")]
            Self::Agent(_) => "agent",
            #[cfg(feature = "kubernetes")]
            Self::Hold(_) => "hold",
            Self::Demo(_) => "demo",
            #[cfg(feature = "kubernetes")]
            Self::Crds => "crds",
            #[cfg(feature = "kubernetes")]
            Self::Seccomp(_) => "seccomp",
            Self::Completions(_) => "completions",
        }
    }

    /// Every command name.
    pub const NAMES: &'static [&'static str] = &[
        "init",
        "backup",
        "points",
        "show",
        "diff",
        "changed",
        "verify",
        "repair",
        "restore",
        "copy",
        "forget",
        "recover",
        "gc",
        "key",
        "csi",
        #[cfg(feature = "kubernetes")]
        "controller",
        #[cfg(feature = "kubernetes")]
        "agent",
        #[cfg(feature = "kubernetes")]
        "hold",
        "demo",
        #[cfg(feature = "kubernetes")]
        "crds",
        #[cfg(feature = "kubernetes")]
        "seccomp",
        "completions",
    ];
}

#[cfg(test)]
mod tests;
