//! Checks data and map segments: once each, however many points use them.
//!
//! ```text
//!   (segment, chunks a leaf expects) ──► directory, size ──► first time: bodies, as the level says
//!                                                     └──► every time: map and directory agree on each chunk
//! ```
//!
//! Owns: the checks of one segment and the memory of what was checked. Must not: know points; who is hurt is found by a second
//! walk, and only where something is wrong.

mod bodies;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::VerifyLevel;
use super::findings::{Fault, Flaw};
use crate::error::{Error, Result};
use crate::pipeline::Context;
use crate::pipeline::progress::Progress;
use crate::pipeline::restore::plan::{SegmentJob, Wanted};
use crate::pipeline::restore::ranges::MAX_GET_BYTES;
use crate::repository::format::{Class, Decoder, Directory, HEAD_LEN, fault};
use crate::repository::ids::{SegmentId, SessionId, name};
use crate::repository::segments::SegmentReader;
use crate::repository::store::ObjectInfo;
use bodies::body_end;

/// Threads that wait for small requests, and most that check bodies.
const SMALL_READERS: usize = 16;
/// Fewest threads that check bodies.
const LARGE_READERS: usize = 8;
/// Bodies being checked: the same 128 MiB as a restore fetches.
const BODIES_BYTES: u64 = 128 << 20;

/// What is wrong with a segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFault {
    /// The object that was read, or would have been.
    pub object: String,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// Bodies that are lost.
    pub ordinals: HashSet<u16>,
    /// Whether every body is lost.
    pub whole: bool,
    /// Whether the object is wrong beside its bodies.
    pub itself: bool,
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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Data segments that were opened, with the length of their object.
    data: HashMap<SegmentId, u32>,
    maps: HashSet<SegmentId>,
    faults: HashMap<SegmentId, SegmentFault>,
    map_faults: BTreeMap<SegmentId, SegmentFault>,
    /// Sizes of the data segments of a session by number and generation.
    sizes: HashMap<SessionId, Arc<Sizes>>,
    counted: Counted,
}

type Sizes = BTreeMap<(u32, u8), u64>;

impl<'a> Checker<'a> {
    /// Checks at `level`.
    pub(crate) fn new(context: &'a Context, reader: &'a SegmentReader, level: VerifyLevel) -> Self {
        Self {
            context,
            reader,
            level,
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
        let is_first = {
            let mut state = self.lock();
            let is_first = !state.data.contains_key(&id);
            state.data.entry(id).or_default();
            is_first
        };
        if !is_first && self.lock().faults.get(&id).is_some_and(|fault| fault.whole) {
            return Ok(());
        }
        let first_read = if self.level == VerifyLevel::Data && is_first {
            self.get_bytes()
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
            {
                let mut state = self.lock();
                state.counted.objects += 1;
                let len = u32::try_from(directory.object_len()).unwrap_or(u32::MAX);
                state.data.insert(id, len);
            }
            self.check_size(&directory)?;
            if self.level == VerifyLevel::Data {
                self.read_bodies(decoder, &directory, front)?;
            }
        }
        for wanted in &job.chunks {
            if let Err(error) = agree(&directory, wanted, chunk_len(wanted.chunk)) {
                self.note(id, Some(&[wanted.ordinal]), error)?;
            }
        }
        Ok(())
    }

    /// Reads and checks all bodies of a segment that was opened before.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub(crate) fn bodies(&self, decoder: &mut Decoder, id: SegmentId) -> Result<()> {
        let opened = self
            .reader
            .directory_and_front(Class::Data, id, self.get_bytes());
        match opened {
            Ok((directory, front)) => {
                let front = front.unwrap_or_default();
                Progress::add(&self.context.progress.read, front.len() as u64);
                self.read_bodies(decoder, &directory, front)
            }
            Err(error) => self.note(id, None, error),
        }
    }

    /// Checks what the walk does not see of a map segment: whether anything follows its end.
    ///
    /// # Errors
    /// What the store answers and is no fault of the object.
    pub(crate) fn map(&self, id: SegmentId) -> Result<()> {
        if !self.lock().maps.insert(id) {
            return Ok(());
        }
        self.lock().counted.objects += 1;
        // What cannot be read is noted by the walk, with the chunks that it hides.
        let Ok(directory) = self.reader.directory(Class::Map, id) else {
            return Ok(());
        };
        let object = directory.object();
        let Some(found) = self.context.repository.store.head(object)? else {
            return Ok(());
        };
        let want = directory.object_len();
        if found.size <= want {
            return Ok(());
        }
        let why = format!("{} bytes follow its end", found.size - want);
        let fault = SegmentFault {
            object: object.to_owned(),
            flaw: Flaw::new(Fault::Damaged, fault::damaged(object, why).to_string()),
            ordinals: HashSet::new(),
            whole: false,
            itself: true,
        };
        self.lock().map_faults.insert(id, fault);
        Ok(())
    }

    /// The data segments that were opened, with the lengths of their objects, ascending.
    pub(crate) fn opened(&self) -> Vec<(SegmentId, u64)> {
        let mut opened: Vec<_> = {
            let state = self.lock();
            let opened = state.data.iter();
            opened.map(|(id, len)| (*id, u64::from(*len))).collect()
        };
        opened.sort_unstable();
        opened
    }

    /// Longest read: all threads together stay within the budget of bodies being checked.
    fn get_bytes(&self) -> u64 {
        MAX_GET_BYTES.min(BODIES_BYTES / self.threads() as u64)
    }

    /// Threads that work at once: more than cores, because some wait for the store.
    pub(crate) fn threads(&self) -> usize {
        match self.level {
            VerifyLevel::Data => (2 * self.context.jobs).clamp(LARGE_READERS, SMALL_READERS),
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
        let listed = match placed(object) {
            Some(key) => self.sizes(id.session)?.get(&key).copied(),
            None => None,
        };
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

    fn sizes(&self, session: SessionId) -> Result<Arc<Sizes>> {
        if let Some(sizes) = self.lock().sizes.get(&session) {
            return Ok(Arc::clone(sizes));
        }
        let mut sizes = Sizes::new();
        let store = self.context.repository.store.as_ref();
        store.list(&name::segments_of(session), &mut |page| {
            let placed = |info: &ObjectInfo| Some((placed(&info.name)?, info.size));
            sizes.extend(page.iter().filter_map(placed));
            Ok(())
        })?;
        let sizes = Arc::new(sizes);
        self.lock().sizes.insert(session, Arc::clone(&sizes));
        Ok(sizes)
    }

    /// Notes a fault of some bodies of a data segment (`None`: of all; an empty list: of none, but of the object).
    fn note(&self, id: SegmentId, ordinals: Option<&[u16]>, error: Error) -> Result<()> {
        let Some(flaw) = Flaw::of(&error) else {
            return Err(error);
        };
        let object = error
            .object_name()
            .map_or_else(|| name::segment(id, 0), str::to_owned);
        tracing::debug!(%error, object, "note a finding");
        let mut state = self.lock();
        let found = state.faults.entry(id).or_insert_with(|| SegmentFault {
            object,
            flaw,
            ordinals: HashSet::new(),
            whole: false,
            itself: false,
        });
        match ordinals {
            Some([]) => found.itself = true,
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

/// Number and generation of a segment, from the end of its name.
fn placed(object: &str) -> Option<(u32, u8)> {
    let (number, generation) = object.rsplit_once('/')?.1.split_once(".g")?;
    Some((number.parse().ok()?, generation.parse().ok()?))
}
