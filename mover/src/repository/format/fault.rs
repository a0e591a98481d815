//! The errors that stored bytes give, in one wording.
//!
//! Owns: the text and kind of every complaint about an object's bytes. Must not: decide what is wrong.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// An object, or a body of it, ends too early.
#[must_use]
pub fn truncated(object: &str, have: u64, need: u64) -> Error {
    corrupt(
        object,
        format!("read a truncated object: {have} of {need} bytes"),
    )
}

/// Bytes differ from what was written.
#[must_use]
pub fn damaged(object: &str, what: impl fmt::Display) -> Error {
    corrupt(object, format!("read a damaged object: {what}"))
}

/// Intact bytes that belong somewhere else, or were made without the key.
#[must_use]
pub fn swapped(object: &str, what: impl fmt::Display) -> Error {
    corrupt(object, format!("refuse a swapped or forged object: {what}"))
}

/// Something that a later version of the format defines.
#[must_use]
pub fn newer(object: &str, what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::NewerFormat,
        format!("read a newer format: {what}"),
    )
    .object(object)
    .hint("use a newer version of snaphaul with this repository")
}

fn corrupt(object: &str, message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message)
        .object(object)
        .hint("`snaphaul verify` lists everything that is damaged and the points that it hurts")
}
