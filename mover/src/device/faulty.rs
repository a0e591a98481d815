//! Devices that fail on purpose, for the tests of whatever reads and writes through them.
//!
//! ```text
//!   FaultySource ──► FaultyQueue ──► real queue
//!        │                └─ at one byte offset: error, end of device, stall, flipped bit
//! ```
//!
//! Owns: the faults. Must not: be part of a release.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use changed_blocks::ChangedBlocks;

use super::buffer::AlignedBuffer;
use super::queue::{Completion, IoQueue, QueueOptions};
use super::source::{SourceDevice, SourceIdentity};
use crate::{Error, ErrorKind, Result};

/// What happens to every request that covers the byte of the fault.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The medium is bad: EIO.
    Error,
    /// The device ends before this byte: a short read that never goes on.
    ShortRead,
    /// Completions wait until the stall is released.
    Stall(Arc<Stall>),
    /// One bit of a read comes back wrong, and nothing says so.
    Flip,
}

/// Holds completions back until a test releases them.
#[derive(Debug, Default)]
pub struct Stall {
    state: Mutex<StallState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct StallState {
    waiting: bool,
    released: bool,
}

impl Stall {
    /// Lets everything held back go on, now and later.
    pub fn release(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .released = true;
        self.changed.notify_all();
    }

    /// Sleeps until a request is held back.
    pub fn wait_until_stalled(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.waiting {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn hold(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting = true;
        self.changed.notify_all();
        while !state.released {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A queue whose requests fail where they cover a bad byte.
#[derive(Debug)]
pub struct FaultyQueue {
    inner: Box<dyn IoQueue>,
    name: String,
    faults: Vec<(u64, Fault)>,
}

impl FaultyQueue {
    /// Adds faults at byte offsets to a queue on the device called `name`.
    #[must_use]
    pub fn new(inner: Box<dyn IoQueue>, name: String, faults: Vec<(u64, Fault)>) -> Self {
        Self {
            inner,
            name,
            faults,
        }
    }

    fn error(&self, completion: &Completion, cause: io::Error) -> Error {
        let (offset, len) = (completion.offset, completion.len);
        Error::new(
            ErrorKind::Io,
            format!("transfer {len} bytes at offset {offset}"),
        )
        .object(&self.name)
        .source(cause)
    }

    fn strike(&self, completion: &mut Completion, at: u64, fault: &Fault) {
        match fault {
            // EIO of errno(3).
            Fault::Error => {
                completion.result = Err(self.error(completion, io::Error::from_raw_os_error(5)));
            }
            Fault::ShortRead => {
                let cause = io::Error::from(io::ErrorKind::UnexpectedEof);
                completion.result = Err(self.error(completion, cause));
            }
            Fault::Stall(stall) => stall.hold(),
            Fault::Flip => {
                let position = usize::try_from(at - completion.offset).expect("inside a buffer");
                completion.buffer[position] ^= 1;
            }
        }
    }
}

impl IoQueue for FaultyQueue {
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        self.inner.take_buffers()
    }

    fn read(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        self.inner.read(token, offset, len, buffer);
    }

    fn write(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        self.inner.write(token, offset, len, buffer);
    }

    fn wait(&mut self) -> Option<Completion> {
        let mut completion = self.inner.wait()?;
        let range = completion.offset..completion.offset + completion.len as u64;
        for (at, fault) in &self.faults {
            if range.contains(at) && completion.result.is_ok() {
                self.strike(&mut completion, *at, fault);
            }
        }
        Some(completion)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }
}

/// A source with bad bytes, and one that can be told to have changed.
#[derive(Debug)]
pub struct FaultySource {
    inner: Box<dyn SourceDevice>,
    faults: Vec<(u64, Fault)>,
    changed: AtomicBool,
}

impl FaultySource {
    /// Adds faults at byte offsets to a source.
    #[must_use]
    pub fn new(inner: Box<dyn SourceDevice>, faults: Vec<(u64, Fault)>) -> Self {
        Self {
            inner,
            faults,
            changed: AtomicBool::new(false),
        }
    }

    /// From now on the source says that it has changed.
    pub fn change(&self) {
        self.changed.store(true, Ordering::Release);
    }
}

impl SourceDevice for FaultySource {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn block_size(&self) -> u32 {
        self.inner.block_size()
    }

    fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>> {
        self.inner.hole_map()
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        let inner = self.inner.queue(options)?;
        Ok(Box::new(FaultyQueue::new(
            inner,
            self.name(),
            self.faults.clone(),
        )))
    }

    fn check_unchanged(&self) -> Result<bool> {
        Ok(!self.changed.load(Ordering::Acquire) && self.inner.check_unchanged()?)
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    fn identity(&self) -> SourceIdentity {
        self.inner.identity()
    }
}

#[cfg(test)]
mod tests;
