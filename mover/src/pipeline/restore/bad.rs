//! Stored bodies that a restore could not read, to be marked at its end.
//!
//! Owns: that list, bounded, and the marks. Must not: decide whether a loss ends the restore, or fail it for a mark.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::losses::{Losses, describe};
use super::plan::Wanted;
use crate::error::{Error, Result};
use crate::repository::access::Repository;
use crate::repository::ids::SegmentId;
use crate::repository::quarantine::Quarantine;
use crate::repository::segments::is_missing;

/// Bodies that are remembered; a restore that loses more needs a verification anyway.
const MAX_BODIES: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct BadBodies(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<SegmentId, Bad>,
    bodies: usize,
}

#[derive(Debug)]
struct Bad {
    ordinals: Vec<u16>,
    why: String,
    missing: bool,
}

impl BadBodies {
    /// Remembers that the bodies of these chunks could not be read, if the error says so of them.
    pub(crate) fn note(&self, segment: SegmentId, chunks: &[Wanted], error: &Error) {
        if !Losses::is_loss(error) {
            return;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_BODIES.saturating_sub(state.bodies);
        let ordinals: Vec<u16> = chunks.iter().take(room).map(|at| at.ordinal).collect();
        if ordinals.is_empty() {
            return;
        }
        state.bodies += ordinals.len();
        let bad = state.segments.entry(segment).or_insert_with(|| Bad {
            ordinals: Vec::new(),
            why: describe(error),
            missing: is_missing(error),
        });
        bad.ordinals.extend(ordinals);
    }

    /// Marks them, so that the next backup stores their chunks again. What is missing is only marked by who is sure that no
    /// collector removed it (`is_held`).
    pub(crate) fn mark(&self, repository: &Repository, is_held: bool) {
        let state = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if state.segments.is_empty() {
            return;
        }
        if let Err(error) = mark(repository, &state, is_held) {
            tracing::info!(%error, "leave bad chunks without a mark; `snaphaul verify` makes them");
        }
    }
}

fn mark(repository: &Repository, state: &State, is_held: bool) -> Result<()> {
    let mut marks = Quarantine::load(repository.store.as_ref())?;
    for (segment, bad) in &state.segments {
        if is_held || !bad.missing {
            marks.mark(repository, *segment, Some(&bad.ordinals), &bad.why)?;
        }
    }
    repository.store.sync()
}
