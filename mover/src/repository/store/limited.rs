//! Holds a process to a bandwidth.
//!
//! ```text
//!   put(n bytes): wait until the bucket is out of debt ──► send ──► the bucket owes n
//! ```
//!
//! Owns: one token bucket per direction and rate, shared by all stores of the process. Must not: reorder or split requests.
//! The rate is kept over seconds, not over milliseconds: one object goes out as fast as the line lets it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::lock::{Purged, Version};
use super::profile::StoreProfile;
use super::{Created, ObjectInfo, RequestCounts, Store};
use crate::error::{Error, ErrorKind, Result};

/// Unused bandwidth that may be caught up with.
const BURST: Duration = Duration::from_secs(1);

/// The arithmetic of one direction. Times are counted from an origin that the caller chooses.
#[derive(Debug)]
struct Debt {
    bytes_per_second: u64,
    /// When everything granted so far has been sent at the rate.
    paid_at: Duration,
}

impl Debt {
    /// Books `bytes` at `now` and says how long to wait before sending them: until those before are paid for.
    fn book(&mut self, now: Duration, bytes: u64) -> Duration {
        let starts = self.paid_at.max(now.saturating_sub(BURST));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        self.paid_at = starts + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2));
        starts.saturating_sub(now)
    }
}

/// A bandwidth shared by everybody who holds it.
#[derive(Debug)]
struct TokenBucket {
    origin: Instant,
    debt: Mutex<Debt>,
}

impl TokenBucket {
    fn new(bytes_per_second: u64) -> Self {
        let debt = Debt {
            bytes_per_second,
            paid_at: BURST,
        };
        let origin = Instant::now()
            .checked_sub(BURST)
            .unwrap_or_else(Instant::now);
        Self {
            origin,
            debt: Mutex::new(debt),
        }
    }

    /// Waits for `bytes`; no longer once `is_hurried`: what is on its way then goes out as fast as the line lets it.
    fn take(&self, bytes: u64, is_hurried: &dyn Fn() -> bool) {
        let wait = {
            let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
            debt.book(self.origin.elapsed(), bytes)
        };
        let begun = Instant::now();
        while !is_hurried() {
            let left = wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LISTEN));
        }
    }
}

/// Longest time that whoever waits for bandwidth does not hear a stop.
const LISTEN: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Buckets in use anywhere in this process.
static IN_USE: Mutex<Vec<(Direction, u64, Weak<TokenBucket>)>> = Mutex::new(Vec::new());

/// Whether nobody shall wait for bandwidth any more: the run that sends the requests was asked to stop.
#[derive(Clone)]
pub struct Hurry(Arc<dyn Fn() -> bool + Send + Sync>);

impl Hurry {
    /// As this answers, on any thread and at once.
    pub fn new(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(asked))
    }
}

impl std::fmt::Debug for Hurry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hurry").field(&(self.0)()).finish()
    }
}

/// Bandwidths of both directions.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    upload: Option<Arc<TokenBucket>>,
    download: Option<Arc<TokenBucket>>,
}

impl Limits {
    /// The limits of this process in bytes a second: whoever asks for the same number shares it.
    ///
    /// # Errors
    /// `InvalidRequest` for zero.
    pub fn of_process(upload: Option<u64>, download: Option<u64>) -> Result<Self> {
        Ok(Self {
            upload: upload.map(|rate| shared(Direction::Up, rate)).transpose()?,
            download: download
                .map(|rate| shared(Direction::Down, rate))
                .transpose()?,
        })
    }

    /// Whether there is nothing to hold to.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.upload.is_none() && self.download.is_none()
    }
}

fn shared(direction: Direction, rate: u64) -> Result<Arc<TokenBucket>> {
    if rate == 0 {
        return Err(
            Error::new(ErrorKind::InvalidRequest, "limit the bandwidth to nothing")
                .hint("leave the limit out"),
        );
    }
    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    in_use.retain(|(_, _, bucket)| bucket.strong_count() > 0);
    let found = in_use
        .iter()
        .find(|(d, r, _)| *d == direction && *r == rate)
        .and_then(|(_, _, bucket)| bucket.upgrade());
    Ok(found.unwrap_or_else(|| {
        let bucket = Arc::new(TokenBucket::new(rate));
        in_use.push((direction, rate, Arc::downgrade(&bucket)));
        bucket
    }))
}

/// A store that is held to [`Limits`].
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn Store>,
    limits: Limits,
    hurry: Option<Hurry>,
}

impl Limited {
    /// Holds `inner` to `limits`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            hurry: None,
        }
    }

    /// The same for requests of a run that can be in a hurry.
    #[must_use]
    pub fn heeding(self, hurry: Option<Hurry>) -> Self {
        Self { hurry, ..self }
    }

    fn is_hurried(&self) -> bool {
        self.hurry.as_ref().is_some_and(|hurry| (hurry.0)())
    }

    fn sending(&self, bytes: usize) {
        if let Some(bucket) = &self.limits.upload {
            bucket.take(bytes as u64, &|| self.is_hurried());
        }
    }

    /// Books what a read brought; its size is not known before.
    fn received(&self, bytes: Bytes) -> Bytes {
        if let Some(bucket) = &self.limits.download {
            bucket.take(bytes.len() as u64, &|| self.is_hurried());
        }
        bytes
    }
}

impl Store for Limited {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.sending(body.len());
        self.inner.put(name, body)
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        self.sending(body.len());
        self.inner.put_once(name, body)
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        self.sending(body.len());
        self.inner.create(name, body)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.inner.get(name).map(|bytes| self.received(bytes))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner
            .get_range(name, range)
            .map(|bytes| self.received(bytes))
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        self.inner.head(name)
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        self.inner.list(prefix, page)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)
    }

    fn purge(&self, name: &str) -> Result<Purged> {
        self.inner.purge(name)
    }

    fn lock(&self, name: &str, until: SystemTime) -> Result<()> {
        self.inner.lock(name, until)
    }

    fn locked_until(&self, name: &str) -> Result<Option<SystemTime>> {
        self.inner.locked_until(name)
    }

    fn require_locks(&self) -> Result<()> {
        self.inner.require_locks()
    }

    fn versions(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<Version>) -> Result<()>,
    ) -> Result<()> {
        self.inner.versions(prefix, page)
    }

    fn delete_version(&self, name: &str, version: &str) -> Result<()> {
        self.inner.delete_version(name, version)
    }

    fn get_version(&self, name: &str, version: &str) -> Result<Bytes> {
        self.inner
            .get_version(name, version)
            .map(|bytes| self.received(bytes))
    }

    fn rely_on(&self, folder: &str) {
        self.inner.rely_on(folder);
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn counts(&self) -> RequestCounts {
        self.inner.counts()
    }

    fn explore(&self, scratch: &str) -> Result<StoreProfile> {
        self.inner.explore(scratch)
    }

    fn adopt_profile(&self, profile: &StoreProfile) {
        self.inner.adopt_profile(profile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bytes_wait_until_those_before_are_paid_for() {
        let mut debt = Debt {
            bytes_per_second: 100,
            paid_at: Duration::ZERO,
        };
        assert_eq!(debt.book(Duration::ZERO, 300), Duration::ZERO);
        assert_eq!(debt.book(Duration::ZERO, 100), 3 * SECOND);
        assert_eq!(debt.book(2 * SECOND, 50), 2 * SECOND);
        assert_eq!(debt.book(60 * SECOND, 50), Duration::ZERO);
    }

    #[test]
    fn idle_time_is_caught_up_with_for_a_second_only() {
        let mut debt = Debt {
            bytes_per_second: 100,
            paid_at: Duration::ZERO,
        };
        let mut granted = 0;
        while debt.book(1000 * SECOND, 10).is_zero() {
            granted += 10;
        }
        assert_eq!(
            granted, 110,
            "one second's worth and the request that overdraws"
        );
    }

    #[test]
    fn the_rate_holds_for_any_sizes() {
        let mut debt = Debt {
            bytes_per_second: 1_000_000,
            paid_at: Duration::ZERO,
        };
        let (mut now, mut sent) = (Duration::ZERO, 0_u64);
        for size in (0..2000_u64).map(|i| i * 7919 % 100_000) {
            now += debt.book(now, size);
            sent += size;
        }
        let rate = f64::from(u32::try_from(sent).unwrap()) / now.as_secs_f64();
        assert!((0.99e6..1.02e6).contains(&rate), "{rate}");
    }

    #[test]
    fn a_stop_ends_the_wait_for_bandwidth() {
        use std::sync::atomic::{AtomicBool, Ordering};
        // A rate at which the second request would wait for more than a day.
        let bucket = Arc::new(TokenBucket::new(1));
        bucket.take(100_000, &|| false);
        let stop = Arc::new(AtomicBool::new(false));
        let (heard, waits) = (Arc::clone(&stop), Arc::clone(&bucket));
        let (asks, asked) = crossbeam_channel::bounded(1);
        let thread = std::thread::spawn(move || {
            waits.take(1, &|| {
                let _ = asks.try_send(());
                heard.load(Ordering::Relaxed)
            });
        });
        for _ in 0..3 {
            asked.recv().unwrap();
        }
        assert!(!thread.is_finished(), "it waits");
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    #[test]
    fn a_rate_is_shared_in_the_process_and_zero_is_refused() {
        let one = Limits::of_process(Some(12_345), None).unwrap();
        let two = Limits::of_process(Some(12_345), None).unwrap();
        assert!(Arc::ptr_eq(
            one.upload.as_ref().unwrap(),
            two.upload.as_ref().unwrap()
        ));
        let other = Limits::of_process(Some(12_346), Some(12_345)).unwrap();
        assert!(!Arc::ptr_eq(
            one.upload.as_ref().unwrap(),
            other.upload.as_ref().unwrap()
        ));
        assert!(!Arc::ptr_eq(
            one.upload.as_ref().unwrap(),
            other.download.as_ref().unwrap()
        ));
        assert!(Limits::of_process(Some(0), None).is_err());
        assert!(Limits::of_process(None, None).unwrap().is_unlimited());
    }
}
