//! What a running pipeline tells, and how it is told to stop.
//!
//! Owns: shared counters and the stop flag. Must not: print.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// Counters that stages add to and a reporter reads. All in bytes of the volume unless named otherwise.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that will be processed; 0 while unknown.
    pub total: AtomicU64,
    /// Bytes processed, in any way.
    pub done: AtomicU64,
    /// Bytes read from the source (backup) or fetched from the store (restore, verify).
    pub read: AtomicU64,
    /// Zero bytes.
    pub zero: AtomicU64,
    /// Bytes equal to the parent's (backup) or to the target's (restore `--delta`).
    pub unchanged: AtomicU64,
    /// Bytes found earlier in this session.
    pub deduplicated: AtomicU64,
    /// Raw bytes taken over from a killed session; also counted as deduplicated.
    pub resumed: AtomicU64,
    /// Bytes read again to check the source of changed blocks; also counted as read.
    pub sampled: AtomicU64,
    /// Bytes among them that differed where the source declares that this proves nothing.
    pub unstable: AtomicU64,
    /// Raw bytes stored anew (backup) or written (restore).
    pub new: AtomicU64,
    /// Bytes sent to the store.
    pub stored: AtomicU64,
    /// How the device is read or written, once that is known: `io_uring` or `threads`.
    engine: OnceLock<&'static str>,
}

impl Progress {
    /// Adds `bytes` to one counter.
    pub fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says which engine moves the data; the first one told is kept.
    pub fn tell_engine(&self, engine: &'static str) {
        self.engine.get_or_init(|| engine);
    }

    /// The engine that moves the data, once it is known.
    #[must_use]
    pub fn engine(&self) -> Option<&'static str> {
        self.engine.get().copied()
    }

    /// Begins again: what was found counts for nothing, what was read and stored was read and stored.
    pub fn start_over(&self) {
        for counter in [
            &self.done,
            &self.zero,
            &self.unchanged,
            &self.deduplicated,
            &self.resumed,
            &self.unstable,
            &self.new,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Reads one counter.
    #[must_use]
    pub fn read_of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// Asked for by SIGINT or SIGTERM, or due because leave to go on was not renewed; every loop of the data plane looks at it.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    stopped: Arc<AtomicBool>,
    /// Milliseconds after [`epoch`] at which leave lapses; 0 where it never does.
    lapses: Arc<AtomicU64>,
}

/// What moments of this process are counted from.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// From 1: 0 is no moment. What was before the first question counts as that.
fn millis_at(moment: Instant) -> u64 {
    let since = moment.saturating_duration_since(epoch());
    u64::try_from(since.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

impl StopFlag {
    /// Asks every holder to stop.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Gives leave to go on until this moment, as often as it is renewed. A process that was held up meanwhile finds that it has lapsed,
    /// before it does anything else.
    pub fn lapse_at(&self, moment: Instant) {
        self.lapses.store(millis_at(moment), Ordering::Relaxed);
    }

    /// The flag itself, for a signal handler to set.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    /// Whether a stop was asked for, or leave has lapsed.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.has_lapsed()
    }

    /// Whether leave was given, and not renewed in time.
    #[must_use]
    pub fn has_lapsed(&self) -> bool {
        let at = self.lapses.load(Ordering::Relaxed);
        at != 0 && millis_at(Instant::now()) >= at
    }

    /// Fails with `Interrupted` once a stop was asked for.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::new(ErrorKind::Interrupted, "stopped on request")
                .hint("run the same command again to resume"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn leave_lapses_unless_it_is_renewed() {
        let flag = StopFlag::default();
        assert!(!flag.is_stopped(), "without leave there is no end of it");
        let now = Instant::now();
        flag.lapse_at(now + Duration::from_secs(3600));
        assert!(!flag.is_stopped() && flag.check().is_ok());
        let other = flag.clone();
        other.lapse_at(now);
        assert!(flag.has_lapsed() && flag.check().is_err());
        other.lapse_at(now + Duration::from_secs(3600));
        assert!(!flag.is_stopped(), "renewed for all that hold it");
        other.stop();
        assert!(flag.is_stopped() && !flag.has_lapsed());
    }
}
