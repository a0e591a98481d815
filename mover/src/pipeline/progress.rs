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
    /// Extents that a source of changed blocks told before anything was read.
    pub told: AtomicU64,
    /// Bytes that one stage handed on and the next has not taken yet.
    pub queued: AtomicU64,
    /// What the stages did with their time.
    pub stages: StageTimes,
    /// How the device is read or written, once that is known: `io_uring` or `threads`.
    engine: OnceLock<&'static str>,
}

impl Progress {
    /// Adds `bytes` to one counter.
    pub fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One stage hands bytes on.
    pub fn hand_on(&self, bytes: usize) {
        Self::add(&self.queued, bytes as u64);
    }

    /// The next stage takes them.
    pub fn take_over(&self, bytes: usize) {
        self.queued.fetch_sub(bytes as u64, Ordering::Relaxed);
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

/// Bytes between two stages, until it is dropped.
#[derive(Debug)]
pub struct Queued(Arc<Progress>, usize);

impl Queued {
    /// One stage hands them on.
    #[must_use]
    pub fn new(progress: &Arc<Progress>, bytes: usize) -> Self {
        progress.hand_on(bytes);
        Self(Arc::clone(progress), bytes)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.take_over(self.1);
    }
}

/// A kind of thread of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reads the source.
    Read,
    /// Compares, compresses and encrypts.
    Encode,
    /// Sends to the store.
    Upload,
    /// Fetches from the store.
    Fetch,
    /// Decrypts and decompresses.
    Decode,
    /// Writes the target.
    Write,
}

impl Stage {
    /// All, in the order in which data passes them.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Encode,
        Self::Upload,
        Self::Fetch,
        Self::Decode,
        Self::Write,
    ];

    /// Its name: a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Encode => "encode",
            Self::Upload => "upload",
            Self::Fetch => "fetch",
            Self::Decode => "decode",
            Self::Write => "write",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Read => 0,
            Self::Encode => 1,
            Self::Upload => 2,
            Self::Fetch => 3,
            Self::Decode => 4,
            Self::Write => 5,
        }
    }
}

/// Time of the threads of each stage, added up: at work, and waiting for another stage. A stage that is always at work is what the others
/// wait for.
#[derive(Debug, Default)]
pub struct StageTimes([(AtomicU64, AtomicU64); Stage::ALL.len()]);

impl StageTimes {
    /// Nanoseconds at work and waiting.
    #[must_use]
    pub fn of(&self, stage: Stage) -> (u64, u64) {
        let (busy, waiting) = &self.0[stage.index()];
        // Below zero while a thread that waited deep inside its work has not told of the work yet.
        let busy = i64::try_from(Progress::read_of(busy)).map_or(0, i64::unsigned_abs);
        (busy, Progress::read_of(waiting))
    }

    /// Waits for another stage, deep inside of the work of a thread that has a clock.
    pub fn waits<T>(&self, stage: Stage, wait: impl FnOnce() -> T) -> T {
        let (busy, waiting) = &self.0[stage.index()];
        let started = Instant::now();
        let outcome = wait();
        let time = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Progress::add(waiting, time);
        // The clock adds all of it, with this, as work.
        busy.fetch_sub(time, Ordering::Relaxed);
        outcome
    }

    /// The clock of one thread of a stage, which is at work from now on.
    #[must_use]
    pub fn clock(&self, stage: Stage) -> StageClock<'_> {
        StageClock {
            times: &self.0[stage.index()],
            since: Instant::now(),
        }
    }
}

/// Measures what a thread does with its time, until it is dropped.
#[derive(Debug)]
pub struct StageClock<'a> {
    times: &'a (AtomicU64, AtomicU64),
    since: Instant,
}

impl StageClock<'_> {
    /// Waits for another stage.
    pub fn waits<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        self.lap(false);
        let outcome = wait();
        self.lap(true);
        outcome
    }

    fn lap(&mut self, waited: bool) {
        let now = Instant::now();
        let time = now.duration_since(self.since).as_nanos();
        let counter = if waited { &self.times.1 } else { &self.times.0 };
        Progress::add(counter, u64::try_from(time).unwrap_or(u64::MAX));
        self.since = now;
    }
}

impl Drop for StageClock<'_> {
    fn drop(&mut self) {
        self.lap(false);
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

    #[test]
    fn time_at_work_and_waiting_adds_up() {
        let times = StageTimes::default();
        let started = Instant::now();
        let nap = Duration::from_millis(20);
        let mut clock = times.clock(Stage::Encode);
        clock.waits(|| std::thread::sleep(nap));
        times.waits(Stage::Encode, || std::thread::sleep(nap));
        std::thread::sleep(nap);
        drop(clock);
        let all = u64::try_from(started.elapsed().as_nanos()).unwrap();
        let (busy, waiting) = times.of(Stage::Encode);
        let nap = u64::try_from(nap.as_nanos()).unwrap();
        assert!(waiting >= 2 * nap && busy >= nap, "{busy} {waiting}");
        assert!(busy + waiting <= all, "{busy} + {waiting} of {all}");
        assert_eq!(times.of(Stage::Read), (0, 0));
    }

    #[test]
    fn a_thread_that_still_works_has_not_worked_less_than_nothing() {
        let times = StageTimes::default();
        let clock = times.clock(Stage::Fetch);
        times.waits(Stage::Fetch, || {
            std::thread::sleep(Duration::from_millis(2));
        });
        assert_eq!(times.of(Stage::Fetch).0, 0);
        drop(clock);
    }

    #[test]
    fn what_is_dropped_is_queued_no_more() {
        let progress = Arc::new(Progress::default());
        let one = Queued::new(&progress, 5);
        let two = Queued::new(&progress, 7);
        drop(one);
        assert_eq!(Progress::read_of(&progress.queued), 7);
        drop(two);
        assert_eq!(Progress::read_of(&progress.queued), 0);
    }
}
