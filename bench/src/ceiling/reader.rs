//! Reads of the allocated extents, many at once, past the page cache.
//!
//! Owns: the plan of reads, the threads that do them, aligned memory. Must not: look at what was read.

use std::fs::{File, OpenOptions};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::chunk_path::StageSeconds;
use super::{CHUNK_BYTES, READ_BYTES};

/// Alignment that direct I/O on every common disk accepts.
pub(super) const ALIGNMENT: usize = 4096;
/// Reads in flight.
pub(super) const DEPTH: usize = 16;

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte in the image.
    pub(super) offset: u64,
    /// Bytes, at most one read buffer.
    pub(super) len: usize,
}

/// Memory that begins at a page.
#[derive(Debug)]
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zero bytes.
    #[must_use]
    pub(super) fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, len }
    }
}

impl Deref for Aligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Whether every byte is zero.
#[must_use]
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<256>();
    steps
        .iter()
        .all(|step| step.iter().fold(0, |any, byte| any | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Opens the image for direct reads.
pub(super) fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("open {} for direct reads", path.display()))
}

/// Splits the allocated extents, rounded out to whole chunks, into aligned reads.
pub(super) fn plan(image: &File) -> Result<Vec<Piece>> {
    let size = image.metadata()?.len();
    let mut pieces = Vec::new();
    let mut planned = 0;
    for (start, end) in extents(image, size)? {
        let chunk = CHUNK_BYTES as u64;
        let end = end.next_multiple_of(chunk).min(size);
        let mut offset = (start / chunk * chunk).max(planned);
        while offset < end {
            let next = ((offset / READ_BYTES as u64 + 1) * READ_BYTES as u64).min(end);
            pieces.push(Piece {
                offset,
                len: usize::try_from(next - offset)?,
            });
            offset = next;
        }
        planned = planned.max(end);
    }
    Ok(pieces)
}

/// Data extents `[start, end)` of a file, ascending.
fn extents(image: &File, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match lseek(image, i64::try_from(position)?, Whence::SeekData) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error).context("find the next data extent"),
        };
        let end = lseek(image, start, Whence::SeekHole).context("find the end of a data extent")?;
        extents.push((u64::try_from(start)?, u64::try_from(end)?));
        position = u64::try_from(end)?;
    }
    Ok(extents)
}

/// Starts the readers. They end when the plan is done, or when nobody takes what they read any more.
pub(super) fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    image: &'scope File,
    pieces: Vec<Piece>,
    empty: &Receiver<Aligned>,
    filled: &Sender<(Piece, Aligned)>,
) -> Vec<thread::ScopedJoinHandle<'scope, Result<StageSeconds>>> {
    let (plan_tx, plan_rx) = bounded(pieces.len().max(1));
    for piece in pieces {
        plan_tx
            .try_send(piece)
            .expect("the channel holds the whole plan");
    }
    (0..DEPTH)
        .map(|_| {
            let (plan, empty, filled) = (plan_rx.clone(), empty.clone(), filled.clone());
            scope.spawn(move || read_all(image, &plan, &empty, &filled))
        })
        .collect()
}

fn read_all(
    image: &File,
    plan: &Receiver<Piece>,
    empty: &Receiver<Aligned>,
    filled: &Sender<(Piece, Aligned)>,
) -> Result<StageSeconds> {
    let mut stages = StageSeconds::default();
    while let Ok(mut buffer) = empty.recv() {
        let Ok(piece) = plan.try_recv() else { break };
        let start = Instant::now();
        image
            .read_exact_at(&mut buffer[..piece.len], piece.offset)
            .with_context(|| format!("read {} bytes at {:#x}", piece.len, piece.offset))?;
        stages.read += start.elapsed().as_secs_f64();
        if filled.send((piece, buffer)).is_err() {
            break;
        }
    }
    Ok(stages)
}
