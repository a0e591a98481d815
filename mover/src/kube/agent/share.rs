//! What of the node's budget one volume may use.
//!
//! Owns: the division. Must not: know what it is used for.
//!
//! Memory is divided evenly by the number of slots, because a run never gives any back. Cores are given to whoever is there: a lone
//! volume gets all that nobody else has, and threads of two that share a core are shared out by the kernel.

use std::sync::{Arc, Mutex, PoisonError};

/// What one run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Bytes of memory.
    pub(super) memory: u64,
    /// Worker threads.
    pub(super) jobs: usize,
}

#[derive(Debug)]
struct Free {
    jobs: usize,
    slots: usize,
}

/// The node's budget.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    memory: u64,
    free: Arc<Mutex<Free>>,
}

/// A part of it, given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    /// Worker threads that were really free; a run has at least one.
    taken: usize,
    free: Arc<Mutex<Free>>,
}

impl Shares {
    pub(super) fn new(slots: usize, memory: u64, jobs: usize) -> Self {
        let slots = slots.max(1);
        Self {
            memory: memory / u64::try_from(slots).unwrap_or(u64::MAX),
            free: Arc::new(Mutex::new(Free { jobs, slots })),
        }
    }

    /// A share for one run; `waiting` others will want one, too.
    pub(super) fn take(&self, waiting: usize) -> Share {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let hungry = (waiting + 1).min(free.slots.max(1));
        let taken = free.jobs.div_ceil(hungry);
        free.jobs -= taken;
        free.slots = free.slots.saturating_sub(1);
        Share {
            budget: Budget {
                memory: self.memory,
                jobs: taken.max(1),
            },
            taken,
            free: Arc::clone(&self.free),
        }
    }
}

impl Share {
    pub(super) fn budget(&self) -> Budget {
        self.budget
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.jobs += self.taken;
        free.slots += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lone_volume_gets_all_cores_and_half_of_the_memory() {
        let shares = Shares::new(2, 800, 8);
        let first = shares.take(0);
        assert_eq!(
            first.budget(),
            Budget {
                memory: 400,
                jobs: 8
            }
        );
        let second = shares.take(5);
        assert_eq!(second.budget().jobs, 1);
        drop((first, second));
        assert_eq!(shares.take(3).budget().jobs, 4);
    }

    proptest! {
        #[test]
        fn what_is_taken_comes_back(jobs in 1_usize..64, slots in 1_usize..8, waiting in proptest::collection::vec(0_usize..5, 1..8)) {
            let shares = Shares::new(slots, 1000, jobs);
            let taken: Vec<Share> = waiting.iter().take(slots).map(|waiting| shares.take(*waiting)).collect();
            let sum: usize = taken.iter().map(|share| share.budget().jobs).sum();
            prop_assert!(sum < jobs + slots, "{sum}");
            prop_assert!(taken.iter().all(|share| share.budget().jobs >= 1));
            drop(taken);
            prop_assert_eq!(shares.take(0).budget().jobs, jobs);
        }
    }
}
