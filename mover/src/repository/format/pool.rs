//! Segment buffers that come back when the last reader of an object has dropped it.
//!
//! ```text
//!   BufferPool ── take ──► ContainerBuilder ── finish ──► Bytes (PUT, retries) ── drop ──► BufferPool
//! ```
//!
//! Owns: idle buffers. Must not: bound how many are in use; that is the byte budget of whoever takes them. Mapping and faulting
//! 32 MiB afresh for every segment costs as much processor time as encrypting it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::device::AlignedBuffer;

/// A stack of idle buffers of one size.
#[derive(Clone)]
pub struct BufferPool(Arc<Shared>);

struct Shared {
    buffer_len: usize,
    max_idle: usize,
    idle: Mutex<Vec<AlignedBuffer>>,
}

impl BufferPool {
    /// A pool of buffers of at least `buffer_len` bytes that keeps at most `max_idle` of them.
    #[must_use]
    pub fn new(buffer_len: usize, max_idle: usize) -> Self {
        Self(Arc::new(Shared {
            buffer_len,
            max_idle,
            idle: Mutex::new(Vec::new()),
        }))
    }

    /// Length of the buffers it was made for.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.0.buffer_len
    }

    /// Buffers that wait for use.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn take(&self) -> PooledBuffer {
        let idle = self.0.lock().pop();
        let buffer = idle.unwrap_or_else(|| AlignedBuffer::new(self.0.buffer_len));
        PooledBuffer {
            buffer: Some(buffer),
            pool: self.clone(),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<AlignedBuffer>> {
        // A panic elsewhere leaves a list of buffers that is still a list of buffers.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("buffer_len", &self.0.buffer_len)
            .field("idle", &self.idle())
            .finish_non_exhaustive()
    }
}

/// A buffer that goes back to its pool; holds whatever was in it before.
pub(super) struct PooledBuffer {
    buffer: Option<AlignedBuffer>,
    pool: BufferPool,
}

impl PooledBuffer {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().expect("taken out only by drop")
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().expect("taken out only by drop")
    }

    pub(super) fn into_bytes(self, range: std::ops::Range<usize>) -> Bytes {
        Bytes::from_owner(self).slice(range)
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let mut idle = self.pool.0.lock();
            if idle.len() < self.pool.0.max_idle {
                idle.push(buffer);
            }
        }
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PooledBuffer")
    }
}
