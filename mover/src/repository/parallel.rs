//! The same request on many objects, a few at a time.
//!
//! Owns: threads that end with the call, and the first failure. Must not: retry (stores do).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// Runs `work` on every item, `threads` at a time, and adds up what it gives. After a failure no new item is begun.
///
/// # Errors
/// The first failure.
pub(crate) fn sum<T: Sync>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<u64> + Sync,
) -> Result<u64> {
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            match work(item) {
                Ok(count) => {
                    done.fetch_add(count, Ordering::Relaxed);
                }
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(run);
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(done.into_inner()),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn every_item_counts_once() {
        let items: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&items, 7, |n| Ok(*n)).unwrap(), 499_500);
        assert_eq!(sum(&[] as &[u64], 7, |n| Ok(*n)).unwrap(), 0);
    }

    #[test]
    fn a_failure_ends_it() {
        let (items, begun): (Vec<u64>, _) = ((0..1000).collect(), AtomicU64::new(0));
        let error = sum(&items, 1, |n| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *n == 3 {
                return Err(Error::new(ErrorKind::NoSpace, "fail on purpose"));
            }
            Ok(1)
        })
        .unwrap_err();
        assert_eq!((error.kind(), begun.into_inner()), (ErrorKind::NoSpace, 4));
    }
}
