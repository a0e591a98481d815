//! A process that dies at a line of its journal, for the tests that look whether the next one cleans up.
//!
//! Owns: the environment variables of these tests. Must not: do anything in a build for users.

use super::Entry;

#[cfg(feature = "testing")]
pub(super) fn here(when: &str, entry: &Entry) {
    testing::here(when, entry);
}

#[cfg(not(feature = "testing"))]
pub(super) fn here(_: &str, _: &Entry) {}

#[cfg(feature = "testing")]
mod testing {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::Entry;

    /// `before:NAME` dies before the line is written, `after:NAME` when it is on the disk.
    const VARIABLE: &str = "SNAPHAUL_TEST_DIE_AT";
    /// A file that gets the name of every line that a run writes, so that no test needs to know them.
    const STEPS: &str = "SNAPHAUL_TEST_STEPS";

    pub(super) fn here(when: &str, entry: &Entry) {
        if let (Some(path), "after") = (std::env::var_os(STEPS), when) {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let _ = file.and_then(|mut file| writeln!(file, "{}", entry.name()));
        }
        let wanted = std::env::var(VARIABLE).unwrap_or_default();
        if wanted == format!("{when}:{}", entry.name()) {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }
}
