//! One answer from many windows, computed ahead of the consumer.
//!
//! ```text
//!   worker 0: window 0, 2, 4, …  ──► channel of 1 ─┐
//!   worker 1: window 1, 3, 5, …  ──► channel of 1 ─┴─► in order ──► sink
//! ```
//!
//! Owns: order, look-ahead, and the end of the workers. Must not: know what a window's answer means.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::extent::{ByteLen, Extent};
use crate::scan::stopped;
use crate::source::{ExtentSink, SourceError, Summary};

/// Bytes of one window: a multiple of every object size, large enough that a call costs nothing, small enough that the
/// ranges of one fit into a few MiB.
const WINDOW: u64 = 4 << 30;

/// Each keeps 32 requests in flight; a second one fills the pause at the end of a window.
const WORKERS: u64 = 2;

type Answer<'a> = dyn Fn(Range<u64>) -> Result<Vec<Extent>, SourceError> + Sync + 'a;

/// Asks `answer` about all windows of a target of `size` bytes and passes the extents on in order.
pub(super) fn stream(
    size: u64,
    answer: &Answer<'_>,
    sink: &mut ExtentSink<'_>,
) -> Result<Summary, SourceError> {
    thread::scope(|scope| {
        let mut answers = Vec::new();
        for first in 0..WORKERS.min(size.div_ceil(WINDOW)) {
            let (give, take) = sync_channel(1);
            thread::Builder::new()
                .name(format!("rbd diff {first}"))
                .spawn_scoped(scope, move || work(first, size, answer, &give))
                .map_err(no_thread)?;
            answers.push(take);
        }
        // The channels end with this call, and so do the workers that still wait to give something away.
        consume(size, &answers, sink)
    })
}

fn work(
    first: u64,
    size: u64,
    answer: &Answer<'_>,
    give: &SyncSender<Result<Vec<Extent>, SourceError>>,
) {
    let mut index = first;
    while let Some(start) = index.checked_mul(WINDOW).filter(|start| *start < size) {
        let told = answer(start..start.saturating_add(WINDOW).min(size));
        let failed = told.is_err();
        if give.send(told).is_err() || failed {
            return;
        }
        index += WORKERS;
    }
}

fn consume(
    size: u64,
    answers: &[Receiver<Result<Vec<Extent>, SourceError>>],
    sink: &mut ExtentSink<'_>,
) -> Result<Summary, SourceError> {
    let windows = size.div_ceil(WINDOW);
    let mut extents = 0;
    for (_, take) in (0..windows).zip(answers.iter().cycle()) {
        let told = take
            .recv()
            .map_err(|_| SourceError::full("the answer ended before its end"))??;
        for extent in told {
            if !sink(extent) {
                return Err(stopped());
            }
            extents += 1;
        }
    }
    Ok(Summary {
        size: ByteLen(size),
        extents,
    })
}

fn no_thread(error: io::Error) -> SourceError {
    SourceError::full("start a thread for the changes of an image").because(error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Two extents in each window, one of them at its end.
    fn two(window: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let last = Extent::data(window.end - 1, 1);
        Ok(vec![Extent::zero(window.start, 1), last])
    }

    #[test]
    fn windows_come_in_order_and_end_at_the_size() {
        for windows in 0..7 {
            let size = (windows * WINDOW).saturating_sub(5);
            let mut seen = Vec::new();
            let summary = stream(size, &two, &mut |extent| {
                seen.push(extent.offset.0);
                true
            })
            .unwrap();
            assert_eq!(summary.extents, 2 * windows);
            assert_eq!(summary.size.0, size);
            assert!(seen.is_sorted());
            assert!(windows == 0 || seen.last() == Some(&(size - 1)));
        }
    }

    #[test]
    fn a_stop_or_an_error_ends_the_workers() {
        let asked = AtomicU64::new(0);
        let count = |window: Range<u64>| {
            asked.fetch_add(1, Ordering::Relaxed);
            two(window)
        };
        let answer = stream(1000 * WINDOW, &count, &mut |_| false);
        assert!(answer.is_err());
        // Each worker may have one window given, one waiting, one in the making.
        assert!(asked.load(Ordering::Relaxed) <= 3 * WORKERS);
        let broken = |window: Range<u64>| {
            if window.start == 3 * WINDOW {
                return Err(SourceError::full("broken"));
            }
            two(window)
        };
        let mut seen = 0;
        let answer = stream(1000 * WINDOW, &broken, &mut |_| {
            seen += 1;
            true
        });
        assert_eq!(answer.unwrap_err().message, "broken");
        assert_eq!(seen, 6);
    }
}
