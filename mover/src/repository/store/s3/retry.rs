//! When and how often a request is tried again.
//!
//! Owns: limits of time and number, and full-jitter back-off. Must not: judge errors (`s3::failure` does).

use std::time::Duration;

use crate::repository::ids::random;

/// Deadlines and retries of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Longest wait for a connection, TLS included.
    pub connect: Duration,
    /// Longest wait for the first byte of an answer, on top of the time that the body takes.
    pub first_byte: Duration,
    /// Slowest transfer of a body that is waited for, in bytes a second.
    pub slowest: u64,
    /// Tries of one request against a server that has answered before.
    pub attempts: u32,
    /// Tries while the server has never answered: a wrong address should show at once.
    pub first_attempts: u32,
    /// Longest first pause; doubled for each further one.
    pub pause: Duration,
    /// Longest pause of all.
    pub longest_pause: Duration,
}

impl Default for Timing {
    /// Rides out half a minute of a server's restart, and lines of 0.5 Mbit/s per request.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(60),
            slowest: 64 * 1024,
            attempts: 12,
            first_attempts: 5,
            pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(15),
        }
    }
}

impl Timing {
    /// How long a request with a body of `bytes` may take until its answer begins.
    pub(super) fn deadline(&self, bytes: usize) -> Duration {
        self.first_byte + self.transfer(bytes)
    }

    /// How long `bytes` may be on their way.
    pub(super) fn transfer(&self, bytes: usize) -> Duration {
        Duration::from_secs(bytes as u64 / self.slowest.max(1) + 1)
    }

    /// The pause after the failed try number `attempt` (from 1): anything between nothing and a limit that doubles, so that
    /// clients that failed together do not come back together. `fraction` is in 0..1.
    fn pause_after(&self, attempt: u32, fraction: f64) -> Duration {
        let doubled = self
            .pause
            .saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        doubled.min(self.longest_pause).mul_f64(fraction)
    }

    /// Sleeps before the next try, at least as long as the server asked for.
    pub(super) fn sleep_after(&self, attempt: u32, asked: Option<Duration>) {
        let fraction = f64::from(u32::from_le_bytes(random())) / f64::from(u32::MAX);
        let asked = asked.unwrap_or_default().min(self.longest_pause);
        std::thread::sleep(self.pause_after(attempt, fraction).max(asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_jitter_from_zero() {
        let timing = Timing::default();
        let longest: Vec<_> = (1..=12)
            .map(|attempt| timing.pause_after(attempt, 1.0).as_millis())
            .collect();
        assert_eq!(longest[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(longest[9..], [15_000, 15_000, 15_000]);
        assert_eq!(timing.pause_after(8, 0.0), Duration::ZERO);
        assert_eq!(timing.pause_after(40, 1.0), timing.longest_pause);
        let total: u128 = longest[..11].iter().sum();
        assert!((55_000..75_000).contains(&total), "{total} ms at most");
    }

    #[test]
    fn deadlines_grow_with_the_body() {
        let timing = Timing::default();
        assert_eq!(timing.deadline(0), Duration::from_secs(61));
        assert_eq!(timing.deadline(32 << 20), Duration::from_secs(60 + 512 + 1));
    }
}
