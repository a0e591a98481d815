//! Tells people and scripts how far a pipeline is, and that a stop was asked for.
//!
//! ```text
//!   pipeline ──► Progress counters ──(every 100 ms)──► monitor thread ──► bar on stderr | JSON line | nothing
//! ```
//!
//! Owns: the one thread that looks at the counters, joined when the [`Monitor`] is dropped. Must not: touch the pipeline.

mod pace;

use std::io::IsTerminal as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};

use super::output::{Output, OutputMode};
use super::signals::Signals;
use super::units;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::Progress;
use pace::Pace;

/// Often enough for a bar that moves and a stop that is answered at once.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between JSON lines: at most two a second is the contract.
const TICKS_PER_LINE: u64 = 5;

/// What a monitor shows.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// The command, for the JSON line.
    pub command: &'static str,
    /// What is shown in front of the bar.
    pub label: String,
    /// What a person reads after the first signal: what happens now, and how to go on later.
    pub on_stop: &'static str,
}

/// Watches one pipeline until it is dropped.
#[derive(Debug)]
pub(super) struct Monitor {
    finished: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    output: Arc<Output>,
    signals: Signals,
}

impl Monitor {
    /// Starts watching; while the monitor lives, the first signal only asks the pipeline to stop.
    pub(super) fn start(
        output: &Arc<Output>,
        progress: &Arc<Progress>,
        signals: &Signals,
        watched: Watched,
    ) -> Result<Self> {
        if shows_bar(output.mode(), std::io::stderr().is_terminal()) {
            output.set_bar(Some(new_bar(&watched.label)?));
        }
        let finished = Arc::new((Mutex::new(false), Condvar::new()));
        let mut watcher = Watcher {
            output: Arc::clone(output),
            progress: Arc::clone(progress),
            signals: signals.clone(),
            watched,
            pace: Pace::default(),
            stop_told: false,
        };
        let until = Arc::clone(&finished);
        let thread = std::thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || watcher.watch(&until))
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "start the monitor thread").source(error)
            })?;
        signals.stop_cleanly(true);
        Ok(Self {
            finished,
            thread: Some(thread),
            output: Arc::clone(output),
            signals: signals.clone(),
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.signals.stop_cleanly(false);
        let (finished, wake) = &*self.finished;
        *finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
        wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread only prints; if it panicked, the hook has recorded it.
            let _ = thread.join();
        }
        self.output.set_bar(None);
    }
}

struct Watcher {
    output: Arc<Output>,
    progress: Arc<Progress>,
    signals: Signals,
    watched: Watched,
    pace: Pace,
    stop_told: bool,
}

impl Watcher {
    fn watch(&mut self, until: &(Mutex<bool>, Condvar)) {
        let started = Instant::now();
        let (finished, wake) = until;
        for tick in 1.. {
            let guard = finished.lock().unwrap_or_else(PoisonError::into_inner);
            let (guard, _) = wake
                .wait_timeout_while(guard, TICK, |finished| !*finished)
                .unwrap_or_else(PoisonError::into_inner);
            let is_last = *guard;
            drop(guard);
            self.tick(started.elapsed(), tick);
            if is_last {
                return;
            }
        }
    }

    fn tick(&mut self, elapsed: Duration, tick: u64) {
        self.tell_stop();
        let state = State::of(&self.progress, &mut self.pace, elapsed);
        self.output.with_bar(|bar| {
            bar.set_length(state.total.max(1));
            bar.set_position(state.done);
            bar.set_message(state.to_text());
        });
        if tick.is_multiple_of(TICKS_PER_LINE) {
            // A stdout that fails is reported by the result line, which meets the same error.
            let _ = self
                .output
                .json_line(
                    "progress",
                    state.to_json(self.watched.command, &self.progress),
                )
                .and_then(|()| self.output.flush());
        }
    }

    fn tell_stop(&mut self) {
        if self.signals.is_stopped() && !self.stop_told {
            self.stop_told = true;
            let text = format!("{}; a second signal exits at once\n", self.watched.on_stop);
            self.output.stderr_bytes(text.as_bytes());
        }
    }
}

/// How far a pipeline is at one moment.
struct State {
    total: u64,
    done: u64,
    elapsed: Duration,
    bytes_per_second: u64,
    left: Option<Duration>,
}

impl State {
    fn of(progress: &Progress, pace: &mut Pace, elapsed: Duration) -> Self {
        let total = Progress::read_of(&progress.total);
        let done = Progress::read_of(&progress.done);
        let bytes_per_second = pace.sample(elapsed, done);
        Self {
            total,
            done,
            elapsed,
            bytes_per_second,
            left: pace.left(total, done),
        }
    }

    fn to_text(&self) -> String {
        let left = self.left.map_or_else(
            || "estimating".to_owned(),
            |left| format!("{} left", units::seconds(left.as_secs_f64())),
        );
        let (done, total) = (units::size(self.done), units::size(self.total));
        format!(
            "{done} of {total}  {}/s  {left}",
            units::size(self.bytes_per_second)
        )
    }

    fn to_json(&self, command: &str, progress: &Progress) -> Map<String, Value> {
        let count = |name: &str, counter: &AtomicU64| {
            (name.to_owned(), Value::from(Progress::read_of(counter)))
        };
        Map::from_iter([
            ("command".to_owned(), Value::from(command)),
            ("total_bytes".to_owned(), Value::from(self.total)),
            ("done_bytes".to_owned(), Value::from(self.done)),
            count("read_bytes", &progress.read),
            count("zero_bytes", &progress.zero),
            count("unchanged_bytes", &progress.unchanged),
            count("deduplicated_bytes", &progress.deduplicated),
            count("new_bytes", &progress.new),
            count("stored_bytes", &progress.stored),
            (
                "bytes_per_second".to_owned(),
                Value::from(self.bytes_per_second),
            ),
            (
                "seconds_left".to_owned(),
                Value::from(self.left.map(|left| left.as_secs())),
            ),
            (
                "elapsed_seconds".to_owned(),
                Value::from(self.elapsed.as_secs_f64()),
            ),
        ])
    }
}

fn shows_bar(mode: OutputMode, stderr_is_terminal: bool) -> bool {
    stderr_is_terminal && !mode.json && !mode.quiet
}

fn new_bar(label: &str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}%  {msg}")
        .map_err(|error| Error::new(ErrorKind::Internal, "read the bar's template").source(error))?
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.set_prefix(label.to_owned());
    Ok(bar)
}

#[cfg(test)]
mod tests;
