//! A deep queue of reads and writes on one image.
//!
//! Owns: bounds, tokens, and the buffers from submission to completion. Must not: know what the bytes mean.

use std::io;
use std::sync::Arc;

use super::library::{Finished, Image, InFlight, RbdError, Request, Transfer};

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
}

impl<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> AioQueue<B> {
    /// A queue on `image`, whose size from now on is the end that no request may pass.
    ///
    /// # Errors
    /// Where the size cannot be had.
    pub fn new(image: Arc<Image>) -> Result<Self, RbdError> {
        let size = image.size()?;
        Ok(Self {
            requests: InFlight::new(image),
            size,
        })
    }

    /// Reads `[offset, offset + len)` into the start of `buffer`. Does not block.
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
        self.requests.submit(request);
    }

    /// Sleeps until one request is finished, in any order; `None` when nothing is in flight.
    pub fn wait(&mut self) -> Option<Done<B>> {
        let Finished { request, result } = self.requests.wait()?;
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
        self.requests.pending()
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
