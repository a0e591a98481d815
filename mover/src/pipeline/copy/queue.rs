//! The bytes of a point, read in order, behind the interface of a device queue.
//!
//! ```text
//!   thread: restore in order ──► Block{offset, bytes | zeros} ══ bounded ══► PointQueue ──► completions, oldest request first
//! ```
//!
//! Owns: the thread that restores, and filling requests from what it sends. Must not: be asked for a range twice or backwards:
//! the reader of a backup asks for exactly the ranges of the source's answer, ascending.

use std::collections::VecDeque;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::source::PointSource;
use crate::device::buffer::AlignedBuffer;
use crate::device::queue::{Completion, IoQueue};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::restore::ordered::ByteSink;
use crate::pipeline::restore::parts;

/// Blocks that were decoded and wait: a chunk each, so 8 MiB at most.
const BLOCKS: usize = 8;

/// A read that waits for its bytes.
#[derive(Debug)]
struct Request {
    token: u64,
    offset: u64,
    len: usize,
    buffer: AlignedBuffer,
}

/// What the restore sends, ascending.
#[derive(Debug)]
pub(super) enum Block {
    /// Bytes at an offset.
    Data(u64, Vec<u8>),
    /// Zeros: offset and length.
    Zeros(u64, u64),
    /// What must not be asked for: offset and length.
    Unread(u64, u64),
}

impl Block {
    fn end(&self) -> u64 {
        match self {
            Self::Data(offset, bytes) => offset + bytes.len() as u64,
            Self::Zeros(offset, len) | Self::Unread(offset, len) => offset + len,
        }
    }
}

/// Serves the reads of one backup from one restore.
#[derive(Debug)]
pub(super) struct PointQueue {
    blocks: Option<Receiver<Block>>,
    current: Option<Block>,
    waiting: VecDeque<Request>,
    thread: Option<JoinHandle<Result<()>>>,
    failed: bool,
}

impl PointQueue {
    /// Starts to read.
    ///
    /// # Errors
    /// `Io` where no thread can be had.
    pub(super) fn start(source: &PointSource) -> Result<Self> {
        let (sender, blocks) = bounded(BLOCKS);
        let source = source.clone();
        let thread = std::thread::Builder::new()
            .name("copy-read".to_owned())
            .spawn(move || restore(&source, sender))
            .map_err(|cause| Error::new(ErrorKind::Io, "start a thread").source(cause))?;
        Ok(Self {
            blocks: Some(blocks),
            current: None,
            waiting: VecDeque::new(),
            thread: Some(thread),
            failed: false,
        })
    }

    /// Copies what the request asks for into its buffer.
    fn fill(&mut self, request: &mut Request) -> Result<()> {
        let (start, end) = (request.offset, request.offset + request.len as u64);
        let mut at = start;
        while at < end {
            if self.current.as_ref().is_none_or(|block| block.end() <= at) {
                let next = self.blocks.as_ref().and_then(|blocks| blocks.recv().ok());
                self.current = Some(match next {
                    Some(block) => block,
                    None => return Err(self.ended(at)),
                });
                continue;
            }
            let Some(block) = &self.current else { continue };
            let until = block.end().min(end);
            let room = &mut request.buffer[span(start, at)..span(start, until)];
            match block {
                Block::Data(offset, bytes) if *offset <= at => {
                    room.copy_from_slice(&bytes[span(*offset, at)..span(*offset, until)]);
                }
                Block::Zeros(offset, _) if *offset <= at => room.fill(0),
                _ => return Err(out_of_order(at)),
            }
            at = until;
        }
        Ok(())
    }

    /// Why there are no more bytes.
    fn ended(&mut self, at: u64) -> Error {
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Err(error))) => error,
            _ => out_of_order(at),
        }
    }
}

fn span(start: u64, at: u64) -> usize {
    usize::try_from(at - start).expect("inside a buffer")
}

fn out_of_order(at: u64) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("read a point in order: nothing was fetched for offset {at}"),
    )
}

impl IoQueue for PointQueue {
    fn engine(&self) -> &'static str {
        "threads"
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        (0..BUFFERS)
            .map(|_| AlignedBuffer::new(BUFFER_LEN))
            .collect()
    }

    fn read(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        self.waiting.push_back(Request {
            token,
            offset,
            len,
            buffer,
        });
    }

    /// A point is never written: the completion says so.
    fn write(&mut self, token: u64, offset: u64, _len: usize, buffer: AlignedBuffer) {
        self.failed = true;
        self.read(token, offset, 0, buffer);
    }

    fn wait(&mut self) -> Option<Completion> {
        let mut request = self.waiting.pop_front()?;
        let result = if self.failed {
            Err(out_of_order(request.offset))
        } else {
            self.fill(&mut request)
        };
        self.failed |= result.is_err();
        Some(Completion {
            token: request.token,
            offset: request.offset,
            len: request.len,
            buffer: request.buffer,
            result,
        })
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }
}

impl Drop for PointQueue {
    fn drop(&mut self) {
        // Without its receiver the restore ends at its next block.
        self.blocks = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// As many and as large as the reader of a backup wants them.
const BUFFERS: usize = 32;
const BUFFER_LEN: usize = 1 << 20;

/// Hands the bytes of a restore to the queue.
struct BlockSink {
    blocks: Sender<Block>,
    at: u64,
}

impl BlockSink {
    fn send(&mut self, block: Block) -> Result<()> {
        self.at = block.end();
        self.blocks.send(block).map_err(|_| {
            Error::new(
                ErrorKind::Interrupted,
                "read a point that nobody wants any more",
            )
        })
    }
}

impl ByteSink for BlockSink {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(Block::Data(self.at, bytes.to_vec()))
    }

    fn zeros(&mut self, len: u64) -> Result<()> {
        self.send(Block::Zeros(self.at, len))
    }

    fn unread(&mut self, len: u64) -> Result<()> {
        self.send(Block::Unread(self.at, len))
    }
}

/// Restores what must be read, in order, into `blocks`.
fn restore(source: &PointSource, blocks: Sender<Block>) -> Result<()> {
    let mut sink = BlockSink { blocks, at: 0 };
    parts::read(
        &source.context,
        &source.point,
        &mut |range| source.ranges(range),
        &mut sink,
    )
}
