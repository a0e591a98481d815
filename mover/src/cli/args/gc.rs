//! Flags of `gc`.
//!
//! Owns: that struct and its help. Must not: resolve anything.

use std::time::Duration;

use clap::Args;

use crate::cli::units;
use crate::repository::ids::SessionId;

const GC_EXAMPLES: &str = "\
Examples:
  snaphaul gc --dry-run --repo /backup/vms
      what would be deleted, rewritten and freed; nothing is written
  snaphaul gc --repo /backup/vms
      after `snaphaul forget`: frees what only forgotten points used
  snaphaul gc --abort 8f0c1d0c2b7e4a5f9d3e6b1a0c4d7e2f --repo s3://backups/vms
      also gives up this unfinished session, whose process you know to be dead

Needs no quiet hour and takes no lock: backups, restores and other collectors go on meanwhile, on this and other machines. It may be
killed at any moment and run again. It works on a store that is full.

What an unfinished session uses is kept. A backup that was killed is kept until it was silent for --fence-after, so that the next
backup of its volume resumes; one that is only slow and gets fenced by mistake fails at its commit and must be run again. Data is
never lost by a wrong guess. On a store without create-only writes nothing is fenced by itself: use --abort.";

/// Flags of `gc`.
#[derive(Args, Debug)]
#[command(after_help = GC_EXAMPLES)]
pub struct GcArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Give up unfinished backups that were silent this long by the store's clock, readers after seven times as long; never those of
    /// a process that runs on this machine
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = units::parse_duration)]
    pub fence_after: Duration,

    /// Give up this unfinished session now; its process MUST be dead. May be given several times
    #[arg(long, value_name = "SESSION", value_parser = parse_session)]
    pub abort: Vec<SessionId>,

    /// Do not rewrite segments that are only partly dead: frees less, and reads and writes no data
    #[arg(long)]
    pub no_rewrite: bool,

    /// Rewrite every segment of which a twentieth is dead, even where that writes more than it frees: after a rare, big cleanup of
    /// volumes that change little. Reads and writes most of what the repository holds
    #[arg(long, conflicts_with = "no_rewrite")]
    pub thorough: bool,

    /// Run on another host than the one that made a repository on NFS, SMB or FUSE. No other host may use the repository meanwhile:
    /// such file systems may show this host an old listing
    #[arg(long)]
    pub any_host: bool,
}

fn parse_session(text: &str) -> Result<SessionId, String> {
    text.parse().map_err(|_| {
        "a session id has 32 hex digits; `snaphaul gc --dry-run` lists them".to_owned()
    })
}
