//! From the API server's errors to ours.
//!
//! Owns: the one conversion, and what a refusal means to a caller. Must not: retry.

use crate::error::{Error, ErrorKind};

/// The error of a call, with what was done (`action`: verb first, lower case) and to what.
#[must_use]
pub fn failed(action: &str, object: &str, error: kube::Error) -> Error {
    let (kind, hint) = match &error {
        kube::Error::Api(status) => match status.code {
            401 | 403 => (
                ErrorKind::AccessDenied,
                Some("compare the roles with those of the manifests"),
            ),
            404 => (ErrorKind::NotFound, None),
            400 | 422 => (ErrorKind::InvalidRequest, None),
            _ => (ErrorKind::Unavailable, None),
        },
        _ => (ErrorKind::Unavailable, None),
    };
    let text = match &error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    let failure = Error::new(kind, format!("{action}: {text}")).object(object);
    match hint {
        Some(hint) => failure.hint(hint).source(error),
        None => failure.source(error),
    }
}

/// Whether the object is not there.
#[must_use]
pub fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether somebody else was faster: it exists already, or changed since it was read.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
