//! A few threads that take items from one source.
//!
//! Owns: their number, their end, and the first error. Must not: queue: an item is taken when a thread is free for it.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::pipeline::budget::Failure;
use crate::pipeline::progress::StopFlag;

/// Runs `work` on every item, on at most `threads` threads. After the first error, or when a stop is asked for, no further item
/// is begun.
pub(super) fn for_each<T: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    stop: &StopFlag,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let items = Mutex::new(items.fuse());
    let failure = Failure::default();
    let take = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while !failure.is_failed() {
            let done = stop.check().and_then(|()| match take() {
                Some(item) => work(item).map(|()| true),
                None => Ok(false),
            });
            match done {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return failure.record(error),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(run);
        }
        run();
    });
    failure.take().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn every_item_is_worked_on_once_unless_one_fails() {
        let sum = AtomicUsize::new(0);
        for_each(1..=100_usize, 4, &StopFlag::default(), |item| {
            sum.fetch_add(item, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 5050);
        let done = AtomicUsize::new(0);
        let failed = for_each(0..1_000_000_usize, 4, &StopFlag::default(), |item| {
            done.fetch_add(1, Ordering::Relaxed);
            match item {
                10 => Err(Error::new(ErrorKind::Io, "tenth")),
                _ => Ok(()),
            }
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
        assert!(done.into_inner() < 1_000_000);
    }

    #[test]
    fn a_stop_ends_it() {
        let stop = StopFlag::default();
        let ended = for_each(0.., 3, &stop, |item: u32| {
            if item == 50 {
                stop.stop();
            }
            Ok(())
        });
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
