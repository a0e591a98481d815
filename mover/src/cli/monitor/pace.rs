//! Rate and time left from a row of samples.
//!
//! Owns: the arithmetic. Must not: read a clock.

use std::time::Duration;

use crate::cli::units;

/// How much of the past counts: what lies further back than this has lost two thirds of its weight. Long enough to ride out
/// a stretch of holes, short enough to follow a store that became slow.
const MEMORY_SECONDS: f64 = 5.0;

/// A smoothed rate.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(Duration, u64)>,
    bytes_per_second: f64,
}

impl Pace {
    /// Takes the bytes done at `elapsed` and returns the rate, in bytes a second. Samples are given in order of time.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate for people; it is never negative and saturates"
    )]
    pub(super) fn sample(&mut self, elapsed: Duration, done: u64) -> u64 {
        let (last_elapsed, last_done) = self.last.unwrap_or_default();
        let step = elapsed.saturating_sub(last_elapsed).as_secs_f64();
        if step > 0.0 {
            let now = done.saturating_sub(last_done) as f64 / step;
            // Until the memory is full, every moment since the start counts the same.
            let weight = (1.0 - (-step / MEMORY_SECONDS).exp()).max(step / elapsed.as_secs_f64());
            self.bytes_per_second += weight * (now - self.bytes_per_second);
            self.last = Some((elapsed, done));
        }
        self.bytes_per_second as u64
    }

    /// Time left at the present rate; `None` while the total or the rate is unknown.
    pub(super) fn left(&self, total: u64, done: u64) -> Option<Duration> {
        if total == 0 || self.bytes_per_second < 1.0 {
            return None;
        }
        let tenths = units::per_second(total.saturating_sub(done), self.bytes_per_second / 10.0)?;
        Some(Duration::from_millis(tenths.saturating_mul(100)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate() {
        let mut pace = Pace::default();
        for tick in 1..=100_u64 {
            pace.sample(Duration::from_millis(tick * 100), tick * 10_000_000);
        }
        let rate = pace.sample(Duration::from_millis(10_100), 1_010_000_000);
        assert!(rate.abs_diff(100_000_000) < 1_000, "{rate}");
        let left = pace.left(2_010_000_000, 1_010_000_000).unwrap();
        assert!(
            left.abs_diff(Duration::from_secs(10)) <= Duration::from_millis(200),
            "{left:?}"
        );
    }

    #[test]
    fn a_slow_start_is_soon_forgotten() {
        let mut pace = Pace::default();
        pace.sample(Duration::from_millis(100), 0);
        let rate = (2..=20_u64)
            .map(|tick| pace.sample(Duration::from_millis(tick * 100), (tick - 1) * 10_000_000))
            .last()
            .unwrap();
        assert!(rate.abs_diff(95_000_000) < 1_000_000, "{rate}");
    }

    #[test]
    fn a_change_of_pace_is_followed() {
        let mut pace = Pace::default();
        pace.sample(Duration::from_secs(1), 100);
        let slow = (2..=31)
            .map(|second| pace.sample(Duration::from_secs(second), 100))
            .last()
            .unwrap();
        assert!(slow < 1, "{slow}");
    }

    #[test]
    fn nothing_is_estimated_without_a_rate_or_a_total() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(100, 0), None);
        assert_eq!(pace.sample(Duration::ZERO, 50), 0);
        pace.sample(Duration::from_secs(1), 50);
        assert_eq!(pace.left(0, 50), None);
        assert_eq!(pace.left(50, 60), Some(Duration::ZERO));
    }
}
