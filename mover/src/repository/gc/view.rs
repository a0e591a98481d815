//! What one run has seen of the repository.
//!
//! Owns: the order of the listings, and sorting their names into compact tables. Must not: conclude anything.

use super::census::{Census, DecidedBy};
use super::controls::{Controls, Seen};
use super::objects::Objects;
use crate::repository::ids::{ReaderKey, SegmentId, SessionId, SessionKey, name};
use crate::repository::quarantine;
use crate::repository::session::records::MAX_ABORT_LEN;
use crate::repository::store::ObjectInfo;

/// One step of listing; each ends before the next begins. Within one, prefixes and pages may be listed side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Heartbeats and quarantine marks: before everything they belong to, so that "without a session" is for ever.
    Signs,
    /// Data, map and liveness objects: before all control objects, so that what is stored later is no candidate. Any
    /// subset will do.
    Objects,
    /// Forget orders: before the start records, so that a session which saw no forget order shows.
    Tombs,
    /// Start records: whatever is undecided in the slots was here, or is younger than the data.
    OpensBefore,
    /// Slots.
    Slots,
    /// Start records again: whoever's abort marker was in a slot shows here.
    OpensAfter,
    /// Second copies of manifests, last: a point whose copy does not show was not damaged before. What one seems to prove
    /// lost is looked up again, key by key.
    Copies,
}

impl Stage {
    /// The only right order.
    pub const ORDER: [Self; 7] = [
        Self::Signs,
        Self::Objects,
        Self::Tombs,
        Self::OpensBefore,
        Self::Slots,
        Self::OpensAfter,
        Self::Copies,
    ];

    /// What to list in this step.
    #[must_use]
    pub fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Signs => &[name::BEAT, name::QUARANTINE],
            Self::Copies => &[name::COPY],
            Self::Objects => &[name::SEG, name::MAP, name::LIVE],
            Self::Tombs => &[name::TOMB],
            Self::OpensBefore | Self::OpensAfter => &[name::OPEN],
            Self::Slots => &[name::SNAP],
        }
    }
}

/// Everything a run has listed: 12 bytes a segment, and at most 92 a session.
#[derive(Debug, Default)]
pub struct View {
    pub(super) controls: Controls,
    pub(super) objects: Objects,
    pub(super) beats: Vec<SessionId>,
    pub(super) marks: Vec<SegmentId>,
    strangers: u64,
}

impl View {
    /// Takes one listed object. Names that are none of this repository's are counted and left alone.
    pub fn note(&mut self, info: &ObjectInfo) {
        if self.sort_in(info).is_none() {
            self.strangers += 1;
        }
    }

    /// Objects under the listed prefixes whose names mean nothing here.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// Data objects seen.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.objects.len()
    }

    /// Bytes the tables take in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.controls.memory() + self.objects.memory()
    }

    /// Ends the listings.
    #[must_use]
    pub fn finish(mut self, decided_by: DecidedBy) -> Census {
        self.controls.settle();
        self.controls.shrink();
        self.objects.settle();
        self.marks.sort_unstable();
        self.marks.dedup();
        Census::new(self, decided_by)
    }

    pub(super) fn note_segment(&mut self, id: SegmentId, generation: u8, size: u64) {
        self.objects.note_segment(id, generation, size);
    }

    pub(super) fn note_map(&mut self, id: SegmentId, size: u64) {
        self.objects.note_map(id, size);
    }

    pub(super) fn note_control(&mut self, key: SessionKey, seen: Seen) {
        self.controls.note(key, seen, 0);
    }

    pub(super) fn note_reader(&mut self, key: ReaderKey, seen: Seen) {
        self.controls.note_reader(key, seen);
    }

    fn sort_in(&mut self, info: &ObjectInfo) -> Option<()> {
        let (kind, rest) = info.name.split_at(info.name.find('/')? + 1);
        match kind {
            name::SEG => {
                let (id, generation) = name::parse_segment(&info.name)?;
                self.note_segment(id, generation, info.size);
            }
            name::MAP => self.note_map(name::parse_map_segment(&info.name)?, info.size),
            name::BEAT => self.beats.push(name::parse_beat(&info.name)?),
            name::QUARANTINE => self.marks.push(quarantine::marked_segment(&info.name)?),
            name::LIVE => self
                .controls
                .note(SessionKey::parse(rest)?, Seen::LIVE, info.size),
            name::COPY => self.note_control(SessionKey::parse(rest)?, Seen::COPY),
            name::TOMB => self.note_control(SessionKey::parse(rest)?, Seen::TOMB),
            name::OPEN => self.note_either(rest, Seen::OPEN)?,
            name::SNAP if info.size > MAX_ABORT_LEN => {
                self.note_control(SessionKey::parse(rest)?, Seen::MANIFEST);
            }
            name::SNAP => self.note_either(rest, Seen::ABORT)?,
            _ => return None,
        }
        Some(())
    }

    fn note_either(&mut self, rest: &str, seen: Seen) -> Option<()> {
        match SessionKey::parse(rest) {
            Some(key) => self.note_control(key, seen),
            None => self.note_reader(ReaderKey::parse(rest)?, seen),
        }
        Some(())
    }
}
