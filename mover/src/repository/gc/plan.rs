//! What may be deleted: the last step of a run.
//!
//! ```text
//!   brake? ─► chains of control objects, step by step ─► dead data, superseded generations ─► leftovers
//! ```
//!
//! Owns: the verdicts, and the order inside each chain. Must not: delete. Control goes before data: a point that is partly
//! gone is then no longer a point, and cannot make later runs start over.

use super::controls::{Row, Seen};
use super::live_union::Live;
use super::marking::{Marking, is_whole};
use super::objects::{SegmentRow, Segments};
use crate::repository::ids::{ReaderKey, SegmentId, SessionId, SessionKey, name};

/// One deletion of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlStep {
    /// The second copy of the manifest: while it is there without a forget order, a missing start record means a loss.
    Copy,
    /// The start record: from here on the point is none.
    Open,
    /// The slot: free again, but no late manifest makes a point without a start record.
    Slot,
    /// The liveness, so that without a forget order it tells a lost point from the ghost of a purged one.
    Live,
    /// The forget order, last: while it is there, any run can take the chain up again.
    Tomb,
}

/// Why the control objects of a session go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was fenced and nobody adopted it.
    Aborted,
    /// The point was forgotten and nobody pins it.
    Forgotten,
    /// A slot without a start record: a fence or a commit that came after the purge.
    Leftover,
    /// A copy without anything else: it was stored after the purge.
    Ghost,
}

/// The control objects of one session. Each step only after the one before was answered "deleted" or "not there", not
/// with a refusal or a time-out; different chains in any order. All steps are taken, whether the object was listed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whose objects.
    pub key: super::OpenKey,
    /// Why.
    pub cause: Cause,
}

impl Chain {
    /// The deletions, in order.
    #[must_use]
    pub fn steps(&self) -> &'static [ControlStep] {
        use ControlStep::{Copy, Live, Open, Slot, Tomb};
        match self.cause {
            Cause::Aborted => &[Open, Slot],
            Cause::Forgotten => &[Copy, Open, Slot, Live, Tomb],
            Cause::Leftover => &[Slot],
            Cause::Ghost => &[Copy],
        }
    }

    /// The object that a step deletes; `None` for what a reader never has.
    #[must_use]
    pub fn name(&self, step: ControlStep) -> Option<String> {
        use super::OpenKey::{Reader, Writer};
        match (step, &self.key) {
            (ControlStep::Open, key) => Some(key.open_name()),
            (ControlStep::Slot, key) => Some(key.slot_name()),
            (ControlStep::Copy, Writer(key)) => Some(name::copy(key)),
            (ControlStep::Live, Writer(key)) => Some(name::live(key)),
            (ControlStep::Tomb, Writer(key)) => Some(name::tomb(key)),
            (_, Reader(_)) => None,
        }
    }
}

/// A data object that nothing needs, now or ever again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadObject {
    /// A data segment in one generation.
    Segment {
        /// The segment.
        id: SegmentId,
        /// The generation.
        generation: u8,
        /// Bytes of the object.
        size: u32,
    },
    /// A map segment.
    Map {
        /// The segment.
        id: SegmentId,
        /// Bytes of the object.
        size: u32,
    },
    /// The liveness of a point that is none any more, or never became one.
    Live {
        /// The session.
        key: SessionKey,
        /// Bytes of the object.
        size: u32,
    },
}

impl DeadObject {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Segment { id, generation, .. } => name::segment(*id, *generation),
            Self::Map { id, .. } => name::map_segment(*id),
            Self::Live { key, .. } => name::live(key),
        }
    }

    /// Bytes it frees.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Segment { size, .. } | Self::Map { size, .. } | Self::Live { size, .. } => {
                u64::from(*size)
            }
        }
    }
}

/// Too many manifests without a start record: a lost prefix must not be read as an order to forget everything. A person
/// must look before anything is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Manifests without start record and without forget order.
    pub without_open: usize,
    /// All manifests.
    pub manifests: usize,
}

/// So many manifests may lack their start record in any repository.
const BRAKE_FLOOR: usize = 8;

/// What one run may do, in the order of these methods.
#[derive(Debug)]
pub struct Plan {
    marking: Marking,
}

impl Plan {
    pub(super) fn new(marking: Marking) -> Self {
        Self { marking }
    }

    /// Whether this run must stop here and delete nothing.
    #[must_use]
    pub fn brake(&self) -> Option<Brake> {
        let (mut manifests, mut without_open) = (0, 0);
        for row in self.rows().filter(|row| row.seen.has(Seen::MANIFEST)) {
            manifests += 1;
            // With a forget order it is what a purge leaves that was stopped half-way.
            if !row.seen.has(Seen::OPEN) && !row.seen.has(Seen::TOMB) {
                without_open += 1;
            }
        }
        (without_open > BRAKE_FLOOR.max(manifests / 100)).then_some(Brake {
            without_open,
            manifests,
        })
    }

    /// Control objects to delete.
    pub fn chains(&self) -> impl Iterator<Item = Chain> + '_ {
        let writers = self.rows().filter_map(|row| {
            Some(Chain {
                key: super::OpenKey::Writer(row.key),
                cause: self.cause(row)?,
            })
        });
        let readers = self.marking.view.controls.readers();
        writers.chain(readers.filter_map(|(key, seen)| {
            Some(Chain {
                key: super::OpenKey::Reader(key),
                cause: self.reader_cause(&key, seen)?,
            })
        }))
    }

    /// Data objects to delete, all generations of a dead segment among them. Liveness that goes with a chain is not
    /// repeated here.
    pub fn dead_data(&self) -> impl Iterator<Item = DeadObject> + '_ {
        let objects = &self.marking.view.objects;
        let data = self
            .unkept_rows(&objects.data)
            .filter(|found| self.marking.data.get(found.first).is_empty())
            .map(|found| found.as_dead_data());
        let maps = self
            .unkept_rows(&objects.maps)
            .filter(|found| self.marking.maps.get(found.first).is_empty())
            .map(|found| DeadObject::Map {
                id: found.id,
                size: found.row.size,
            });
        let live = self
            .rows()
            .filter(|row| self.is_dead_live(row))
            .map(|row| DeadObject::Live {
                key: row.key,
                size: row.live_bytes,
            });
        data.chain(maps).chain(live)
    }

    /// Generations of living segments below the highest one: each is a copy of what the highest holds, and more.
    pub fn superseded(&self) -> impl Iterator<Item = DeadObject> + '_ {
        self.unkept_rows(&self.marking.view.objects.data)
            .filter(|found| !found.is_highest && !self.marking.data.get(found.first).is_empty())
            .map(|found| found.as_dead_data())
    }

    /// Living segments of owners that are not kept, in their highest generation. What compaction chooses from.
    pub(super) fn living(&self) -> impl Iterator<Item = (SegmentId, SegmentRow, Live<'_>)> + '_ {
        self.unkept_rows(&self.marking.view.objects.data)
            .filter_map(|found| {
                let live = self.marking.data.get(found.first);
                (found.is_highest && !live.is_empty()).then_some((found.id, found.row, live))
            })
    }

    /// Heartbeats without a session.
    #[must_use]
    pub fn dead_beats(&self) -> Vec<SessionId> {
        let mut beats = self.marking.view.beats.clone();
        beats.sort_unstable();
        let mut lives = vec![false; beats.len()];
        let controls = &self.marking.view.controls;
        let writers = self.rows().map(|row| (row.key.session, row.seen));
        let readers = controls.readers().map(|(key, seen)| (key.session, seen));
        for (session, seen) in writers.chain(readers) {
            if seen.has(Seen::OPEN)
                && let Ok(at) = beats.binary_search(&session)
            {
                lives[at] = true;
            }
        }
        let lives = lives.into_iter();
        beats
            .into_iter()
            .zip(lives)
            .filter_map(|(session, lives)| (!lives).then_some(session))
            .collect()
    }

    /// Marked segments that are gone and that no root needs. Only to be asked where all data segments were listed.
    pub fn dead_marks(&self) -> impl Iterator<Item = SegmentId> + '_ {
        let Marking {
            view, needed_marks, ..
        } = &self.marking;
        let marks = view.marks.iter().copied();
        marks.filter(|id| !view.objects.has_data(*id) && !needed_marks.contains(id))
    }

    /// Points without a second copy of their manifest: to be stored again. The copy is listed early, so that a young
    /// point may be among them; storing the same bytes twice does no harm.
    pub fn missing_copies(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.rows()
            .filter(|row| {
                is_whole(row.seen) && !row.seen.has(Seen::COPY) && !row.seen.has(Seen::TOMB)
            })
            .map(|row| row.key)
    }

    /// Points that the store damaged and that only their copy keeps: to be reported, and repaired by a person.
    pub fn damaged(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.rows()
            .filter(|row| row.seen.has(Seen::LOST) && !row.seen.has(Seen::GHOST))
            .map(|row| row.key)
    }

    /// Bytes the plan takes in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.marking.memory()
    }

    fn rows(&self) -> impl Iterator<Item = &Row> + '_ {
        self.marking.view.controls.rows().iter()
    }

    fn is_kept(&self, key: &SessionKey) -> bool {
        self.marking.keep.contains(&key.session)
    }

    fn cause(&self, row: &Row) -> Option<Cause> {
        let (seen, key) = (row.seen, &row.key);
        let pinned = self.marking.pins.contains(key);
        if seen.has(Seen::TOMB) {
            return (!pinned && !self.is_kept(key)).then_some(Cause::Forgotten);
        }
        if seen.has(Seen::GHOST) {
            return Some(Cause::Ghost);
        }
        if seen.has(Seen::LOST) {
            return None;
        }
        if seen.has(Seen::ABORT) && seen.has(Seen::OPEN) {
            return (!self.is_kept(key)).then_some(Cause::Aborted);
        }
        let slot_alone =
            (seen.has(Seen::MANIFEST) || seen.has(Seen::ABORT)) && !seen.has(Seen::OPEN);
        (slot_alone && !pinned && !self.is_kept(key)).then_some(Cause::Leftover)
    }

    fn reader_cause(&self, key: &ReaderKey, seen: Seen) -> Option<Cause> {
        if !seen.has(Seen::ABORT) || self.marking.keep.contains(&key.session) {
            return None;
        }
        Some(if seen.has(Seen::OPEN) {
            Cause::Aborted
        } else {
            Cause::Leftover
        })
    }

    /// Nobody's liveness, unless a chain deletes it.
    fn is_dead_live(&self, row: &Row) -> bool {
        row.seen.has(Seen::LIVE)
            && !self.is_kept(&row.key)
            && !self.marking.is_root(row)
            && self.cause(row) != Some(Cause::Forgotten)
    }

    /// Rows whose owner is not kept.
    fn unkept_rows<'a>(&'a self, segments: &'a Segments) -> impl Iterator<Item = Unkept> + 'a {
        let unkept = segments
            .sessions()
            .filter(|(session, _)| !self.marking.keep.contains(session));
        unkept.flat_map(move |(session, range)| {
            let mut first = range.start;
            range.clone().map(move |at| {
                let row = segments.rows()[at];
                let number = row.number;
                if segments.rows()[first].number != number {
                    first = at;
                }
                // The next session may begin with the same number.
                let next = segments.rows()[range.clone()].get(at + 1 - range.start);
                Unkept {
                    id: SegmentId { session, number },
                    first,
                    row,
                    is_highest: next.is_none_or(|next| next.number != number),
                }
            })
        })
    }
}

/// One listed segment object whose owner is not kept.
struct Unkept {
    id: SegmentId,
    /// Place of the segment's lowest generation, where its live ordinals are noted.
    first: usize,
    row: SegmentRow,
    is_highest: bool,
}

impl Unkept {
    fn as_dead_data(&self) -> DeadObject {
        DeadObject::Segment {
            id: self.id,
            generation: self.row.generation,
            size: self.row.size,
        }
    }
}
