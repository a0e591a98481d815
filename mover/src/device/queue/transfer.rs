//! One request on its way through an engine, possibly in several steps.
//!
//! Owns: how far it got. Must not: do I/O.

use super::super::buffer::AlignedBuffer;
use super::super::file::{DeviceFile, Direction};

/// A request and its buffer. Invariant: `done <= len <= buffer.len()`.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) token: u64,
    pub(super) direction: Direction,
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) buffer: AlignedBuffer,
    pub(super) done: usize,
    /// Times in a row that the kernel asked to try again.
    pub(super) interruptions: u32,
}

/// What a transfer needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The engine moves `len` bytes.
    Direct {
        len: usize,
    },
    /// The rest is not aligned and goes through the buffered descriptor.
    Tail,
    Finished,
}

impl Transfer {
    /// Offset of the next byte to move.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.done as u64
    }

    pub(super) fn next_step(&self, file: &DeviceFile) -> Step {
        match file.split(self.position(), self.len - self.done) {
            (0, 0) => Step::Finished,
            (0, _) => Step::Tail,
            (len, _) => Step::Direct { len },
        }
    }
}
