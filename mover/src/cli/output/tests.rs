//! Text and JSON go to the right stream, and a closed pipe is no error.

use std::sync::Arc;

use super::*;

/// A stream whose bytes a test can look at.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

pub(crate) fn captured(mode: OutputMode) -> (Output, Captured, Captured) {
    let (out, err) = (Captured::default(), Captured::default());
    (
        Output::new(mode, Box::new(out.clone()), Box::new(err.clone())),
        out,
        err,
    )
}

fn fields() -> Map<String, Value> {
    Map::from_iter([("ok".to_owned(), Value::from(true))])
}

fn print_all(mode: OutputMode) -> (String, String) {
    let (output, out, err) = captured(mode);
    output.answer("answer").unwrap();
    output.summary("summary\n").unwrap();
    output.json_line("result", fields()).unwrap();
    output.warning("careful");
    output.flush().unwrap();
    (out.text(), err.text())
}

#[test]
fn each_mode_prints_what_it_promises() {
    let mode = OutputMode::default();
    let warning = "warning: careful\n".to_owned();
    assert_eq!(
        print_all(mode),
        ("answer\nsummary\n".to_owned(), warning.clone())
    );
    assert_eq!(
        print_all(OutputMode {
            quiet: true,
            ..mode
        }),
        ("answer\n".to_owned(), warning.clone())
    );
    assert_eq!(
        print_all(OutputMode { json: true, ..mode }),
        (
            "{\"type\":\"result\",\"ok\":true}\n".to_owned(),
            warning.clone()
        )
    );
    assert_eq!(
        print_all(OutputMode {
            stdout_is_data: true,
            ..mode
        }),
        (String::new(), format!("answer\nsummary\n{warning}"))
    );
}

#[test]
fn a_line_without_fields_is_json_too() {
    let (output, out, _) = captured(OutputMode {
        json: true,
        ..OutputMode::default()
    });
    output.json_line("result", Map::new()).unwrap();
    output.flush().unwrap();
    assert_eq!(out.text(), "{\"type\":\"result\"}\n");
}

#[test]
fn a_closed_pipe_is_no_error_but_a_full_disk_is() {
    let (_, _, err) = captured(OutputMode::default());
    let closed = Output::new(
        OutputMode::default(),
        Box::new(Failing(io::ErrorKind::BrokenPipe)),
        Box::new(err.clone()),
    );
    closed.answer("text").unwrap();
    closed.flush().unwrap();

    let full = Output::new(
        OutputMode::default(),
        Box::new(Failing(io::ErrorKind::StorageFull)),
        Box::new(err),
    );
    full.answer("text").unwrap();
    assert_eq!(full.flush().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn stderr_that_cannot_be_written_to_does_not_matter() {
    let (_, out, _) = captured(OutputMode::default());
    let output = Output::new(
        OutputMode::default(),
        Box::new(out),
        Box::new(Failing(io::ErrorKind::BrokenPipe)),
    );
    output.warning("nobody hears this");
    output.error(&Error::new(ErrorKind::Io, "read"));
}
