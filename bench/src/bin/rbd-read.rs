//! Prints how long librbd takes to read the written ranges of an image through the queue that `snaphaul` uses, as one line of
//! JSON: what reading alone costs, without hashing or storing.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use mover::device::queue::QueueOptions;
use mover::device::rbd::RbdVolume;
use mover::device::source::{SourceDevice, SourceOptions};

/// Reads an image in pieces of 1 MiB.
#[derive(Debug, Parser)]
struct Args {
    /// `rbd:POOL/IMAGE@SNAPSHOT`.
    image: String,
    /// Reads in flight.
    #[arg(long, default_value_t = 32)]
    depth: usize,
}

const PIECE: u64 = 1 << 20;

fn main() -> Result<()> {
    let args = Args::parse();
    let volume = RbdVolume::open(&args.image, &SourceOptions::default())?;
    let mut blocks = volume
        .delta_sources()
        .found
        .into_iter()
        .next()
        .context("the image cannot be asked what it holds")?;
    let mut pieces = Vec::new();
    blocks.allocated(&mut |extent| {
        let (mut at, end) = (extent.offset.0, extent.offset.0 + extent.len.0);
        while at < end {
            let stop = end.min((at / PIECE + 1) * PIECE);
            pieces.push((at, usize::try_from(stop - at).expect("a piece is small")));
            at = stop;
        }
        true
    })?;
    let mut queue = volume.queue(&QueueOptions {
        depth: args.depth,
        ..QueueOptions::default()
    })?;
    let mut free = queue.take_buffers();
    let (began, mut bytes) = (Instant::now(), 0u64);
    let mut left = pieces.into_iter();
    loop {
        while let Some(buffer) = free.pop() {
            match left.next() {
                Some((offset, len)) => queue.read(0, offset, len, buffer),
                None => break,
            }
        }
        let Some(done) = queue.wait() else { break };
        done.result?;
        bytes += done.len as u64;
        free.push(done.buffer);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "seconds": seconds, "bytes": bytes })
    );
    Ok(())
}
