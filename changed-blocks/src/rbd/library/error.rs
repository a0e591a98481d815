//! What can go wrong with librados and librbd.
//!
//! Owns: the error and its classes. Must not: decide what a caller does.

use std::ffi::c_int;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// A failed call, or libraries that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RbdError {
    /// A library is not there, or cannot be loaded.
    #[error("load {}: install the Debian package {package}, which brings it", file.display())]
    Missing {
        /// What was looked for.
        file: PathBuf,
        /// Who brings it.
        package: &'static str,
        /// What the dynamic linker says.
        source: libloading::Error,
    },
    /// A library is too old.
    #[error("use {file}: it has no {function}, which came with Ceph 16 or before")]
    TooOld {
        /// The library.
        file: &'static str,
        /// What it lacks.
        function: &'static str,
    },
    /// A name that C cannot take.
    #[error("take {text:?} as a name: it holds a zero byte")]
    Name {
        /// The name.
        text: String,
    },
    /// A call failed.
    #[error("{what}")]
    Failed {
        /// What was tried, on what.
        what: String,
        /// Why, as errno.
        source: io::Error,
    },
}

impl RbdError {
    /// The errno of a failed call.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Failed { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// Whether what was looked for does not exist.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.errno() == Some(Errno::ENOENT)
    }

    /// Whether the same call may succeed later: the cluster did not answer in time.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::ETIMEDOUT | Errno::EAGAIN | Errno::EBUSY | Errno::EINTR | Errno::ENOTCONN)
        )
    }
}

/// The result of a call that answers with a negative errno.
pub(super) fn check(code: c_int, what: impl FnOnce() -> String) -> Result<c_int, RbdError> {
    if code >= 0 {
        return Ok(code);
    }
    Err(RbdError::Failed {
        what: what(),
        source: io::Error::from_raw_os_error(code.saturating_neg()),
    })
}
