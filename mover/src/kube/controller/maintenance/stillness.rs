//! A run that does nothing any more.
//!
//! Owns: when a run counts as hanging, and that nobody waits for its thread then. Must not: end a run that takes long and moves.
//!
//! A thread that waits for a file server which never answers cannot be ended. It is asked to stop, and what it has is left to it.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// How long a run may be still, and be asked to stop, and how often it is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without a request that was answered, or a byte.
    pub(super) still: Duration,
    /// From the wish to stop to the end.
    pub(super) stop: Duration,
    /// Between two looks.
    pub(super) look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            still: Duration::from_hours(1),
            stop: Duration::from_mins(1),
            look: Duration::from_secs(5),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum Ended<T> {
    /// By itself, or as it was asked to.
    Itself(Result<T>),
    /// Not at all: its thread goes on, and its result is of no use to anybody.
    Never(JoinHandle<Result<T>>),
}

/// Since when a count is what it is.
#[derive(Clone, Copy, Debug)]
struct Still {
    count: u64,
    since: Instant,
}

impl Still {
    /// For how long it has been this count.
    fn saw(&mut self, count: u64, now: Instant) -> Duration {
        if count != self.count {
            *self = Self { count, since: now };
        }
        now.saturating_duration_since(self.since)
    }
}

/// Waits for the end of `run`, which counts up `signs` while it moves, and hears `stop`.
pub(super) async fn watched<T>(
    mut run: JoinHandle<Result<T>>,
    signs: impl Fn() -> u64,
    stop: &StopFlag,
    patience: Patience,
) -> Ended<T> {
    let mut still = Still {
        count: signs(),
        since: Instant::now(),
    };
    loop {
        tokio::select! {
            ended = &mut run => return Ended::Itself(joined(ended)),
            () = tokio::time::sleep(patience.look) => {}
        }
        if still.saw(signs(), Instant::now()) >= patience.still {
            break;
        }
    }
    stop.stop();
    match tokio::time::timeout(patience.stop, &mut run).await {
        // That it was stopped says less than why.
        Ok(ended) => Ended::Itself(joined(ended).map_err(|_| hangs(patience.still))),
        Err(_) => Ended::Never(run),
    }
}

fn joined<T>(ended: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.map_err(|error| Error::new(ErrorKind::Internal, "maintain a repository").source(error))?
}

/// What is told of a run that did nothing any more.
pub(super) fn hangs(still: Duration) -> Error {
    let minutes = still.as_secs() / 60;
    let message =
        format!("maintain a repository: nothing was read or written for {minutes} minutes");
    Error::new(ErrorKind::Unavailable, message)
        .hint("look whether its directory or bucket answers at all")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Patience = Patience {
        still: Duration::from_millis(20),
        stop: Duration::from_millis(20),
        look: Duration::from_millis(5),
    };

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap()
    }

    #[test]
    fn only_what_stands_still_hangs() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut still = Still {
            count: 0,
            since: begin,
        };
        assert_eq!(still.saw(0, at(10)), Duration::from_secs(10));
        assert_eq!(still.saw(1, at(20)), Duration::ZERO);
        assert_eq!(still.saw(1, at(25)), Duration::from_secs(5));
        assert_eq!(still.saw(2, at(1000)), Duration::ZERO);
    }

    #[test]
    fn a_run_that_hears_nothing_is_left_to_itself() {
        let (release, wait) = crossbeam_channel::bounded::<()>(1);
        let runtime = runtime();
        let stop = StopFlag::default();
        let run = runtime.spawn_blocking(move || {
            // A file server that does not answer.
            let _ = wait.recv();
            Ok(())
        });
        let ended = runtime.block_on(watched(run, || 0, &stop, SOON));
        let Ended::Never(left) = ended else {
            panic!("{ended:?}");
        };
        assert!(stop.is_stopped() && !left.is_finished());
        drop(release);
        runtime.block_on(left).unwrap().unwrap();
    }

    #[test]
    fn a_run_that_hears_ends_with_the_reason_and_another_with_its_result() {
        let runtime = runtime();
        let stop = StopFlag::default();
        let heard = stop.clone();
        let run = runtime.spawn_blocking(move || {
            while !heard.is_stopped() {
                std::thread::yield_now();
            }
            Err::<(), _>(Error::new(ErrorKind::Interrupted, "stopped"))
        });
        let patience = Patience {
            stop: Duration::from_mins(5),
            ..SOON
        };
        let ended = runtime.block_on(watched(run, || 0, &stop, patience));
        let Ended::Itself(Err(error)) = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let run = runtime.spawn_blocking(|| Ok(7));
        let ended = runtime.block_on(watched(
            run,
            || 0,
            &StopFlag::default(),
            Patience::default(),
        ));
        assert!(matches!(ended, Ended::Itself(Ok(7))), "{ended:?}");
    }
}
