//! When a silent session is presumed dead.
//!
//! Owns: that judgement, from facts and times that the caller brings. Must not: carry safety: a wrong guess costs the
//! session a refused commit and a restart, never data.

use std::time::{Duration, SystemTime};

use super::census::DecidedBy;

/// What is known of the process behind a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nothing.
    Unknown,
    /// It is seen running: the same machine has the process, or its pod lives.
    Running,
    /// It has surely ended.
    Ended,
}

/// Signs of life of one session.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// Its process.
    pub owner: Owner,
    /// Newest change of its start record, heartbeat or any of its objects, by the store's clock.
    pub last_change: Option<SystemTime>,
    /// The store's clock when that was asked.
    pub now: Option<SystemTime>,
}

/// How long a session may be silent, and whether sessions can be fenced here at all.
#[derive(Clone, Copy, Debug)]
pub struct FencePolicy {
    /// Silence after which a session is presumed dead.
    pub silent_after: Duration,
    /// What decides between commit and abort; `None` where nothing can: every session is alive then.
    pub decided_by: Option<DecidedBy>,
}

/// A day: longer than any pause of a backup that still has a chance.
pub const SILENT_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What to do about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing: it may live.
    Leave,
    /// Take its slot with an abort marker, create-only. Losing that race means it committed in time.
    Abort,
}

impl FencePolicy {
    /// Judges one undecided session.
    #[must_use]
    pub fn judge(&self, signs: &Signs) -> Fence {
        if self.decided_by.is_none() {
            return Fence::Leave;
        }
        match signs.owner {
            Owner::Running => Fence::Leave,
            Owner::Ended => Fence::Abort,
            Owner::Unknown => self.judge_silence(signs),
        }
    }

    /// A clock that does not tell, or that went backwards, is no sign of death.
    fn judge_silence(&self, signs: &Signs) -> Fence {
        let silent = match (signs.last_change, signs.now) {
            (Some(last), Some(now)) => now.duration_since(last).ok(),
            _ => None,
        };
        match silent {
            Some(silent) if silent >= self.silent_after => Fence::Abort,
            _ => Fence::Leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(owner: Owner, last: u64, now: u64) -> Fence {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let policy = FencePolicy {
            silent_after: SILENT_AFTER,
            decided_by: Some(DecidedBy::Slot),
        };
        policy.judge(&Signs {
            owner,
            last_change: Some(at(last)),
            now: Some(at(now)),
        })
    }

    #[test]
    fn only_a_day_of_silence_or_a_known_end_is_death() {
        let day = SILENT_AFTER.as_secs();
        assert_eq!(judge(Owner::Unknown, 1000, 1000 + day), Fence::Abort);
        assert_eq!(judge(Owner::Unknown, 1000, 999 + day), Fence::Leave);
        assert_eq!(judge(Owner::Ended, 1000, 1000), Fence::Abort);
        assert_eq!(judge(Owner::Running, 0, 100 * day), Fence::Leave);
    }

    #[test]
    fn a_clock_that_went_backwards_or_says_nothing_fences_nobody() {
        assert_eq!(judge(Owner::Unknown, 2_000_000_000, 1), Fence::Leave);
        let policy = FencePolicy {
            silent_after: Duration::ZERO,
            decided_by: Some(DecidedBy::Register),
        };
        let signs = Signs {
            owner: Owner::Unknown,
            last_change: None,
            now: Some(SystemTime::UNIX_EPOCH),
        };
        assert_eq!(policy.judge(&signs), Fence::Leave);
    }

    #[test]
    fn without_anything_that_decides_every_session_is_alive() {
        let policy = FencePolicy {
            silent_after: Duration::ZERO,
            decided_by: None,
        };
        let signs = Signs {
            owner: Owner::Ended,
            last_change: None,
            now: None,
        };
        assert_eq!(policy.judge(&signs), Fence::Leave);
    }
}
