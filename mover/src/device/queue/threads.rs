//! The engine for kernels and sandboxes without io_uring: one blocking thread for each request in flight.
//!
//! Owns: the threads and the two channels. Must not: repeat or split transfers (`driver`).

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::buffer::AlignedBuffer;
use super::super::file::{DeviceFile, Direction};
use super::driver::Engine;
use super::transfer::Transfer;

/// Stack of a thread that does nothing but system calls.
const STACK_SIZE: usize = 128 * 1024;

type Request = (Transfer, usize);
type Reply = (Transfer, io::Result<usize>);

/// Threads that block in `pread` and `pwrite`.
#[derive(Debug)]
pub(super) struct Threads {
    requests: Option<Sender<Request>>,
    replies: Receiver<Reply>,
    workers: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts `depth` threads, or as many as the system lets us have.
    ///
    /// # Errors
    /// Not a single thread could be started.
    pub(super) fn new(file: &Arc<DeviceFile>, depth: usize) -> io::Result<Self> {
        // The driver keeps at most `depth` transfers here, so neither channel ever makes anybody wait.
        let (requests, work) = bounded::<Request>(depth);
        let (done, replies) = bounded::<Reply>(depth);
        let mut workers = Vec::with_capacity(depth);
        for index in 0..depth {
            let (file, work, done) = (Arc::clone(file), work.clone(), done.clone());
            let worker = thread::Builder::new()
                .name(format!("io-{index}"))
                .stack_size(STACK_SIZE);
            match worker.spawn(move || run(&file, &work, &done)) {
                Ok(worker) => workers.push(worker),
                Err(error) if workers.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Self {
            requests: Some(requests),
            replies,
            workers,
        })
    }
}

fn run(file: &DeviceFile, work: &Receiver<Request>, done: &Sender<Reply>) {
    while let Ok((mut transfer, len)) = work.recv() {
        let (position, range) = (transfer.position(), transfer.done..transfer.done + len);
        let moved = match transfer.direction {
            Direction::Read => file.main().read_at(&mut transfer.buffer[range], position),
            Direction::Write => file.main().write_at(&transfer.buffer[range], position),
        };
        if done.send((transfer, moved)).is_err() {
            return;
        }
    }
}

impl Engine for Threads {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn register(&mut self, _buffers: &mut [AlignedBuffer]) {}

    fn start(&mut self, transfer: Transfer, len: usize) {
        let requests = self.requests.as_ref().expect("taken only when dropped");
        requests
            .send((transfer, len))
            .expect("a worker holds the other end until we drop ours");
    }

    fn finish_one(&mut self) -> io::Result<(Transfer, io::Result<usize>)> {
        self.replies.recv().map_err(io::Error::other)
    }

    fn abandon(&mut self) -> Vec<Transfer> {
        self.replies
            .try_iter()
            .map(|(transfer, _)| transfer)
            .collect()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The replies channel has room for every request, so the workers run dry and leave.
        self.requests = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so, and took its buffer with it.
            let _ = worker.join();
        }
    }
}
