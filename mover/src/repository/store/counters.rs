//! Counts requests and bytes of one store.
//!
//! Owns: the atomics behind [`RequestCounts`]. Must not: decide what counts as a request; each store says so.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{RequestCounts, RequestTimes, TIME_BOUNDS};

/// Shared by all threads that use one store. Relaxed: the numbers order nothing.
#[derive(Debug, Default)]
pub(super) struct Counters {
    put: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    put_bytes: AtomicU64,
    get_bytes: AtomicU64,
    retries: AtomicU64,
    errors: AtomicU64,
    throttles: AtomicU64,
    classes: [AtomicU64; TIME_BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Counters {
    pub(super) fn put(&self, bytes: usize) {
        self.put.fetch_add(1, Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self, bytes: usize) {
        self.get.fetch_add(1, Ordering::Relaxed);
        self.get_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn head(&self) {
        self.head.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn list(&self) {
        self.list.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn delete(&self) {
        self.delete.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "s3")]
    pub(super) fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// One attempt: how long it took, and whether it failed.
    #[cfg(feature = "s3")]
    pub(super) fn attempted(&self, time: std::time::Duration, failed: bool, throttled: bool) {
        let seconds = time.as_secs_f64();
        let class = TIME_BOUNDS.iter().take_while(|end| seconds > **end).count();
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.throttles
            .fetch_add(u64::from(throttled), Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> RequestCounts {
        RequestCounts {
            put: self.put.load(Ordering::Relaxed),
            get: self.get.load(Ordering::Relaxed),
            head: self.head.load(Ordering::Relaxed),
            list: self.list.load(Ordering::Relaxed),
            delete: self.delete.load(Ordering::Relaxed),
            put_bytes: self.put_bytes.load(Ordering::Relaxed),
            get_bytes: self.get_bytes.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            throttles: self.throttles.load(Ordering::Relaxed),
            times: RequestTimes {
                classes: std::array::from_fn(|at| self.classes[at].load(Ordering::Relaxed)),
                micros: self.micros.load(Ordering::Relaxed),
            },
        }
    }
}
