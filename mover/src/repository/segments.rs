//! Reads segments: finds the generation that is there, keeps directories, fetches exact ranges.
//!
//! ```text
//!   (class, id) ──► cache ──► first 32 KiB of the object ──► directory ──► ranges of bodies
//!                               └ 404: list `seg/<sid>/<n>.`, take any generation, a few times
//! ```
//!
//! Owns: the directory cache (bounded in bytes) and the way past a compaction that runs at the same time. Must not: decode
//! bodies or plan reads.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::{Class, Directory, HEAD_LEN, Head, parse_head};
use crate::repository::ids::{SegmentId, name};
use crate::repository::store::list_all;

/// What all directories of a process may take in memory.
pub const DIRECTORY_CACHE_BYTES: usize = 32 << 20;

/// How often a vanished segment is looked for again. Each time means that a collector compacted it between our listing and
/// our read, which takes it minutes.
const ATTEMPTS: usize = 4;

/// Reads data and map segments; shared by threads.
#[derive(Debug)]
pub struct SegmentReader {
    repository: Arc<Repository>,
    cache: Mutex<DirectoryCache>,
}

impl SegmentReader {
    /// A reader with the budget of [`DIRECTORY_CACHE_BYTES`].
    #[must_use]
    pub fn new(repository: &Arc<Repository>) -> Self {
        Self::with_budget(repository, DIRECTORY_CACHE_BYTES)
    }

    /// A reader whose directories take at most `budget` bytes, one directory excepted.
    #[must_use]
    pub fn with_budget(repository: &Arc<Repository>, budget: usize) -> Self {
        let cache = Mutex::new(DirectoryCache {
            budget,
            ..DirectoryCache::default()
        });
        Self {
            repository: Arc::clone(repository),
            cache,
        }
    }

    /// The repository it reads from.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// The directory of a segment in whatever generation is there; [`Directory::object`] names it.
    ///
    /// # Errors
    /// `Corrupt` if the segment is damaged or missing ([`is_missing`] tells them apart); else as the store.
    pub fn directory(&self, class: Class, id: SegmentId) -> Result<Arc<Directory>> {
        self.directory_and_head(class, id)
            .map(|(directory, _)| directory)
    }

    /// The directory of a segment if it is in the cache.
    #[must_use]
    pub fn cached(&self, class: Class, id: SegmentId) -> Option<Arc<Directory>> {
        self.lock().get((class, id))
    }

    /// As [`directory`](Self::directory), with the object's first bytes where they had to be read.
    ///
    /// # Errors
    /// As [`directory`](Self::directory).
    pub fn directory_and_head(
        &self,
        class: Class,
        id: SegmentId,
    ) -> Result<(Arc<Directory>, Option<Bytes>)> {
        self.directory_and_front(class, id, HEAD_LEN)
    }

    /// As [`directory_and_head`](Self::directory_and_head), with `first_read` bytes (at least the head) in the first request,
    /// for readers that know they want what lies behind the directory.
    ///
    /// # Errors
    /// As [`directory`](Self::directory).
    pub fn directory_and_front(
        &self,
        class: Class,
        id: SegmentId,
        first_read: u64,
    ) -> Result<(Arc<Directory>, Option<Bytes>)> {
        if let Some(directory) = self.lock().get((class, id)) {
            return Ok((directory, None));
        }
        let (directory, head) = self.load(class, id, first_read.max(HEAD_LEN))?;
        let directory = Arc::new(directory);
        self.lock().insert((class, id), &directory);
        Ok((directory, Some(head)))
    }

    /// Reads exactly `range` of the object a directory was read from.
    ///
    /// # Errors
    /// `NotFound` if it was compacted or removed since (see [`retrying`](Self::retrying)); `Corrupt` if it ends early.
    pub fn read(&self, directory: &Directory, range: Range<u64>) -> Result<Bytes> {
        let bytes = self
            .repository
            .store
            .get_range(directory.object(), range.clone())?;
        let (have, want) = (bytes.len() as u64, range.end.saturating_sub(range.start));
        if have == want {
            return Ok(bytes);
        }
        let message = format!(
            "read {want} bytes at {}: the object ends after {have}",
            range.start
        );
        Err(Error::new(ErrorKind::Corrupt, message).object(directory.object()))
    }

    /// Runs `read` on a segment's directory, again with a new one where a compaction took the object away meanwhile.
    ///
    /// # Errors
    /// As [`directory`](Self::directory), and what `read` returns.
    pub fn retrying<T>(
        &self,
        class: Class,
        id: SegmentId,
        mut read: impl FnMut(&Arc<Directory>) -> Result<T>,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            match read(&self.directory(class, id)?) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.forget(class, id);
                    if attempt == ATTEMPTS {
                        return Err(missing(class, id, error));
                    }
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Drops a directory from the cache, because its object is gone.
    pub fn forget(&self, class: Class, id: SegmentId) {
        self.lock().remove((class, id));
    }

    fn load(&self, class: Class, id: SegmentId, first_read: u64) -> Result<(Directory, Bytes)> {
        let mut object = match class {
            Class::Data => name::segment(id, 0),
            _ => name::map_segment(id),
        };
        let mut attempt = 1;
        loop {
            match self.load_object(class, id, &object, first_read) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let generation = self.find_generation(class, id)?;
                    match generation {
                        Some(found) if attempt < ATTEMPTS => object = found,
                        _ => return Err(missing(class, id, error)),
                    }
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn load_object(
        &self,
        class: Class,
        id: SegmentId,
        object: &str,
        first_read: u64,
    ) -> Result<(Directory, Bytes)> {
        let Repository { store, keys, .. } = &*self.repository;
        let mut head = store.get_range(object, 0..first_read)?;
        loop {
            match parse_head(keys, class, id, object, &head)? {
                Head::Ready(directory) => return Ok((directory, head)),
                Head::NeedMore(len) => {
                    let have = head.len() as u64;
                    let more = store.get_range(object, have..len.max(have))?;
                    if more.is_empty() {
                        let message =
                            format!("read the directory: the object ends after {have} bytes");
                        return Err(Error::new(ErrorKind::Corrupt, message).object(object));
                    }
                    let mut joined = BytesMut::with_capacity(head.len() + more.len());
                    joined.extend_from_slice(&head);
                    joined.extend_from_slice(&more);
                    head = joined.freeze();
                }
            }
        }
    }

    /// Any generation of a data segment that is listed. Map segments are never compacted.
    fn find_generation(&self, class: Class, id: SegmentId) -> Result<Option<String>> {
        if class != Class::Data {
            return Ok(None);
        }
        let first = name::segment(id, 0);
        let stem = first.strip_suffix("g00").unwrap_or(&first);
        let found = list_all(&*self.repository.store, stem)?;
        Ok(found.into_iter().last().map(|info| info.name))
    }

    fn lock(&self) -> MutexGuard<'_, DirectoryCache> {
        // A panic inside a cache operation cannot leave it worse than incomplete.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(class: Class, id: SegmentId, cause: Error) -> Error {
    let object = match class {
        Class::Data => name::segment(id, 0),
        _ => name::map_segment(id),
    };
    Error::new(
        ErrorKind::Corrupt,
        format!("find a {class}: it is missing from the repository"),
    )
    .object(object)
    .hint("`snaphaul verify` lists everything that is missing and the points that it hurts")
    .source(cause)
}

/// Whether an error says that a segment is gone, not damaged: a collector may have removed it under a reader without a
/// lease.
#[must_use]
pub fn is_missing(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner
            .downcast_ref::<Error>()
            .is_some_and(|error| error.kind() == ErrorKind::NotFound)
        {
            return true;
        }
        cause = inner.source();
    }
    error.kind() == ErrorKind::NotFound
}

type CacheKey = (Class, SegmentId);

/// Least recently used directories go first.
#[derive(Debug, Default)]
struct DirectoryCache {
    budget: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<CacheKey, (u64, Arc<Directory>)>,
    by_age: BTreeMap<u64, CacheKey>,
}

impl DirectoryCache {
    fn get(&mut self, key: CacheKey) -> Option<Arc<Directory>> {
        let (age, directory) = self.entries.get_mut(&key)?;
        self.clock += 1;
        self.by_age.remove(age);
        self.by_age.insert(self.clock, key);
        *age = self.clock;
        Some(Arc::clone(directory))
    }

    fn insert(&mut self, key: CacheKey, directory: &Arc<Directory>) {
        self.remove(key);
        self.clock += 1;
        self.bytes += directory.memory();
        self.by_age.insert(self.clock, key);
        self.entries
            .insert(key, (self.clock, Arc::clone(directory)));
        while self.bytes > self.budget && self.entries.len() > 1 {
            let Some((_, oldest)) = self.by_age.first_key_value() else {
                break;
            };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: CacheKey) {
        if let Some((age, directory)) = self.entries.remove(&key) {
            self.by_age.remove(&age);
            self.bytes -= directory.memory();
        }
    }
}

#[cfg(test)]
mod tests;
