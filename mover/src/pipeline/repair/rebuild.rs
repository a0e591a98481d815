//! Makes lost leaves of a map again from what the segments say of themselves.
//!
//! ```text
//!   liveness ─► directories of data segments: chunk number, digest ─► likely leaves ─┐
//!            └► map segments that are left: leaves without a parent ─────────────────┴─► hash of what the lost page held? ─► leaves
//! ```
//!
//! Owns: guessing, and the proof. Must not: give anything that was only guessed: the content hash of the lost page is known from
//! the page above it or from the manifest, and what does not give that hash is thrown away. It covers every digest at every
//! place, so what gives it is what was backed up.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::walk::LEAF_CHUNKS;
use crate::repository::format::{Class, Manifest};
use crate::repository::ids::{Digest, SegmentId};
use crate::repository::map::orphans::live_leaves;
use crate::repository::map::{ContentTree, DamagedPage, Entry, FANOUT, Leaf, Liveness, Location};
use crate::repository::segments::SegmentReader;
use crate::repository::session::points::Point;

/// Chunks that all rebuilt leaves of a point may hold: 128 GiB of volume at the default chunk size, about 100 MiB of memory.
const MAX_CHUNKS: usize = 1 << 20;
/// Leaves that are tried for one hash; a second or two.
const MAX_TRIALS: usize = 1 << 18;
/// Directories read at once.
const PARALLEL_READS: usize = 16;

/// A chunk that some segment holds.
type Body = (Digest, Location);

/// What a lost range of a map may have said.
#[derive(Debug, Default)]
struct Candidates {
    /// Bodies that were stored for a chunk of the range, the likeliest first.
    by_chunk: HashMap<u64, Vec<Body>>,
    /// Bodies that the point uses at several places, wherever these are.
    shared: Vec<Body>,
}

/// Rebuilds lost pages of one point.
pub(super) struct Rebuilder<'a> {
    pub context: &'a Context,
    pub reader: &'a SegmentReader,
    pub point: &'a Point,
    pub liveness: &'a Liveness,
}

/// Leaves by their number.
pub(super) type Leaves = BTreeMap<u64, Leaf>;

impl Rebuilder<'_> {
    /// The leaves below a lost page, proved right; `None` where that cannot be done.
    ///
    /// # Errors
    /// What the store answers, `Interrupted` on request.
    pub(super) fn page(&self, lost: &DamagedPage) -> Result<Option<Leaves>> {
        let end = lost.chunks().end.min(self.point.manifest.chunks());
        let chunks = lost.chunks().start..end;
        let Some(candidates) = self.candidates(&chunks)? else {
            return Ok(None);
        };
        let found = if lost.level == 0 {
            self.leaf(&chunks, lost, &candidates)?
                .map(|leaf| Leaves::from([(lost.index, leaf)]))
        } else {
            self.subtree(&chunks, lost, &candidates)?
        };
        Ok(found)
    }

    fn keys(&self) -> &std::sync::Arc<crate::repository::format::Keys> {
        &self.context.repository.keys
    }

    /// Directories tell which chunk each body was stored for; those of other points are not live and not asked.
    fn candidates(&self, chunks: &Range<u64>) -> Result<Option<Candidates>> {
        let segments: Vec<SegmentId> = self.liveness.segments().map(|(id, _)| id).collect();
        let found = Mutex::new(Candidates::default());
        let held = AtomicUsize::new(0);
        let next = AtomicUsize::new(0);
        let read = || -> Result<()> {
            while let Some(id) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.context.stop.check()?;
                self.collect(*id, chunks, &found, &held)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..PARALLEL_READS.min(segments.len()))
                .map(|_| scope.spawn(read))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| match thread.join() {
                    Ok(read) => read,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })?;
        if held.into_inner() > MAX_CHUNKS {
            return Ok(None);
        }
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let own = self.point.key.session;
        for bodies in found.by_chunk.values_mut() {
            bodies.sort_by_key(|(_, at)| (at.segment.session != own, *at));
        }
        found.shared.sort_by_key(|(_, at)| *at);
        Ok(Some(found))
    }

    fn collect(
        &self,
        id: SegmentId,
        chunks: &Range<u64>,
        found: &Mutex<Candidates>,
        held: &AtomicUsize,
    ) -> Result<()> {
        let directory = match self.reader.directory(Class::Data, id) {
            Ok(directory) => directory,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                tracing::debug!(%error, "pass over a segment");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for entry in directory.entries() {
            let location = Location {
                segment: id,
                ordinal: entry.ordinal,
            };
            let is_shared = self.liveness.is_shared(location);
            let is_here = chunks.contains(&entry.key);
            if !self.liveness.is_live(location) || !(is_shared || is_here) {
                continue;
            }
            if held.fetch_add(1, Ordering::Relaxed) > MAX_CHUNKS {
                return Ok(());
            }
            let body = (entry.digest, location);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            if is_shared {
                found.shared.push(body);
            }
            if is_here && u64::from(entry.raw_len) == chunk_len(&self.point.manifest, entry.key) {
                found.by_chunk.entry(entry.key).or_default().push(body);
            }
        }
        Ok(())
    }

    /// One leaf: what was stored for its chunks, then with deviations, until the hash is right.
    fn leaf(
        &self,
        chunks: &Range<u64>,
        lost: &DamagedPage,
        candidates: &Candidates,
    ) -> Result<Option<Leaf>> {
        let options: Vec<Vec<Option<Body>>> = chunks
            .clone()
            .map(|chunk| options(candidates, chunk))
            .collect();
        let mut trial = Trial {
            keys: self.keys(),
            first: chunks.start,
            chosen: options.iter().map(|options| options[0]).collect(),
            wanted: lost.content,
            left: MAX_TRIALS,
        };
        // Where nothing was stored under the chunk's own number, it was zero or the same as another.
        let open: Vec<usize> = chunks
            .clone()
            .enumerate()
            .filter(|(_, chunk)| !candidates.by_chunk.contains_key(chunk))
            .map(|(place, _)| place)
            .collect();
        let all: Vec<usize> = (0..options.len()).collect();
        let right = trial.matches()
            || (combinations(&open, &options) <= MAX_TRIALS && trial.every(&open, &options))
            || trial.deviate(&all, &options, 1)
            || trial.deviate(&all, &options, 2);
        self.context.stop.check()?;
        Ok(right.then(|| trial.leaf()))
    }

    /// Many leaves under one known hash: those that are left, and for the others what was stored for their chunks.
    fn subtree(
        &self,
        chunks: &Range<u64>,
        lost: &DamagedPage,
        candidates: &Candidates,
    ) -> Result<Option<Leaves>> {
        let mut leaves = Leaves::new();
        for (chunk, bodies) in &candidates.by_chunk {
            let (digest, location) = bodies[0];
            leaves
                .entry(chunk / LEAF_CHUNKS)
                .or_insert_with(Leaf::zero)
                .set(place(*chunk), Entry::Data { digest, location });
        }
        let left = live_leaves(&self.context.repository, self.liveness, chunks)?;
        leaves.extend(left);
        let mut tree = ContentTree::new(self.keys());
        for (index, leaf) in &leaves {
            for (place, digest, _) in leaf.data() {
                tree.chunk(index * LEAF_CHUNKS + place as u64, &digest);
            }
        }
        Ok((tree.finish(lost.level) == Some(lost.content)).then_some(leaves))
    }
}

/// What a chunk may be, the likeliest first.
fn options(candidates: &Candidates, chunk: u64) -> Vec<Option<Body>> {
    let own = candidates.by_chunk.get(&chunk);
    let own = own.into_iter().flatten().copied().map(Some);
    let shared = candidates.shared.iter().copied().map(Some);
    own.chain([None]).chain(shared).collect()
}

/// Ways to choose at these places, as far as they can be counted.
fn combinations(places: &[usize], options: &[Vec<Option<Body>>]) -> usize {
    places.iter().fold(1, |product: usize, place| {
        product.saturating_mul(options[*place].len())
    })
}

/// One leaf in the making.
struct Trial<'a> {
    keys: &'a std::sync::Arc<crate::repository::format::Keys>,
    first: u64,
    chosen: Vec<Option<Body>>,
    wanted: [u8; 16],
    left: usize,
}

impl Trial<'_> {
    fn matches(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        let mut tree = ContentTree::new(self.keys);
        for (chunk, body) in (self.first..).zip(&self.chosen) {
            if let Some((digest, _)) = body {
                tree.chunk(chunk, digest);
            }
        }
        tree.finish(0) == Some(self.wanted)
    }

    /// Tries every choice at the open places.
    fn every(&mut self, open: &[usize], options: &[Vec<Option<Body>>]) -> bool {
        let Some((place, rest)) = open.split_first() else {
            return self.matches();
        };
        let before = self.chosen[*place];
        for option in &options[*place] {
            self.chosen[*place] = *option;
            if self.every(rest, options) {
                return true;
            }
        }
        self.chosen[*place] = before;
        false
    }

    /// Tries other choices at `count` of the places.
    fn deviate(&mut self, places: &[usize], options: &[Vec<Option<Body>>], count: usize) -> bool {
        for (at, place) in places.iter().enumerate() {
            let before = self.chosen[*place];
            for option in options[*place].iter().filter(|option| **option != before) {
                if self.left == 0 {
                    break;
                }
                self.chosen[*place] = *option;
                let right = match count {
                    1 => self.matches(),
                    _ => self.deviate(&places[at + 1..], options, count - 1),
                };
                if right {
                    return true;
                }
            }
            self.chosen[*place] = before;
        }
        false
    }

    fn leaf(&self) -> Leaf {
        let mut leaf = Leaf::zero();
        for (chunk, body) in (self.first..).zip(&self.chosen) {
            if let Some((digest, location)) = *body {
                leaf.set(place(chunk), Entry::Data { digest, location });
            }
        }
        leaf
    }
}

fn place(chunk: u64) -> usize {
    usize::try_from(chunk % FANOUT as u64).expect("below 256")
}

fn chunk_len(manifest: &Manifest, chunk: u64) -> u64 {
    let chunk_size = u64::from(manifest.chunk_size);
    manifest
        .size
        .saturating_sub(chunk.saturating_mul(chunk_size))
        .min(chunk_size)
}
