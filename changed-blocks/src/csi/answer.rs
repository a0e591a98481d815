//! What becomes of the messages of one question: pure, without a clock.
//!
//! ```text
//!            ┌────────────────────────────── call at `end` ◄────────────────────────────┐
//!            ▼                                                                          │
//!         message ─► checked, clipped, joined ─► extents          ended: more may follow, ask once more
//!            │                                                    failed: passing, and not too often
//!            ▼                                                                          │
//!          doubt (the answer is thrown away)        complete ◄── ended again, nothing new; or the end is reached
//! ```
//!
//! Owns: which messages are sound, where the next call starts, and when an answer is complete. Must not: call, wait, or tell the
//! time.
//!
//! A stream that ended without an error is not proof of completeness: drivers were seen that send one page and stop (vSphere
//! 3.8.0-rc.1). So an answer counts as complete only once a call from its last end on ended and brought nothing, or the volume
//! ends there.

mod ends;

use std::time::Duration;

use super::service::{BlockType, MetadataMessage};
use crate::extent::Extent;

/// Calls of one answer. Pages of ten thousand ranges come to a seventh of it for 16 TiB of which every other 64 KiB changed.
const MAX_CALLS: u32 = 100_000;
/// Calls of one answer that may fail although each brought something: one every ten minutes for a week.
const MAX_FAILURES: u32 = 1_000;
/// The longest wait between two calls.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// How often a call may fail, and how long to wait then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Failed calls in a row without anything new.
    pub(super) attempts: u32,
    /// Wait after the first.
    pub(super) back_off: Duration,
}

/// Why an answer is thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt(pub(super) String);

fn doubt<T>(reason: impl Into<String>) -> Result<T, Doubt> {
    Err(Doubt(reason.into()))
}

/// What to do after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Call, at the offset that [`Answer::begin`] tells.
    Call {
        /// How long to wait before.
        wait: Duration,
        /// Whether with another token.
        renew: bool,
    },
    /// Everything has been told.
    Complete,
}

/// The answer to one question so far.
#[derive(Debug)]
pub(super) struct Answer {
    device: u64,
    patience: Patience,
    /// End of the last range: everything before it has been told. It may lie behind the device.
    end: u64,
    /// Size of the volume as the service tells it.
    capacity: Option<u64>,
    /// The last extent: the next range may go on where it ends.
    pending: Option<Extent>,
    /// The end when a stream last ended without an error.
    ended_at: Option<u64>,
    call: Call,
    calls: u32,
    failures: u32,
    failures_in_a_row: u32,
    renewed: bool,
}

/// What is known of the call at hand.
#[derive(Debug, Default)]
struct Call {
    start: u64,
    has_ranges: bool,
    block_type: Option<BlockType>,
    fixed_length: Option<u64>,
}

impl Answer {
    /// Of a device of `device` bytes.
    pub(super) fn new(device: u64, patience: Patience) -> Self {
        Self {
            device,
            patience,
            end: 0,
            capacity: None,
            pending: None,
            ended_at: None,
            call: Call::default(),
            calls: 0,
            failures: 0,
            failures_in_a_row: 0,
            renewed: false,
        }
    }

    /// Where the next call starts, and begins it.
    pub(super) fn begin(&mut self) -> Result<i64, Doubt> {
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return doubt(format!("no end after {MAX_CALLS} calls"));
        }
        self.call = Call {
            start: self.end,
            ..Call::default()
        };
        i64::try_from(self.end).or_else(|_| doubt("ranges that no offset can name"))
    }

    /// Size of the volume as the service tells it; `None` before the first message that does.
    pub(super) fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    /// Takes a message; what has become final is added to `told`. Whether there was anything new.
    pub(super) fn message(
        &mut self,
        message: &MetadataMessage,
        told: &mut Vec<Extent>,
    ) -> Result<bool, Doubt> {
        self.check_capacity(message)?;
        self.check_block_type(message)?;
        for &(offset, length) in &message.ranges {
            self.range(offset, length, told)?;
        }
        let is_new = !message.ranges.is_empty();
        if is_new {
            self.failures_in_a_row = 0;
            self.renewed = false;
        }
        Ok(is_new)
    }

    fn check_capacity(&mut self, message: &MetadataMessage) -> Result<(), Doubt> {
        let told = message.capacity;
        // A message may say nothing at all.
        if told == 0 && message.ranges.is_empty() {
            return Ok(());
        }
        let Some(capacity) = u64::try_from(told).ok().filter(|told| *told > 0) else {
            return doubt(format!("a volume of {told} bytes"));
        };
        match self.capacity.replace(capacity) {
            Some(before) if before != capacity => doubt(format!(
                "a volume of {before} bytes at first, of {capacity} now"
            )),
            _ => Ok(()),
        }
    }

    fn check_block_type(&mut self, message: &MetadataMessage) -> Result<(), Doubt> {
        match (message.block_type, self.call.block_type) {
            (BlockType::Other(_), None) if message.ranges.is_empty() => Ok(()),
            (BlockType::Other(number), None) => {
                doubt(format!("ranges of the unknown type {number}"))
            }
            (now, None) => {
                self.call.block_type = Some(now);
                Ok(())
            }
            (now, Some(before)) if now == before => Ok(()),
            (now, Some(before)) => {
                doubt(format!("ranges of type {before:?} at first, {now:?} now"))
            }
        }
    }

    fn range(&mut self, offset: i64, length: i64, told: &mut Vec<Extent>) -> Result<(), Doubt> {
        let (Ok(start), Ok(bytes)) = (u64::try_from(offset), u64::try_from(length)) else {
            return doubt(format!("a range at {offset} of {length} bytes"));
        };
        if bytes == 0 {
            return doubt(format!("an empty range at {offset}"));
        }
        // Neither is above 2^63.
        let end = start + bytes;
        // The last block may pass the end; one behind it would hide how far the answer came.
        if let Some(capacity) = self.capacity.filter(|capacity| start >= *capacity) {
            return doubt(format!(
                "a range at {start} of a volume of {capacity} bytes"
            ));
        }
        let (first, last) = (!self.call.has_ranges, self.end);
        if first && end <= self.call.start {
            let asked = self.call.start;
            return doubt(format!(
                "a range up to {end} in answer to a call from {asked} on"
            ));
        }
        if !first && start < last {
            return doubt(format!("a range at {start} after one that ends at {last}"));
        }
        self.check_length(bytes, end)?;
        self.call.has_ranges = true;
        // The first range of a call may begin before what was asked for.
        let from = start.max(last);
        self.end = end;
        self.tell(from, end, told);
        Ok(())
    }

    fn check_length(&mut self, bytes: u64, end: u64) -> Result<(), Doubt> {
        if self.call.block_type != Some(BlockType::Fixed) {
            return Ok(());
        }
        let fixed = *self.call.fixed_length.get_or_insert(bytes);
        // The last one may be cut by the end of the volume.
        let is_cut = bytes < fixed && Some(end) == self.capacity;
        if bytes != fixed && !is_cut {
            return doubt(format!(
                "a block of {bytes} bytes up to {end} among blocks of {fixed}"
            ));
        }
        Ok(())
    }

    /// Clips to the volume and the device, whose ends the last block may pass, and joins what touches.
    fn tell(&mut self, from: u64, end: u64, told: &mut Vec<Extent>) {
        let volume = self.capacity.unwrap_or(u64::MAX);
        self.join(from, end.min(volume).min(self.device), told);
    }

    fn join(&mut self, from: u64, end: u64, told: &mut Vec<Extent>) {
        if from >= end {
            return;
        }
        match &mut self.pending {
            Some(pending) if pending.end() == Some(from) => pending.len.0 += end - from,
            pending => told.extend(pending.replace(Extent::data(from, end - from))),
        }
    }

    /// The last extents of a complete answer. What the device has behind the volume that the service knows is told as well;
    /// its first byte, if there is any.
    pub(super) fn finish(mut self, told: &mut Vec<Extent>) -> Option<u64> {
        let unknown = self.capacity.filter(|capacity| *capacity < self.device);
        if let Some(capacity) = unknown {
            self.join(capacity, self.device, told);
        }
        told.extend(self.pending);
        unknown
    }
}

#[cfg(any(test, feature = "testing"))]
pub(super) mod hostile;
#[cfg(test)]
mod tests;
