//! What is the same for every engine: order, short and interrupted transfers, tails, errors.
//!
//! ```text
//!   waiting ──► started (≤ depth, owned by the engine) ──► finished ──► wait()
//!      ▲              │ short, EINTR, EAGAIN                   ▲
//!      └──────────────┤                                        │
//!                     └─ unaligned rest ──► tails ─────────────┘  once no direct transfer is left
//! ```
//!
//! Owns: the requests an engine does not hold. Must not: know how an engine moves bytes.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::buffer::AlignedBuffer;
use super::super::file::{DeviceFile, Direction, transfer_error};
use super::transfer::{Step, Transfer};
use super::{Completion, IoQueue, QueueOptions};

/// How often in a row a transfer is repeated on EAGAIN or EINTR before it counts as failed: with the pause, ten seconds.
const MAX_INTERRUPTIONS: u32 = 10_000;

/// Pause before a repeated transfer, so that a kernel short of memory is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(1);

/// Moves bytes between buffers and the main descriptor of a device.
pub(super) trait Engine: Send + fmt::Debug {
    fn name(&self) -> &'static str;

    /// Pins `buffers` where the engine can; never fails, unregistered buffers work as well.
    fn register(&mut self, buffers: &mut [AlignedBuffer]);

    /// Takes a transfer of `len` whole units from its position on. The driver keeps at most `depth` with the engine.
    fn start(&mut self, transfer: Transfer, len: usize);

    /// Sleeps until one transfer is done: the bytes moved, or why none were. Called only while the engine has one.
    ///
    /// # Errors
    /// The engine as a whole is broken; [`Engine::abandon`] follows.
    fn finish_one(&mut self) -> io::Result<(Transfer, io::Result<usize>)>;

    /// Gives back every transfer of a broken engine, with fresh buffers where the kernel may still write to the old ones.
    fn abandon(&mut self) -> Vec<Transfer>;
}

/// An [`IoQueue`] over an engine.
#[derive(Debug)]
pub(super) struct Driver<E> {
    // First, so that it is dropped, and the kernel drained, before anything else goes.
    engine: E,
    file: Arc<DeviceFile>,
    depth: usize,
    buffer_len: usize,
    started: usize,
    // The buffers of callers bound these queues.
    waiting: VecDeque<Transfer>,
    tails: VecDeque<Transfer>,
    finished: VecDeque<Completion>,
    broken: Option<(io::ErrorKind, String)>,
}

impl<E: Engine> Driver<E> {
    pub(super) fn new(engine: E, file: Arc<DeviceFile>, options: &QueueOptions) -> Self {
        Self {
            engine,
            file,
            depth: options.depth,
            buffer_len: options.buffer_len,
            started: 0,
            waiting: VecDeque::new(),
            tails: VecDeque::new(),
            finished: VecDeque::new(),
            broken: None,
        }
    }

    fn accept(&mut self, transfer: Transfer) {
        let end = transfer.offset.checked_add(transfer.len as u64);
        // Kernel offsets are signed.
        let fits = end.is_some_and(|end| i64::try_from(end).is_ok());
        if let Some((kind, message)) = &self.broken {
            let cause = io::Error::new(*kind, message.clone());
            self.fail(transfer, cause);
        } else if transfer.len > transfer.buffer.len() || !fits {
            self.fail(transfer, io::Error::from(io::ErrorKind::InvalidInput));
        } else {
            self.waiting.push_back(transfer);
            self.start_waiting();
        }
    }

    /// Hands over to the engine what it has room for.
    fn start_waiting(&mut self) {
        while self.started < self.depth {
            let Some(transfer) = self.waiting.pop_front() else {
                return;
            };
            self.advance(transfer);
        }
    }

    fn advance(&mut self, transfer: Transfer) {
        match (transfer.next_step(&self.file), transfer.direction) {
            (Step::Direct { len }, _) => {
                self.engine.start(transfer, len);
                self.started += 1;
            }
            (Step::Tail, _) => self.tails.push_back(transfer),
            (Step::Finished, _) => self.finish(transfer),
        }
    }

    /// What a step of a transfer led to.
    fn stepped(&mut self, mut transfer: Transfer, moved: io::Result<usize>) {
        match moved {
            Ok(0) => {
                let kind = match transfer.direction {
                    Direction::Read => io::ErrorKind::UnexpectedEof,
                    Direction::Write => io::ErrorKind::WriteZero,
                };
                self.fail(transfer, kind.into());
            }
            Ok(moved) => {
                assert!(
                    moved <= transfer.len - transfer.done,
                    "moved more than was asked for"
                );
                transfer.done += moved;
                transfer.interruptions = 0;
                self.advance(transfer);
            }
            Err(error) if is_interruption(&error) => {
                transfer.interruptions += 1;
                if transfer.interruptions > MAX_INTERRUPTIONS {
                    return self.fail(transfer, error);
                }
                thread::sleep(PAUSE);
                self.advance(transfer);
            }
            Err(error) => self.fail(transfer, error),
        }
    }

    /// Moves an unaligned rest in this thread: one small transfer at the end of a device.
    fn run_tail(&mut self, mut transfer: Transfer) {
        let (position, rest) = (transfer.position(), transfer.done..transfer.len);
        let result = match transfer.direction {
            Direction::Read => self
                .file
                .read_buffered(position, &mut transfer.buffer[rest]),
            Direction::Write => self.file.write_buffered(position, &transfer.buffer[rest]),
        };
        match result {
            Ok(()) => self.finish(transfer),
            Err(error) => self.fail(transfer, error),
        }
    }

    fn finish(&mut self, transfer: Transfer) {
        if self.file.unit() == 1 {
            self.file.forget_cached(transfer.offset, transfer.len);
        }
        self.complete(transfer, Ok(()));
    }

    fn fail(&mut self, transfer: Transfer, cause: io::Error) {
        let Transfer {
            direction,
            offset,
            len,
            ..
        } = transfer;
        let error = transfer_error(direction, self.file.path(), offset, len, cause);
        self.complete(transfer, Err(error));
    }

    fn complete(&mut self, transfer: Transfer, result: crate::Result<()>) {
        let Transfer {
            token,
            offset,
            len,
            buffer,
            ..
        } = transfer;
        self.finished.push_back(Completion {
            token,
            offset,
            len,
            buffer,
            result,
        });
    }

    /// Fails everything, now and later: an engine that cannot be asked has lost its requests.
    fn give_up(&mut self, error: &io::Error) {
        self.broken = Some((error.kind(), error.to_string()));
        let mut lost = self.engine.abandon();
        self.started = 0;
        lost.extend(self.waiting.drain(..));
        for transfer in lost {
            self.fail(transfer, io::Error::new(error.kind(), error.to_string()));
        }
    }
}

impl<E: Engine> IoQueue for Driver<E> {
    fn engine(&self) -> &'static str {
        self.engine.name()
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        let mut buffers: Vec<_> = (0..self.depth)
            .map(|_| AlignedBuffer::new(self.buffer_len))
            .collect();
        self.engine.register(&mut buffers);
        buffers
    }

    fn read(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        let direction = Direction::Read;
        self.accept(Transfer {
            token,
            direction,
            offset,
            len,
            buffer,
            done: 0,
            interruptions: 0,
        });
    }

    fn write(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        let direction = Direction::Write;
        self.accept(Transfer {
            token,
            direction,
            offset,
            len,
            buffer,
            done: 0,
            interruptions: 0,
        });
    }

    fn wait(&mut self) -> Option<Completion> {
        loop {
            self.start_waiting();
            if let Some(completion) = self.finished.pop_front() {
                return Some(completion);
            }
            if self.started > 0 {
                match self.engine.finish_one() {
                    Ok((transfer, moved)) => {
                        self.started -= 1;
                        self.stepped(transfer, moved);
                    }
                    Err(error) => self.give_up(&error),
                }
            } else {
                let tail = self.tails.pop_front()?;
                self.run_tail(tail);
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.started + self.waiting.len() + self.tails.len() + self.finished.len()
    }
}

fn is_interruption(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests;
