//! Which object names a store accepts, so that no name can leave the repository.
//!
//! Owns: the rule. Must not: know what names mean (`repository::ids::name` makes them).
//! A part begins with a letter or digit, so `..`, absolute paths and the store's own dot files cannot be named.

use crate::error::{Error, ErrorKind, Result};

/// Longest part between slashes: `NAME_MAX` of Linux file systems.
const MAX_PART: usize = 255;
/// Longest name: S3's limit for keys is 1,024 bytes, prefix of the repository included.
const MAX_NAME: usize = 768;

/// Whether `part` may stand between two slashes: `[A-Za-z0-9][A-Za-z0-9._-]*`.
pub(super) fn is_part(part: &str) -> bool {
    part.len() <= MAX_PART
        && part
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && part
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

/// Refuses anything but parts joined by single slashes.
///
/// # Errors
/// `InvalidRequest`.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.len() <= MAX_NAME && name.split('/').all(is_part) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!("refuse the object name `{}`", name.escape_debug()),
    ))
}

/// Splits a listing prefix into the folder it names (no slash at its end, empty for the root) and what names inside begin
/// with.
///
/// # Errors
/// `InvalidRequest` if no object could be named so.
pub(super) fn split_prefix(prefix: &str) -> Result<(&str, &str)> {
    let (folder, start) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let folder_fits = if folder.is_empty() {
        !prefix.starts_with('/')
    } else {
        check_name(folder).is_ok()
    };
    if folder_fits && (start.is_empty() || is_part(start)) {
        return Ok((folder, start));
    }
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!("refuse the prefix `{}`", prefix.escape_debug()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_repository_pass() {
        for name in [
            "config",
            "config.b",
            "seg/00ff/00000001.g00",
            "open/aa/r-bb",
            "snap/aa/0000000001-bb",
        ] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn nothing_leaves_the_repository() {
        let long = "a".repeat(256);
        for name in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "a/",
            "a/.b",
            ".incoming/x",
            "a\0b",
            "a\\b",
            "ä",
            &long,
        ] {
            assert_eq!(
                check_name(name).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{name:?}"
            );
        }
    }

    #[test]
    fn prefixes_split_at_the_last_slash() {
        assert_eq!(split_prefix("").unwrap(), ("", ""));
        assert_eq!(split_prefix("seg/").unwrap(), ("seg", ""));
        assert_eq!(split_prefix("seg/ab").unwrap(), ("seg", "ab"));
        assert_eq!(split_prefix("con").unwrap(), ("", "con"));
        for prefix in ["/", "/etc", "../", "a/../", "a//", ".in"] {
            assert!(split_prefix(prefix).is_err(), "{prefix}");
        }
    }
}
