//! Deep queues of reads and writes on one device, and the choice of the engine that runs them.
//!
//! ```text
//!   read / write ──► Driver ──► Engine: io_uring  (one ring, one thread)
//!        wait    ◄──   │   ◄──          threads   (as many as the queue is deep)
//!                      └─ short transfers go on, interrupted ones are repeated, the unaligned tail goes last
//! ```
//!
//! Owns: [`IoQueue`], its options, the probe for io_uring. Must not: know what the bytes mean.

mod driver;
mod threads;
mod transfer;
mod uring;

use std::fmt;
use std::io;
use std::sync::Arc;

use driver::Driver;
use threads::Threads;
use uring::Uring;

use super::buffer::AlignedBuffer;
use super::file::{DeviceFile, io_error};
use crate::Result;

/// Requests in flight: network block devices need 32 of 1 MiB to fill their pipe, local ones fewer.
const DEFAULT_DEPTH: usize = 32;

/// More requests at once gain nothing on any device, and each is a thread where io_uring is forbidden.
const MAX_DEPTH: usize = 1024;

/// Bytes of one request: large enough that the request costs nothing, small enough that 32 fit the read budget of 32 MiB.
const DEFAULT_BUFFER_LEN: usize = 1 << 20;

/// How a queue is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Requests in flight at once, 1 to 1024. More may be handed in, they wait.
    pub depth: usize,
    /// Capacity in bytes of each buffer of [`IoQueue::take_buffers`].
    pub buffer_len: usize,
    /// Who runs the requests.
    pub engine: EngineChoice,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            depth: DEFAULT_DEPTH,
            buffer_len: DEFAULT_BUFFER_LEN,
            engine: EngineChoice::Auto,
        }
    }
}

/// Who runs the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring where the kernel allows it, else threads.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// Threads that block in `pread` and `pwrite`.
    Threads,
}

/// A finished request. The buffer comes back in every case.
#[derive(Debug)]
pub struct Completion {
    /// The token of the request.
    pub token: u64,
    /// Byte offset of the request.
    pub offset: u64,
    /// Length of the request in bytes.
    pub len: usize,
    /// The buffer of the request; after a good read its first `len` bytes are the data.
    pub buffer: AlignedBuffer,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with device and offset, or
    /// [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace).
    pub result: Result<()>,
}

/// A queue of reads and writes on one device, driven by one thread at a time, which may change.
///
/// A buffer belongs to the queue from submission to completion. Dropping the queue waits for what the kernel still holds.
pub trait IoQueue: Send + fmt::Debug {
    /// `io_uring` or `threads`: a metric label and part of reports.
    fn engine(&self) -> &'static str;

    /// Makes `depth` buffers of `buffer_len` bytes, registered with the kernel where that is possible.
    ///
    /// They may travel to other threads and come back, be dropped, or be used with another queue. Other buffers work as
    /// well, at the cost of pinning their pages for each request.
    fn take_buffers(&mut self) -> Vec<AlignedBuffer>;

    /// Reads `[offset, offset + len)` into the start of `buffer`. Does not block.
    ///
    /// Offset and length should be multiples of the block size; the end of an odd-sized device is the place where they
    /// are not. A read past the end of the device fails, it never yields zeros.
    fn read(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer);

    /// Writes the first `len` bytes of `buffer` at `offset`. Does not block. An unaligned tail is written after all
    /// direct writes in flight.
    fn write(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer);

    /// Submits what is queued and sleeps until one request is finished; `None` when nothing is in flight.
    fn wait(&mut self) -> Option<Completion>;

    /// Requests handed in and not yet returned by [`IoQueue::wait`].
    fn in_flight(&self) -> usize;
}

/// Opens a queue on `file`. The second value is what a person should know about the engine, if anything.
///
/// # Errors
/// [`crate::ErrorKind::Io`] where the wanted engine cannot be had.
pub(super) fn open(
    file: &Arc<DeviceFile>,
    options: &QueueOptions,
) -> Result<(Box<dyn IoQueue>, Option<String>)> {
    open_with(file, options, Uring::new)
}

fn open_with(
    file: &Arc<DeviceFile>,
    options: &QueueOptions,
    ring: impl FnOnce(Arc<DeviceFile>, usize) -> io::Result<Uring>,
) -> Result<(Box<dyn IoQueue>, Option<String>)> {
    let options = QueueOptions {
        depth: options.depth.clamp(1, MAX_DEPTH),
        ..*options
    };
    let mut warning = None;
    if options.engine != EngineChoice::Threads {
        match ring(Arc::clone(file), options.depth) {
            Ok(ring) => {
                return Ok((
                    Box::new(Driver::new(ring, Arc::clone(file), &options)),
                    None,
                ));
            }
            Err(error) if options.engine == EngineChoice::IoUring => {
                return Err(io_error("start io_uring", file.path(), error)
                    .hint("allow io_uring (seccomp profile, kernel.io_uring_disabled) or use another engine"));
            }
            // Whatever the reason, threads give the same bytes: forbidden (EPERM), absent (ENOSYS), no memory to lock.
            Err(error) => {
                let depth = options.depth;
                warning = Some(format!(
                    "io_uring cannot be used ({error}): {depth} threads read and write instead"
                ));
            }
        }
    }
    let threads = Threads::new(file, options.depth)
        .map_err(|error| io_error("start reader threads", file.path(), error))?;
    Ok((
        Box::new(Driver::new(threads, Arc::clone(file), &options)),
        warning,
    ))
}

#[cfg(test)]
mod tests;
