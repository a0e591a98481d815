//! The io_uring engine: one ring, registered buffers and file, no thread of its own.
//!
//! A plain ring on purpose. `SINGLE_ISSUER`, `DEFER_TASKRUN` and `COOP_TASKRUN` save interrupts at a rate of requests we
//! never reach (1 MiB each), and bind completions to the thread that submitted: a queue made, driven and dropped by
//! different threads would fail or hang.
//!
//! Owns: the ring, and every buffer from submission to completion. Must not: repeat or split transfers (`driver`).

#![expect(
    unsafe_code,
    reason = "the kernel reads and writes buffers behind the compiler's back"
)]

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, Probe, opcode, types};
use nix::libc;

use super::super::buffer::{AlignedBuffer, Registration};
use super::super::file::{DeviceFile, Direction};
use super::driver::Engine;
use super::transfer::Transfer;

/// How often in a row the kernel may be too busy to take requests while none is in flight: with the pause, ten seconds.
const MAX_BUSY: u32 = 10_000;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Most bytes of one step; the kernel caps at `MAX_RW_COUNT`, just below 2 GiB.
const MAX_STEP: usize = 1 << 30;

/// Numbers rings, so that a buffer knows its own.
static NEXT_RING: AtomicU64 = AtomicU64::new(0);

/// A ring on one device.
///
/// Invariant: a transfer stays in its slot from the push of its entry until the completion with the slot's number.
pub(super) struct Uring {
    ring: IoUring,
    id: u64,
    file: Arc<DeviceFile>,
    file_registered: bool,
    buffers_registered: bool,
    slots: Vec<Option<Transfer>>,
    free: Vec<usize>,
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("id", &self.id)
            .field("file_registered", &self.file_registered)
            .field("buffers_registered", &self.buffers_registered)
            .field("in_flight", &(self.slots.len() - self.free.len()))
            .finish_non_exhaustive()
    }
}

impl Uring {
    /// Sets up a ring for `depth` requests.
    ///
    /// # Errors
    /// EPERM (seccomp, `kernel.io_uring_disabled`), ENOSYS, ENOMEM, or a kernel older than 5.6.
    pub(super) fn new(file: Arc<DeviceFile>, depth: usize) -> io::Result<Self> {
        let entries = u32::try_from(depth).map_err(io::Error::other)?;
        let ring = IoUring::new(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::ReadFixed::CODE,
            opcode::WriteFixed::CODE,
        ];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        // A table of one file saves a look-up for each request; without it everything works as well.
        let file_registered = ring
            .submitter()
            .register_files(&[file.main().as_raw_fd()])
            .is_ok();
        Ok(Self {
            ring,
            id: NEXT_RING.fetch_add(1, Ordering::Relaxed),
            file,
            file_registered,
            buffers_registered: false,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).collect(),
        })
    }

    fn entry(&self, transfer: &mut Transfer, len: usize, slot: usize) -> Entry {
        let (position, len) = (transfer.position(), len.min(MAX_STEP));
        let range = transfer.done..transfer.done + len;
        let address = transfer.buffer[range].as_mut_ptr();
        let len = u32::try_from(len).expect("at most MAX_STEP");
        let registration = transfer.buffer.registration();
        let fixed = registration.filter(|registration| registration.ring == self.id);
        let fd = types::Fd(if self.file_registered {
            0
        } else {
            self.file.main().as_raw_fd()
        });
        let entry = match (transfer.direction, fixed) {
            (Direction::Read, Some(Registration { slot, .. })) => {
                opcode::ReadFixed::new(fd, address, len, slot)
                    .offset(position)
                    .build()
            }
            (Direction::Read, None) => opcode::Read::new(fd, address, len).offset(position).build(),
            (Direction::Write, Some(Registration { slot, .. })) => {
                opcode::WriteFixed::new(fd, address, len, slot)
                    .offset(position)
                    .build()
            }
            (Direction::Write, None) => opcode::Write::new(fd, address, len)
                .offset(position)
                .build(),
        };
        let flags = if self.file_registered {
            Flags::FIXED_FILE
        } else {
            Flags::empty()
        };
        entry.flags(flags).user_data(slot as u64)
    }

    /// Takes the next completion the kernel has posted.
    fn reap(&mut self) -> Option<(Transfer, io::Result<usize>)> {
        let entry = self.ring.completion().next()?;
        let slot = usize::try_from(entry.user_data()).expect("a slot number");
        let transfer = self.slots[slot]
            .take()
            .expect("one completion for each submission");
        self.free.push(slot);
        let moved = usize::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(entry.result().saturating_neg()));
        Some((transfer, moved))
    }

    /// Submits what is queued; sleeps until a completion is there where none is.
    fn enter(&mut self) -> io::Result<()> {
        let want = usize::from(self.ring.completion().is_empty());
        if want == 0 && self.ring.submission().is_empty() {
            return Ok(());
        }
        match self.ring.submit_and_wait(want) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Engine for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn register(&mut self, buffers: &mut [AlignedBuffer]) {
        // A ring has one table; buffers of a second call work unregistered.
        if self.buffers_registered {
            return;
        }
        let table: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            })
            .collect();
        // SAFETY: every entry is a live mapping. The kernel pins its pages, so they stay even if a buffer is dropped
        // before the ring; a fixed request names only buffers that carry this ring's mark and are therefore still alive.
        let registered = unsafe { self.ring.submitter().register_buffers(&table) };
        // ENOMEM where the limit of locked memory is low, as in most containers: the same ring without the table.
        self.buffers_registered = registered.is_ok();
        if self.buffers_registered {
            for (buffer, slot) in buffers.iter_mut().zip(0..) {
                buffer.set_registration(Some(Registration {
                    ring: self.id,
                    slot,
                }));
            }
        }
    }

    fn start(&mut self, mut transfer: Transfer, len: usize) {
        let slot = self
            .free
            .pop()
            .expect("the driver keeps at most `depth` transfers here");
        let entry = self.entry(&mut transfer, len, slot);
        // The buffer's memory does not move with the transfer.
        self.slots[slot] = Some(transfer);
        // SAFETY: the entry points into the buffer now in `slots`, which stays there until the kernel has posted its
        // completion (`reap`), or is leaked (`abandon`); the range was bounds-checked in `entry`.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the submission queue has an entry for each slot");
    }

    fn finish_one(&mut self) -> io::Result<(Transfer, io::Result<usize>)> {
        let mut busy = 0;
        loop {
            match self.enter() {
                Ok(()) => busy = 0,
                // No memory for a request, or too many unread completions: take one and come back.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    busy += 1;
                    if busy > MAX_BUSY {
                        return Err(error);
                    }
                    if self.ring.completion().is_empty() {
                        thread::sleep(BUSY_PAUSE);
                    }
                }
                Err(error) => return Err(error),
            }
            if let Some(finished) = self.reap() {
                return Ok(finished);
            }
        }
    }

    fn abandon(&mut self) -> Vec<Transfer> {
        let mut lost = Vec::new();
        for slot in &mut self.slots {
            if let Some(mut transfer) = slot.take() {
                let fresh = AlignedBuffer::new(transfer.buffer.len());
                // The kernel may still write there: the memory is never freed.
                mem::forget(mem::replace(&mut transfer.buffer, fresh));
                lost.push(transfer);
            }
        }
        self.free = (0..self.slots.len()).collect();
        lost
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut abandoned = false;
        while self.free.len() < self.slots.len() {
            if self.finish_one().is_err() {
                self.abandon();
                abandoned = true;
            }
        }
        // The kernel takes a closed ring apart some time later, and keeps the device open until then: whoever unmounts or detaches
        // it next would find it in use. It may wait here for the requests of the file, so not for those that were given up.
        if self.file_registered && !abandoned {
            let _ = self.ring.submitter().unregister_files();
        }
    }
}
