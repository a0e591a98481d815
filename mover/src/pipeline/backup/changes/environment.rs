//! What answers depend on beside the volume.
//!
//! Owns: its text. Must not: decide what a change of it means (`history` does).

use std::fmt;

/// This program, this kernel, and the version that a source tells of its backend: after a change of any of it, everything is
/// read once (rule R10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(pub(super) String);

impl Environment {
    /// Here and now; `identities` are the facts that sources tell (of a backend its version: fact `librbd`).
    #[must_use]
    pub fn current(identities: &[(String, String)]) -> Self {
        let kernel = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let backend = identities
            .iter()
            .find(|(key, _)| key == "rbd.librbd")
            .map(|(_, version)| format!("; librbd {version}"))
            .unwrap_or_default();
        let tool = env!("CARGO_PKG_VERSION");
        Self(format!("snaphaul {tool}; kernel {kernel}{backend}"))
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
