//! A device read from its start to an end, in order.
//!
//! Owns: the requests in flight. Must not: look into the bytes.

use std::collections::BTreeMap;

use crate::device::buffer::AlignedBuffer;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::source::SourceDevice;
use crate::error::Result;

/// Two devices of 8 × 1 MiB stay far below the budget of a backup, and disks deliver all they can.
const DEPTH: usize = 8;

/// Some bytes of the device.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where they begin.
    pub(super) offset: u64,
    len: usize,
    buffer: AlignedBuffer,
}

impl Piece {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// Reads ahead, and hands pieces out in order. Two of them with one end cut their devices into the same pieces.
#[derive(Debug)]
pub(super) struct InOrder {
    queue: Box<dyn IoQueue>,
    free: Vec<AlignedBuffer>,
    arrived: BTreeMap<u64, Piece>,
    asked_to: u64,
    given_to: u64,
    end: u64,
    piece: u64,
}

impl InOrder {
    /// Of the first `end` bytes of `source`.
    ///
    /// # Errors
    /// `Io` where no queue can be had.
    pub(super) fn new(source: &dyn SourceDevice, end: u64) -> Result<Self> {
        let options = QueueOptions {
            depth: DEPTH,
            ..QueueOptions::default()
        };
        let mut queue = source.queue(&options)?;
        let free = queue.take_buffers();
        Ok(Self {
            queue,
            free,
            arrived: BTreeMap::new(),
            asked_to: 0,
            given_to: 0,
            end,
            piece: options.buffer_len as u64,
        })
    }

    /// The next piece; `None` at the end. Each must be given back.
    ///
    /// # Errors
    /// What the device answers.
    pub(super) fn next(&mut self) -> Result<Option<Piece>> {
        if self.given_to >= self.end {
            return Ok(None);
        }
        loop {
            self.ask();
            if let Some(piece) = self.arrived.remove(&self.given_to) {
                self.given_to += piece.len as u64;
                return Ok(Some(piece));
            }
            let Some(done) = self.queue.wait() else {
                return Ok(None);
            };
            done.result?;
            let piece = Piece {
                offset: done.offset,
                len: done.len,
                buffer: done.buffer,
            };
            self.arrived.insert(piece.offset, piece);
        }
    }

    fn ask(&mut self) {
        while self.asked_to < self.end
            && let Some(buffer) = self.free.pop()
        {
            let len = self.piece.min(self.end - self.asked_to);
            let size = usize::try_from(len).expect("a piece is small");
            self.queue.read(0, self.asked_to, size, buffer);
            self.asked_to += len;
        }
    }

    /// Takes a piece back whose bytes are no longer needed.
    pub(super) fn give_back(&mut self, piece: Piece) {
        self.free.push(piece.buffer);
    }
}
