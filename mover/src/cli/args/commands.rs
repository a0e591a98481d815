//! Flags of the single commands.
//!
//! Owns: one struct a command, with its examples. Must not: resolve anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::csi::{CsiDriverArgs, CsiSnapshotArgs, CsiVolumeArgs};
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

Keep the passphrase or key file somewhere else than the repository: without it the data is lost, and nobody can help.
`snaphaul key export` makes a recovery sheet to print and lock away.";

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
  snaphaul backup csi:VOLUME_ID --csi-socket /var/lib/kubelet/plugins/NAME/csi.sock --repo /backup/vms
      takes a snapshot of a volume of a CSI driver, reads what changed, and cleans up

A killed or interrupted backup keeps what it stored: run the same command again.";

/// Flags of `backup`.
#[derive(Args, Debug)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// Disk image, block device, RBD image or CSI volume to read; best a snapshot that nobody writes to
    ///
    /// RBD images are named rbd:POOL[/NAMESPACE]/IMAGE@SNAPSHOT, or by ceph-csi's handles: rbd:csi-snap=HANDLE (give --volume: each
    /// snapshot is an image of another name) and rbd:csi-vol=HANDLE. csi:VOLUME_ID is a volume of a CSI driver, of which a snapshot is
    /// taken; csi:VOLUME_ID@SNAPSHOT_ID is a snapshot of it that exists: it is read and never deleted.
    pub source: PathBuf,

    /// Name of the volume, letters, digits and `. _ / -`; default the base name of SOURCE
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,

    /// Point to build on: `auto` (the newest good one of the volume), `none` (compare with nothing) or a POINT
    #[arg(long, value_name = "POINT", default_value = "auto")]
    pub parent: String,

    /// Who says what must be read
    ///
    /// `auto` takes the best sound one that the volume has and prints which and why; `scan` reads everything and compares; `none`
    /// reads what is allocated; `hole-map` skips the holes of a file; `fiemap` compares the extents of reflinked files (XFS, btrfs;
    /// needs --base), `rbd` asks Ceph, `thin` asks dm-thin; `extents:FILE` reads a list that you bring. Every answer is checked by
    /// samples; after any doubt everything allocated is read.
    #[arg(long, value_name = "WHO", default_value = "auto", value_parser = changed_blocks_flag)]
    pub changed_blocks: String,

    /// The image that the parent was made from, for who cannot look it up (a reflinked file); it must be the recorded one
    #[arg(long, value_name = "SOURCE")]
    pub base: Option<String>,

    /// `lz4`, `zstd`, `zstd:LEVEL` (1 to 22) or `none`; what does not shrink is stored as it is
    #[arg(long, value_name = "METHOD", default_value = "lz4")]
    pub compression: String,

    /// Attach KEY=VALUE to the point; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub tags: Vec<String>,

    /// Name a set of points that belong together, e.g. all disks of one machine
    #[arg(long, value_name = "ID")]
    pub group: Option<String>,

    /// Accept a source that is mounted or written to; if it changes while it is read, the point is marked `fuzzy`. Volumes of CSI
    /// drivers need it never: what is read is made for the backup alone
    #[arg(long)]
    pub allow_live: bool,

    /// Take over the data of an unfinished backup of this volume from another host once it was silent this long
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = units::parse_duration)]
    pub takeover_after: Duration,

    /// How to read the source
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = EngineFlag::Auto)]
    pub engine: EngineFlag,

    /// How a CSI driver is reached.
    #[command(flatten)]
    pub driver: CsiDriverArgs,

    /// What its volumes are made with.
    #[command(flatten)]
    pub volumes: CsiVolumeArgs,

    /// What its snapshots are made with.
    #[command(flatten)]
    pub snapshots: CsiSnapshotArgs,
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

const CHANGED_EXAMPLES: &str = "\
Examples:
  snaphaul changed monday.img
      what is allocated
  snaphaul changed tuesday.img --base monday.img
      what changed between two reflinks of one image (cp --reflink=always, XFS or btrfs)
  snaphaul changed rbd:vms/db@tuesday --base rbd:vms/db@monday --json
      what changed between two snapshots of an RBD image, one JSON line for each extent
  snaphaul changed rbd:vms/db@tuesday --base rbd:vms/db@monday --audit
      the same, and whether it is true: both are read in whole

No repository is needed and, without --audit, nothing is read. A backup asks the same sources, and checks their answers by samples.";

/// Flags of `changed`.
#[derive(Args, Debug)]
#[command(after_help = CHANGED_EXAMPLES)]
pub struct ChangedArgs {
    /// Disk image, block device, rbd:POOL/IMAGE@SNAPSHOT or csi:VOLUME_ID@SNAPSHOT_ID (with --csi-socket) to look at
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,

    /// An earlier state of it to compare with
    #[arg(long, value_name = "SOURCE")]
    pub base: Option<PathBuf>,

    /// Ask this source of changed blocks: hole-map, fiemap, rbd or thin; default the best one
    #[arg(long = "changed-blocks", value_name = "WHO")]
    pub who: Option<String>,

    /// Read both states in whole and compare: how much was told of too much, and whether anything was left out (exit code 65)
    #[arg(long)]
    pub audit: bool,

    /// Print every extent; without it the first forty. With --json there are always all
    #[arg(long)]
    pub all: bool,

    /// How a CSI driver is reached.
    #[command(flatten)]
    pub driver: CsiDriverArgs,
}

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
  snaphaul verify --level sample --sample-percent 10 --repo /backup/vms
      a tenth of the data each time, oldest first: ten runs have read everything
  snaphaul verify --restore-test db@latest --repo /backup/vms
      a whole restore without a target, compared with the hash of what was backed up

Exit code 65 and a list of what is damaged, and whom it hurts, if anything is wrong. Chunks found bad are marked, where
the store lets us: the next backup of the volume stores them again. `snaphaul repair` mends what needs no source.";

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

    /// Share of the data that the level `sample` reads: what was not read for longest, so that 100/PERCENT runs read all
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub sample_percent: f64,

    /// Restore this point to nowhere and compare what comes out with the hash of what went in
    #[arg(long, value_name = "POINT", conflicts_with_all = ["points", "all", "level", "sample_percent"])]
    pub restore_test: Option<String>,
}

const REPAIR_EXAMPLES: &str = "\
Examples:
  snaphaul repair --dry-run --repo /backup/vms
      what could be mended, and what is lost
  snaphaul repair db@latest --repo /backup/vms
      one point, and the root objects of the repository

Mended are: second copies, from the good one; a point whose start record, manifest, liveness or map was lost, by
committing it again with the same data under a new id. A lost map is made again from the segments, and only used if its
hash proves it right. Everything that was mended is listed. Lost chunks need the source: the next backup stores them.

Exit code 65 if anything stays lost.";

/// Flags of `repair`.
#[derive(Args, Debug)]
#[command(after_help = REPAIR_EXAMPLES)]
pub struct RepairArgs {
    /// Points to repair; none means all
    #[arg(value_name = "POINT")]
    pub points: Vec<String>,

    /// Repair all points, as without any POINT
    #[arg(long, conflicts_with = "points")]
    pub all: bool,

    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

const COPY_EXAMPLES: &str = "\
Examples:
  snaphaul copy --all --repo /backup/vms --to s3://offsite/vms --to-key-file offsite.key \\
      --to-s3-endpoint https://minio.example:9000 --to-s3-path-style
      every point that the other repository does not have yet; run it after each backup
  snaphaul copy db@latest --repo /backup/vms --to /mnt/usb/vms
      one point, opened with the same passphrase

Make the other repository with `snaphaul init` first. Each chunk is checked while it is read. Where the target has an older
point of the volume, only what differs is read. A killed or interrupted copy keeps what it stored: run the same command again.
A copy keeps time, tags and group of its point, and can itself be copied.";

/// Flags of `copy`.
#[derive(Args, Debug)]
#[command(after_help = COPY_EXAMPLES)]
pub struct CopyArgs {
    /// Points to copy
    #[arg(value_name = "POINT", required_unless_present = "all")]
    pub points: Vec<String>,

    /// Copy every intact point that was not forgotten
    #[arg(long, conflicts_with = "points")]
    pub all: bool,

    /// Repository that receives the points: a directory or a bucket, made by `snaphaul init`
    #[arg(long, value_name = "URL")]
    pub to: String,

    /// Passphrase of the other repository; default the secret that opens the first
    #[arg(long, value_name = "FILE", conflicts_with = "to_key_file")]
    pub to_passphrase_file: Option<PathBuf>,

    /// Key file of the other repository
    #[arg(long, value_name = "FILE")]
    pub to_key_file: Option<PathBuf>,

    /// The other repository is not encrypted
    #[arg(long, conflicts_with_all = ["to_passphrase_file", "to_key_file"])]
    pub to_no_encryption: bool,

    /// S3 endpoint of the other repository
    #[arg(long, value_name = "URL")]
    pub to_s3_endpoint: Option<String>,

    /// S3 region of the other repository
    #[arg(long, value_name = "REGION")]
    pub to_s3_region: Option<String>,

    /// Put the bucket of the other repository into the path of the URL
    #[arg(long)]
    pub to_s3_path_style: bool,

    /// Trust the certificate authorities in this PEM file when talking to the other repository
    #[arg(long, value_name = "FILE")]
    pub to_s3_ca_file: Option<PathBuf>,

    /// `lz4`, `zstd`, `zstd:LEVEL` (1 to 22) or `none`
    #[arg(long, value_name = "METHOD", default_value = "lz4")]
    pub compression: String,

    /// Take over the data of an unfinished copy from another host once it was silent this long
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = units::parse_duration)]
    pub takeover_after: Duration,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  snaphaul restore db@latest db.img --repo /backup/vms
      a new sparse file, exactly as big as the volume was
  snaphaul restore 3f9a /dev/vg0/db --delta --repo /backup/vms
      writes only what differs from the point; also resumes an interrupted restore
  snaphaul restore db@latest - --range 1GiB:64MiB --repo /backup/vms | strings | less
      a part of the volume to stdout
  snaphaul restore db@latest csi:new --csi-socket /var/lib/kubelet/plugins/NAME/csi.sock --repo /backup/vms
      a new volume of a CSI driver, whose id is printed

A target that is mounted, in use or too small is always refused.";

/// Flags of `restore`.
#[derive(Args, Debug)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct RestoreArgs {
    /// Id, unique beginning of an id, or NAME@latest
    pub point: String,

    /// File to make, block device to overwrite, `-` for stdout, or csi:new for a new volume of a CSI driver
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

    /// Restore a point although it was forgotten, as long as gc has not removed it
    #[arg(long)]
    pub forgotten: bool,

    /// How to write the target
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = EngineFlag::Auto)]
    pub engine: EngineFlag,

    /// How a CSI driver is reached.
    #[command(flatten)]
    pub driver: CsiDriverArgs,

    /// What its volumes are made with.
    #[command(flatten)]
    pub volumes: CsiVolumeArgs,
}

const RECOVER_EXAMPLES: &str = "\
Examples:
  snaphaul recover --dry-run --repo s3://backups/vms
      how many objects were deleted or overwritten
  snaphaul recover --repo s3://backups/vms
      makes the first version of each the one that is read again

No object that a point needs is ever rewritten, so its first version is the true one; what Object Lock holds cannot be taken
away. No key is needed. Key slots come back, too, those that were removed on purpose included: look at `snaphaul key list`
afterwards. Change the credentials of whoever deleted first, else it is a race.";

/// Flags of `recover`.
#[derive(Args, Debug)]
#[command(after_help = RECOVER_EXAMPLES)]
pub struct RecoverArgs {
    /// Only count
    #[arg(long)]
    pub dry_run: bool,
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
const CHANGED_BLOCKS: [&str; 7] = ["auto", "scan", "none", "hole-map", "fiemap", "rbd", "thin"];

fn changed_blocks_flag(text: &str) -> Result<String, String> {
    let file = text
        .strip_prefix("extents:")
        .is_some_and(|file| !file.is_empty());
    if file || CHANGED_BLOCKS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "not one of {}, extents:FILE",
        CHANGED_BLOCKS.join(", ")
    ))
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
    /// Also a share of the data, what was not read for longest
    Sample,
    /// Also every byte of the data
    Data,
}
