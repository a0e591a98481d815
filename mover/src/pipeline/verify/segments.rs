//! Checks data and map segments: once each, however many points use them.
//!
//! ```text
//!   (segment, chunks a leaf expects) ──► directory, size ──► first time: bodies, as the level says
//!                                                     └──► every time: map and directory agree on each chunk
//! ```
//!
//! Owns: the checks of one segment and the memory of what was checked. Must not: know points; who is hurt is found by a second
//! walk, and only where something is wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::VerifyLevel;
use super::findings::Fault;
use crate::error::{Error, Result};
use crate::pipeline::Context;
use crate::pipeline::progress::Progress;
use crate::pipeline::restore::plan::{SegmentJob, Wanted};
use crate::pipeline::restore::ranges::MAX_GET_BYTES;
use crate::pipeline::restore::sample::Random;
use crate::repository::format::{BodyEntry, Class, Decoder, Directory, HEAD_LEN, fault};
use crate::repository::ids::{SegmentId, SessionId, name};
use crate::repository::segments::SegmentReader;
use crate::repository::store::list_all;

/// Neighbouring bodies read from each segment at the sample level: one request, and 3 % of a full segment.
const SAMPLE_BODIES: usize = 8;

/// Threads that wait for small requests.
const SMALL_READERS: usize = 16;
/// Threads that hold up to 16 MiB of bodies each: the same 128 MiB as a restore fetches.
const LARGE_READERS: usize = 8;

/// What is wrong with a segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFault {
    /// The object that was read, or would have been.
    pub object: String,
    /// What is wrong with it.
    pub fault: Fault,
    /// Bodies that are lost; empty means all.
    pub ordinals: HashSet<u16>,
    /// Whether every body is lost.
    pub whole: bool,
}

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Objects looked at.
    pub objects: u64,
    /// Bodies of data segments decoded.
    pub chunks: u64,
}

/// Shared by the threads that check segments.
#[derive(Debug)]
pub(crate) struct Checker<'a> {
    context: &'a Context,
    reader: &'a SegmentReader,
    level: VerifyLevel,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    data: HashSet<SegmentId>,
    maps: HashSet<SegmentId>,
    faults: HashMap<SegmentId, SegmentFault>,
    map_faults: BTreeMap<SegmentId, SegmentFault>,
    /// Sizes of the data segments of a session by the rest of their name.
    sizes: HashMap<SessionId, Arc<BTreeMap<String, u64>>>,
    counted: Counted,
}

impl<'a> Checker<'a> {
    /// Checks at `level`; `seed` chooses the samples.
    pub(crate) fn new(
        context: &'a Context,
        reader: &'a SegmentReader,
        level: VerifyLevel,
        seed: u64,
    ) -> Self {
        Self {
            context,
            reader,
            level,
            seed,
            state: Mutex::default(),
        }
    }

    /// Checks a data segment, and that it holds the chunks a map expects in it.
    ///
    /// # Errors
    /// What the store answers and is no fault of the object.
    pub(crate) fn data(
        &self,
        decoder: &mut Decoder,
        job: &SegmentJob,
        chunk_len: &dyn Fn(u64) -> u64,
    ) -> Result<()> {
        let id = job.segment;
        let is_first = self.lock().data.insert(id);
        if !is_first && self.lock().faults.get(&id).is_some_and(|fault| fault.whole) {
            return Ok(());
        }
        let first_read = if self.level == VerifyLevel::Data && is_first {
            MAX_GET_BYTES
        } else {
            HEAD_LEN
        };
        let opened = self.reader.directory_and_front(Class::Data, id, first_read);
        let (directory, front) = match opened {
            Ok((directory, front)) => (directory, front.unwrap_or_default()),
            Err(error) => return self.note(id, None, error),
        };
        Progress::add(&self.context.progress.read, front.len() as u64);
        if is_first {
            self.lock().counted.objects += 1;
            self.check_size(&directory)?;
            self.bodies(decoder, &directory, front)?;
        }
        for wanted in &job.chunks {
            if let Err(error) = agree(&directory, wanted, chunk_len(wanted.chunk)) {
                self.note(id, Some(&[wanted.ordinal]), error)?;
            }
        }
        Ok(())
    }

    /// Checks a whole map segment, dead pages included: it is small, and the walk has most of it in hand anyway.
    ///
    /// # Errors
    /// What the store answers and is no fault of the object.
    pub(crate) fn map(&self, decoder: &mut Decoder, id: SegmentId) -> Result<()> {
        if !self.lock().maps.insert(id) {
            return Ok(());
        }
        let object = name::map_segment(id);
        let repository = &self.context.repository;
        let checked = repository.store.get(&object).and_then(|bytes| {
            Progress::add(&self.context.progress.read, bytes.len() as u64);
            let directory = crate::repository::format::parse_object(
                &repository.keys,
                Class::Map,
                id,
                &object,
                &bytes,
            )?;
            let mut raw = Vec::new();
            directory.entries().iter().try_for_each(|entry| {
                self.body(
                    decoder,
                    &directory,
                    entry,
                    slice(&bytes, 0, entry),
                    &mut raw,
                )
            })
        });
        self.lock().counted.objects += 1;
        let Err(error) = checked else { return Ok(()) };
        let Some(fault) = Fault::of(&error) else {
            return Err(error);
        };
        tracing::debug!(%error, object, "note a finding");
        let fault = SegmentFault {
            object,
            fault,
            ordinals: HashSet::new(),
            whole: false,
        };
        self.lock().map_faults.insert(id, fault);
        Ok(())
    }

    /// Threads that work at once, within the budget of bytes being checked.
    pub(crate) fn threads(&self) -> usize {
        match self.level {
            VerifyLevel::Data => LARGE_READERS,
            VerifyLevel::Metadata | VerifyLevel::Sample => SMALL_READERS,
        }
    }

    /// Faulty data segments, faulty map segments, and what was counted.
    pub(crate) fn finish(
        self,
    ) -> (
        HashMap<SegmentId, SegmentFault>,
        BTreeMap<SegmentId, SegmentFault>,
        Counted,
    ) {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (state.faults, state.map_faults, state.counted)
    }

    /// The length that the store tells must be the one in the directory, else something is cut off or added.
    fn check_size(&self, directory: &Directory) -> Result<()> {
        let (id, object) = (directory.id(), directory.object());
        let listed = self.sizes(id.session)?.get(object).copied();
        let size = match listed {
            Some(size) => size,
            // Younger than the listing, or moved by a compaction since.
            None => match self.context.repository.store.head(object)? {
                Some(info) => info.size,
                None => return Ok(()),
            },
        };
        let want = directory.object_len();
        if size > want {
            let error = fault::damaged(object, format!("{} bytes follow its end", size - want));
            return self.note(id, Some(&[]), error);
        }
        if size < want {
            let cut = directory
                .entries()
                .iter()
                .filter(|entry| body_end(entry) > size);
            let lost: Vec<u16> = cut.map(|entry| entry.ordinal).collect();
            return self.note(id, Some(&lost), fault::truncated(object, size, want));
        }
        Ok(())
    }

    fn sizes(&self, session: SessionId) -> Result<Arc<BTreeMap<String, u64>>> {
        if let Some(sizes) = self.lock().sizes.get(&session) {
            return Ok(Arc::clone(sizes));
        }
        let listed = list_all(
            self.context.repository.store.as_ref(),
            &name::segments_of(session),
        )?;
        let sizes = Arc::new(
            listed
                .into_iter()
                .map(|info| (info.name, info.size))
                .collect(),
        );
        self.lock().sizes.insert(session, Arc::clone(&sizes));
        Ok(sizes)
    }

    fn bodies(&self, decoder: &mut Decoder, directory: &Directory, front: Bytes) -> Result<()> {
        let entries = directory.entries();
        match self.level {
            VerifyLevel::Metadata => Ok(()),
            VerifyLevel::Data => self.read_bodies(decoder, directory, entries, front),
            VerifyLevel::Sample => {
                let id = directory.id();
                let seed =
                    self.seed ^ u64::from(id.number) ^ u64::from_le_bytes(first_half(id.session.0));
                let room = entries.len().saturating_sub(SAMPLE_BODIES) as u64 + 1;
                let at = usize::try_from(Random::new(seed).below(room)).unwrap_or(0);
                let end = (at + SAMPLE_BODIES).min(entries.len());
                self.read_bodies(decoder, directory, &entries[at..end], front)
            }
        }
    }

    /// Reads and checks neighbouring bodies, in ranges of at most [`MAX_GET_BYTES`]; `front` is what is here already.
    fn read_bodies(
        &self,
        decoder: &mut Decoder,
        directory: &Directory,
        entries: &[BodyEntry],
        front: Bytes,
    ) -> Result<()> {
        let mut raw = Vec::new();
        let (mut bytes, mut base) = (front, 0);
        let mut at = 0;
        while let Some(entry) = entries.get(at) {
            self.context.stop.check()?;
            if base + (bytes.len() as u64) < body_end(entry) || entry.offset < base {
                let fits = |next: &&BodyEntry| body_end(next) - entry.offset <= MAX_GET_BYTES;
                let last = entries[at..]
                    .iter()
                    .take_while(fits)
                    .last()
                    .unwrap_or(entry);
                bytes = match self.reader.read(directory, entry.offset..body_end(last)) {
                    Ok(bytes) => bytes,
                    // Compacted away meanwhile: what is needed of it was checked when it was copied.
                    Err(error) if Fault::of(&error) == Some(Fault::Missing) => {
                        return self.vanished(directory, error);
                    }
                    Err(error) => {
                        let lost: Vec<u16> =
                            entries[at..].iter().map(|entry| entry.ordinal).collect();
                        return self.note(directory.id(), Some(&lost), error);
                    }
                };
                base = entry.offset;
                Progress::add(&self.context.progress.read, bytes.len() as u64);
            }
            if let Err(error) = self.body(
                decoder,
                directory,
                entry,
                slice(&bytes, base, entry),
                &mut raw,
            ) {
                self.note(directory.id(), Some(&[entry.ordinal]), error)?;
            }
            self.lock().counted.chunks += 1;
            at += 1;
        }
        Ok(())
    }

    /// An object that was there a moment ago: look for another generation, which the next leaf that needs it checks.
    fn vanished(&self, directory: &Directory, error: Error) -> Result<()> {
        let id = directory.id();
        self.reader.forget(Class::Data, id);
        match self.reader.directory(Class::Data, id) {
            Ok(_) => {
                self.lock().data.remove(&id);
                Ok(())
            }
            Err(_) => self.note(id, None, error),
        }
    }

    fn body(
        &self,
        decoder: &mut Decoder,
        directory: &Directory,
        entry: &BodyEntry,
        stored: Option<&[u8]>,
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        let stored =
            stored.ok_or_else(|| fault::truncated(directory.object(), 0, body_end(entry)))?;
        let len = usize::try_from(entry.raw_len).unwrap_or(usize::MAX);
        if raw.len() < len {
            raw.resize(len, 0);
        }
        decoder.decode(
            &self.context.repository.keys,
            directory,
            entry,
            stored,
            &mut raw[..len],
        )
    }

    /// Notes a fault of some bodies of a data segment (`None`: of all; an empty list: of none, but of the object).
    fn note(&self, id: SegmentId, ordinals: Option<&[u16]>, error: Error) -> Result<()> {
        let Some(fault) = Fault::of(&error) else {
            return Err(error);
        };
        let object = error
            .object_name()
            .map_or_else(|| name::segment(id, 0), str::to_owned);
        tracing::debug!(%error, object, "note a finding");
        let mut state = self.lock();
        let found = state.faults.entry(id).or_insert_with(|| SegmentFault {
            object,
            fault,
            ordinals: HashSet::new(),
            whole: false,
        });
        match ordinals {
            Some(ordinals) => found.ordinals.extend(ordinals),
            None => found.whole = true,
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a directory says what a map says about a chunk.
fn agree(directory: &Directory, wanted: &Wanted, chunk_len: u64) -> Result<()> {
    let Some(entry) = directory.entry(wanted.ordinal) else {
        let what = format!(
            "it has no body {}, where chunk {} should be",
            wanted.ordinal, wanted.chunk
        );
        return Err(fault::damaged(directory.object(), what));
    };
    if entry.digest == wanted.digest && u64::from(entry.raw_len) == chunk_len {
        return Ok(());
    }
    let what = format!(
        "body {} is not chunk {} of the volume",
        wanted.ordinal, wanted.chunk
    );
    Err(fault::swapped(directory.object(), what))
}

fn body_end(entry: &BodyEntry) -> u64 {
    entry.offset + u64::from(entry.stored_len)
}

/// A body's bytes, of an object of which `bytes` begin at `base`.
fn slice<'b>(bytes: &'b [u8], base: u64, entry: &BodyEntry) -> Option<&'b [u8]> {
    let start = usize::try_from(entry.offset.checked_sub(base)?).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(entry.stored_len).ok()?)?)
}

fn first_half(id: [u8; 16]) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&id[..8]);
    half
}
