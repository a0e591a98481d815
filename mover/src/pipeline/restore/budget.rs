//! A budget of bytes in memory, carried as a guard by whatever holds the bytes.
//!
//! Owns: waiting for room. Must not: allocate. Closing it wakes every waiter with an error, so that no thread hangs when
//! another one failed.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

#[derive(Debug)]
struct State {
    free: u64,
    closed: bool,
}

/// A number of bytes that may be in memory at once.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    total: u64,
    state: Mutex<State>,
    freed: Condvar,
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct BudgetGuard {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl ByteBudget {
    /// A budget of `total` bytes.
    pub(crate) fn new(total: u64) -> Arc<Self> {
        Arc::new(Self {
            total,
            state: Mutex::new(State {
                free: total,
                closed: false,
            }),
            freed: Condvar::new(),
        })
    }

    /// Takes `bytes`, waiting for room; `None` once the budget was closed. More than the whole budget takes all of it.
    pub(crate) fn acquire(self: &Arc<Self>, bytes: u64) -> Option<BudgetGuard> {
        let bytes = bytes.min(self.total);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.free < bytes && !state.closed {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.free -= bytes;
        Some(BudgetGuard {
            budget: Arc::clone(self),
            bytes,
        })
    }

    /// Refuses every present and later waiter.
    pub(crate) fn close(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.freed.notify_all();
    }
}

impl Drop for BudgetGuard {
    fn drop(&mut self) {
        self.budget
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .free += self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_on_drop_and_caps_large_requests() {
        let budget = ByteBudget::new(100);
        let first = budget.acquire(60).unwrap();
        let second = budget.acquire(40).unwrap();
        drop((first, second));
        let all = budget.acquire(1000).unwrap();
        drop(all);
        assert!(budget.acquire(100).is_some());
    }

    #[test]
    fn closing_wakes_a_waiter() {
        let budget = ByteBudget::new(10);
        let held = budget.acquire(10).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| budget.acquire(1).is_none());
            budget.close();
            assert!(waiter.join().unwrap());
        });
        drop(held);
        assert!(budget.acquire(1).is_none());
    }
}
