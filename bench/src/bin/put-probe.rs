//! Prints how long parallel PUTs of prepared buffers take, as one line of JSON: the ceiling of a backup to a bucket.
//!
//! The buffers are 32 MiB of noise, made before the clock starts; the client is the one `snaphaul` uses.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use bench::ceiling::SEGMENT_BYTES;
use clap::Parser;
use mover::device::AlignedBuffer;
use mover::repository::store::Store;
use mover::repository::store::connect::{StoreOptions, connect};
use mover::repository::store::probe::{ProbeOptions, probe};

/// PUTs objects of 32 MiB from prepared buffers, several at once.
#[derive(Debug, Parser)]
struct Args {
    /// `s3://bucket/prefix`; the bucket must exist.
    url: String,
    /// Address of the server, where it is not AWS.
    #[arg(long)]
    s3_endpoint: Option<String>,
    /// Region.
    #[arg(long)]
    s3_region: Option<String>,
    /// Names the bucket in the path.
    #[arg(long)]
    s3_path_style: bool,
    /// PEM file of the authorities to trust.
    #[arg(long)]
    s3_ca_file: Option<PathBuf>,
    /// Bytes to send in all, rounded up to whole objects.
    #[arg(long)]
    bytes: NonZeroU64,
    /// PUTs in flight.
    #[arg(long, default_value_t = 8)]
    parallel: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.parallel > 0, "give at least one PUT in flight");
    let objects = args.bytes.get().div_ceil(SEGMENT_BYTES as u64);
    let parallel = args.parallel.min(objects);
    let options = StoreOptions {
        url: args.url,
        s3_endpoint: args.s3_endpoint,
        s3_region: args.s3_region,
        s3_path_style: args.s3_path_style,
        s3_ca_file: args.s3_ca_file,
        ..StoreOptions::default()
    };
    let store = connect(&options, None, true)?;
    // The store learns what the server accepts, as at `snaphaul init`, and uses it from here on.
    probe(store.as_ref(), ProbeOptions::default())?;
    let seconds = put_all(store.as_ref(), objects, parallel)?;
    let bytes = objects * SEGMENT_BYTES as u64;
    let line = serde_json::json!({ "seconds": seconds, "bytes": bytes, "objects": objects, "parallel": parallel });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Sends `objects` objects from `parallel` threads, each with a buffer of its own; returns the seconds it took.
fn put_all(store: &dyn Store, objects: u64, parallel: u64) -> Result<f64> {
    let buffers: Vec<_> = (0..parallel)
        .map(|number| {
            let mut buffer = AlignedBuffer::new(SEGMENT_BYTES);
            blake3::Hasher::new()
                .update(&number.to_le_bytes())
                .finalize_xof()
                .fill(&mut buffer);
            buffer.into_bytes(0..SEGMENT_BYTES)
        })
        .collect();
    let next = AtomicU64::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = buffers
            .iter()
            .map(|buffer| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= objects {
                            return Ok(());
                        }
                        store.put(&format!("seg/probe/{number:08}"), buffer.clone())?;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow!("a thread of the probe panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    store.sync()?;
    Ok(start.elapsed().as_secs_f64())
}
