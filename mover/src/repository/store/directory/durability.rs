//! Which directories must be flushed before a name in them survives a power cut.
//!
//! ```text
//!   link, mkdir, unlink ──► changed directories ──sync──► fsync each once
//! ```
//!
//! Owns: that set, and the memory of a failed flush. Must not: flush a file twice: after a failure the kernel forgets which
//! pages were lost, and a second fsync would lie.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::failure::classify;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Durability {
    root: PathBuf,
    state: Mutex<State>,
    /// Held while flushing, so that a second `sync` does not report what the first has not done yet.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Directories with entries that are not known to be on disk.
    changed: BTreeSet<PathBuf>,
    /// Kind and text of the flush that failed.
    failed: Option<(ErrorKind, String)>,
}

impl Durability {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            state: Mutex::default(),
            flushing: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The set holds whatever was inserted: a panic elsewhere leaves it valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name was linked into `folder`. The way to it is flushed too: another process may have made a folder on it a moment
    /// ago and not flushed it yet, and flushing a clean directory costs next to nothing.
    pub(super) fn linked(&self, folder: &Path) {
        let mut state = self.state();
        let below_root = folder
            .ancestors()
            .take_while(|ancestor| *ancestor != self.root);
        state.changed.extend(below_root.map(Path::to_path_buf));
        state.changed.insert(self.root.clone());
    }

    /// An entry of `folder` was made or removed.
    pub(super) fn changed(&self, folder: PathBuf) {
        self.state().changed.insert(folder);
    }

    /// Refuses to go on after a failed flush.
    pub(super) fn check(&self) -> Result<()> {
        match &self.state().failed {
            None => Ok(()),
            Some((kind, text)) => {
                let message = format!("write to the repository after a flush failed: {text}");
                Err(Error::new(*kind, message)
                    .object(self.root.display())
                    .hint("find the cause, then run again"))
            }
        }
    }

    /// Remembers that flushing `path` failed: nothing since the last success may be relied on.
    pub(super) fn poison(&self, cause: &io::Error, path: &Path) -> Error {
        let error = classify(cause, "flush to disk", path);
        let text = format!("{}: {cause}", path.display());
        self.state().failed.get_or_insert((error.kind(), text));
        error
    }

    /// Flushes every changed directory once.
    pub(super) fn sync(&self) -> Result<()> {
        self.sync_with(|folder| File::open(folder)?.sync_all())
    }

    fn sync_with(&self, flush: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        let changed = std::mem::take(&mut self.state().changed);
        for folder in &changed {
            match flush(folder) {
                Ok(()) => {}
                // Removed since, because it was empty: its parent is in the set for that.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(self.poison(&e, folder)),
            }
        }
        // A write may have failed to flush meanwhile.
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn flushed(durability: &Durability) -> Vec<String> {
        let seen = RefCell::new(Vec::new());
        durability
            .sync_with(|folder| {
                seen.borrow_mut().push(folder.display().to_string());
                Ok(())
            })
            .unwrap();
        seen.into_inner()
    }

    #[test]
    fn a_folder_linked_into_and_the_way_to_it_are_flushed_once() {
        let durability = Durability::new(Path::new("/r"));
        durability.linked(Path::new("/r/seg/a"));
        durability.linked(Path::new("/r/seg/a"));
        durability.changed(PathBuf::from("/r/map"));
        assert_eq!(flushed(&durability), ["/r", "/r/map", "/r/seg", "/r/seg/a"]);
        assert!(flushed(&durability).is_empty());
    }

    #[test]
    fn a_failed_flush_is_final() {
        let durability = Durability::new(Path::new("/r"));
        durability.linked(Path::new("/r/a"));
        let failing = |_: &Path| Err(io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(
            durability.sync_with(failing).unwrap_err().kind(),
            ErrorKind::Io
        );
        let later = durability.sync_with(|_| Ok(())).unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Io);
        assert!(
            later.to_string().contains("after a flush failed"),
            "{later}"
        );
        assert!(durability.check().is_err());
    }

    #[test]
    fn a_removed_folder_is_no_failure() {
        let durability = Durability::new(Path::new("/r"));
        durability.linked(Path::new("/r/a"));
        durability
            .sync_with(|_| Err(io::ErrorKind::NotFound.into()))
            .unwrap();
        assert!(flushed(&durability).is_empty());
    }
}
