//! Which stored bodies a point needs, so that garbage collection never walks a map.
//!
//! ```text
//!   parent's liveness ──► replace_leaf(old, new) for every changed leaf ──► set_pages(map) ──► child's liveness
//!   nothing           ──► replace_leaf(None, leaf) for every leaf       ──►     "          ──► exact liveness
//! ```
//!
//! Owns: the arithmetic of live and shared bits, and the record's bytes (`FORMAT.md`, "Liveness"). Must not: walk maps.
//!
//! Invariant: a body that the point references is live here; a body that it references more than once, or ever did since
//! the last exact liveness, is shared. A shared bit is never cleared by a child, because the number of references is not
//! known: the record may say that more is needed than is, never less.

mod codec;
mod table;

use std::sync::Arc;

use bytes::Bytes;

use super::FANOUT;
use super::entry::{Entry, Location};
use super::leaf::Leaf;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::format::{Class, Keys, fault, open_record, seal_record};
use crate::repository::ids::{SegmentId, SessionKey, name};

pub use table::LiveSet;
pub(crate) use table::SegmentTable;

/// Which bodies a point needs.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    data: SegmentTable,
    shared: SegmentTable,
    pages: SegmentTable,
}

/// The pages of one map, as [`MapWriter`](super::MapWriter) kept and wrote them.
#[derive(Clone, Debug, Default)]
pub struct LivePages(SegmentTable);

impl LivePages {
    /// Notes that the map needs a page.
    pub fn insert(&mut self, page: Location) {
        self.0.insert(page.segment, page.ordinal);
    }

    /// Map segments with pages, ascending.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, LiveSet<'_>)> + '_ {
        self.0.iter()
    }
}

impl Liveness {
    /// Every data segment the point needs bodies of, ascending, with their ordinals.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, LiveSet<'_>)> + '_ {
        self.data.iter()
    }

    /// Every map segment the point needs pages of, ascending, with their ordinals.
    pub fn map_segments(&self) -> impl Iterator<Item = (SegmentId, LiveSet<'_>)> + '_ {
        self.pages.iter()
    }

    /// Whether the point needs a chunk.
    #[must_use]
    pub fn is_live(&self, chunk: Location) -> bool {
        self.data.contains(chunk.segment, chunk.ordinal)
    }

    /// Whether the point needs a chunk at more than one place, as far as is known.
    #[must_use]
    pub fn is_shared(&self, chunk: Location) -> bool {
        self.shared.contains(chunk.segment, chunk.ordinal)
    }

    /// Whether the point needs a page.
    #[must_use]
    pub fn is_page_live(&self, page: Location) -> bool {
        self.pages.contains(page.segment, page.ordinal)
    }

    /// A liveness of these chunks and pages, for tests that have no map.
    #[cfg(test)]
    pub(crate) fn of(chunks: &[Location], pages: &[Location]) -> Self {
        let mut liveness = Self::default();
        for chunk in chunks {
            liveness.data.insert(chunk.segment, chunk.ordinal);
        }
        for page in pages {
            liveness.pages.insert(page.segment, page.ordinal);
        }
        liveness
    }

    /// Number of chunks that are live.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.data
            .iter()
            .map(|(_, set)| u64::from(set.count()))
            .sum()
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.data.memory() + self.shared.memory() + self.pages.memory()
    }

    /// The record's bytes; the same bits always give the same bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not exactly what [`encode`](Self::encode) makes of some liveness.
    pub fn decode(record: &[u8]) -> Result<Self> {
        codec::decode(record).map_err(|cause| {
            Error::new(ErrorKind::Corrupt, "decode the liveness of a point").source(cause)
        })
    }

    /// The object to store as `live/<key>`, and what the manifest must say about it.
    ///
    /// # Errors
    /// If the record cannot be sealed.
    pub fn seal(&self, keys: &Arc<Keys>, key: &SessionKey) -> Result<(Bytes, LivenessRef)> {
        let name = name::live(key);
        let object = seal_record(
            keys,
            Class::Liveness,
            record_id(key),
            &name,
            &self.encode(),
            0,
        )?;
        let reference = LivenessRef::of(&object);
        Ok((object, reference))
    }

    /// Opens the object `live/<key>`, which must be the one the manifest speaks of.
    ///
    /// # Errors
    /// `Corrupt` if it is another or damaged object.
    pub fn open(
        keys: &Keys,
        key: &SessionKey,
        expected: &LivenessRef,
        object: &[u8],
    ) -> Result<Self> {
        let name = name::live(key);
        if LivenessRef::of(object) != *expected {
            return Err(mismatch(keys, key, expected, object));
        }
        let record = open_record(keys, Class::Liveness, record_id(key), &name, object)?;
        Self::decode(&record).map_err(|error| error.object(&name))
    }
}

/// Opens the object `live/<key>` without its manifest, for a collector that reads hundreds of thousands of them. It is bound to its
/// name and key, and a session writes one only: what opens is what the session stored.
///
/// # Errors
/// `Corrupt` if it is another or damaged object.
pub(crate) fn open_unmatched(keys: &Keys, key: &SessionKey, object: Bytes) -> Result<Liveness> {
    let name = name::live(key);
    let record = open_record(keys, Class::Liveness, record_id(key), &name, &object)?;
    // Records of wide volumes are long: one copy less at the worst moment.
    drop(object);
    Liveness::decode(&record).map_err(|error| error.object(&name))
}

impl PartialEq for Liveness {
    fn eq(&self, other: &Self) -> bool {
        self.data.iter().eq(other.data.iter())
            && self.shared.iter().eq(other.shared.iter())
            && self.pages.iter().eq(other.pages.iter())
    }
}

/// What a manifest says about its liveness object, so that a cut-off or swapped one is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessRef {
    /// Length of the stored object in bytes.
    pub len: u64,
    /// BLAKE3 of the stored object.
    pub hash: [u8; 32],
}

impl LivenessRef {
    /// Describes an object.
    #[must_use]
    pub fn of(object: &[u8]) -> Self {
        Self {
            len: object.len() as u64,
            hash: *blake3::hash(object).as_bytes(),
        }
    }
}

/// Why an object is not the one that the manifest speaks of: cut off, another intact one, or damaged.
fn mismatch(keys: &Keys, key: &SessionKey, expected: &LivenessRef, object: &[u8]) -> Error {
    let name = name::live(key);
    let error = match open_record(keys, Class::Liveness, record_id(key), &name, object) {
        Err(error) => error,
        Ok(_) if (object.len() as u64) < expected.len => {
            fault::truncated(&name, object.len() as u64, expected.len)
        }
        Ok(_) => fault::swapped(&name, "intact, but not the one that the manifest speaks of"),
    };
    error.hint("the point can still be restored; its data is safe while no collector runs")
}

/// Records that belong to a session and not to one of its segments are number 0 of it.
fn record_id(key: &SessionKey) -> SegmentId {
    SegmentId {
        session: key.session,
        number: 0,
    }
}

/// Derives a point's liveness, from its parent's or from nothing.
#[derive(Debug, Default)]
pub struct LivenessBuilder(Liveness);

impl LivenessBuilder {
    /// Starts from nothing: every leaf of the point must be given.
    #[must_use]
    pub fn fresh() -> Self {
        Self::default()
    }

    /// Starts from the parent: only leaves that differ from the parent's must be given.
    #[must_use]
    pub fn from_parent(parent: Liveness) -> Self {
        Self(parent)
    }

    /// Takes one leaf out and puts another in at the same place; `None` is a leaf of zeros. Leaves may come in any order,
    /// each place once.
    pub fn replace_leaf(&mut self, old: Option<&Leaf>, new: Option<&Leaf>) {
        let entry = |leaf: Option<&Leaf>, place| leaf.map_or(Entry::Zero, |leaf| leaf.get(place));
        for place in 0..FANOUT {
            let (before, after) = (location(entry(old, place)), location(entry(new, place)));
            if before != after {
                // Out before in: a chunk that only moves inside the volume does not become shared.
                before.into_iter().for_each(|chunk| self.remove(chunk));
                after.into_iter().for_each(|chunk| self.add(chunk));
            }
        }
    }

    /// Says which pages the point's map consists of; all others are no longer live.
    pub fn set_pages(&mut self, pages: LivePages) {
        self.0.pages = pages.0;
    }

    /// The liveness, in its smallest form.
    #[must_use]
    pub fn finish(mut self) -> Liveness {
        self.0.data.compact();
        self.0.shared.compact();
        self.0.pages.compact();
        self.0
    }

    fn add(&mut self, chunk: Location) {
        if !self.0.data.insert(chunk.segment, chunk.ordinal) {
            self.0.shared.insert(chunk.segment, chunk.ordinal);
        }
    }

    fn remove(&mut self, chunk: Location) {
        if !self.0.shared.contains(chunk.segment, chunk.ordinal) {
            self.0.data.remove(chunk.segment, chunk.ordinal);
        }
    }
}

fn location(entry: Entry) -> Option<Location> {
    match entry {
        Entry::Zero => None,
        Entry::Data { location, .. } => Some(location),
    }
}

#[cfg(test)]
mod tests;
