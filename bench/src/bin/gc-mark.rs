//! Measures what a garbage collection costs before it deletes: listings, liveness, marking. Prints one line of JSON.
//!
//!     gc-mark prepare DIR          liveness of one volume of 16 TiB with 30 points, once
//!     gc-mark wide DIR             a dry run over it
//!     gc-mark many --volumes N     a dry run over N volumes with 30 points each
//!
//! Each run is a process of its own, so that its peak memory is its own. Listings and small liveness objects are made while they are
//! asked for: their making is part of the time.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bench::synthetic::{Shape, SyntheticStore};
use clap::{Parser, Subcommand};
use mover::pipeline::Context;
use mover::pipeline::gc::{self, GcRequest};
use mover::repository::access::{InitOptions, Repository, init};
use mover::repository::format::{Cipher, Secret};
use mover::repository::store::Store;
use mover::repository::store::directory::DirectoryStore;
use mover::repository::store::profile::StoreProfile;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Points of each volume.
    #[arg(long, default_value_t = 30, global = true)]
    points: u64,
    /// Size of the one volume, in TiB.
    #[arg(long, default_value_t = 16, global = true)]
    tib: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a key and the liveness of one wide volume.
    Prepare {
        /// Where to.
        dir: PathBuf,
    },
    /// Collects that volume.
    Wide {
        /// Where from.
        dir: PathBuf,
    },
    /// Collects many small volumes.
    Many {
        /// How many.
        #[arg(long)]
        volumes: u64,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    let wide = Shape::wide(args.tib, args.points);
    match args.command {
        Command::Prepare { dir } => prepare(&dir, wide),
        Command::Wide { dir } => {
            let repository = repository(&dir)?;
            measure(&repository, wide, Some(dir))
        }
        Command::Many { volumes } => {
            let dir = std::env::temp_dir().join(format!("gc-mark-{}", std::process::id()));
            std::fs::create_dir(&dir)?;
            let repository = repository(&dir);
            let measured = repository.and_then(|repository| {
                measure(&repository, Shape::many(volumes, args.points), None)
            });
            std::fs::remove_dir_all(&dir)?;
            measured
        }
    }
}

/// A repository with a key; only its key and configuration are used.
fn repository(dir: &Path) -> Result<Repository> {
    let folder = dir.join("repository");
    let secret = Secret::KeyFile(zeroize::Zeroizing::new(vec![7; 32]));
    let is_new = !folder.exists();
    let store: Arc<dyn Store> = Arc::new(DirectoryStore::open(&folder, true)?);
    if !is_new {
        return Ok(mover::repository::access::open(store, Some(&secret))?.0);
    }
    let options = InitOptions {
        cipher: Cipher::Aes256Gcm,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        profile: StoreProfile {
            conditional_writes: true,
            ..StoreProfile::default()
        },
        created_unix_secs: 0,
    };
    Ok(init(store, &options, Some(&secret))?)
}

fn prepare(dir: &Path, shape: Shape) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let repository = repository(dir)?;
    for point in 0..shape.points {
        let object = shape.liveness(&repository.keys, 0, point)?;
        std::fs::write(dir.join(format!("live-0-{point}")), object)?;
    }
    Ok(())
}

fn measure(repository: &Repository, shape: Shape, folder: Option<PathBuf>) -> Result<()> {
    let store: Arc<dyn Store> = Arc::new(SyntheticStore::new(
        shape,
        Arc::clone(&repository.keys),
        folder,
    ));
    let context = Context {
        repository: Arc::new(Repository {
            store: Arc::clone(&store),
            config: repository.config.clone(),
            keys: Arc::clone(&repository.keys),
        }),
        progress: Arc::default(),
        stop: mover::pipeline::progress::StopFlag::default(),
        jobs: std::thread::available_parallelism()?.get(),
        memory: mover::pipeline::budget::DEFAULT_MEMORY_BYTES,
    };
    let request = GcRequest {
        dry_run: true,
        // Rewriting reads data, and there is none.
        rewrite: false,
        ..GcRequest::default()
    };
    let start = Instant::now();
    let report = gc::run(&context, &request)?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(
        report.points_purged + report.sessions_purged == 0,
        "nothing is dead: {report:?}"
    );
    let counts = store.counts();
    let line = serde_json::json!({
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes()?,
        "volumes": shape.volumes,
        "points": shape.volumes * shape.points,
        "segments": shape.volumes * (shape.first_segments + (shape.points - 1) * shape.later_segments),
        "dead_segments": report.segments_deleted,
        "list_requests": counts.list,
        "get_requests": counts.get,
        "get_bytes": counts.get_bytes,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn peak_memory_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("find the peak in /proc/self/status")?;
    Ok(kib.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
