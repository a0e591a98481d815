//! Structured logs on stderr.
//!
//! Owns: the filter and the writer of `tracing`. Must not: decide what is logged. Lines go around the progress bar.

use std::io;
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use super::output::Output;
use crate::error::{Error, ErrorKind, Result};

/// What people see without asking: what went wrong although the run went on.
const DEFAULT_FILTER: &str = "warn";
/// The Kubernetes client warns with the whole answer that it could not read, which may hold a secret. Who wants that names it.
const TELLS_ALL: &str = "kube_client::client";

/// Starts logging by `--log`, else by `RUST_LOG`, else warnings.
///
/// # Errors
/// `InvalidRequest` for a filter that cannot be read.
pub(super) fn start(
    flag: Option<&str>,
    environment: Option<&str>,
    output: &Arc<Output>,
) -> Result<()> {
    let filter = filter(flag, environment)?;
    let colours = !output.mode().json && io::IsTerminal::is_terminal(&io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(colours)
        .with_writer(LogWriter(Arc::clone(output)))
        .finish()
        .with(filter);
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Error::new(ErrorKind::Internal, "start logging").source(error))
}

fn filter(flag: Option<&str>, environment: Option<&str>) -> Result<Targets> {
    let text = flag
        .or(environment)
        .filter(|text| !text.is_empty())
        .unwrap_or(DEFAULT_FILTER);
    let filter: Targets = text.parse().map_err(|error: ParseError| {
        Error::new(
            ErrorKind::InvalidRequest,
            format!("read the log filter `{text}`"),
        )
        .hint("give a level such as `debug`, or a filter such as `warn,mover::pipeline=debug`")
        .source(error)
    })?;
    Ok(if text.contains(TELLS_ALL) {
        filter
    } else {
        filter.with_target(TELLS_ALL, LevelFilter::OFF)
    })
}

#[derive(Debug)]
struct LogWriter(Arc<Output>);

/// One event; `tracing` writes it whole.
struct LogLine<'a>(&'a Output);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine(&self.0)
    }
}

impl io::Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stderr_bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::OutputMode;
    use crate::cli::output::tests::captured;

    #[test]
    fn the_flag_wins_over_the_environment() {
        assert_eq!(
            filter(Some("debug"), Some("error")).unwrap(),
            filter(Some("debug"), None).unwrap()
        );
        let others = filter(None, Some("mover=info")).unwrap();
        assert!(others.would_enable("mover::cli", &tracing::Level::INFO));
        let default = filter(Some(DEFAULT_FILTER), None).unwrap();
        assert_eq!(filter(None, None).unwrap(), default);
        assert_eq!(filter(None, Some("")).unwrap(), default);
    }

    #[test]
    fn whole_answers_are_shown_only_to_who_names_their_target() {
        let shown = |text| {
            filter(Some(text), None)
                .unwrap()
                .would_enable(TELLS_ALL, &tracing::Level::WARN)
        };
        assert!(!shown("trace"));
        assert!(!shown("debug,kube_client=trace"));
        assert!(shown("warn,kube_client::client=warn"));
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        let error = filter(Some("mover=loud"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.hint_text().is_some());
    }

    #[test]
    fn events_are_lines_on_stderr() {
        let (output, out, err) = captured(OutputMode {
            json: true,
            ..OutputMode::default()
        });
        let output = Arc::new(output);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(LogWriter(Arc::clone(&output)))
            .finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!(volume = "db", "started"));
        assert_eq!(out.text(), "");
        assert!(
            err.text().ends_with("started volume=\"db\"\n"),
            "{}",
            err.text()
        );
    }
}
