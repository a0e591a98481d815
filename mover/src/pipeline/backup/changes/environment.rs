//! What answers depend on beside the volume.
//!
//! Owns: its text. Must not: decide what a change of it means (`history` does).

use std::fmt;

/// Facts that are versions, and of what.
const BACKENDS: [(&str, &str); 3] = [
    ("csi.driver-version", "driver"),
    ("rbd.librbd", "librbd"),
    ("thin.tools", "thin-provisioning-tools"),
];

/// This program, this kernel, and the version that a source tells of its backend: after a change of any of it, everything is
/// read once (rule R10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(pub(super) String);

impl Environment {
    /// Here and now; `identities` are the facts that sources tell, versions of their backends among them.
    #[must_use]
    pub fn current(identities: &[(String, String)]) -> Self {
        let kernel = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let backend: String = identities
            .iter()
            .filter_map(|(key, version)| {
                let (_, name) = BACKENDS.iter().find(|(fact, _)| fact == key)?;
                Some(format!("; {name} {version}"))
            })
            .collect();
        let tool = env!("CARGO_PKG_VERSION");
        Self(format!("snaphaul {tool}; kernel {kernel}{backend}"))
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_of_a_backend_is_another_environment() {
        let told = |key: &str, value: &str| {
            Environment::current(&[
                ("thin.thin_id".to_owned(), "7".to_owned()),
                (key.to_owned(), value.to_owned()),
            ])
        };
        for (key, name) in BACKENDS {
            assert_ne!(told(key, "1"), told(key, "2"));
            assert!(told(key, "1").to_string().ends_with(&format!("; {name} 1")));
        }
        assert_eq!(told("thin.thin_id", "8"), Environment::current(&[]));
    }
}
