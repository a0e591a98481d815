//! How often a transfer is tried, and what lies between two tries.
//!
//! Owns: both numbers. Must not: know what ended an attempt.

use std::time::Duration;

/// Attempts at one transfer.
pub const MOST: i64 = 8;
/// From the order of the first attempt to the second's; doubled each time.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(10);

/// From the order of this attempt to the next one's, at least: all attempts outlast a store that is away for twenty minutes, and one
/// that ran for long is followed at once.
#[must_use]
pub fn pause_after(attempt: i64) -> Duration {
    let doubled = u32::try_from(attempt.clamp(1, MOST) - 1).unwrap_or(0);
    (FIRST * 2_u32.pow(doubled)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_outlast_a_restart_of_the_store() {
        let pauses: Vec<_> = (1..MOST).map(pause_after).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses.iter().sum::<Duration>() > Duration::from_mins(20));
        assert_eq!(pause_after(i64::MAX), LONGEST);
        assert_eq!(pause_after(0), FIRST);
    }
}
