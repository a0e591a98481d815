//! The one thread that drives the target's queue.
//!
//! Owns: writes in flight and the round trip of the buffers. Must not: decide what is written. Ends when every decoder is
//! gone and every write has completed.

use crossbeam_channel::{Receiver, Sender};

use super::decode::Filled;
use super::job::Job;
use crate::device::buffer::AlignedBuffer;
use crate::device::queue::IoQueue;
use crate::error::Result;
use crate::pipeline::progress::Stage;

/// The writing thread's ends of the channels.
pub(crate) struct Writer<'a, 'j> {
    /// Shared state.
    pub job: &'a Job<'j>,
    /// The target.
    pub queue: Box<dyn IoQueue>,
    /// From the decoders.
    pub filled: Receiver<Filled>,
    /// Back to the decoders; has room for every buffer.
    pub free: Sender<AlignedBuffer>,
}

impl Writer<'_, '_> {
    /// Writes until the decoders are done, or a write failed.
    pub(crate) fn run(mut self) {
        let result = self.work();
        self.job.failure.note(result);
    }

    fn work(&mut self) -> Result<()> {
        let progress = &self.job.context.progress;
        let mut clock = progress.stages.clock(Stage::Write);
        for buffer in self.queue.take_buffers() {
            self.give_back(buffer);
        }
        loop {
            if self.queue.in_flight() == 0 {
                match clock.waits(|| self.filled.recv()) {
                    Ok(filled) => self.submit(filled),
                    Err(_) => return Ok(()),
                }
            }
            while let Ok(filled) = self.filled.try_recv() {
                self.submit(filled);
            }
            if let Some(done) = self.queue.wait() {
                done.result?;
                self.job.written(done.len as u64);
                self.give_back(done.buffer);
            }
        }
    }

    fn submit(&mut self, filled: Filled) {
        let Filled {
            offset,
            len,
            buffer,
        } = filled;
        // Also what is decoded already is not written any more once a stop was asked for: somebody else may have come to use the target.
        if len == 0 || !self.job.failure.goes_on() {
            return self.give_back(buffer);
        }
        self.queue.write(offset, offset, len, buffer);
    }

    /// Decoders that are gone need no buffers.
    fn give_back(&self, buffer: AlignedBuffer) {
        drop(self.free.send(buffer));
    }
}
