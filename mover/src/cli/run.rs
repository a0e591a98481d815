//! One run of the program: what all commands share, from the first flag to the exit code.
//!
//! ```text
//!   Cli ──► Run::start (config, logs, signals) ──► command ──► Outcome | Error ──► finish (text, result line, metrics) ──► Exit
//! ```
//!
//! Owns: that order, and the promise that every run that began ends with one result. Must not: know single commands.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};

use super::args::Cli;
use super::config::RunConfig;
use super::exit::Exit;
use super::monitor::{Monitor, Watched};
use super::output::{Output, errors};
use super::signals::Signals;
use super::{logging, panics};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{RunMetrics, write_atomically};
use crate::pipeline::Context;
use crate::pipeline::progress::{Progress, StopFlag};
use crate::repository::access::Repository;
use crate::repository::store::Store;

/// What a command ends with.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    fields: Map<String, Value>,
    text: Text,
    finding: Option<Error>,
}

/// Text of an outcome, by who wants it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Text {
    /// Nothing to say.
    #[default]
    None,
    /// What the command was asked for.
    Answer(String),
    /// What a person likes to know at the end.
    Summary(String),
}

impl Outcome {
    /// The outcome of a command with this report and text.
    pub(super) fn new(report: &impl Serialize, text: Text) -> Result<Self> {
        match serde_json::to_value(report) {
            Ok(Value::Object(fields)) => Ok(Self {
                fields,
                text,
                finding: None,
            }),
            Ok(_) => Err(Error::new(
                ErrorKind::Internal,
                "write a report that is no record",
            )),
            Err(error) => Err(Error::new(ErrorKind::Internal, "write the report").source(error)),
        }
    }

    /// The command did its work, and what it found must end the run as an error.
    pub(super) fn with_finding(mut self, finding: Option<Error>) -> Self {
        self.finding = finding;
        self
    }
}

/// What all commands share.
#[derive(Debug)]
pub(super) struct Run {
    pub config: RunConfig,
    pub output: Arc<Output>,
    pub signals: Signals,
    pub progress: Arc<Progress>,
    pub metrics: RunMetrics,
    store: Mutex<Option<Arc<dyn Store>>>,
    warnings: Mutex<Vec<String>>,
    started: Instant,
}

impl Run {
    /// Checks the flags that every command takes, then starts logging and listens to signals.
    pub(super) fn start(cli: &Cli, output: &Arc<Output>, started: Instant) -> Result<Self> {
        let config = RunConfig::try_new(cli)?;
        let environment = std::env::var("RUST_LOG").ok();
        logging::start(cli.run.log.as_deref(), environment.as_deref(), output)?;
        let signals = Signals::register(StopFlag::default())?;
        tracing::debug!(?config, "start");
        Ok(Self {
            config,
            output: Arc::clone(output),
            signals,
            progress: Arc::default(),
            metrics: RunMetrics::new(),
            store: Mutex::default(),
            warnings: Mutex::default(),
            started,
        })
    }

    /// Remembers the store, whose requests are counted at the end, also of a run that fails.
    pub(super) fn uses(&self, store: &Arc<dyn Store>) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(store));
    }

    /// Tells a person now, and scripts in the result line; what two parts of a run come upon is told once.
    pub(super) fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let warnings = self.warnings.lock();
        let mut warnings = warnings.unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&warning) {
            self.output.warning(&warning);
            warnings.push(warning);
        }
    }

    /// Set once the process is asked to stop.
    pub(super) fn stop_flag(&self) -> StopFlag {
        self.signals.stop_flag()
    }

    /// What a pipeline runs with.
    pub(super) fn context(&self, repository: &Arc<Repository>) -> Context {
        self.context_with(repository, &self.progress)
    }

    /// The same with other counters, for a run of several pipelines.
    pub(super) fn context_with(
        &self,
        repository: &Arc<Repository>,
        progress: &Arc<Progress>,
    ) -> Context {
        Context {
            repository: Arc::clone(repository),
            progress: Arc::clone(progress),
            stop: self.signals.stop_flag(),
            jobs: self.config.jobs,
            memory: self.config.memory,
        }
    }

    /// Shows the progress of a pipeline until the monitor is dropped.
    pub(super) fn watch(&self, label: impl Into<String>, on_stop: &'static str) -> Result<Monitor> {
        self.watch_with(label, on_stop, &self.progress)
    }

    /// The same with other counters.
    pub(super) fn watch_with(
        &self,
        label: impl Into<String>,
        on_stop: &'static str,
        progress: &Arc<Progress>,
    ) -> Result<Monitor> {
        let watched = Watched {
            command: self.config.command,
            label: label.into(),
            on_stop,
        };
        Monitor::start(&self.output, progress, &self.signals, watched)
    }

    /// Reports the result everywhere it is wanted, and says how the process ends.
    pub(super) fn finish(self, result: Result<Outcome>) -> Exit {
        if result.is_err() {
            self.metrics.observe_progress(&self.progress);
        }
        let mut outcome = result.unwrap_or_else(|error| Outcome {
            finding: Some(error),
            ..Outcome::default()
        });
        let warnings =
            std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        self.metrics.observe_warnings(warnings.len());
        outcome
            .fields
            .insert("warnings".to_owned(), Value::from(warnings));
        let exit = report(&self.output, outcome);
        self.write_metrics(exit);
        exit
    }

    fn write_metrics(&self, exit: Exit) {
        let Some(path) = &self.config.metrics_file else {
            return;
        };
        if let Some(store) = &*self.store.lock().unwrap_or_else(PoisonError::into_inner) {
            self.metrics.observe_store(&store.counts());
        }
        self.metrics.observe_engine(self.progress.engine());
        self.metrics.observe_end(
            self.config.command,
            exit.code(),
            SystemTime::now(),
            self.started.elapsed(),
        );
        let written = self
            .metrics
            .to_text()
            .and_then(|text| write_atomically(path, &text));
        // The point is as good without its metrics: the run does not fail for them.
        if let Err(error) = written {
            self.output.error(&error);
        }
    }
}

/// Reports a run that failed before it began.
pub(super) fn fail(output: &Output, error: Error) -> Exit {
    report(
        output,
        Outcome {
            finding: Some(error),
            ..Outcome::default()
        },
    )
}

/// Prints text, error and result line. Only what stdout refuses can still change how the run ends.
fn report(output: &Output, outcome: Outcome) -> Exit {
    let exit = outcome
        .finding
        .as_ref()
        .map_or(Exit::Done, |error| Exit::from(error.kind()));
    let printed = match &outcome.text {
        Text::None => Ok(()),
        Text::Answer(text) => output.answer(text),
        Text::Summary(text) => output.summary(text),
    };
    if let Some(error) = &outcome.finding {
        output.error(error);
    }
    let line = result_line(exit, outcome.finding.as_ref(), outcome.fields);
    let printed = printed
        .and_then(|()| output.json_line("result", line))
        .and_then(|()| output.flush());
    match printed {
        Err(error) if exit == Exit::Done => {
            output.error(&error);
            Exit::from(error.kind())
        }
        _ => exit,
    }
}

/// The fields of the last JSON line: how it ended, then the report.
fn result_line(
    exit: Exit,
    error: Option<&Error>,
    report: Map<String, Value>,
) -> Map<String, Value> {
    let mut line = report;
    line.insert("ok".to_owned(), Value::from(exit == Exit::Done));
    line.insert("exit_code".to_owned(), Value::from(exit.code()));
    line.insert(
        "error".to_owned(),
        error.map_or(Value::Null, errors::to_json),
    );
    line
}

/// Runs a command so that its panic is an error like any other.
pub(super) fn guarded(command: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    panics::guard(command)
}

#[cfg(test)]
mod tests;
