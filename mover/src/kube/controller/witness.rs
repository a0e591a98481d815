//! For how long something has held, as far as this process saw it itself.
//!
//! Owns: the time between looks that saw the same. Must not: count time in which nobody looked: a deadline is for others to miss, and
//! while the controller was away, nobody told them what to do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time between two looks of which the second goes on where the first was: several of the pauses that a look asks for.
const BREAK: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Debug)]
struct Span {
    begun: Instant,
    last: Instant,
}

/// What was seen to hold, by name.
#[derive(Debug, Default)]
pub struct Witness {
    spans: Mutex<HashMap<String, Span>>,
}

impl Witness {
    /// For how long `what` has held without a break in the looks, this one included: nothing where it does not hold.
    pub fn lasts(&self, what: &str, holds: bool) -> Duration {
        self.lasts_at(what, holds, Instant::now())
    }

    fn lasts_at(&self, what: &str, holds: bool, now: Instant) -> Duration {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if !holds {
            spans.remove(what);
            return Duration::ZERO;
        }
        let follows = |span: &Span| now.saturating_duration_since(span.last) <= BREAK;
        if let Some(span) = spans.get_mut(what).filter(|span| follows(span)) {
            span.last = now;
            return now.saturating_duration_since(span.begun);
        }
        // What nobody asks for any more has ended.
        spans.retain(|_, span| follows(span));
        let span = Span {
            begun: now,
            last: now,
        };
        spans.insert(what.to_owned(), span);
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_with_looks_counts() {
        let witness = Witness::default();
        let begin = Instant::now();
        let at = |minutes: u64| begin + Duration::from_mins(minutes);
        let mins = Duration::from_mins;
        assert_eq!(witness.lasts_at("a", true, at(0)), mins(0));
        assert_eq!(witness.lasts_at("a", true, at(4)), mins(4));
        assert_eq!(witness.lasts_at("b", true, at(5)), mins(0));
        assert_eq!(witness.lasts_at("a", true, at(8)), mins(8));
        // Away for two hours.
        assert_eq!(witness.lasts_at("a", true, at(128)), mins(0));
        assert_eq!(witness.lasts_at("a", true, at(130)), mins(2));
        assert_eq!(witness.lasts_at("a", false, at(131)), mins(0));
        assert_eq!(witness.lasts_at("a", true, at(132)), mins(0));
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let witness = Witness::default();
        let begin = Instant::now();
        witness.lasts_at("a", true, begin);
        witness.lasts_at("b", true, begin + BREAK * 2);
        let spans = witness.spans.lock().unwrap();
        assert_eq!(spans.keys().collect::<Vec<_>>(), ["b"]);
    }
}
