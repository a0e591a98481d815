//! What happens without a process that could be watched: fences, forget orders, late requests, losses.
//!
//! Owns: those steps and their budgets. All of them may come at any time, also much too late.

use super::mutation::Mutation;
use super::search::{Step, World};
use super::session::Part;
use super::state::{FENCER, Slot, State};

impl World {
    pub(super) fn environment_steps(&self, state: &State, next: &mut Vec<(Step, State)>) {
        for session in 0..self.bounds.sessions() {
            self.fence(state, session, next);
            self.forget(state, session, next);
            self.late_commit(state, session, next);
            self.lose(state, session, next);
            self.reopen(state, session, next);
        }
    }

    /// Somebody presumes the session dead, rightly or not.
    fn fence(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        if !self.is_past(state, session, Part::Open) {
            return;
        }
        // A reader never fills its slot: a marker there needs no winner.
        if self.bounds.by_register() && !self.bounds.is_reader(session) {
            self.fence_register(state, session, next);
            return;
        }
        let overwrites = self.mutation == Mutation::M7FenceOverwrites;
        let free = state.store.slot[session] == Slot::Empty;
        if state.past.fences >= self.bounds.fences || !(free || overwrites) {
            return;
        }
        let mut after = state.clone();
        after.past.fences += 1;
        after.store.slot[session] = Slot::Abort(FENCER);
        after.past.fenced.add(session);
        next.push((Step::environment("fence", session), after));
    }

    /// The swap decides; the forget order makes it known to everybody, whoever stores it.
    fn fence_register(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        let register = state.store.register[session];
        if register == Slot::Empty && state.past.fences < self.bounds.fences {
            let mut after = state.clone();
            after.past.fences += 1;
            after.past.fenced.add(session);
            after.store.register[session] = Slot::Abort(FENCER);
            next.push((Step::environment("swap to aborted", session), after));
        }
        if matches!(register, Slot::Abort(_)) && !state.past.forgotten.has(session) {
            let mut after = state.clone();
            after.store.tomb.add(session);
            after.past.forgotten.add(session);
            next.push((Step::environment("PUT tomb of aborted", session), after));
        }
    }

    fn forget(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        let past = &state.past;
        if past.forgets < self.bounds.forgets
            && past.committed.has(session)
            && !past.forgotten.has(session)
        {
            let mut after = state.clone();
            after.past.forgets += 1;
            after.past.forgotten.add(session);
            after.store.tomb.add(session);
            next.push((Step::environment("PUT tomb", session), after));
        }
    }

    /// A commit PUT that was given up on long ago arrives.
    fn late_commit(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        if !state.past.late_commit.has(session) {
            return;
        }
        let mut after = state.clone();
        after.past.late_commit.remove(session);
        if after.store.slot[session] == Slot::Empty || self.bounds.by_register() {
            after.store.slot[session] = Slot::Manifest;
        }
        next.push((Step::environment("late PUT manifest", session), after));
    }

    /// The store loses a control object of a point that it had acknowledged and that has a copy.
    fn lose(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        let past = &state.past;
        if past.losses >= self.bounds.losses
            || past.forgotten.has(session)
            || !past.acknowledged.has(session)
            || !state.store.copy.has(session)
        {
            return;
        }
        let mut lost = state.clone();
        lost.past.losses += 1;
        lost.past.lost.add(session);
        let mut slot = lost.clone();
        lost.store.open.remove(session);
        next.push((Step::environment("lose open", session), lost));
        slot.store.slot[session] = Slot::Empty;
        next.push((Step::environment("lose manifest", session), slot));
    }

    /// A session that still works stores `open` again.
    fn reopen(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        if self.mutation != Mutation::M14Reopen
            || state.past.heartbeats > 0
            || state.sessions[session].ended
            || !self.is_past(state, session, Part::Open)
        {
            return;
        }
        let mut after = state.clone();
        after.past.heartbeats += 1;
        after.store.open.add(session);
        next.push((Step::environment("PUT open again", session), after));
    }
}
