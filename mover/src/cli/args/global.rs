//! Flags that every command takes.
//!
//! Owns: `--repo` and how it is opened, and how a run behaves. Must not: resolve anything.

use std::path::PathBuf;

use clap::Args;

use crate::cli::units;

/// Where the repository is and how it is opened.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Repository")]
pub struct RepositoryArgs {
    /// Repository: a directory (`/backup/vms`, `file:///backup/vms`) or a bucket (`s3://bucket/prefix`)
    #[arg(
        long = "repo",
        env = "SNAPHAUL_REPO",
        hide_env_values = true,
        value_name = "URL",
        global = true
    )]
    pub url: Option<String>,

    /// Read the passphrase from FILE (one trailing newline is dropped); else from SNAPHAUL_PASSPHRASE, else a terminal is
    /// asked
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "key_file")]
    pub passphrase_file: Option<PathBuf>,

    /// Open with a key file of at least 32 random bytes instead of a passphrase, e.g. made by `head -c 32 /dev/urandom`
    #[arg(long, value_name = "FILE", global = true)]
    pub key_file: Option<PathBuf>,

    /// Open with the key lines of a recovery sheet, typed into FILE; `snaphaul key export` makes one
    #[arg(long, value_name = "FILE", global = true, conflicts_with_all = ["key_file", "passphrase_file"])]
    pub recovery_sheet: Option<PathBuf>,

    /// S3 endpoint, e.g. `https://minio.example:9000`; without it AWS is used
    #[arg(long, value_name = "URL", global = true, help_heading = "S3")]
    pub s3_endpoint: Option<String>,

    /// S3 region; default from the AWS environment and profile
    #[arg(long, value_name = "REGION", global = true, help_heading = "S3")]
    pub s3_region: Option<String>,

    /// Put the bucket into the path of the URL instead of the host name, as most stores outside AWS want it
    #[arg(long, global = true, help_heading = "S3")]
    pub s3_path_style: bool,

    /// Trust the certificate authorities in this PEM file instead of those of the system
    #[arg(long, value_name = "FILE", global = true, help_heading = "S3")]
    pub s3_ca_file: Option<PathBuf>,
}

/// How the run behaves and reports.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Run")]
pub struct RunArgs {
    /// Send at most this much to the store, e.g. `100MB/s`
    #[arg(long, value_name = "RATE", global = true, value_parser = units::parse_rate)]
    pub limit_upload: Option<u64>,

    /// Fetch at most this much from the store, e.g. `100MB/s`
    #[arg(long, value_name = "RATE", global = true, value_parser = units::parse_rate)]
    pub limit_download: Option<u64>,

    /// Worker threads; default the number of cores
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,

    /// Memory the run may take, at least 256MiB; default 400MiB; more keeps more uploads and downloads in flight
    #[arg(long, value_name = "SIZE", global = true, value_parser = units::parse_size)]
    pub memory: Option<u64>,

    /// Print JSON lines on stdout instead of text: `progress` while running, one `result` at the end, also on failure
    #[arg(long, global = true)]
    pub json: bool,

    /// Print neither progress nor summary, only errors and what was asked for
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// What to log on stderr: a level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as
    /// `warn,mover::pipeline=debug`; default RUST_LOG, else `warn`
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log: Option<String>,

    /// Write the metrics of this run to FILE in Prometheus text form at the end, also on failure
    #[arg(long, value_name = "FILE", global = true)]
    pub metrics_file: Option<PathBuf>,
}
