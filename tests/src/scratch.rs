//! Temporary folders of a test, on a disk that takes direct I/O.
//!
//! Owns: their place and removal. Must not: outlive the test.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A folder that is removed with its content when the test ends. `SNAPHAUL_TEST_DIR` moves it to another disk
/// (`/var/tmp` by default: `/tmp` may be memory, where direct I/O is refused).
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes a folder whose name begins with `name`.
    ///
    /// # Errors
    /// Where the disk is full or read-only.
    pub fn new(name: &str) -> Result<Self> {
        let parent = std::env::var_os("SNAPHAUL_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let folder = tempfile::Builder::new()
            .prefix(&format!("snaphaul-{name}-"))
            .tempdir_in(&parent)
            .with_context(|| format!("make a folder in {}", Path::new(&parent).display()))?;
        Ok(Self(folder))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A name inside the folder; nothing is made.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
