//! A bound on bytes in work at once.
//!
//! Owns: that count. Must not: refuse what is larger than the bound: it goes alone.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that may be in work.
#[derive(Debug)]
pub(super) struct Gate {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// Bytes in work, given back on drop.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    bytes: u64,
}

impl Gate {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Waits until `bytes` are free, or everything where there are more than the limit. Holders must be able to finish without the
    /// caller.
    pub(super) fn pass(&self, bytes: u64) -> Pass<'_> {
        let bytes = bytes.min(self.limit);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = self
            .freed
            .wait_while(used, |used| *used + bytes > self.limit)
            .unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
        Pass { gate: self, bytes }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self
            .gate
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.gate.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn never_more_than_the_limit_is_in_work_and_large_ones_go_alone() {
        let gate = Gate::new(10);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for bytes in [3, 4, 25, 6, 10, 1, 1, 1, 9] {
                let (gate, now, most) = (&gate, &now, &most);
                scope.spawn(move || {
                    let pass = gate.pass(bytes);
                    let counted = bytes.min(10);
                    most.fetch_max(
                        now.fetch_add(counted, Ordering::SeqCst) + counted,
                        Ordering::SeqCst,
                    );
                    std::thread::yield_now();
                    now.fetch_sub(counted, Ordering::SeqCst);
                    drop(pass);
                });
            }
        });
        assert!(most.into_inner() <= 10);
        assert_eq!(*gate.used.lock().unwrap(), 0);
    }
}
