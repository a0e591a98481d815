//! A repository in a directory of a local or mounted file system.
//!
//! ```text
//!   put: body ──O_DIRECT──► O_TMPFILE ──fdatasync──► linkat (EEXIST = the name is taken) ──► sync: fsync directories
//!   get: small ranges through the page cache, large ones O_DIRECT into an aligned buffer, handed out without a copy
//! ```
//!
//! Owns: paths, descriptors and durability of one directory. Must not: leave anything half written behind, not even after
//! a kill; follow a name out of the directory; go on after a flush failed.

mod durability;
mod failure;
mod filesystem;
mod incoming;
mod listing;
mod reading;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::errno::Errno;

use super::counters::Counters;
use super::object_name::check_name;
use super::profile::{BodyChecksum, PayloadSigning, StoreProfile};
use super::{Created, ObjectInfo, RequestCounts, Store, host, url};
use crate::error::{Error, ErrorKind, Result};
use durability::Durability;
use failure::classify;
use incoming::{Incoming, Writer, make_folder};

/// Times a write is tried while others keep removing the folder that it goes into, because it is empty.
const WRITE_ATTEMPTS: u32 = 64;

/// Objects as files under one directory; safe for any number of threads and processes.
#[derive(Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    writer: Writer,
    durability: Durability,
    counters: Counters,
}

impl DirectoryStore {
    /// Opens the directory, or makes it if `create` is set.
    ///
    /// Removes what killed processes left in the folder for unfinished objects, where the file system needs one.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory, `InvalidRequest` if it is something else; and by the system's answer.
    pub fn open(path: &Path, create: bool) -> Result<Self> {
        Self::with_writer(path, create, Writer::new())
    }

    fn with_writer(path: &Path, create: bool, writer: Writer) -> Result<Self> {
        let mut made = Vec::new();
        if create {
            make_root(path, &mut made)
                .map_err(|e| classify(&e, "make the repository directory", path))?;
        }
        let root = fs::canonicalize(path).map_err(|e| {
            let error = classify(&e, "open the repository directory", path);
            match error.kind() {
                ErrorKind::NotFound => {
                    error.hint("check --repo; `snaphaul init` makes a repository")
                }
                _ => error,
            }
        })?;
        if !root.is_dir() {
            let message = "open the repository: this is not a directory";
            return Err(Error::new(ErrorKind::InvalidRequest, message).object(path.display()));
        }
        incoming::remove_abandoned(&root);
        let durability = Durability::new(&root);
        for folder in made {
            durability.changed(folder);
        }
        Ok(Self {
            root,
            writer,
            durability,
            counters: Counters::default(),
        })
    }

    /// Where the object `name` lives. Names are checked here, so every path stays below the root.
    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    /// Writes the body beside its name and links it in. `Exists` says that the name is taken by anything.
    fn write(&self, name: &str, body: &Bytes) -> Result<Created> {
        let path = self.path(name)?;
        let folder = path.parent().expect("a checked name lies below the root");
        self.durability.check()?;
        self.counters.put(body.len());
        let mut incoming = None;
        let mut attempt = 1;
        loop {
            match self.try_write(folder, &path, body, &mut incoming) {
                // A delete took the empty folder away, or a cleaner the unfinished file of a file system without O_TMPFILE.
                Err(e) if e.kind() == ErrorKind::NotFound && attempt < WRITE_ATTEMPTS => {
                    attempt += 1;
                }
                written => return written,
            }
        }
    }

    /// One attempt; `incoming` keeps what need not be written again.
    fn try_write(
        &self,
        folder: &Path,
        path: &Path,
        body: &Bytes,
        incoming: &mut Option<Incoming>,
    ) -> Result<Created> {
        self.make_folders(folder)
            .map_err(|e| classify(&e, "make the folder of the object", path))?;
        if incoming.as_ref().is_none_or(Incoming::is_gone) {
            *incoming = Some(self.write_incoming(folder, path, body)?);
        }
        let incoming = incoming.as_ref().expect("written above");
        match incoming.link(path) {
            Ok(()) => {
                self.durability.linked(folder);
                Ok(Created::Won)
            }
            Err(Errno::EEXIST) => Ok(Created::Exists),
            Err(errno) => Err(classify(&errno.into(), "name the object", path)),
        }
    }

    fn write_incoming(&self, folder: &Path, path: &Path, body: &Bytes) -> Result<Incoming> {
        let mut incoming = self
            .writer
            .write(&self.root, folder, body)
            .map_err(|e| classify(&e, "write the object", path))?;
        incoming
            .flush()
            .map_err(|e| self.durability.poison(&e, path))?;
        Ok(incoming)
    }

    /// Makes `folder` and the missing ones above it, never the root: a repository that went away stays away.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        if folder == self.root {
            return Ok(());
        }
        let parent = folder.parent().expect("below the root");
        let made = match make_folder(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_folders(parent)?;
                make_folder(folder)
            }
            made => made,
        };
        match made {
            Ok(()) => self.durability.changed(parent.to_path_buf()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Whether the object at `path` holds exactly `body`.
    fn holds(&self, path: &Path, body: &Bytes) -> Result<bool> {
        reading::equals(path, body).map_err(|e| classify(&e, "compare the object", path))
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let path = self.path(name)?;
        let bytes =
            reading::read(&path, range).map_err(|e| classify(&e, "read the object", &path))?;
        self.counters.get(bytes.len());
        Ok(bytes)
    }

    /// Removes folders that a delete left empty, so that sessions do not leave one each behind.
    fn remove_empty_folders(&self, mut folder: &Path) {
        while folder != self.root && fs::remove_dir(folder).is_ok() {
            let Some(parent) = folder.parent() else {
                return;
            };
            self.durability.changed(parent.to_path_buf());
            folder = parent;
        }
    }
}

impl Store for DirectoryStore {
    fn url(&self) -> String {
        url::file_url(&self.root)
    }

    fn put(&self, name: &str, body: Bytes) -> Result<()> {
        if self.write(name, &body)? == Created::Won {
            return Ok(());
        }
        let path = self.path(name)?;
        if self.holds(&path, &body)? {
            // What was written again counts as changed, as it does in a bucket: heartbeats live by it.
            reading::touch(&path).map_err(|e| classify(&e, "rewrite the object", &path))?;
            self.durability
                .linked(path.parent().expect("a checked name lies below the root"));
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            "store an object under a name that holds other bytes",
        )
        .object(path.display()))
    }

    fn put_once(&self, name: &str, body: Bytes) -> Result<()> {
        match self.write(name, &body)? {
            Created::Won => Ok(()),
            Created::Exists => {
                let message = "send an object once under a name that is taken";
                Err(Error::new(ErrorKind::Internal, message).object(self.path(name)?.display()))
            }
        }
    }

    fn create(&self, name: &str, body: Bytes) -> Result<Created> {
        let path = self.path(name)?;
        match self.write(name, &body) {
            Ok(Created::Won) => Ok(Created::Won),
            // A network file system may repeat a link whose answer was lost, and find its own.
            Ok(Created::Exists) => match self.holds(&path, &body) {
                Ok(true) => {
                    self.durability
                        .linked(path.parent().expect("a checked name lies below the root"));
                    Ok(Created::Won)
                }
                Ok(false) => Ok(Created::Exists),
                // Deleted since; it was somebody else's, for ours is known to nobody yet.
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(Created::Exists),
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.read(name, 0..u64::MAX)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.read(name, range)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>> {
        let path = self.path(name)?;
        self.counters.head();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                Ok(Some(listing::info(name.to_owned(), &metadata)))
            }
            Ok(_) => Ok(None),
            Err(e) => match classify(&e, "look the object up", &path) {
                error if error.kind() == ErrorKind::NotFound => Ok(None),
                error => Err(error),
            },
        }
    }

    fn list(
        &self,
        prefix: &str,
        page: &mut dyn FnMut(Vec<ObjectInfo>) -> Result<()>,
    ) -> Result<()> {
        listing::list(&self.root, prefix, &self.counters, page)
    }

    /// Also makes the removal durable with the next `sync`, so that deletes in order stay in order after a power cut when a
    /// `sync` is between them.
    fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        let folder = path.parent().expect("a checked name lies below the root");
        self.counters.delete();
        match fs::remove_file(&path) {
            Ok(()) => {
                self.durability.changed(folder.to_path_buf());
                self.remove_empty_folders(folder);
                Ok(())
            }
            Err(e) => match classify(&e, "delete the object", &path) {
                error if error.kind() == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    fn rely_on(&self, folder: &str) {
        self.durability.linked(&self.root.join(folder));
    }

    fn sync(&self) -> Result<()> {
        self.durability.sync()
    }

    fn counts(&self) -> RequestCounts {
        self.counters.snapshot()
    }

    fn explore(&self, _scratch: &str) -> Result<StoreProfile> {
        let shared = filesystem::is_shared(&self.root)
            .map_err(|e| classify(&e, "ask the file system", &self.root))?;
        Ok(StoreProfile {
            conditional_writes: true,
            payload_signing: PayloadSigning::Unsigned,
            checksum: BodyChecksum::None,
            single_host: shared.then(host::host_id),
            kind: "directory".to_owned(),
            lock: None,
        })
    }
}

/// Makes `path` and its missing ancestors; `made` gets every directory that has a new entry.
fn make_root(path: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    match make_folder(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .ok_or(e)?;
            make_root(parent, made)?;
            match make_folder(path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        Err(e) => return Err(e),
    }
    made.push(
        fs::canonicalize(path)?
            .parent()
            .unwrap_or(Path::new("/"))
            .to_path_buf(),
    );
    Ok(())
}

#[cfg(test)]
mod tests;
