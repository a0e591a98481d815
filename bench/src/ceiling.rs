//! The ceiling: the least work that still ends with every chunk hashed, compressed, sealed and on the disk.
//!
//! ```text
//!   allocated extents ──► reader (O_DIRECT, 1 MiB) ──► 2 workers: zero? BLAKE3, LZ4, AES-256-GCM ──► open segment
//!          ▲                                              │                                            │ full
//!          └──────────────── empty buffers ───────────────┘       writers: 32 MiB O_DIRECT, fdatasync ◄┘
//! ```
//!
//! Owns: the wiring of the three stages and what they measured. Must not: know maps, duplicates, directories, keys or
//! any other thing a repository needs: the distance between this loop and `snaphaul backup` is the price of being one.

pub mod chunk_path;
mod reader;
pub mod restore;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded};
use mover::device::{AlignedBuffer, QueueOptions, Source, SourceOptions};
use serde::Serialize;

use self::chunk_path::{ChunkPath, OpenSegment, StageSeconds};
use self::reader::Piece;
use self::restore::StoredSegment;

/// Bytes of a chunk, the default of the repository.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// Bytes of one read.
pub const READ_BYTES: usize = 1024 * 1024;
/// Bytes of one output file.
pub const SEGMENT_BYTES: usize = 32 * 1024 * 1024;

/// One open segment per worker, one being written per writer, one ready so that a worker never waits for a writer.
const SPARE_SEGMENTS: usize = 1;
/// Two writes in flight keep the disk busy while one of them waits for its flush.
const WRITERS: usize = 2;

/// What the probe does with what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Zero test, hash, compression, encryption, durable output: the ceiling of a first backup.
    Backup,
    /// Zero test and hash only: the ceiling of a backup that finds nothing changed.
    Read,
    /// What a backup by the probe stored, decoded and checked, into a sparse file: the ceiling of a restore.
    Restore,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sparse image file.
    pub image: PathBuf,
    /// Directory for the output files of [`Mode::Backup`]; must exist.
    pub output: Option<PathBuf>,
    /// What to do.
    pub mode: Mode,
    /// Threads that hash, compress and encrypt.
    pub workers: usize,
}

/// What was measured. Seconds of stages are summed over the threads that ran them.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// What was done.
    pub mode: Mode,
    /// Threads that hashed, compressed and encrypted.
    pub workers: usize,
    /// Wall time from the first look at the image to the last flush.
    pub seconds: f64,
    /// Bytes read: allocated extents, rounded out to chunks.
    pub read_bytes: u64,
    /// Bytes of chunks that were not zero.
    pub data_bytes: u64,
    /// Bytes written to output files.
    pub stored_bytes: u64,
    /// Time spent per stage.
    pub stages: StageSeconds,
}

/// A failure of one thread, told by joining it.
fn join(handle: thread::ScopedJoinHandle<'_, Result<StageSeconds>>) -> Result<StageSeconds> {
    handle
        .join()
        .map_err(|_| anyhow!("a thread of the probe panicked"))?
}

/// Runs the probe once.
///
/// # Errors
/// Whatever opening, reading or writing reports.
pub fn run(options: &Options) -> Result<Measured> {
    let start = Instant::now();
    let source = Source::open(&options.image, &SourceOptions { allow_live: false })?;
    let pieces = reader::plan(&source)?;
    let read_bytes = pieces.iter().map(|piece| piece.len as u64).sum();
    let index = Mutex::new(Vec::new());
    let stages = thread::scope(|scope| run_threads(scope, options, &source, pieces, &index))?;
    if let Some(output) = &options.output {
        File::open(output)?
            .sync_all()
            .context("flush the output directory")?;
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(output) = &options.output {
        let segments = index.into_inner().unwrap_or_else(PoisonError::into_inner);
        restore::write_index(output, source.size(), segments)?;
    }
    Ok(Measured {
        mode: options.mode,
        workers: options.workers,
        seconds,
        read_bytes,
        data_bytes: stages.data_bytes,
        stored_bytes: stages.stored_bytes,
        stages,
    })
}

fn run_threads<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    options: &'env Options,
    source: &'env Source,
    pieces: Vec<Piece>,
    index: &'env Mutex<Vec<StoredSegment>>,
) -> Result<StageSeconds> {
    let (queue, QueueOptions { depth, .. }) = reader::queue(source)?;
    // Every buffer there is fits in either channel.
    let (empty_tx, empty_rx) = bounded(depth);
    let (filled_tx, filled_rx) = bounded(depth);
    let segments = options.workers + WRITERS + SPARE_SEGMENTS;
    let (free_tx, free_rx) = bounded(segments);
    let (full_tx, full_rx) = bounded(segments);
    if options.mode == Mode::Backup {
        for number in 0..u32::try_from(segments)? {
            free_tx.send(OpenSegment::new(number))?;
        }
    }

    let mut handles = Vec::new();
    for _ in 0..options.workers {
        let (filled, empty) = (filled_rx.clone(), empty_tx.clone());
        let (free, full) = (free_rx.clone(), full_tx.clone());
        let path = ChunkPath::new(options.mode);
        handles.push(scope.spawn(move || work(path, &filled, &empty, &free, &full)));
    }
    drop((full_tx, empty_tx, filled_rx, free_rx));
    handles
        .push(scope.spawn(move || reader::read_all(queue, depth, pieces, &empty_rx, &filled_tx)));
    if let Some(output) = &options.output {
        for _ in 0..WRITERS {
            let (full, free) = (full_rx.clone(), free_tx.clone());
            handles.push(scope.spawn(move || writer::write_all(output, &full, &free, index)));
        }
    }
    drop((full_rx, free_tx));
    let mut total = StageSeconds::default();
    for handle in handles {
        total.add(&join(handle)?);
    }
    Ok(total)
}

/// One worker: chunks in, full segments out; the last, partly filled one too. When the writers are gone it ends: they say why.
fn work(
    mut path: ChunkPath,
    filled: &Receiver<(Piece, AlignedBuffer)>,
    empty: &Sender<AlignedBuffer>,
    free: &Receiver<OpenSegment>,
    full: &Sender<OpenSegment>,
) -> Result<StageSeconds> {
    let mut open: Option<OpenSegment> = None;
    for (piece, buffer) in filled {
        for (offset, chunk) in (piece.offset..)
            .step_by(CHUNK_BYTES)
            .zip(buffer[..piece.len].chunks(CHUNK_BYTES))
        {
            if !path.wanted(chunk) {
                continue;
            }
            let mut segment = match open.take() {
                Some(segment) => segment,
                None => match free.recv() {
                    Ok(segment) => segment,
                    Err(_) => return Ok(path.into_stages()),
                },
            };
            path.store(offset, chunk, &mut segment)?;
            if segment.is_full() {
                if full.send(segment).is_err() {
                    return Ok(path.into_stages());
                }
            } else {
                open = Some(segment);
            }
        }
        // Readers that have gone need no more buffers.
        let _ = empty.send(buffer);
    }
    if let Some(segment) = open {
        let _ = full.send(segment);
    }
    Ok(path.into_stages())
}

#[cfg(test)]
mod tests;
