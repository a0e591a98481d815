//! Bounded resources of the data plane, claimed as guards that travel with what they pay for.
//!
//! Owns: [`Budget`] and [`Failure`], the two things threads of a pipeline share, and how the memory of a run is divided. Must
//! not: know what a unit is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::error::Error;

/// Memory of a run unless `--memory` says otherwise: everything below, with four segments of 32 MiB on their way.
pub const DEFAULT_MEMORY_BYTES: u64 = 400 << 20;
/// Less cannot hold what does not scale, one open segment and one on its way.
pub const MIN_MEMORY_BYTES: u64 = 256 << 20;
/// What does not scale: reads, duplicates, map pages and directories of 32 MiB each, map segments, threads, the allocator.
const BACKUP_FIXED_BYTES: u64 = 176 << 20;
/// What does not scale in a restore: writes, map pages, directories, the bodies being decoded.
const RESTORE_FIXED_BYTES: u64 = 272 << 20;
/// What is fetched ahead of the writes of a restore, at least.
const LEAST_FETCHED: u64 = 64 << 20;
/// With less a restore takes more than it was given.
pub const LEAST_FOR_RESTORE: u64 = RESTORE_FIXED_BYTES + LEAST_FETCHED;
/// Directory, headers and alignment of a segment, beside its bodies.
const SEGMENT_EXTRA_BYTES: u64 = 8 << 20;
/// More does not make any store faster.
const MAX_UPLOADS: u64 = 16;

/// Segments on their way to the store at once, beside the open one.
#[must_use]
pub fn uploads_in_flight(memory: u64, segment_size: u32) -> usize {
    let segment = u64::from(segment_size) + SEGMENT_EXTRA_BYTES;
    let segments = memory.saturating_sub(BACKUP_FIXED_BYTES) / segment;
    usize::try_from(segments.saturating_sub(1).clamp(1, MAX_UPLOADS)).unwrap_or(1)
}

/// Bytes that a restore may have fetched and not yet decoded.
#[must_use]
pub fn fetched_bytes(memory: u64) -> u64 {
    memory
        .saturating_sub(RESTORE_FIXED_BYTES)
        .clamp(LEAST_FETCHED, 512 << 20)
}

/// A number of equal units, e.g. segment buffers or leaves in work.
#[derive(Clone, Debug)]
pub struct Budget(Arc<(Mutex<usize>, Condvar)>);

/// One unit, given back on drop.
#[derive(Debug)]
pub struct Claim(Budget);

impl Budget {
    /// A budget of `units`.
    #[must_use]
    pub fn new(units: usize) -> Self {
        Self(Arc::new((Mutex::new(units), Condvar::new())))
    }

    /// Waits for a unit. Whoever holds one must be able to finish without the caller.
    #[must_use]
    pub fn claim(&self) -> Claim {
        let (free, freed) = &*self.0;
        let mut free = free.lock().expect("no holder panics");
        while *free == 0 {
            free = freed.wait(free).expect("no holder panics");
        }
        *free -= 1;
        Claim(self.clone())
    }

    /// Takes a unit if one is free.
    #[must_use]
    pub fn try_claim(&self) -> Option<Claim> {
        let mut free = self.0.0.lock().expect("no holder panics");
        *free = free.checked_sub(1)?;
        Some(Claim(self.clone()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (free, freed) = &*self.0.0;
        *free.lock().expect("no holder panics") += 1;
        freed.notify_one();
    }
}

/// The first error of a pipeline; every thread stops soon after it is recorded.
#[derive(Debug, Default)]
pub struct Failure {
    failed: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Failure {
    /// Records an error; only the first is kept, later ones are consequences.
    pub fn record(&self, error: Error) {
        let mut first = self.first.lock().expect("no holder panics");
        match &*first {
            None => *first = Some(error),
            Some(_) => tracing::debug!(%error, "drop a consequence of the first failure"),
        }
        self.failed.store(true, Ordering::Release);
    }

    /// Whether anything failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The first error.
    #[must_use]
    pub fn take(&self) -> Option<Error> {
        self.first.lock().expect("no holder panics").take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn memory_is_divided() {
        assert_eq!(uploads_in_flight(DEFAULT_MEMORY_BYTES, 32 << 20), 4);
        assert_eq!(uploads_in_flight(MIN_MEMORY_BYTES, 32 << 20), 1);
        assert_eq!(uploads_in_flight(1 << 30, 32 << 20), 16);
        assert_eq!(uploads_in_flight(DEFAULT_MEMORY_BYTES, 64 << 20), 2);
        assert_eq!(uploads_in_flight(0, 32 << 20), 1);
        assert_eq!(fetched_bytes(DEFAULT_MEMORY_BYTES), 128 << 20);
        assert_eq!(fetched_bytes(MIN_MEMORY_BYTES), 64 << 20);
    }

    #[test]
    fn a_budget_hands_out_what_it_has() {
        let budget = Budget::new(2);
        let first = budget.claim();
        let _second = budget.try_claim().unwrap();
        assert!(budget.try_claim().is_none());
        drop(first);
        assert!(budget.try_claim().is_some());
    }

    #[test]
    fn a_waiter_is_woken() {
        let budget = Budget::new(1);
        let held = budget.claim();
        let waiter = std::thread::spawn({
            let budget = budget.clone();
            move || drop(budget.claim())
        });
        drop(held);
        waiter.join().unwrap();
    }

    #[test]
    fn the_first_failure_is_kept() {
        let failure = Failure::default();
        assert!(!failure.is_failed());
        failure.record(Error::new(ErrorKind::Io, "first"));
        failure.record(Error::new(ErrorKind::Internal, "second"));
        assert!(failure.is_failed());
        assert_eq!(failure.take().unwrap().kind(), ErrorKind::Io);
    }
}
