//! Panics become errors of kind `Internal`.
//!
//! Owns: the panic hook and what it remembered. Must not: end the process. A worker's panic reaches the user with its message
//! even if the pipeline only knows that a thread was lost.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// The first panic of the process: later ones usually follow from it.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Replaces the default hook, which prints in a form that is not for users.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(remember));
}

/// Runs `work` and turns its panic into an error.
///
/// # Errors
/// Whatever `work` returns; `Internal` if it panicked.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "stop on a bug of ours")))
        .map_err(explain)
}

/// Adds to an internal error what the hook remembered, and what to do.
fn explain(error: Error) -> Error {
    if error.kind() != ErrorKind::Internal {
        return error;
    }
    let has_hint = error.hint_text().is_some();
    let remembered = FIRST.lock().ok().and_then(|mut first| first.take());
    let error = match remembered {
        Some(panic) => Error::new(ErrorKind::Internal, error.to_string()).source(panic),
        None => error,
    };
    if has_hint {
        return error;
    }
    error.hint("please report this with the command, its output and RUST_BACKTRACE=1; points made earlier are not affected")
}

fn remember(info: &PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".to_owned());
    let place = info
        .location()
        .map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(%place, "panicked: {message}\n{backtrace}");
    } else {
        tracing::error!(%place, "panicked: {message}");
    }
    if let Ok(mut first) = FIRST.lock() {
        first.get_or_insert_with(|| format!("panicked at {place}: {message}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error_with_a_hint() {
        let error = guard::<()>(|| panic!("chunk {} out of order", 7)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.hint_text().unwrap().contains("report"));
    }

    #[test]
    fn other_errors_pass_unchanged() {
        let error = guard::<()>(|| Err(Error::new(ErrorKind::Io, "read"))).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Io, None));
        assert_eq!(guard(|| Ok(5)).unwrap(), 5);
    }
}
