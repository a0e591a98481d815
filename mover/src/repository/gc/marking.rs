//! What is needed: the third step of a run, from the roots and their liveness to live ordinals.
//!
//! Owns: which points are roots, and the union of their liveness. Must not: take "gone" for "references nothing".

use std::collections::HashSet;

use super::census::{Census, StartOver};
use super::controls::{Row, Seen};
use super::live_union::LiveUnion;
use super::plan::Plan;
use super::view::View;
use crate::repository::ids::{SegmentId, SessionId, SessionKey, name};
use crate::repository::map::Liveness;

/// A point whose data must stay: its liveness is to be read and folded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The point.
    pub key: SessionKey,
    /// The store lost its start record or manifest; only the copy of its manifest keeps it. To be reported.
    pub damaged: bool,
    /// Bytes of its liveness object; 0 where that was not listed.
    pub bytes: u32,
}

/// Roots, what is kept, and which ordinals are live so far.
#[derive(Debug)]
pub struct Marking {
    pub(super) view: View,
    pub(super) keep: HashSet<SessionId>,
    pub(super) pins: HashSet<SessionKey>,
    pub(super) data: LiveUnion,
    pub(super) maps: LiveUnion,
    /// Marked segments that a root needs, although they may be missing: the next backup must find the mark.
    pub(super) needed_marks: HashSet<SegmentId>,
}

impl Marking {
    pub(super) fn new(census: Census) -> Self {
        Self {
            data: LiveUnion::new(&census.view.objects.data),
            maps: LiveUnion::new(&census.view.objects.maps),
            view: census.view,
            keep: census.keep,
            pins: census.pins,
            needed_marks: HashSet::new(),
        }
    }

    /// Every root, ascending. The liveness of each must be given to [`fold`](Self::fold), in any order.
    #[must_use]
    pub fn roots(&self) -> Vec<Root> {
        let rows = self.view.controls.rows().iter();
        rows.filter(|row| self.is_root(row))
            .map(|row| Root {
                key: row.key,
                damaged: row.seen.has(Seen::LOST),
                bytes: row.live_bytes,
            })
            .collect()
    }

    /// Folds in what one root needs; `None` where its liveness is gone.
    ///
    /// # Errors
    /// [`StartOver`] where that means that another run is ahead, or that the store lost the object: nothing may be
    /// concluded from what is not there.
    pub fn fold(&mut self, key: &SessionKey, liveness: Option<&Liveness>) -> Result<(), StartOver> {
        let gone = || StartOver {
            object: name::live(key),
        };
        let pinned = self.pins.contains(key);
        let row = self.view.controls.get_mut(key).ok_or_else(gone)?;
        match liveness {
            Some(liveness) => {
                for (segment, set) in liveness.segments() {
                    self.data.add(&self.view.objects.data, segment, set);
                    if self.view.marks.binary_search(&segment).is_ok() {
                        self.needed_marks.insert(segment);
                    }
                }
                for (segment, set) in liveness.map_segments() {
                    self.maps.add(&self.view.objects.maps, segment, set);
                }
            }
            // Nothing is left of the point but a copy that was stored after the purge: the purge deletes the liveness
            // before the forget order, and there is none.
            None if row.seen.has(Seen::BARE) && !pinned => row.seen.add(Seen::GHOST),
            None => return Err(gone()),
        }
        row.seen.add(Seen::FOLDED);
        Ok(())
    }

    /// Ends this step.
    ///
    /// # Errors
    /// [`StartOver`] where the liveness of a root was not folded in.
    pub fn finish(self) -> Result<Plan, StartOver> {
        let mut rows = self.view.controls.rows().iter();
        match rows.find(|row| self.is_root(row) && !row.seen.has(Seen::FOLDED)) {
            Some(row) => Err(StartOver {
                object: name::live(&row.key),
            }),
            None => Ok(Plan::new(self)),
        }
    }

    /// Bytes the view and the union take in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.view.memory() + self.data.memory() + self.maps.memory()
    }

    pub(super) fn is_root(&self, row: &Row) -> bool {
        let seen = row.seen;
        // Of a pinned point any trace counts, even its liveness alone: the rest may be lost, and a run that is ahead of this
        // one may be purging it because whoever pinned it has committed meanwhile.
        let traces = [Seen::MANIFEST, Seen::COPY, Seen::LIVE];
        let stands = traces.into_iter().any(|trace| seen.has(trace));
        let pinned = stands && self.pins.contains(&row.key);
        (is_whole(seen) && !seen.has(Seen::TOMB)) || pinned || seen.has(Seen::LOST)
    }
}

/// Start record and manifest are both there.
pub(super) fn is_whole(seen: Seen) -> bool {
    seen.has(Seen::OPEN) && seen.has(Seen::MANIFEST)
}
