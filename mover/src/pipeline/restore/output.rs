//! What a restore needs of its target.
//!
//! Owns: the trait, so that tests can put a target with a faulty queue behind the pipeline. Must not: do I/O.

use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::rbd::RbdTarget;
use crate::device::target::Target;
use crate::error::Result;

/// A target while it is written; `Target::finish` ends it.
pub(crate) trait Output: Sync {
    /// Whether this run made it: what is not written reads as zero.
    fn is_fresh(&self) -> bool;
    /// A queue for reads and writes.
    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>>;
    /// Makes the first chunk zero before anything else is written, so that a broken restore is never mistaken for a whole one.
    fn protect(&self) -> Result<()>;
    /// Flushes, writes the first chunk where it was protected, and flushes.
    fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()>;
    /// Makes a range read as zeros.
    fn zero(&self, offset: u64, len: u64) -> Result<()>;
    /// Reads what is on the medium, past every cache.
    fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>>;
}

impl Output for Target {
    fn is_fresh(&self) -> bool {
        Self::is_fresh(self)
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        Self::queue(self, options)
    }

    fn protect(&self) -> Result<()> {
        Self::protect(self)
    }

    fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()> {
        Self::settle(self, first_chunk)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        Self::zero(self, offset, len)
    }

    fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        Self::read_back(self, offset, len)
    }
}

impl Output for RbdTarget {
    fn is_fresh(&self) -> bool {
        Self::is_fresh(self)
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        Self::queue(self, options)
    }

    fn protect(&self) -> Result<()> {
        Self::protect(self)
    }

    fn settle(&self, first_chunk: Option<&[u8]>) -> Result<()> {
        Self::settle(self, first_chunk)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        Self::zero(self, offset, len)
    }

    fn read_back(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        Self::read_back(self, offset, len)
    }
}
