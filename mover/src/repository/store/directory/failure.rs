//! Turns what the system answered into what the caller should do.
//!
//! Owns: the one place where errno becomes an error kind for directory stores. Must not: retry.

use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// Classifies `cause`, which happened while trying to `action` on `path`.
pub(super) fn classify(cause: &io::Error, action: &str, path: &Path) -> Error {
    let (kind, hint) = match cause.raw_os_error() {
        Some(libc::ENOSPC) => (
            ErrorKind::NoSpace,
            Some("free space on the file system of the repository"),
        ),
        Some(libc::EDQUOT) => (
            ErrorKind::NoSpace,
            Some("free space or raise the quota of this user"),
        ),
        Some(libc::EACCES | libc::EPERM) => (
            ErrorKind::AccessDenied,
            Some("check owner and permissions of the repository directory"),
        ),
        Some(libc::EROFS) => (
            ErrorKind::AccessDenied,
            Some("the file system is mounted read-only"),
        ),
        Some(libc::ENOENT | libc::ENOTDIR) => (ErrorKind::NotFound, None),
        Some(libc::ESTALE | libc::ETIMEDOUT | libc::EHOSTDOWN | libc::ENOTCONN) => (
            ErrorKind::Unavailable,
            Some("check the server of the network file system"),
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            ErrorKind::Io,
            Some("raise the limit of open files (ulimit -n)"),
        ),
        _ => (ErrorKind::Io, None),
    };
    // `io::Error` is not `Clone`; code and text are all that matters of it.
    let copy = match cause.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(cause.kind(), cause.to_string()),
    };
    let error = Error::new(kind, action).object(path.display()).source(copy);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_say_what_to_do() {
        for (code, kind) in [
            (libc::ENOSPC, ErrorKind::NoSpace),
            (libc::EDQUOT, ErrorKind::NoSpace),
            (libc::EACCES, ErrorKind::AccessDenied),
            (libc::EPERM, ErrorKind::AccessDenied),
            (libc::EROFS, ErrorKind::AccessDenied),
            (libc::ENOENT, ErrorKind::NotFound),
            (libc::EIO, ErrorKind::Io),
        ] {
            let error = classify(
                &io::Error::from_raw_os_error(code),
                "write the object",
                Path::new("/r/x"),
            );
            assert_eq!(error.kind(), kind, "{code}");
            assert_eq!(error.object_name(), Some("/r/x"));
        }
        let full = classify(
            &io::Error::from_raw_os_error(libc::ENOSPC),
            "write the object",
            Path::new("/r/x"),
        );
        assert!(full.hint_text().unwrap().contains("free space"));
    }
}
