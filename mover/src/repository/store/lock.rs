//! Object Lock: which objects a store must refuse to delete, and until when.
//!
//! ```text
//!   windows of G:   |----- w -----|---- w+1 ----|        end(w) = start of w+1, plus R
//!                      ^ stored here                      so R <= lock <= R + G
//!                      ^-------------- locked ----------------->|
//! ```
//!
//! Owns: the policy that `init` records (`FORMAT.md`, "Store profile"), its dates, and what a purge may answer. Must not: talk
//! to stores, or read a clock: moments come in by parameter.
//!
//! All locks made during one window end at the same moment, so a point that re-uses objects of its own window has nothing to
//! extend, and how long the objects of an older point are locked follows from that point's time alone: nobody asks the store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minicbor::{Decode, Encode};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::name;

/// Longest lock that `init` takes, window included: in compliance mode nobody can end one early.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Longest window that is chosen without being asked for.
pub const USUAL_WINDOW: Duration = Duration::from_secs(7 * 86_400);

/// A slot of at most this size holds an abort marker, which is never locked (`session::records`).
const MAX_ABORT_LEN: usize = 256;

/// Who may end a lock early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LockMode {
    /// Users with the right to bypass it.
    #[n(0)]
    Governance,
    /// Nobody, the owner of the account included.
    #[n(1)]
    Compliance,
}

/// How long objects are locked; constant for the life of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ObjectLock {
    /// Who may end a lock early.
    #[n(0)]
    pub mode: LockMode,
    /// Every point is locked at least this long after its commit, in seconds.
    #[n(1)]
    pub keep_secs: u64,
    /// Length of a window in seconds: the most that a lock may be longer, and how often locks are extended at most.
    #[n(2)]
    pub window_secs: u64,
}

impl ObjectLock {
    /// A policy as asked for. Without `window` it is a quarter of `keep`, a week at most.
    ///
    /// # Errors
    /// `InvalidRequest` for times that cannot be meant.
    pub fn new(mode: LockMode, keep: Duration, window: Option<Duration>) -> Result<Self> {
        let refuse = |what: &str, hint: &str| {
            Err(Error::new(ErrorKind::InvalidRequest, what.to_owned()).hint(hint))
        };
        let usual = (keep / 4).clamp(Duration::from_secs(1), USUAL_WINDOW);
        let window = window.unwrap_or(usual);
        if keep.as_secs() == 0 || window.as_secs() == 0 {
            return refuse(
                "lock objects for no time",
                "give --lock-for and --lock-window at least 1s, e.g. --lock-for 30d",
            );
        }
        if keep.saturating_add(window) > LONGEST {
            return refuse(
                "lock objects for more than a century",
                "give --lock-for what a point must survive, e.g. 30d; locks of points in use are extended",
            );
        }
        Ok(Self {
            mode,
            keep_secs: keep.as_secs(),
            window_secs: window.as_secs(),
        })
    }

    /// Number of the window that holds `moment`.
    #[must_use]
    pub fn window(&self, moment: SystemTime) -> u64 {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs() / self.window_secs.max(1)
    }

    /// Until when an object is locked that is stored or extended at `moment`: at least `keep_secs` after any moment of the
    /// same window.
    #[must_use]
    pub fn end(&self, moment: SystemTime) -> SystemTime {
        let next = self.window(moment).saturating_add(1);
        let start = next.saturating_mul(self.window_secs.max(1));
        let longest = LONGEST.as_secs().saturating_mul(4);
        UNIX_EPOCH + Duration::from_secs(start.saturating_add(self.keep_secs).min(longest))
    }

    /// Whether an object is locked from the moment it is stored. The start record of a session is not: it is locked once its
    /// point is committed. What belongs to no point never is.
    #[must_use]
    pub fn covers(object: &str, body_len: usize) -> bool {
        let root = object == name::CONFIG
            || object == name::second_copy(name::CONFIG)
            || object.starts_with(name::KEYS);
        let point = [name::SEG, name::MAP, name::LIVE, name::COPY]
            .iter()
            .any(|prefix| object.starts_with(prefix));
        root || point || (object.starts_with(name::SNAP) && body_len > MAX_ABORT_LEN)
    }
}

/// How a purge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// No version of the object is left.
    Gone,
    /// The store keeps a version of it until then. What is newer than that version is still there as well.
    LockedUntil(SystemTime),
}

/// One version of an object, or a marker that hides those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Full name of the object inside the repository.
    pub name: String,
    /// The store's name of the version.
    pub id: String,
    /// Size in bytes; 0 for a marker.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: Option<SystemTime>,
    /// What a plain DELETE leaves: the object reads as absent.
    pub is_marker: bool,
    /// Whether it is what a plain GET meets.
    pub is_latest: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn lock(keep_secs: u64, window_secs: u64) -> ObjectLock {
        ObjectLock {
            mode: LockMode::Compliance,
            keep_secs,
            window_secs,
        }
    }

    #[test]
    fn one_window_has_one_end() {
        let lock = lock(30 * DAY, 7 * DAY);
        assert_eq!(lock.end(at(0)), at(37 * DAY));
        assert_eq!(lock.end(at(7 * DAY - 1)), at(37 * DAY));
        assert_eq!(lock.end(at(7 * DAY)), at(44 * DAY));
    }

    proptest! {
        #[test]
        fn a_lock_is_as_long_as_promised_and_at_most_a_window_longer(
            keep in 1..10_000_000_u64, window in 1..10_000_000_u64, now in 0..4_000_000_000_u64
        ) {
            let held = lock(keep, window).end(at(now)).duration_since(at(now)).unwrap().as_secs();
            prop_assert!(held > keep && held <= keep + window, "{} of {} + {}", held, keep, window);
        }

        #[test]
        fn objects_of_a_window_outlast_every_point_of_it(
            keep in 1..10_000_000_u64, window in 1..10_000_000_u64, stored in 0..4_000_000_000_u64, later in 0..10_000_000_u64
        ) {
            let lock = lock(keep, window);
            let (stored, commit) = (at(stored), at(stored + later));
            if lock.window(stored) == lock.window(commit) {
                prop_assert!(lock.end(stored) >= commit + Duration::from_secs(keep));
            }
        }

        #[test]
        fn no_record_makes_it_panic(keep: u64, window: u64, now: u64) {
            let now = UNIX_EPOCH.checked_add(Duration::from_secs(now)).unwrap_or(UNIX_EPOCH);
            let _ = lock(keep, window).end(now);
        }
    }

    #[test]
    fn what_no_point_needs_is_not_locked() {
        for (name, len, locked) in [
            ("config", 300, true),
            ("config.b", 300, true),
            ("keys/00.b", 200, true),
            ("seg/s/00000000.g00", 9, true),
            ("map/s/00000000", 9, true),
            ("live/v/k", 9, true),
            ("copy/v/k", 900, true),
            ("snap/v/k", 900, true),
            ("snap/v/k", 256, false),
            ("open/v/k", 900, false),
            ("open/v/r-k", 900, false),
            ("tomb/v/k", 900, false),
            ("beat/s", 900, false),
            ("probe/x/body", 2000, false),
            ("quarantine/s/1", 2000, false),
        ] {
            assert_eq!(ObjectLock::covers(name, len), locked, "{name} {len}");
        }
    }

    #[test]
    fn times_that_cannot_be_meant_are_refused() {
        let make = |keep, window: Option<u64>| {
            let window = window.map(Duration::from_secs);
            ObjectLock::new(LockMode::Governance, Duration::from_secs(keep), window)
        };
        assert_eq!(make(30 * DAY, None).unwrap().window_secs, 7 * DAY);
        assert_eq!(make(8 * DAY, None).unwrap().window_secs, 2 * DAY);
        assert_eq!(make(2, None).unwrap().window_secs, 1);
        assert_eq!(make(5, Some(9)).unwrap().window_secs, 9);
        for (keep, window) in [
            (0, None),
            (5, Some(0)),
            (u64::MAX, None),
            (5, Some(u64::MAX)),
        ] {
            let error = make(keep, window).unwrap_err();
            assert!(error.hint_text().is_some(), "{keep} {window:?}");
        }
    }
}
