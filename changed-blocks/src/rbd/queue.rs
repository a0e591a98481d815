//! A deep queue of reads and writes on one image.
//!
//! ```text
//!   read 0..1 MiB, read 1..2 MiB, … ──► held while they are adjacent, in one object ──► one request to the cluster
//! ```
//!
//! Owns: bounds, tokens, what is asked for at once, and the buffers from submission to completion. Must not: know what the bytes mean.

use std::io;
use std::sync::Arc;

use super::library::{Finished, Image, InFlight, RbdError, Request, Transfer};

/// Adjacent reads go to the cluster as one of at most so many bytes: each request costs client and OSD some 0.3 ms of a core, and
/// 32 MiB in flight should still be enough requests for several OSDs.
const MAX_MERGED: u64 = 2 << 20;

/// A finished request. The buffer comes back in every case.
#[derive(Debug)]
pub struct Done<B> {
    /// The token of the request.
    pub token: u64,
    /// Byte offset of the request.
    pub offset: u64,
    /// Length of the request in bytes.
    pub len: usize,
    /// The buffer of a read or a write; after a good read its first `len` bytes are the data.
    pub buffer: Option<B>,
    /// `UnexpectedEof` for a read past the end, `InvalidInput` for a write past it or a buffer that is too short, else what
    /// the cluster says (`TimedOut` where it is silent).
    pub result: io::Result<()>,
}

/// Reads and writes on one image, as many at once as are handed in: librbd has no limit of its own, so the caller's buffers
/// are the limit.
///
/// A buffer belongs to the queue from submission to completion. Dropping the queue waits for what is in flight, at most as
/// long as [`ClusterOptions::timeout`](super::ClusterOptions::timeout) lets a request take.
#[derive(Debug)]
pub struct AioQueue<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> {
    requests: InFlight<B>,
    size: u64,
    /// Reads that are not handed to librbd yet: adjacent, and all within one stretch of `merged` bytes.
    held: Vec<Request<B>>,
    merged: u64,
}

impl<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> AioQueue<B> {
    /// A queue on `image`, whose size from now on is the end that no request may pass.
    ///
    /// # Errors
    /// Where the size cannot be had.
    pub fn new(image: Arc<Image>) -> Result<Self, RbdError> {
        let size = image.size()?;
        let merged = image.object_size()?.clamp(1, MAX_MERGED);
        Ok(Self {
            requests: InFlight::new(image),
            size,
            held: Vec::new(),
            merged,
        })
    }

    /// Reads `[offset, offset + len)` into the start of `buffer`. Does not block. It may begin only with the next read
    /// elsewhere, the next write or the next [`wait`](Self::wait).
    ///
    /// A read past the end of the image fails, it never yields zeros.
    pub fn read(&mut self, token: u64, offset: u64, len: usize, buffer: B) {
        self.submit(Request {
            transfer: Transfer::Read,
            token,
            offset,
            len,
            buffer: Some(buffer),
        });
    }

    /// Writes the first `len` bytes of `buffer` at `offset`. Does not block.
    pub fn write(&mut self, token: u64, offset: u64, len: usize, buffer: B) {
        self.submit(Request {
            transfer: Transfer::Write,
            token,
            offset,
            len,
            buffer: Some(buffer),
        });
    }

    /// Makes `[offset, offset + len)` read as zeros, on a clone as well, and frees what it can. Does not block.
    ///
    /// This is not a discard, which may leave old bytes where it covers no whole block.
    pub fn write_zeroes(&mut self, token: u64, offset: u64, len: usize) {
        self.submit(Request {
            transfer: Transfer::WriteZeroes,
            token,
            offset,
            len,
            buffer: None,
        });
    }

    fn submit(&mut self, request: Request<B>) {
        let len = u64::try_from(request.len).unwrap_or(u64::MAX);
        let inside = request
            .offset
            .checked_add(len)
            .is_some_and(|end| end <= self.size);
        // librbd cuts requests at the end and calls that success.
        if !inside {
            let kind = match request.transfer {
                Transfer::Read => io::ErrorKind::UnexpectedEof,
                Transfer::Write | Transfer::WriteZeroes => io::ErrorKind::InvalidInput,
            };
            let message = format!("past the end of the image at {}", self.size);
            return self
                .requests
                .finish(request, Err(io::Error::new(kind, message)));
        }
        if request.len == 0 {
            return self.requests.finish(request, Ok(()));
        }
        if request.transfer != Transfer::Read {
            self.release();
            return self.requests.submit(Vec::from([request]));
        }
        let end = request.offset + len;
        let goes_on = self.held.last().is_some_and(|last| {
            let stretch = |request: &Request<B>| request.offset / self.merged;
            last.offset + last.len as u64 == request.offset && stretch(last) == stretch(&request)
        });
        if !goes_on {
            self.release();
        }
        self.held.push(request);
        if end.is_multiple_of(self.merged) {
            self.release();
        }
    }

    /// Hands the held reads over.
    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.requests.submit(held);
    }

    /// Sleeps until one request is finished, in any order; `None` when nothing is in flight.
    pub fn wait(&mut self) -> Option<Done<B>> {
        let finished = match self.requests.poll() {
            Some(finished) => finished,
            None => {
                self.release();
                self.requests.wait()?
            }
        };
        let Finished { request, result } = finished;
        Some(Done {
            token: request.token,
            offset: request.offset,
            len: request.len,
            buffer: request.buffer,
            result,
        })
    }

    /// Requests handed in and not yet returned by [`wait`](Self::wait).
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.pending() + self.held.len()
    }

    /// Waits until every write that is done is on stable storage. Blocks.
    ///
    /// # Errors
    /// Where the cluster does not answer or refuses.
    pub fn flush(&self) -> Result<(), RbdError> {
        self.requests.image().flush()
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &Arc<Image> {
        self.requests.image()
    }
}
