//! What an error of the API server asks a person to do.
//!
//! Owns: the kinds of those errors, and the name of the rule that is missing. Must not: call, or repeat a call.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// What a role has to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// e.g. `get`.
    pub verb: &'static str,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The resource in the plural, with its subresource.
    pub resource: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() {
            "\"\""
        } else {
            self.group
        };
        write!(f, "{} {} (apiGroup {group})", self.verb, self.resource)
    }
}

/// The error of a call that needs `rule`, on `object`.
#[must_use]
pub fn failed(error: kube::Error, rule: &Rule, object: &str) -> Error {
    let message = format!("{} {}", rule.verb, rule.resource);
    let made = match code(&error) {
        Some(403) => Error::new(ErrorKind::AccessDenied, message)
            .hint(format!("let a role of this identity allow: {rule}")),
        Some(401) => Error::new(ErrorKind::AccessDenied, message).hint(
            "the API server does not know this identity: renew the credentials of the kubeconfig",
        ),
        Some(404) => Error::new(ErrorKind::NotFound, message),
        Some(400 | 409 | 422) => Error::new(ErrorKind::InvalidRequest, message),
        _ => Error::new(ErrorKind::Unavailable, message)
            .hint("the API server does not answer: run again when it does"),
    };
    made.object(object).source(error)
}

/// The status that the API server answered with; none where it did not.
#[must_use]
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    const RULE: Rule = Rule {
        verb: "create",
        group: "",
        resource: "serviceaccounts/token",
    };

    fn answered(code: u16) -> Error {
        let status = Status::failure("text", "Reason").with_code(code).boxed();
        failed(kube::Error::Api(status), &RULE, "a/b")
    }

    #[test]
    fn a_refusal_names_the_rule() {
        let error = answered(403);
        assert_eq!(error.kind(), ErrorKind::AccessDenied);
        let hint = error.hint_text().unwrap();
        assert!(
            hint.contains("create serviceaccounts/token (apiGroup \"\")"),
            "{hint}"
        );
    }

    #[test]
    fn each_status_is_one_reaction() {
        assert_eq!(answered(401).kind(), ErrorKind::AccessDenied);
        assert_eq!(answered(404).kind(), ErrorKind::NotFound);
        assert_eq!(answered(422).kind(), ErrorKind::InvalidRequest);
        assert_eq!(answered(429).kind(), ErrorKind::Unavailable);
        assert_eq!(answered(503).kind(), ErrorKind::Unavailable);
    }
}
