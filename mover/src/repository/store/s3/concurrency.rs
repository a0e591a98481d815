//! How many requests are under way at once: more while they succeed, half as many when the server is overwhelmed.
//!
//! Owns: additive increase, multiplicative decrease. Must not: sleep; back-off is `s3::retry`'s.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// At the start: enough for one host, few enough for a small server.
const START: f64 = 16.0;
/// Never more: connections of one process.
const MAX: f64 = 64.0;
/// A halved limit is not halved again by requests that started before it was.
const DECREASE: f64 = 0.5;

/// Admits requests up to a limit that follows the server.
#[derive(Debug)]
pub(super) struct Admission {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    limit: f64,
    active: u32,
    /// Counts decreases.
    generation: u64,
}

/// One request under way; leaves on drop.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    admission: &'a Admission,
    generation: u64,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                limit: START,
                active: 0,
                generation: 0,
            }),
            freed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(super) fn enter(&self) -> Permit<'_> {
        let full = |state: &mut State| f64::from(state.active) >= state.limit.floor();
        let mut state = self
            .freed
            .wait_while(self.state(), full)
            .unwrap_or_else(PoisonError::into_inner);
        state.active += 1;
        Permit {
            admission: self,
            generation: state.generation,
        }
    }
}

impl Permit<'_> {
    /// The server coped.
    pub(super) fn succeeded(&self) {
        let mut state = self.admission.state();
        // One more for each round of as many as there may be.
        state.limit = (state.limit + 1.0 / state.limit).min(MAX);
    }

    /// The server asked for less, or did not answer in time.
    pub(super) fn overwhelmed(&self) {
        let mut state = self.admission.state();
        if self.generation == state.generation {
            state.limit = (state.limit * DECREASE).max(1.0);
            state.generation += 1;
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.admission.state().active -= 1;
        // The limit may have grown by one meanwhile: a single wake-up could leave a place empty.
        self.admission.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(admission: &Admission) -> f64 {
        admission.state().limit
    }

    #[test]
    fn success_raises_the_limit_slowly_and_up_to_the_maximum() {
        let admission = Admission::new();
        for _ in 0..16 {
            admission.enter().succeeded();
        }
        assert!(
            (16.5..17.5).contains(&limit(&admission)),
            "{}",
            limit(&admission)
        );
        for _ in 0..10_000 {
            admission.enter().succeeded();
        }
        assert!((limit(&admission) - MAX).abs() < 1e-9);
    }

    #[test]
    fn requests_of_one_storm_halve_the_limit_once() {
        let admission = Admission::new();
        let storm: Vec<_> = (0..8).map(|_| admission.enter()).collect();
        storm.iter().for_each(Permit::overwhelmed);
        assert!((limit(&admission) - START / 2.0).abs() < 1e-9);
        drop(storm);
        for _ in 0..20 {
            admission.enter().overwhelmed();
        }
        assert!(
            (limit(&admission) - 1.0).abs() < 1e-9,
            "one request is always let through"
        );
    }

    #[test]
    fn no_more_than_the_limit_are_under_way() {
        let admission = Admission::new();
        while limit(&admission) > 2.0 {
            admission.enter().overwhelmed();
        }
        let peak = Mutex::new((0_u32, 0_u32));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _permit = admission.enter();
                        let mut now = peak.lock().unwrap();
                        now.0 += 1;
                        now.1 = now.1.max(now.0);
                        drop(now);
                        std::thread::yield_now();
                        peak.lock().unwrap().0 -= 1;
                    }
                });
            }
        });
        assert!((1..=2).contains(&peak.lock().unwrap().1));
    }
}
