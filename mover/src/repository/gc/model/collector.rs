//! The steps of a collector run, one request each.
//!
//! ```text
//!   idle ─► listings, page by page ─► bodies in flight ─► second looks ─► liveness of roots ─► deletions, compactions ─► idle
//! ```
//!
//! Owns: the requests and their order. Must not: conclude anything: that is the planner's.

use super::super::{ControlStep, Stage};
use super::mutation::Mutation;
use super::search::{Step, World};
use super::state::{
    COLLECTORS, Collector, GENERATIONS, Mend, Phase, Rewrite, Seen, Set, Slot, State, Store, Tasks,
    Why,
};

impl World {
    pub(super) fn collector_steps(&self, state: &State, next: &mut Vec<(Step, State)>) {
        for at in 0..self.bounds.collectors.min(COLLECTORS) {
            // Two that stand at the same point do the same.
            if at > 0 && state.collectors[..at].contains(&state.collectors[at]) {
                continue;
            }
            self.collector_step(state, at, next);
        }
    }

    fn collector_step(&self, state: &State, at: usize, next: &mut Vec<(Step, State)>) {
        let mut after = state.clone();
        let what = match state.collectors[at].phase {
            Phase::Idle => {
                if state.past.runs >= self.bounds.runs {
                    return;
                }
                after.past.runs += 1;
                after.collectors[at].phase = Phase::List { step: 0, page: 0 };
                self.list(&mut after, at)
            }
            Phase::List { .. } => self.list(&mut after, at),
            Phase::Bodies => self.get_body(&mut after, at),
            Phase::Suspects { request } => self.look_again(&mut after, at, request),
            Phase::Liveness => self.get_liveness(&mut after, at),
            Phase::Tasks => return self.task_steps(state, at, next),
        };
        next.push((Step::collector(at, what), after));
    }

    fn list(&self, after: &mut State, at: usize) -> &'static str {
        let Phase::List { step, page } = after.collectors[at].phase else {
            unreachable!("called while listing");
        };
        let stages = self.mutation.listings();
        let stages: Vec<_> = stages
            .iter()
            .filter(|stage| self.bounds.copies || **stage != Stage::Copies)
            .collect();
        let stage = *stages[usize::from(step)];
        let sessions = self.bounds.sessions();
        let pages = usize::from(self.bounds.pages).min(sessions);
        let page_at = usize::from(page);
        let keys: Set = (page_at * sessions / pages..(page_at + 1) * sessions / pages).collect();
        note(&mut after.collectors[at].view, &after.store, stage, keys);
        let collector = &mut after.collectors[at];
        if page_at + 1 < pages {
            collector.phase = Phase::List {
                step,
                page: page + 1,
            };
        } else if usize::from(step) + 1 < stages.len() {
            collector.phase = Phase::List {
                step: step + 1,
                page: 0,
            };
        } else {
            let questions = self.questions(&collector.view);
            collector.view.todo = questions.bodies;
            collector.view.suspects = questions.suspects;
            collector.phase = Phase::Bodies;
            self.pass(after, at);
        }
        match stage {
            Stage::Copies => "LIST copy",
            Stage::Objects => "LIST data",
            Stage::Tombs => "LIST tomb",
            Stage::OpensBefore => "LIST open",
            Stage::Slots => "LIST snap",
            Stage::OpensAfter => "LIST open, again",
            Stage::Signs => "LIST beat",
        }
    }

    fn get_body(&self, after: &mut State, at: usize) -> &'static str {
        let view = &mut after.collectors[at].view;
        let session = view.todo.first().expect("passed otherwise");
        view.todo.remove(session);
        if !after.store.open.has(session) {
            view.no_open.add(session);
        }
        self.pass(after, at);
        "GET open in flight"
    }

    fn look_again(&self, after: &mut State, at: usize, request: u8) -> &'static str {
        let collector = &mut after.collectors[at];
        let suspect = collector.view.suspects.first().expect("passed otherwise");
        let store = &after.store;
        let (found, what) = match request {
            0 => (u8::from(store.tomb.has(suspect)), "GET tomb of a suspect"),
            1 => (
                u8::from(store.open.has(suspect)) << 1,
                "GET open of a suspect",
            ),
            2 => (
                u8::from(store.has_manifest(suspect)) << 2,
                "GET slot of a suspect",
            ),
            _ => (
                u8::from(store.copy.has(suspect)) << 3,
                "GET copy of a suspect",
            ),
        };
        collector.view.looked[suspect] |= found;
        collector.phase = Phase::Suspects {
            request: request + 1,
        };
        if request == 3 {
            collector.view.suspects.remove(suspect);
            collector.phase = Phase::Suspects { request: 0 };
            self.pass(after, at);
        }
        what
    }

    fn get_liveness(&self, after: &mut State, at: usize) -> &'static str {
        let view = &mut after.collectors[at].view;
        let session = view.todo.first().expect("passed otherwise");
        view.todo.remove(session);
        if !after.store.live.has(session) {
            view.no_live.add(session);
            let view = *view;
            if self.is_lost(after, &view, session) {
                after.collectors[at] = Collector::default();
                return "GET liveness of a root";
            }
        }
        self.pass(after, at);
        "GET liveness of a root"
    }

    /// Goes on to the next phase that has something to ask.
    fn pass(&self, after: &mut State, at: usize) {
        loop {
            let collector = after.collectors[at];
            let phase = match collector.phase {
                Phase::Bodies if collector.view.todo.is_empty() => {
                    match self.can_hold(after, &collector.view) {
                        true => Phase::Suspects { request: 0 },
                        false => Phase::Idle,
                    }
                }
                Phase::Suspects { .. } if collector.view.suspects.is_empty() => {
                    match self.roots(after, &collector.view) {
                        Ok(roots) => {
                            after.collectors[at].view.todo = roots;
                            Phase::Liveness
                        }
                        Err(_) => Phase::Idle,
                    }
                }
                Phase::Liveness if collector.view.todo.is_empty() => {
                    match self.tasks(after, &collector.view) {
                        Ok(tasks) => {
                            after.collectors[at].tasks = tasks;
                            after.collectors[at].view = Seen::default();
                            Phase::Tasks
                        }
                        Err(_) => Phase::Idle,
                    }
                }
                Phase::Tasks if collector.tasks == Tasks::default() => Phase::Idle,
                _ => return,
            };
            after.collectors[at].phase = phase;
            if phase == Phase::Idle {
                after.collectors[at] = Collector::default();
                return;
            }
        }
    }

    fn task_steps(&self, state: &State, at: usize, next: &mut Vec<(Step, State)>) {
        let before = next.len();
        for session in 0..self.bounds.sessions() {
            for task in [
                Self::mend_task,
                Self::chain_task,
                Self::live_task,
                Self::segment_task,
                Self::compact_task,
            ] {
                let mut after = state.clone();
                if let Some(what) = task(self, &mut after, at, session) {
                    self.pass(&mut after, at);
                    next.push((Step::collector(at, what), after));
                }
            }
        }
        if !self.bounds.any_order {
            // In the order of the collector, which `tests::replay` of the pipeline holds to it: the first of the lowest rank.
            let first = self.first_task(state, at);
            let chosen = next.drain(before..).nth(first);
            next.extend(chosen);
        }
    }

    /// The place of the first task in the order that a collector prefers, among those of [`task_steps`](Self::task_steps).
    fn first_task(&self, state: &State, at: usize) -> usize {
        let tasks = &state.collectors[at].tasks;
        let mut ranks = Vec::new();
        for session in 0..self.bounds.sessions() {
            ranks.extend(tasks.mends[session].map(|_| 0));
            // All chains take one step before any takes the next.
            let step = |(why, done)| self.chain(why)[usize::from(done)];
            ranks.extend(tasks.chains[session].map(|chain| match step(chain) {
                ControlStep::Copy => 1,
                ControlStep::Open => 2,
                ControlStep::Slot => 3,
                ControlStep::Live => 4,
                ControlStep::Tomb => 5,
            }));
            ranks.extend(tasks.live.has(session).then_some(7));
            let superseded = tasks.superseded.has(session);
            let data = if superseded { 8 } else { 6 };
            ranks.extend((tasks.segments[session] != 0).then_some(data));
            ranks.extend(tasks.compact[session].map(|_| 9));
        }
        let lowest = ranks.iter().min();
        ranks
            .iter()
            .position(|rank| Some(rank) == lowest)
            .expect("otherwise idle")
    }

    /// Looks for the copy that a listing did not show, reads the manifest, and stores it again if it is still a point's; what is
    /// purged meanwhile is taken back.
    fn mend_task(&self, after: &mut State, at: usize, session: usize) -> Option<&'static str> {
        let store = &mut after.store;
        let (what, next) = match after.collectors[at].tasks.mends[session]? {
            Mend::Look => (
                "HEAD copy that is missing",
                (!store.copy.has(session)).then_some(Mend::Read),
            ),
            Mend::Read => (
                "GET manifest to copy",
                store.has_manifest(session).then_some(self.after_reading()),
            ),
            Mend::Confirm => (
                "HEAD open of what lacks a copy",
                store.open.has(session).then_some(Mend::Store),
            ),
            Mend::Store => {
                store.copy.add(session);
                ("PUT missing copy", self.after_storing())
            }
            Mend::Again => (
                "HEAD open of what was copied",
                (!store.open.has(session)).then_some(Mend::Forgotten),
            ),
            Mend::Forgotten => (
                "HEAD tomb of what was copied",
                Some(match store.tomb.has(session) {
                    true => Mend::TakeBack,
                    false => Mend::Purged,
                }),
            ),
            Mend::Purged => (
                "HEAD slot of what was copied",
                (store.slot[session] == Slot::Empty).then_some(Mend::TakeBack),
            ),
            Mend::TakeBack => {
                store.copy.remove(session);
                ("DELETE copy that came late", None)
            }
        };
        after.collectors[at].tasks.mends[session] = next;
        Some(what)
    }

    fn after_reading(&self) -> Mend {
        match self.mutation {
            Mutation::MendUnconfirmed => Mend::Store,
            _ => Mend::Confirm,
        }
    }

    fn after_storing(&self) -> Option<Mend> {
        (self.mutation != Mutation::MendUnconfirmed).then_some(Mend::Again)
    }

    fn chain_task(&self, after: &mut State, at: usize, session: usize) -> Option<&'static str> {
        let (why, done) = after.collectors[at].tasks.chains[session]?;
        let steps = self.chain(why);
        let store = &mut after.store;
        let what = match steps[usize::from(done)] {
            ControlStep::Copy => {
                store.copy.remove(session);
                "DELETE copy"
            }
            ControlStep::Open => {
                store.open.remove(session);
                "DELETE open"
            }
            ControlStep::Slot => {
                store.slot[session] = Slot::Empty;
                "DELETE slot"
            }
            ControlStep::Live => {
                store.live.remove(session);
                "DELETE liveness"
            }
            ControlStep::Tomb => {
                store.tomb.remove(session);
                "DELETE tomb"
            }
        };
        let left = usize::from(done) + 1 < steps.len();
        after.collectors[at].tasks.chains[session] = left.then_some((why, done + 1));
        Some(what)
    }

    fn chain(&self, why: Why) -> &'static [ControlStep] {
        use ControlStep::{Copy, Live, Open, Slot, Tomb};
        match (why, self.mutation) {
            (Why::Aborted, Mutation::M4SlotFirst) => &[Slot, Open],
            (Why::Forgotten, Mutation::M4SlotFirst) => &[Copy, Slot, Open, Live, Tomb],
            (Why::Forgotten, Mutation::M5TombFirst) => &[Tomb, Copy, Open, Slot, Live],
            (Why::Forgotten, Mutation::LivenessLate) => &[Copy, Open, Slot, Tomb, Live],
            (Why::Forgotten, _) if self.bounds.copies => &[Copy, Open, Slot, Live, Tomb],
            (Why::Forgotten, _) => &[Open, Slot, Live, Tomb],
            (Why::Aborted, _) => &[Open, Slot],
            (Why::Leftover, _) => &[Slot],
            (Why::Ghost, _) => &[Copy],
        }
    }

    fn live_task(&self, after: &mut State, at: usize, session: usize) -> Option<&'static str> {
        let tasks = &mut after.collectors[at].tasks;
        tasks.live.has(session).then(|| {
            tasks.live.remove(session);
            after.store.live.remove(session);
            "DELETE liveness"
        })
    }

    fn segment_task(&self, after: &mut State, at: usize, session: usize) -> Option<&'static str> {
        let bits = &mut after.collectors[at].tasks.segments[session];
        let generation = (0..GENERATIONS).find(|generation| *bits >> generation & 1 == 1)?;
        *bits &= !(1 << generation);
        if *bits == 0 {
            after.collectors[at].tasks.superseded.remove(session);
        }
        after.store.data[session][generation] = None;
        Some("DELETE data")
    }

    /// Reads the old generation, creates the next, deletes the old.
    fn compact_task(&self, after: &mut State, at: usize, session: usize) -> Option<&'static str> {
        let rewrite = after.collectors[at].tasks.compact[session]?;
        let old = usize::from(rewrite.generation);
        let segment = &mut after.store.data[session];
        let (what, rewrite) = match rewrite.read {
            None => (
                "GET data to compact",
                segment[old].map(|read| Rewrite {
                    read: Some(read),
                    ..rewrite
                }),
            ),
            Some(_) if self.mutation == Mutation::M18DeleteFirst && !rewrite.deleted => {
                segment[old] = None;
                let deleted = Rewrite {
                    deleted: true,
                    ..rewrite
                };
                ("DELETE compacted data", Some(deleted))
            }
            Some(read) if !rewrite.deleted => {
                segment[old + 1].get_or_insert(read.and(rewrite.live));
                let written = Rewrite {
                    deleted: true,
                    ..rewrite
                };
                ("PUT next generation", Some(written))
            }
            Some(read) if self.mutation == Mutation::M18DeleteFirst => {
                segment[old + 1].get_or_insert(read.and(rewrite.live));
                ("PUT next generation", None)
            }
            Some(_) => {
                segment[old] = None;
                ("DELETE compacted data", None)
            }
        };
        after.collectors[at].tasks.compact[session] = rewrite;
        Some(what)
    }
}

/// One page of a listing.
fn note(view: &mut Seen, store: &Store, stage: Stage, keys: Set) {
    for session in keys.iter() {
        let note = |set: &mut Set, there: bool| {
            if there {
                set.add(session);
            }
        };
        match stage {
            Stage::Copies => note(&mut view.copies, store.copy.has(session)),
            Stage::Objects => {
                view.data[session] = store.data[session];
                note(&mut view.live, store.live.has(session));
            }
            Stage::Tombs => note(&mut view.tombs, store.tomb.has(session)),
            Stage::OpensBefore => note(&mut view.opens_before, store.open.has(session)),
            Stage::OpensAfter => note(&mut view.opens_after, store.open.has(session)),
            Stage::Slots => {
                note(&mut view.manifests, store.has_manifest(session));
                let abort = matches!(store.slot[session], Slot::Abort(_));
                note(&mut view.aborts, abort);
            }
            Stage::Signs => {}
        }
    }
}
