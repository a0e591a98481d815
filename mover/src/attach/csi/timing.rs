//! How long drivers take, and how long we take ourselves.
//!
//! Owns: the clock between "the snapshot exists" and the first byte that was read. Must not: decide anything by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use changed_blocks::{
    Base, Capabilities, ChangedBlocks, ExtentSink, Identity, SourceError, Summary,
};

use crate::device::buffer::AlignedBuffer;
use crate::device::queue::{Completion, IoQueue};

/// The clock of one run. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Timing(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    snapshot_exists: OnceLock<Instant>,
    /// Nanoseconds that drivers took since then.
    driver: AtomicU64,
    first_byte: OnceLock<(Duration, Duration)>,
}

impl Timing {
    /// From here on it counts.
    pub fn snapshot_exists(&self) {
        if self.0.snapshot_exists.set(Instant::now()).is_ok() {
            self.0.driver.store(0, Ordering::Relaxed);
        }
    }

    /// Runs what a driver, or its kernel device, makes us wait for.
    pub fn of_driver<T>(&self, wait: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let answer = wait();
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.driver.fetch_add(nanos, Ordering::Relaxed);
        answer
    }

    fn first_byte(&self) {
        self.0.first_byte.get_or_init(|| {
            let exists = self.0.snapshot_exists.get();
            let all = exists.map_or(Duration::ZERO, Instant::elapsed);
            let driver = Duration::from_nanos(self.0.driver.load(Ordering::Relaxed));
            (all, driver)
        });
    }

    /// From "the snapshot exists" to the first byte: all of it, and what of that was ours. `None` where nothing was read.
    #[must_use]
    pub fn until_first_byte(&self) -> Option<(Duration, Duration)> {
        let (all, driver) = self.0.first_byte.get().copied()?;
        Some((all, all.saturating_sub(driver)))
    }

    /// The queue, which notes when the first byte came.
    #[must_use]
    pub fn watch(&self, queue: Box<dyn IoQueue>) -> Box<dyn IoQueue> {
        Box::new(Watched {
            queue,
            timing: self.clone(),
        })
    }

    /// The source, whose answers count as the driver's time.
    #[must_use]
    pub fn ask(&self, source: Box<dyn ChangedBlocks + Send>) -> Box<dyn ChangedBlocks + Send> {
        Box::new(Asked {
            source,
            timing: self.clone(),
        })
    }
}

#[derive(Debug)]
struct Watched {
    queue: Box<dyn IoQueue>,
    timing: Timing,
}

impl IoQueue for Watched {
    fn engine(&self) -> &'static str {
        self.queue.engine()
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        self.queue.take_buffers()
    }

    fn read(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        self.queue.read(token, offset, len, buffer);
    }

    fn write(&mut self, token: u64, offset: u64, len: usize, buffer: AlignedBuffer) {
        self.queue.write(token, offset, len, buffer);
    }

    fn wait(&mut self) -> Option<Completion> {
        let completion = self.queue.wait();
        self.timing.first_byte();
        completion
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}

struct Asked {
    source: Box<dyn ChangedBlocks + Send>,
    timing: Timing,
}

impl ChangedBlocks for Asked {
    fn capabilities(&self) -> Capabilities {
        self.source.capabilities()
    }

    fn identity(&self) -> Option<Identity> {
        self.source.identity()
    }

    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        let source = &mut self.source;
        self.timing.of_driver(|| source.bind(base))
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let source = &mut self.source;
        self.timing.of_driver(|| source.allocated(sink))
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let source = &mut self.source;
        self.timing.of_driver(|| source.delta(sink))
    }

    fn goes_back(&self, base: &Identity) -> Option<String> {
        self.source.goes_back(base)
    }

    fn tells_both(&self) -> bool {
        self.source.tells_both()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_takes_is_not_ours() {
        let timing = Timing::default();
        timing.of_driver(|| ());
        timing.snapshot_exists();
        timing.of_driver(|| std::thread::sleep(Duration::from_millis(30)));
        timing.first_byte();
        let (all, ours) = timing.until_first_byte().unwrap();
        assert!(all >= Duration::from_millis(30), "{all:?}");
        assert!(
            all - ours >= Duration::from_millis(30),
            "{ours:?} of {all:?}"
        );
    }

    #[test]
    fn the_first_byte_comes_once() {
        let timing = Timing::default();
        assert_eq!(timing.until_first_byte(), None);
        timing.first_byte();
        let first = timing.until_first_byte();
        timing.snapshot_exists();
        timing.first_byte();
        assert_eq!(timing.until_first_byte(), first);
    }
}
