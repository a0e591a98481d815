//! Lists objects in the order a bucket would: ascending by the bytes of the whole name.
//!
//! Owns: the walk. Must not: hold more than a batch of names per level, however large a folder is: a folder is read again
//! for each further batch, which keeps the smallest names after the last one handed out.

use std::collections::BinaryHeap;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use super::failure::classify;
use crate::error::Result;
use crate::repository::store::ObjectInfo;
use crate::repository::store::counters::Counters;
use crate::repository::store::object_name::{is_part, split_prefix};

/// Objects handed out at once, as S3 does.
const PAGE: usize = 1000;

/// Names kept of one folder, about 8 MiB with names of the usual length. A million objects in one folder take 16 readings.
const BATCH: usize = 65_536;

/// Lists all objects under `root` whose names begin with `prefix`.
pub(super) fn list(
    root: &Path,
    prefix: &str,
    counters: &Counters,
    page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
) -> Result<()> {
    let (folder, start) = split_prefix(prefix)?;
    let mut walk = Walk {
        root,
        pending: Vec::new(),
        counters,
        page,
        batch: BATCH,
    };
    walk.folder(folder, start)?;
    walk.hand_out()
}

pub(super) fn info(name: String, metadata: &Metadata) -> ObjectInfo {
    ObjectInfo {
        name,
        size: metadata.len(),
        modified: metadata.modified().ok(),
    }
}

struct Walk<'a> {
    root: &'a Path,
    pending: Vec<ObjectInfo>,
    counters: &'a Counters,
    page: &'a mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    batch: usize,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &str, start: &str) -> Result<()> {
        let path = self.root.join(folder);
        let mut after = None;
        loop {
            let names = match smallest_names(&path, start, after.as_deref(), self.batch) {
                Ok(names) => names,
                // Nothing is named so, or the folder was removed with its last object.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    return Ok(());
                }
                Err(e) => return Err(classify(&e, "list the folder", &path)),
            };
            let complete = names.len() < self.batch;
            for name in &names {
                let full = if folder.is_empty() {
                    name.clone()
                } else {
                    format!("{folder}/{name}")
                };
                match full.strip_suffix('/') {
                    Some(inner) => self.folder(inner, "")?,
                    None => self.object(full)?,
                }
            }
            if complete {
                return Ok(());
            }
            after = names.into_iter().next_back();
        }
    }

    fn object(&mut self, name: String) -> Result<()> {
        let path = self.root.join(&name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => self.pending.push(info(name, &metadata)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(classify(&e, "look the object up", &path)),
        }
        if self.pending.len() < PAGE {
            Ok(())
        } else {
            self.hand_out()
        }
    }

    fn hand_out(&mut self) -> Result<()> {
        self.counters.list();
        let objects = std::mem::take(&mut self.pending);
        if objects.is_empty() {
            Ok(())
        } else {
            (self.page)(objects)
        }
    }
}

/// The `limit` smallest names in a folder that begin with `start` and come after `after`, ascending. Folders end with `/`,
/// which sorts them where their objects belong: `a-b` comes before `a/…`.
fn smallest_names(
    folder: &Path,
    start: &str,
    after: Option<&str>,
    limit: usize,
) -> io::Result<Vec<String>> {
    let mut smallest = BinaryHeap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(mut name) = entry.file_name().into_string() else {
            continue;
        };
        if !name.starts_with(start) || !is_part(&name) {
            continue;
        }
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if kind.is_dir() {
            name.push('/');
        } else if !kind.is_file() {
            continue;
        }
        if after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        if smallest.len() < limit {
            smallest.push(name);
        } else if smallest.peek().is_some_and(|largest| name < *largest) {
            smallest.pop();
            smallest.push(name);
        }
    }
    Ok(smallest.into_sorted_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as a walk with batches of `batch` finds them.
    fn walked(root: &Path, prefix: &str, batch: usize) -> Vec<String> {
        let counters = Counters::default();
        let mut names = Vec::new();
        let mut page = |objects: Vec<ObjectInfo>| {
            names.extend(objects.into_iter().map(|object| object.name));
            Ok(())
        };
        let (folder, start) = split_prefix(prefix).unwrap();
        let mut walk = Walk {
            root,
            pending: Vec::new(),
            counters: &counters,
            page: &mut page,
            batch,
        };
        walk.folder(folder, start).unwrap();
        walk.hand_out().unwrap();
        names
    }

    #[test]
    fn the_order_is_that_of_whole_names_and_batches_do_not_show() {
        let root = tempfile::tempdir().unwrap();
        let mut names: Vec<String> = ["a-b", "a/x", "a/y/z", "a.b", "a0", "b", "lost"]
            .map(str::to_owned)
            .to_vec();
        names.extend((0..23).map(|i| format!("many/{i}")));
        for name in &names {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        fs::create_dir(root.path().join("lost+found")).unwrap();
        fs::create_dir(root.path().join(".incoming")).unwrap();
        fs::write(root.path().join(".incoming/x"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("passwd")).unwrap();
        names.sort();
        for batch in [1, 2, 7, BATCH] {
            assert_eq!(walked(root.path(), "", batch), names, "batch {batch}");
            let many: Vec<_> = names
                .iter()
                .filter(|name| name.starts_with("many/1"))
                .cloned()
                .collect();
            assert_eq!(walked(root.path(), "many/1", batch), many, "batch {batch}");
        }
    }
}
