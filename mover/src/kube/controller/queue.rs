//! The work queue: which object is looked at next.
//!
//! ```text
//!   watch events ─► add ─► ready ─► take ─► (worker) ─► done ─┐
//!                    ▲       ▲                                │
//!                    └───────┴──── after a delay ◄────────────┘
//! ```
//!
//! Owns: that an object is worked on by one worker at a time, is looked at again when it changed meanwhile, and waits longer after each
//! failure. Must not: know what the work is. It holds each object at most once, so that it is bounded by their number.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Pause after the first failure of an object; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: what a person who mended something waits at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When an object is looked at again without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Not until something changes.
    OnChange,
    /// After this time, or when something changes.
    After(Duration),
    /// After a pause that grows with each failure.
    Failed,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    running: HashSet<K>,
    /// Changed while they were worked on.
    dirty: HashSet<K>,
    delayed: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

/// A queue of keys. Shared by reference.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

impl<K: Clone + Eq + Hash + Ord> Default for Queue<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                queued: HashSet::new(),
                running: HashSet::new(),
                dirty: HashSet::new(),
                delayed: BTreeSet::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
            }),
            wake: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    fn with<T>(&self, change: impl FnOnce(&mut State<K>) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something about this object changed.
    pub fn add(&self, key: K) {
        self.with(|state| state.add(key));
        self.wake.notify_one();
    }

    /// Waits for the next object. Cancel-safe: an object is taken only by a call that returns it.
    pub async fn take(&self) -> K {
        loop {
            let woken = self.wake.notified();
            let (taken, more, due) = self.with(|state| {
                state.ripen(Instant::now());
                let taken = state.take();
                let more = !state.ready.is_empty();
                (taken, more, state.delayed.first().map(|(at, _)| *at))
            });
            if let Some(key) = taken {
                if more {
                    self.wake.notify_one();
                }
                return key;
            }
            match due {
                Some(at) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => woken.await,
            }
        }
    }

    /// The work on an object that was taken ended.
    pub fn done(&self, key: &K, again: Again) {
        self.with(|state| {
            state.running.remove(key);
            let pause = match again {
                Again::Failed => Some(state.failed(key)),
                Again::After(pause) => {
                    state.failures.remove(key);
                    Some(pause)
                }
                Again::OnChange => {
                    state.failures.remove(key);
                    None
                }
            };
            // A change that came in between is looked at now, unless the last look failed: then the pause protects the server.
            if state.dirty.remove(key) && again != Again::Failed {
                state.add(key.clone());
            } else if let Some(pause) = pause {
                state.delay(key.clone(), Instant::now() + pause);
            }
        });
        self.wake.notify_one();
    }

    /// Objects that wait to be looked at now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.with(|state| state.ready.len())
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.dirty.insert(key);
            return;
        }
        if let Some(at) = self.due.get(&key) {
            // An object that failed keeps its pause.
            if self.failures.contains_key(&key) {
                return;
            }
            self.delayed.remove(&(*at, key.clone()));
            self.due.remove(&key);
        }
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn delay(&mut self, key: K, at: Instant) {
        if self.queued.contains(&key) {
            return;
        }
        if let Some(earlier) = self.due.get(&key).copied() {
            if earlier <= at {
                return;
            }
            self.delayed.remove(&(earlier, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// Moves what is due to the ready ones.
    fn ripen(&mut self, now: Instant) {
        while let Some((at, key)) = self.delayed.first().cloned() {
            if at > now {
                return;
            }
            self.delayed.remove(&(at, key.clone()));
            self.due.remove(&key);
            if self.running.contains(&key) {
                self.dirty.insert(key);
            } else if self.queued.insert(key.clone()) {
                self.ready.push_back(key);
            }
        }
    }

    fn failed(&mut self, key: &K) -> Duration {
        let count = self.failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        let doublings = (*count - 1).min(10);
        (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn an_object_is_taken_once_and_again_when_it_changed_meanwhile() {
        block_on(async {
            let queue = Queue::default();
            queue.add(1);
            queue.add(1);
            assert_eq!(queue.take().await, 1);
            queue.add(1);
            assert_eq!(queue.depth(), 0, "nobody else works on it");
            queue.done(&1, Again::OnChange);
            assert_eq!(queue.take().await, 1);
            queue.done(&1, Again::OnChange);
            assert_eq!(queue.depth(), 0);
        });
    }

    #[test]
    fn a_delay_ends_by_itself_or_with_a_change() {
        block_on(async {
            let queue = Queue::default();
            queue.add(1);
            queue.take().await;
            queue.done(&1, Again::After(Duration::from_millis(1)));
            assert_eq!(queue.take().await, 1);
            queue.done(&1, Again::After(Duration::from_secs(3600)));
            queue.add(1);
            assert_eq!(queue.take().await, 1);
        });
    }

    #[test]
    fn a_failure_waits_in_spite_of_changes() {
        block_on(async {
            let queue = Queue::default();
            queue.add(1);
            queue.take().await;
            queue.add(1);
            queue.done(&1, Again::Failed);
            queue.add(1);
            assert_eq!(queue.depth(), 0);
            let started = Instant::now();
            assert_eq!(queue.take().await, 1);
            assert!(started.elapsed() >= FIRST_PAUSE / 2);
        });
    }
}
