//! What an answer to an order says in the end.
//!
//! Owns: which end is which state. Must not: write it.

use serde_json::{Value, json};

use super::status::now;
use super::stopper::Cause;
use super::transfer::Success;
use crate::error::{Error, ErrorKind};
use crate::kube::api::transfer::{TransferState, TransferStatus};

/// Bytes of a message: a status is read by people, and stored with every change.
const MESSAGE_BYTES: usize = 1024;

/// The answer to an attempt that failed. `None` where nobody waits for it.
pub(super) fn of_failure(
    attempt: i64,
    error: &Error,
    cause: Option<&Cause>,
) -> Option<TransferStatus> {
    let state = match cause {
        Some(Cause::Superseded) => return None,
        Some(Cause::Order(_)) => TransferState::Stopped,
        Some(Cause::Drain | Cause::HolderLost | Cause::CutOff) => TransferState::Interrupted,
        None if may_succeed_later(error.kind()) => TransferState::Interrupted,
        None => TransferState::Failed,
    };
    let message = match cause {
        Some(Cause::Order(why)) => format!("stopped: {why}"),
        Some(Cause::Drain) => {
            "the agent of this node ends; what was moved is taken over by the next attempt"
                .to_owned()
        }
        Some(Cause::HolderLost) => {
            format!("the holder of the device went away: {}", told(error))
        }
        Some(Cause::CutOff) => {
            "the API server could not be asked whether the order still stands".to_owned()
        }
        Some(Cause::Superseded) | None => told(error),
    };
    Some(TransferStatus {
        attempt,
        state,
        error_kind: Some(error.kind().as_str().to_owned()),
        message: Some(cut(message)),
        base_needed: None,
        last_progress: None,
    })
}

/// Whether another attempt may do better without anybody's help: the device or the store went away, or somebody took the session over.
fn may_succeed_later(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::Io | ErrorKind::Fenced | ErrorKind::Interrupted
    )
}

/// What a person should know although all went well.
pub(super) fn of_warnings(warnings: &[String]) -> Option<String> {
    (!warnings.is_empty()).then(|| cut(warnings.join("; ")))
}

/// An error with its causes and what to do next.
pub(super) fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    if let Some(hint) = error.hint_text() {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES));
    text
}

/// Fields that are absent are taken away: an answer stands for itself, whatever was said before.
pub(super) fn with_nulls(answer: &TransferStatus) -> Value {
    json!({
        "attempt": answer.attempt,
        "state": answer.state,
        "errorKind": answer.error_kind,
        "message": answer.message,
        "baseNeeded": answer.base_needed,
    })
}

/// The agent's part of a status after success.
pub(super) fn fields_of(success: &Success, attempt: i64) -> Value {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let progress = |size: u64| json!({ "totalBytes": bytes(size), "bytesDone": bytes(size) });
    let transfer = |warnings: &[String], base_needed: Option<bool>| {
        let mut answer = with_nulls(&TransferStatus {
            attempt,
            state: TransferState::Succeeded,
            message: of_warnings(warnings),
            base_needed,
            ..TransferStatus::default()
        });
        answer["lastProgress"] = Value::from(now());
        answer
    };
    match success {
        Success::Backup(report, point) => json!({
            "transfer": transfer(&report.warnings, Some(report.base_needed_by.is_some())),
            "progress": progress(report.size_bytes),
            "point": point,
            "incrementalBytes": bytes(report.new_bytes),
            "changedBlocks": { "source": report.changed_blocks, "reason": report.changed_blocks_reason },
        }),
        Success::Committed(found) => json!({
            "transfer": transfer(&[], Some(found.base_needed)),
            "progress": progress(found.size),
            "point": found.point,
            "incrementalBytes": bytes(found.incremental),
            "changedBlocks": found.changed_blocks,
        }),
        Success::Restore(report) => json!({
            "transfer": transfer(&report.warnings, None),
            "progress": progress(report.size_bytes),
        }),
    }
}

/// The word of the metric, from a closed set.
pub(super) fn word(state: &str) -> &'static str {
    match state {
        "Succeeded" => "succeeded",
        "Stopped" => "stopped",
        "Interrupted" => "interrupted",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_what_another_attempt_could_do() {
        let order = Cause::Order("cancelled".to_owned());
        for (kind, cause, wanted) in [
            (
                ErrorKind::Interrupted,
                Some(&order),
                Some(TransferState::Stopped),
            ),
            (
                ErrorKind::Interrupted,
                Some(&Cause::Drain),
                Some(TransferState::Interrupted),
            ),
            (
                ErrorKind::Io,
                Some(&Cause::HolderLost),
                Some(TransferState::Interrupted),
            ),
            (ErrorKind::Interrupted, Some(&Cause::Superseded), None),
            (
                ErrorKind::Unavailable,
                None,
                Some(TransferState::Interrupted),
            ),
            (ErrorKind::Fenced, None, Some(TransferState::Interrupted)),
            (ErrorKind::WrongKey, None, Some(TransferState::Failed)),
            (ErrorKind::NotFound, None, Some(TransferState::Failed)),
            (ErrorKind::NoSpace, None, Some(TransferState::Failed)),
            (ErrorKind::SourceChanged, None, Some(TransferState::Failed)),
            (ErrorKind::Internal, None, Some(TransferState::Failed)),
        ] {
            let answer = of_failure(3, &Error::new(kind, "x"), cause);
            assert_eq!(
                answer.as_ref().map(|answer| answer.state),
                wanted,
                "{kind:?} {cause:?}"
            );
            assert!(answer.is_none_or(|answer| answer.attempt == 3));
        }
    }

    #[test]
    fn a_message_has_causes_hint_and_an_end() {
        let error = Error::new(ErrorKind::Io, "read 5 bytes")
            .context("open it")
            .hint("look");
        let answer = of_failure(1, &error, None).unwrap();
        assert_eq!(answer.message.unwrap(), "open it: read 5 bytes; look");
        assert_eq!(answer.error_kind.unwrap(), "io");
        let long = Error::new(ErrorKind::Io, "ö".repeat(2000));
        let text = of_failure(1, &long, None).unwrap().message.unwrap();
        assert_eq!(text.len(), MESSAGE_BYTES);
        assert_eq!(of_warnings(&[]), None);
    }
}
