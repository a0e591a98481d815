//! Flags of the single commands.
//!
//! Owns: one struct a command, with its examples. Must not: resolve anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::units;

const INIT_EXAMPLES: &str = "\
Examples:
  snaphaul init --repo /backup/vms
      asks for a passphrase twice
  snaphaul init --repo s3://backups/vms --key-file vms.key \\
      --s3-endpoint https://minio.example:9000 --s3-path-style
      in a bucket, opened by a key file; credentials come from the AWS environment
  snaphaul init --repo s3://backups/vms --key-file vms.key --object-lock compliance --lock-for 30d
      no point can be deleted for 30 days, by nobody; the bucket must have Object Lock

Keep the passphrase or key file somewhere else than the repository: without it the data is lost, and nobody can help.";

/// Flags of `init`.
#[derive(Args, Debug)]
#[command(after_help = INIT_EXAMPLES)]
pub struct InitArgs {
    /// Succeed if the repository is already there, provided that the given key opens it
    #[arg(long)]
    pub if_missing: bool,

    /// Store data unencrypted: damage is detected, forgery is not, and everybody who can read the store can read the data
    #[arg(long)]
    pub no_encryption: bool,

    /// Size of the pieces a volume is cut into, a power of two from 64KiB to 1MiB; fixed for the life of the repository
    #[arg(long, value_name = "SIZE", default_value = "128KiB", value_parser = units::parse_size)]
    pub chunk_size: u64,

    /// Size of the objects that hold data, 1MiB to 64MiB
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = units::parse_size)]
    pub segment_size: u64,

    /// Do not rely on create-only writes of the store, even if it claims to have them
    #[arg(long)]
    pub no_conditional_writes: bool,

    /// Lock everything that a point needs against deletion, in a bucket made with Object Lock; fixed for the life of the
    /// repository
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        requires = "lock_for",
        help_heading = "Object Lock"
    )]
    pub object_lock: Option<LockFlag>,

    /// How long every point stays locked at least, e.g. `30d`; what later points re-use is locked again
    #[arg(long, value_name = "TIME", requires = "object_lock", value_parser = units::parse_duration, help_heading = "Object Lock")]
    pub lock_for: Option<Duration>,

    /// How much longer a lock may be, so that locks are extended once in this time and not by each backup; default a quarter
    /// of --lock-for, at most 7d
    #[arg(long, value_name = "TIME", requires = "object_lock", value_parser = units::parse_duration, help_heading = "Object Lock")]
    pub lock_window: Option<Duration>,
}

/// Values of `--object-lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockFlag {
    /// Only users with the right to bypass governance can delete early
    Governance,
    /// Nobody can delete early, not even the owner of the account
    Compliance,
}

const BACKUP_EXAMPLES: &str = "\
Examples:
  snaphaul backup disk.img --repo /backup/vms
      the first point reads all that is allocated, the next store what changed
  snaphaul backup /dev/vg0/db-snap --volume db --tag host=db1 --repo /backup/vms
      a snapshot device under the name `db`
  snaphaul backup disk.img --compression zstd:9 --repo /backup/vms
      smaller, slower

A killed or interrupted backup keeps what it stored: run the same command again.";

/// Flags of `backup`.
#[derive(Args, Debug)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// Disk image or block device to read; best a snapshot that nobody writes to
    pub source: PathBuf,

    /// Name of the volume, letters, digits and `. _ / -`; default the base name of SOURCE
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,

    /// Point to build on: `auto` (the newest good one of the volume), `none` (compare with nothing) or a POINT
    #[arg(long, value_name = "POINT", default_value = "auto")]
    pub parent: String,

    /// How to find what must be read
    #[arg(long, value_enum, value_name = "SOURCE", default_value_t = ChangedBlocksFlag::Auto)]
    pub changed_blocks: ChangedBlocksFlag,

    /// `lz4`, `zstd`, `zstd:LEVEL` (1 to 22) or `none`; what does not shrink is stored as it is
    #[arg(long, value_name = "METHOD", default_value = "lz4")]
    pub compression: String,

    /// Attach KEY=VALUE to the point; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub tags: Vec<String>,

    /// Name a set of points that belong together, e.g. all disks of one machine
    #[arg(long, value_name = "ID")]
    pub group: Option<String>,

    /// Accept a source that is mounted or written to; if it changes while it is read, the point is marked `fuzzy`
    #[arg(long)]
    pub allow_live: bool,

    /// Take over the data of an unfinished backup of this volume from another host once it was silent this long
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = units::parse_duration)]
    pub takeover_after: Duration,

    /// How to read the source
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = EngineFlag::Auto)]
    pub engine: EngineFlag,
}

const POINTS_EXAMPLES: &str = "\
Examples:
  snaphaul points --repo /backup/vms
  snaphaul points --volume db --json --repo /backup/vms | jq -r '.points[-1].point'
      id of the newest point of `db`";

/// Flags of `points`.
#[derive(Args, Debug)]
#[command(after_help = POINTS_EXAMPLES)]
pub struct PointsArgs {
    /// Only the points of this volume
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  snaphaul show db@latest --repo /backup/vms
  snaphaul show 3f9a --json --repo /backup/vms";

/// Flags of `show`.
#[derive(Args, Debug)]
#[command(after_help = SHOW_EXAMPLES)]
pub struct ShowArgs {
    /// Id, unique beginning of an id, or NAME@latest
    pub point: String,
}

const DIFF_EXAMPLES: &str = "\
Examples:
  snaphaul diff 3f9a db@latest --repo /backup/vms
  snaphaul diff 3f9a db@latest --json --repo /backup/vms | jq 'select(.type == \"extent\")'

Ranges are whole chunks: a changed byte shows as its chunk. Time is in proportion to what differs, not to the size.";

/// Flags of `diff`.
#[derive(Args, Debug)]
#[command(after_help = DIFF_EXAMPLES)]
pub struct DiffArgs {
    /// The older point
    #[arg(value_name = "POINT")]
    pub from: String,

    /// The newer point
    #[arg(value_name = "POINT")]
    pub to: String,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  snaphaul verify --repo /backup/vms
      all points: metadata, and a sample of the data
  snaphaul verify db@latest --level data --repo /backup/vms
      reads, decrypts and checks every byte that a restore of this point would need

Exit code 65 and a list of what is damaged, and whom it hurts, if anything is wrong.";

/// Flags of `verify`.
#[derive(Args, Debug)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// Points to verify; none means all
    #[arg(value_name = "POINT")]
    pub points: Vec<String>,

    /// Verify all points, as without any POINT
    #[arg(long, conflicts_with = "points")]
    pub all: bool,

    /// How much to read
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LevelFlag::Sample)]
    pub level: LevelFlag,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  snaphaul restore db@latest db.img --repo /backup/vms
      a new sparse file, exactly as big as the volume was
  snaphaul restore 3f9a /dev/vg0/db --delta --repo /backup/vms
      writes only what differs from the point; also resumes an interrupted restore
  snaphaul restore db@latest - --range 1GiB:64MiB --repo /backup/vms | strings | less
      a part of the volume to stdout

A target that is mounted, in use or too small is always refused.";

/// Flags of `restore`.
#[derive(Args, Debug)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct RestoreArgs {
    /// Id, unique beginning of an id, or NAME@latest
    pub point: String,

    /// File to make, block device to overwrite, or `-` for stdout
    pub target: PathBuf,

    /// Overwrite a file that is not empty, or a device with a known signature on it
    #[arg(long)]
    pub force: bool,

    /// Read the target and write only what differs from the point
    #[arg(long)]
    pub delta: bool,

    /// Restore only LENGTH bytes from OFFSET, e.g. `1GiB:64MiB`
    #[arg(long, value_name = "OFFSET:LENGTH", value_parser = units::parse_range)]
    pub range: Option<(u64, u64)>,

    /// Go on where stored data is damaged and report the lost ranges; they read as zero
    #[arg(long)]
    pub salvage: bool,

    /// How to write the target
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = EngineFlag::Auto)]
    pub engine: EngineFlag,
}

const RECOVER_EXAMPLES: &str = "\
Examples:
  snaphaul recover --dry-run --repo s3://backups/vms
      how many objects were deleted or overwritten
  snaphaul recover --repo s3://backups/vms
      makes the first version of each the one that is read again

No object that a point needs is ever rewritten, so its first version is the true one; what Object Lock holds cannot be taken
away. No key is needed. Change the credentials of whoever deleted first, else it is a race.";

/// Flags of `recover`.
#[derive(Args, Debug)]
#[command(after_help = RECOVER_EXAMPLES)]
pub struct RecoverArgs {
    /// Only count
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `key`.
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// Which of the key commands.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// The commands of `key`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum KeyCommand {
    /// List the key slots: what kind each is, how it is derived, when it was made; never a secret
    List,
}

const DEMO_EXAMPLES: &str = "\
Nothing outside the demo's own directory is touched, and --repo is not used. It needs about 1 GiB of free space.";

/// Flags of `demo`.
#[derive(Args, Debug)]
#[command(after_help = DEMO_EXAMPLES)]
pub struct DemoArgs {
    /// Directory to work in; default the system's temporary directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Keep the sample disk, the repository and the restored disk, to look at them
    #[arg(long)]
    pub keep: bool,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  snaphaul completions bash > /etc/bash_completion.d/snaphaul
  snaphaul completions zsh > \"${fpath[1]}/_snaphaul\"
  snaphaul completions fish > ~/.config/fish/completions/snaphaul.fish";

/// Flags of `completions`.
#[derive(Args, Debug)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub struct CompletionsArgs {
    /// Shell to print the script for
    pub shell: clap_complete::Shell,
}

/// Values of `--changed-blocks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChangedBlocksFlag {
    /// The best source that this volume has
    Auto,
    /// Read everything and compare digests with the parent
    Scan,
    /// Skip the holes of a sparse file, read and compare the rest
    HoleMap,
}

/// Values of `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineFlag {
    /// io_uring where the kernel allows it, else threads
    Auto,
    /// io_uring, or fail
    #[value(name = "io_uring")]
    IoUring,
    /// Threads with ordinary reads and writes
    Threads,
}

/// Values of `--level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelFlag {
    /// Records and maps, and that every object they name is there with its length
    Metadata,
    /// Also a random sample of the data
    Sample,
    /// Also every byte of the data
    Data,
}
