//! Data segments as readers see them: which generation exists, its directory, and ranges of it.
//!
//! ```text
//!   SegmentId ──► directory cached? ──► GET its front (head alone, or as much as is wanted) ──► directory + first bytes
//!                      404 ──► LIST its generations ──► any present one
//! ```
//!
//! Owns: directories in memory (32 MiB) and the search for a present generation. Must not: decode bodies. A compacted
//! segment keeps its ordinals but not its offsets, so a directory and the name it came from always travel together.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::{Class, Directory, HEAD_LEN, Head, fault, parse_head};
use crate::repository::ids::{SegmentId, name};
use crate::repository::store::list_all;

/// Directories kept (data-plane 13): those of 32 GiB of volume and more.
const CACHE_BYTES: usize = 32 << 20;

/// Times a segment is looked for while compaction moves it (gc-protocol 4.4: "at most a few times").
const FIND_ATTEMPTS: u32 = 4;

/// A segment that was found: its directory and the object it is in.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// The segment.
    pub id: SegmentId,
    /// The object of the generation that was found.
    pub name: Arc<str>,
    /// Its directory, checked.
    pub directory: Arc<Directory>,
}

/// A segment together with the bytes read from its front, none where the directory was in memory.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// The segment.
    pub segment: Segment,
    /// Its first bytes.
    pub front: Bytes,
}

/// Opens segments for any number of threads.
#[derive(Debug)]
pub(crate) struct Segments {
    repository: Arc<Repository>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<SegmentId, (u64, Segment)>,
    clock: u64,
    bytes: usize,
}

impl Segments {
    /// With an empty cache.
    pub(crate) fn new(repository: Arc<Repository>) -> Self {
        Self { repository, cache: Mutex::default() }
    }

    /// Finds a segment and reads at least its directory; `first_read` bytes of its front where it is not in memory.
    ///
    /// # Errors
    /// `Corrupt` where the object is damaged or no generation of it exists, otherwise what the store answers.
    pub(crate) fn open(&self, id: SegmentId, first_read: u64) -> Result<Opened> {
        if let Some(segment) = self.lock().get(id) {
            return Ok(Opened { segment, front: Bytes::new() });
        }
        let mut name = name::segment(id, 0);
        for _ in 0..FIND_ATTEMPTS {
            match self.read_front(id, &name, first_read.max(HEAD_LEN)) {
                Ok(opened) => {
                    self.lock().insert(opened.segment.clone());
                    return Ok(opened);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    name = self.find_generation(id)?.ok_or_else(|| missing(id))?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(missing(id))
    }

    /// Reads a range of a segment's object, shorter where the object is.
    ///
    /// # Errors
    /// `NotFound` where the generation is gone by now: [`Segments::forget`] it and open it again.
    pub(crate) fn read(&self, segment: &Segment, range: Range<u64>) -> Result<Bytes> {
        self.repository.store.get_range(&segment.name, range)
    }

    /// Drops what is known of a segment, so that the next open looks again.
    pub(crate) fn forget(&self, id: SegmentId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_front(&self, id: SegmentId, name: &str, first_read: u64) -> Result<Opened> {
        let mut front = self.repository.store.get_range(name, 0..first_read)?;
        let keys = &self.repository.keys;
        let directory = match parse_head(keys, Class::Data, id, name, &front)? {
            Head::Ready(directory) => directory,
            Head::NeedMore(len) => {
                front = self.repository.store.get_range(name, 0..len)?;
                match parse_head(keys, Class::Data, id, name, &front)? {
                    Head::Ready(directory) => directory,
                    Head::NeedMore(_) => return Err(fault::truncated(name, front.len() as u64, len)),
                }
            }
        };
        let segment = Segment { id, name: name.into(), directory: Arc::new(directory) };
        Ok(Opened { segment, front })
    }

    /// The highest generation that exists.
    fn find_generation(&self, id: SegmentId) -> Result<Option<String>> {
        let first = name::segment(id, 0);
        let prefix = first.trim_end_matches("00");
        let listed = list_all(self.repository.store.as_ref(), prefix)?;
        Ok(listed.into_iter().next_back().map(|info| info.name))
    }
}

impl Cache {
    fn get(&mut self, id: SegmentId) -> Option<Segment> {
        self.clock += 1;
        let clock = self.clock;
        let (used, segment) = self.entries.get_mut(&id)?;
        *used = clock;
        Some(segment.clone())
    }

    fn insert(&mut self, segment: Segment) {
        self.remove(segment.id);
        self.clock += 1;
        self.bytes += segment.directory.memory();
        self.entries.insert(segment.id, (self.clock, segment));
        if self.bytes > CACHE_BYTES {
            self.evict();
        }
    }

    fn remove(&mut self, id: SegmentId) {
        if let Some((_, segment)) = self.entries.remove(&id) {
            self.bytes -= segment.directory.memory();
        }
    }

    /// Drops the least recently used quarter at once, so that the search for it is rare.
    fn evict(&mut self) {
        let mut by_use: Vec<_> = self.entries.iter().map(|(id, (used, _))| (*used, *id)).collect();
        by_use.sort_unstable();
        for (_, id) in by_use {
            if self.bytes <= CACHE_BYTES / 4 * 3 {
                return;
            }
            self.remove(id);
        }
    }
}

/// No generation of a segment is in the store.
pub(crate) fn missing(id: SegmentId) -> Error {
    Error::new(ErrorKind::Corrupt, "read a missing segment: no generation of it is in the store")
        .object(name::segment(id, 0))
        .hint("`snaphaul verify` lists everything that is missing and the points that it hurts")
}
