//! Which data and map segments were listed, grouped by session.
//!
//! Owns: that table, 12 bytes a segment and 24 a session. Must not: know what a session is to anybody.

use std::ops::Range;

use crate::repository::ids::{SegmentId, SessionId};

/// One listed segment object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentRow {
    pub(super) number: u32,
    pub(super) generation: u8,
    /// Bytes of the object.
    pub(super) size: u32,
}

/// Rows of one session in one of the two tables.
#[derive(Clone, Copy, Debug)]
struct Span {
    session: SessionId,
    start: u32,
}

/// Segments of one kind.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Ascending by session once settled; a session may begin more than once before.
    spans: Vec<Span>,
    rows: Vec<SegmentRow>,
    unsorted: bool,
}

impl Segments {
    fn note(&mut self, id: SegmentId, generation: u8, size: u64) {
        let row = SegmentRow {
            number: id.number,
            generation,
            size: u32::try_from(size).unwrap_or(u32::MAX),
        };
        match self.spans.last() {
            Some(span) if span.session == id.session => {
                self.unsorted |= self.rows.last().is_some_and(|last| *last >= row);
            }
            last => {
                self.unsorted |= last.is_some_and(|last| last.session > id.session);
                let start = u32::try_from(self.rows.len()).expect("fewer than 2^32 segments");
                self.spans.push(Span {
                    session: id.session,
                    start,
                });
            }
        }
        self.rows.push(row);
    }

    /// Brings rows that did not come in order into it (stores list in order, so that this is rare), and gives back what was
    /// reserved for more.
    fn settle(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            self.sort();
        }
        self.spans.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    fn sort(&mut self) {
        let mut all: Vec<(SessionId, SegmentRow)> = (0..self.spans.len())
            .flat_map(|at| {
                let session = self.spans[at].session;
                self.rows[self.range(at)]
                    .iter()
                    .map(move |row| (session, *row))
            })
            .collect();
        all.sort_unstable();
        all.dedup_by_key(|(session, row)| (*session, row.number, row.generation));
        let mut sorted = Self::default();
        for (session, row) in all {
            let id = SegmentId {
                session,
                number: row.number,
            };
            sorted.note(id, row.generation, u64::from(row.size));
        }
        *self = sorted;
    }

    /// Rows of the session at `at`.
    pub(super) fn range(&self, at: usize) -> Range<usize> {
        let start = self.spans[at].start as usize;
        let end = self
            .spans
            .get(at + 1)
            .map_or(self.rows.len(), |next| next.start as usize);
        start..end
    }

    /// The sessions with their rows, ascending.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (SessionId, Range<usize>)> + '_ {
        (0..self.spans.len()).map(|at| (self.spans[at].session, self.range(at)))
    }

    /// Rows of a session; `hint` is where the last lookup ended, because neighbours nearly always share a session.
    pub(super) fn find(&self, session: SessionId, hint: &mut usize) -> Option<Range<usize>> {
        let same = |at: usize| {
            self.spans
                .get(at)
                .is_some_and(|span| span.session == session)
        };
        if !same(*hint) {
            *hint = self
                .spans
                .binary_search_by_key(&session, |span| span.session)
                .ok()?;
        }
        Some(self.range(*hint))
    }

    pub(super) fn rows(&self) -> &[SegmentRow] {
        &self.rows
    }

    pub(super) fn memory(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.rows.capacity() * size_of::<SegmentRow>()
    }
}

/// All data and map segments.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) data: Segments,
    pub(super) maps: Segments,
}

impl Objects {
    pub(super) fn note_segment(&mut self, id: SegmentId, generation: u8, size: u64) {
        self.data.note(id, generation, size);
    }

    pub(super) fn note_map(&mut self, id: SegmentId, size: u64) {
        self.maps.note(id, 0, size);
    }

    pub(super) fn settle(&mut self) {
        self.data.settle();
        self.maps.settle();
    }

    pub(super) fn len(&self) -> usize {
        self.data.rows.len() + self.maps.rows.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.data.memory() + self.maps.memory()
    }

    /// Whether any generation of a data segment was listed.
    pub(super) fn has_data(&self, id: SegmentId) -> bool {
        self.data.find(id.session, &mut 0).is_some_and(|range| {
            self.data.rows[range]
                .binary_search_by_key(&id.number, |row| row.number)
                .is_ok()
        })
    }
}
