//! The directory a demo works in.
//!
//! Owns: making it and removing it again, also when the demo fails. Must not: touch anything that was there before.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::{random, to_hex};

/// A fresh directory, removed on drop unless it is kept.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: PathBuf,
    keep: bool,
}

impl Workspace {
    /// Makes a directory under `parent`, else under the system's temporary directory.
    pub(super) fn create(parent: Option<&Path>, keep: bool) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let folder = parent.join(format!("snaphaul-demo-{}", to_hex(&random::<4>())));
        fs::create_dir(&folder).map_err(|error| {
            Error::new(ErrorKind::InvalidRequest, "make the demo's directory")
                .object(folder.display())
                .hint("choose a directory that can be written to with --dir")
                .source(error)
        })?;
        Ok(Self { folder, keep })
    }

    /// The directory.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path inside.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "leave the demo's directory behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_removed_unless_kept() {
        let parent = tempfile::tempdir().unwrap();
        for keep in [false, true] {
            let workspace = Workspace::create(Some(parent.path()), keep).unwrap();
            fs::write(workspace.path("x"), "x").unwrap();
            let folder = workspace.folder().to_path_buf();
            drop(workspace);
            assert_eq!(folder.exists(), keep);
        }
    }

    #[test]
    fn a_parent_that_is_missing_is_refused() {
        let error = Workspace::create(Some(Path::new("/nonexistent")), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
}
