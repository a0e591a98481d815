//! Errors for people and for scripts.
//!
//! Owns: the text and the JSON form of an error. Must not: print. Each cause is told once: a cause that says what the line
//! above it already said is left out.

use std::error::Error as _;

use serde_json::{Value, json};

use crate::error::Error;

/// What failed, on what, why, and what to do next; ends with a newline.
pub(crate) fn to_text(error: &Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in causes(error) {
        text.push_str(&format!("  cause: {cause}\n"));
    }
    if let Some(hint) = hint(error) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// The `error` field of a result line.
pub(crate) fn to_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().as_str(),
        "message": error.message(),
        "object": object(error),
        "hint": hint(error),
        "causes": causes(error),
    })
}

/// The causes from near to far, each told once.
fn causes(error: &Error) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.contains(&text) {
            causes.push(text.clone());
            told = text;
        }
        next = cause.source();
    }
    causes
}

/// The outermost hint of the chain.
fn hint(error: &Error) -> Option<&str> {
    first_of(error, Error::hint_text)
}

/// The outermost object of the chain.
fn object(error: &Error) -> Option<&str> {
    first_of(error, Error::object_name)
}

fn first_of<'a>(error: &'a Error, part: impl Fn(&'a Error) -> Option<&'a str>) -> Option<&'a str> {
    if let Some(found) = part(error) {
        return Some(found);
    }
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<Error>().and_then(&part) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn deep() -> Error {
        Error::new(ErrorKind::Unavailable, "put the object")
            .object("seg/12/3")
            .hint("check the endpoint")
            .source(std::io::Error::other("connection refused"))
    }

    #[test]
    fn a_chain_is_told_from_the_outside_in() {
        let error = Error::new(ErrorKind::Unavailable, "back up the volume")
            .object("db")
            .source(deep());
        assert_eq!(
            to_text(&error),
            "error: back up the volume (db)\n  cause: put the object (seg/12/3)\n  cause: connection refused\nhint: check the endpoint\n"
        );
    }

    #[test]
    fn a_cause_that_repeats_is_told_once() {
        let io = std::io::Error::other("connection refused");
        let middle = Error::new(ErrorKind::Io, "connection refused").source(io);
        let error = Error::new(ErrorKind::Io, "reach the store").source(middle);
        assert_eq!(
            to_text(&error),
            "error: reach the store\n  cause: connection refused\n"
        );
    }

    #[test]
    fn the_json_form_has_the_fields_of_the_contract() {
        let value = to_json(&deep().context("back up the volume"));
        assert_eq!(value["kind"], "unavailable");
        assert_eq!(value["message"], "back up the volume");
        assert_eq!(value["object"], "seg/12/3");
        assert_eq!(value["hint"], "check the endpoint");
        assert_eq!(value["causes"][1], "connection refused");
    }

    #[test]
    fn missing_parts_are_null() {
        let value = to_json(&Error::new(ErrorKind::Internal, "count the chunks"));
        assert!(value["object"].is_null() && value["hint"].is_null());
        assert_eq!(
            to_text(&Error::new(ErrorKind::Internal, "count")),
            "error: count\n"
        );
    }
}
