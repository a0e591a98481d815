//! The way back: read whole segments, decrypt, decompress, check, write into a sparse file, flush once.
//!
//! ```text
//!   segment files ──► 2 readers (O_DIRECT, 32 MiB) ──► workers: AES-256-GCM, LZ4, BLAKE3 ──► 1 MiB buffers
//!                          ▲                                    │                             │
//!                          └─────── empty segments ─────────────┘    8 writers (O_DIRECT) ◄───┘
//! ```
//!
//! Owns: the index of what the probe stored, and the loop that restores it. Must not: be read by anything but the probe.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use crossbeam_channel::{Receiver, Sender, bounded};
use mover::device::{ALIGNMENT, AlignedBuffer};
use serde::{Deserialize, Serialize};

use super::chunk_path::{Body, SegmentId, StageSeconds, TAG_BYTES, aad, digest, key};
use super::{CHUNK_BYTES, Measured, Mode, READ_BYTES, SEGMENT_BYTES, join};

/// Name of the index in the output directory.
const INDEX: &str = "index.json";
/// Two whole segments in flight keep the disk busy.
const READERS: usize = 2;
/// Writes of 1 MiB in flight.
const WRITERS: usize = 8;
/// As much as waits for the disk at most: twice what is in flight.
const WRITE_BUFFERS: usize = 2 * WRITERS;

/// What one output file holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredSegment {
    /// Names the file.
    pub id: SegmentId,
    /// Bytes of the file.
    pub pages: usize,
    /// Its chunks, in order.
    pub bodies: Vec<Body>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    size: u64,
    segments: Vec<StoredSegment>,
}

/// A range of the target, filled.
struct Run {
    offset: u64,
    len: usize,
    buffer: AlignedBuffer,
}

/// Keeps what a later [`run`] needs to find the chunks.
pub(super) fn write_index(output: &Path, size: u64, segments: Vec<StoredSegment>) -> Result<()> {
    let bytes = serde_json::to_vec(&Index { size, segments })?;
    fs::write(output.join(INDEX), bytes).context("write the index of the probe")
}

/// Restores what a backup by the probe left in `stored` to the new file `target`.
///
/// # Errors
/// Whatever reading, decoding or writing reports; a chunk with another digest.
pub fn run(stored: &Path, target: &Path, workers: usize) -> Result<Measured> {
    let index: Index = serde_json::from_slice(&fs::read(stored.join(INDEX))?)?;
    ensure!(
        index.size.is_multiple_of(ALIGNMENT as u64),
        "restore images of whole pages only"
    );
    let chunks = || index.segments.iter().flat_map(|segment| &segment.bodies);
    let data_bytes = chunks().map(|body| body.raw as u64).sum();
    let stored_bytes = index
        .segments
        .iter()
        .map(|segment| segment.pages as u64)
        .sum();
    let start = Instant::now();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(target)
        .with_context(|| format!("create {}", target.display()))?;
    file.set_len(index.size)?;
    let mut stages =
        thread::scope(|scope| run_threads(scope, stored, &index.segments, &file, workers))?;
    let flush = Instant::now();
    file.sync_all().context("flush the target")?;
    stages.flush = flush.elapsed().as_secs_f64();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Measured {
        mode: Mode::Restore,
        workers,
        seconds,
        read_bytes: stored_bytes,
        data_bytes,
        stored_bytes,
        stages,
    })
}

fn run_threads<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    stored: &'env Path,
    segments: &'env [StoredSegment],
    target: &'env File,
    workers: usize,
) -> Result<StageSeconds> {
    let buffers = READERS + workers;
    let (empty_tx, empty_rx) = bounded(buffers);
    let (loaded_tx, loaded_rx) = bounded(buffers);
    let (free_tx, free_rx) = bounded(WRITE_BUFFERS);
    let (run_tx, run_rx) = bounded(WRITE_BUFFERS);
    let (plan_tx, plan_rx) = bounded(segments.len().max(1));
    for segment in segments {
        plan_tx
            .try_send(segment)
            .expect("the channel holds the whole plan");
    }
    drop(plan_tx);
    for _ in 0..buffers {
        empty_tx.send(AlignedBuffer::new(SEGMENT_BYTES + ALIGNMENT))?;
    }
    for _ in 0..WRITE_BUFFERS {
        free_tx.send(AlignedBuffer::new(READ_BYTES))?;
    }

    let mut handles = Vec::new();
    for _ in 0..READERS {
        let (plan, empty, loaded) = (plan_rx.clone(), empty_rx.clone(), loaded_tx.clone());
        handles.push(scope.spawn(move || read_all(stored, &plan, &empty, &loaded)));
    }
    drop(loaded_tx);
    for _ in 0..workers {
        let (loaded, empty) = (loaded_rx.clone(), empty_tx.clone());
        let (free, runs) = (free_rx.clone(), run_tx.clone());
        handles.push(scope.spawn(move || work(&loaded, &empty, &free, &runs)));
    }
    drop((run_tx, loaded_rx, empty_tx, free_rx));
    for _ in 0..WRITERS {
        let (runs, free) = (run_rx.clone(), free_tx.clone());
        handles.push(scope.spawn(move || write_all(target, &runs, &free)));
    }
    drop((run_rx, free_tx));
    let mut total = StageSeconds::default();
    for handle in handles {
        total.add(&join(handle)?);
    }
    Ok(total)
}

fn read_all<'a>(
    stored: &Path,
    plan: &Receiver<&'a StoredSegment>,
    empty: &Receiver<AlignedBuffer>,
    loaded: &Sender<(&'a StoredSegment, AlignedBuffer)>,
) -> Result<StageSeconds> {
    let mut stages = StageSeconds::default();
    for segment in plan {
        let Ok(mut buffer) = empty.recv() else { break };
        let start = Instant::now();
        let path = stored.join(segment.id.file_name());
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        file.read_exact(&mut buffer[..segment.pages])
            .with_context(|| format!("read {}", path.display()))?;
        stages.read += start.elapsed().as_secs_f64();
        if loaded.send((segment, buffer)).is_err() {
            break;
        }
    }
    Ok(stages)
}

/// One worker: segments in, runs of up to 1 MiB out. When the writers are gone it ends: they say why.
fn work(
    loaded: &Receiver<(&StoredSegment, AlignedBuffer)>,
    empty: &Sender<AlignedBuffer>,
    free: &Receiver<AlignedBuffer>,
    runs: &Sender<Run>,
) -> Result<StageSeconds> {
    let key = key();
    let mut stages = StageSeconds::default();
    for (segment, mut stored) in loaded {
        let mut open: Option<Run> = None;
        for (ordinal, body) in (0..).zip(&segment.bodies) {
            let follows = |run: &Run| {
                run.offset + run.len as u64 == body.offset && run.len + CHUNK_BYTES <= READ_BYTES
            };
            let mut run = match open.take() {
                Some(run) if follows(&run) => run,
                ended => {
                    if ended.is_some_and(|run| runs.send(run).is_err()) {
                        return Ok(stages);
                    }
                    let Ok(buffer) = free.recv() else {
                        return Ok(stages);
                    };
                    Run {
                        offset: body.offset,
                        len: 0,
                        buffer,
                    }
                }
            };
            let out = &mut run.buffer[run.len..run.len + body.raw];
            let sealed = &mut stored[body.start..body.start + body.stored + TAG_BYTES];
            let start = Instant::now();
            let opened = key
                .open_in_place(segment.id.nonce(ordinal), aad(), sealed)
                .map_err(|_| anyhow!("decrypt the chunk at {:#x}", body.offset))?;
            let decrypted = Instant::now();
            stages.seal += (decrypted - start).as_secs_f64();
            if body.stored == body.raw {
                out.copy_from_slice(opened);
            } else {
                lz4_flex::block::decompress_into(opened, out)?;
            }
            let decompressed = Instant::now();
            stages.compress += (decompressed - decrypted).as_secs_f64();
            ensure!(
                digest(out) == body.digest,
                "chunk at {:#x} has another digest",
                body.offset
            );
            stages.hash += decompressed.elapsed().as_secs_f64();
            run.len += body.raw;
            open = Some(run);
        }
        if open.is_some_and(|run| runs.send(run).is_err()) {
            break;
        }
        // Readers that are done need no more buffers.
        let _ = empty.send(stored);
    }
    Ok(stages)
}

fn write_all(
    target: &File,
    runs: &Receiver<Run>,
    free: &Sender<AlignedBuffer>,
) -> Result<StageSeconds> {
    let mut stages = StageSeconds::default();
    for run in runs {
        let start = Instant::now();
        target
            .write_all_at(&run.buffer[..run.len], run.offset)
            .with_context(|| format!("write {} bytes at {:#x}", run.len, run.offset))?;
        stages.write += start.elapsed().as_secs_f64();
        // Workers that are done need no more buffers.
        let _ = free.send(run.buffer);
    }
    Ok(stages)
}
