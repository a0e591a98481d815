//! [`IoQueue`] over librbd.
//!
//! Owns: the translation of requests and errors. Must not: know what the bytes mean.

use std::io;
use std::sync::Arc;

use changed_blocks::rbd::{AioQueue, Image};
use nix::libc;

use super::super::buffer::AlignedBuffer;
use super::super::queue::{Completion, IoQueue, QueueOptions};
use super::failed;
use crate::{Error, ErrorKind, Result};

/// Requests on one image, run by librbd's own threads.
#[derive(Debug)]
pub(super) struct RbdQueue {
    requests: AioQueue<AlignedBuffer>,
    name: String,
    depth: usize,
    buffer_len: usize,
}

impl RbdQueue {
    pub(super) fn new(image: &Arc<Image>, name: &str, options: &QueueOptions) -> Result<Self> {
        let requests = AioQueue::new(Arc::clone(image))
            .map_err(|error| failed("ask the size of the image", name, error))?;
        Ok(Self {
            requests,
            name: name.to_owned(),
            depth: options.depth.max(1),
            buffer_len: options.buffer_len,
        })
    }
}

impl IoQueue for RbdQueue {
    fn engine(&self) -> &'static str {
        "librbd"
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        (0..self.depth)
            .map(|_| AlignedBuffer::new(self.buffer_len))
            .collect()
    }

    fn read(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        self.requests.read(token, offset, len, buffer);
    }

    fn write(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        self.requests.write(token, offset, len, buffer);
    }

    fn wait(&mut self) -> Option<Completion> {
        let done = self.requests.wait()?;
        let result = done
            .result
            .map_err(|error| at(error, &self.name, done.offset, done.len));
        Some(Completion {
            token: done.token,
            offset: done.offset,
            len: done.len,
            buffer: done.buffer.unwrap_or_else(|| AlignedBuffer::new(0)),
            result,
        })
    }

    fn in_flight(&self) -> usize {
        self.requests.in_flight()
    }
}

/// A failed request with image and offset.
pub(super) fn at(error: io::Error, name: &str, offset: u64, len: usize) -> Error {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("read or write {len} bytes at {offset}"))
        .object(name)
        .source(error)
}
