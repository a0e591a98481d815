//! Flags of `forget`.
//!
//! Owns: names and help of the rules. Must not: resolve anything.

use std::time::Duration;

use clap::Args;

use crate::cli::units;

const FORGET_EXAMPLES: &str = "\
Examples:
  snaphaul forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run --repo /backup/vms
      shows what would go and what would stay, and why; without --dry-run it does it
  snaphaul forget --volume db --keep-within 30d --keep-tag release --repo /backup/vms
      of one volume, all of the last 30 days and every point tagged `release`
  snaphaul forget 3f9a 77c0 --repo /backup/vms
      these two points

Rules add up, and look at each volume on its own. A bucket (hour, day, …, of UTC) keeps its newest point; only hours, days, …
that have points count. --keep-within counts from the newest point of the volume. The newest point that can be restored is
always kept, and so are damaged points, which never count in place of others: only their ids forget them.

Forgetting cannot be undone. The space is freed by gc; until then `restore --forgotten` still reads a forgotten point.";

/// Flags of `forget`.
#[derive(Args, Debug)]
#[command(after_help = FORGET_EXAMPLES)]
pub struct ForgetArgs {
    /// Points to forget: ids, unique beginnings of ids, or NAME@latest
    #[arg(value_name = "POINT")]
    pub points: Vec<String>,

    /// Apply the policy to this volume only, not to each one of the repository
    #[arg(long, value_name = "NAME", conflicts_with = "points")]
    pub volume: Option<String>,

    /// Show what would be forgotten and kept, with the reasons, and forget nothing
    #[arg(long)]
    pub dry_run: bool,

    /// What stays.
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// The rules of a policy.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Policy")]
pub struct KeepArgs {
    /// Keep the N newest points
    #[arg(long = "keep-last", value_name = "N", conflicts_with = "points")]
    pub last: Option<u32>,

    /// Keep the newest point of each of the N last hours that have one
    #[arg(long = "keep-hourly", value_name = "N", conflicts_with = "points")]
    pub hourly: Option<u32>,

    /// Keep the newest point of each of the N last days that have one
    #[arg(long = "keep-daily", value_name = "N", conflicts_with = "points")]
    pub daily: Option<u32>,

    /// Keep the newest point of each of the N last weeks that have one; weeks begin on Monday
    #[arg(long = "keep-weekly", value_name = "N", conflicts_with = "points")]
    pub weekly: Option<u32>,

    /// Keep the newest point of each of the N last months that have one
    #[arg(long = "keep-monthly", value_name = "N", conflicts_with = "points")]
    pub monthly: Option<u32>,

    /// Keep the newest point of each of the N last years that have one
    #[arg(long = "keep-yearly", value_name = "N", conflicts_with = "points")]
    pub yearly: Option<u32>,

    /// Keep all points at most this much older than the newest of the volume: `12h`, `30d`, `2w`, `6months`, `1y`
    #[arg(long = "keep-within", value_name = "TIME", value_parser = units::parse_duration, conflicts_with = "points")]
    pub within: Option<Duration>,

    /// Keep all points with this tag, `KEY=VALUE` or just `KEY`; may be given several times
    #[arg(long = "keep-tag", value_name = "TAG", conflicts_with = "points")]
    pub tags: Vec<String>,
}
