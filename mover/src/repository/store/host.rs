//! A stable id of this machine, for repositories that only one host may collect.
//!
//! Owns: how the id is made. Must not: reveal `/etc/machine-id`, which its manual page asks to keep confidential: only a
//! keyed hash of it leaves this module.

use nix::sys::utsname::uname;

/// 32 hex digits that name this host. Containers without a machine id fall back to their host name.
#[must_use]
pub fn host_id() -> String {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = match machine.trim() {
        "" => uname()
            .map(|names| names.nodename().to_string_lossy().into_owned())
            .unwrap_or_default(),
        id => id.to_owned(),
    };
    let hash = blake3::derive_key(
        "snaphaul 2026 host id of a single-host repository",
        machine.as_bytes(),
    );
    crate::repository::ids::to_hex(&hash[..16])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_id_is_stable_and_hides_the_machine_id() {
        let id = super::host_id();
        assert_eq!(id, super::host_id());
        assert_eq!(id.len(), 32);
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        assert_ne!(machine.trim(), id);
    }
}
