//! What a run prints, and where.
//!
//! ```text
//!   answers, summaries ─► stdout (stderr while stdout carries restored data)     JSON lines ─► stdout
//!   progress bar, warnings, errors, logs ─► stderr, never through each other
//! ```
//!
//! Owns: both streams and the progress bar between them. Must not: decide what is printed or with which exit code the run
//! ends. A reader that closes the pipe early (`| head`) is no error.

pub(super) mod errors;
pub(super) mod table;

use std::io::{self, BufWriter, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// Large enough that a long list costs few system calls.
const STDOUT_BUFFER_BYTES: usize = 64 * 1024;

/// A stream the output may be sent to.
pub(super) type Stream = Box<dyn Write + Send>;

/// How a run prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutputMode {
    /// JSON lines on stdout instead of text.
    pub json: bool,
    /// Only errors and what was asked for.
    pub quiet: bool,
    /// Restored data goes to stdout, so text must not.
    pub stdout_is_data: bool,
}

/// Both streams of a run.
pub(super) struct Output {
    mode: OutputMode,
    stdout: Mutex<BufWriter<Stream>>,
    stderr: Mutex<Stream>,
    bar: Mutex<Option<ProgressBar>>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Output to the streams of the process.
    pub(super) fn of_process(mode: OutputMode) -> Self {
        Self::new(mode, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Output to any two streams.
    pub(super) fn new(mode: OutputMode, stdout: Stream, stderr: Stream) -> Self {
        Self {
            mode,
            stdout: Mutex::new(BufWriter::with_capacity(STDOUT_BUFFER_BYTES, stdout)),
            stderr: Mutex::new(stderr),
            bar: Mutex::new(None),
        }
    }

    /// How this run prints.
    pub(super) fn mode(&self) -> OutputMode {
        self.mode
    }

    /// Prints text that was asked for: a list, a script. Nothing with `--json`, where the result line carries it.
    pub(super) fn answer(&self, text: &str) -> Result<()> {
        if self.mode.json || text.is_empty() {
            return Ok(());
        }
        if self.mode.stdout_is_data {
            self.stderr_bytes(line(text).as_bytes());
            return Ok(());
        }
        self.stdout_bytes(line(text).as_bytes())
    }

    /// Prints text that a person likes to see at the end; nothing with `--quiet`.
    pub(super) fn summary(&self, text: &str) -> Result<()> {
        if self.mode.quiet {
            Ok(())
        } else {
            self.answer(text)
        }
    }

    /// Prints one JSON line of the given type; nothing without `--json`.
    pub(super) fn json_line(&self, kind: &str, fields: Map<String, Value>) -> Result<()> {
        if !self.mode.json {
            return Ok(());
        }
        let kind = Value::from(kind);
        // The type stands first, for people who read along; the other fields follow by name.
        let text = match Value::Object(fields).to_string().strip_prefix('{') {
            Some("}") | None => format!("{{\"type\":{kind}}}"),
            Some(rest) => format!("{{\"type\":{kind},{rest}"),
        };
        self.stdout_bytes(line(&text).as_bytes())
    }

    /// Says on stderr what a person should know although the run goes on.
    pub(super) fn warning(&self, text: &str) {
        self.stderr_bytes(line(&format!("warning: {text}")).as_bytes());
    }

    /// Prints an error with its causes and hint on stderr.
    pub(super) fn error(&self, error: &Error) {
        self.stderr_bytes(errors::to_text(error).as_bytes());
    }

    /// Writes to stderr; around the progress bar, if one is shown. A stderr that cannot be written to is nobody's loss.
    pub(super) fn stderr_bytes(&self, bytes: &[u8]) {
        let bar = locked(&self.bar);
        let write = || {
            let mut stderr = locked(&self.stderr);
            let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
        };
        match bar.as_ref() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows `bar` from now on, or none.
    pub(super) fn set_bar(&self, bar: Option<ProgressBar>) {
        let old = std::mem::replace(&mut *locked(&self.bar), bar);
        if let Some(old) = old {
            old.finish_and_clear();
        }
    }

    /// Changes the bar that is shown, if any.
    pub(super) fn with_bar(&self, change: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = locked(&self.bar).as_ref() {
            change(bar);
        }
    }

    /// Sends what is buffered to stdout.
    pub(super) fn flush(&self) -> Result<()> {
        settle(locked(&self.stdout).flush())
    }

    fn stdout_bytes(&self, bytes: &[u8]) -> Result<()> {
        settle(locked(&self.stdout).write_all(bytes))
    }
}

/// A closed pipe means that the reader has seen enough.
fn settle(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(ErrorKind::Io, "write to stdout").source(error))
        }
        _ => Ok(()),
    }
}

/// `text` with exactly one newline at its end.
fn line(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}

/// A panic elsewhere must not silence the report about it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests;
