//! What must hold in every state.
//!
//! Owns: the properties. They look at the store and at what happened, never at what a process believes.

use super::mutation::Mutation;
use super::search::World;
use super::session::Part;
use super::state::{COLLECTORS, Chunks, Collector, FENCER, Ordinals, Session, Slot, State, Store};

impl World {
    /// The property that a state violates.
    pub(super) fn violation(&self, state: &State) -> Option<&'static str> {
        let past = &state.past;
        let store = &state.store;
        for session in 0..self.bounds.writers {
            let forgotten = past.forgotten.has(session);
            let lost = past.lost.has(session);
            let visible = store.has_manifest(session)
                && (store.open.has(session) || self.mutation == Mutation::M8ManifestOnly);
            if past.acknowledged.has(session) && !forgotten && !lost && !visible {
                return Some("an acknowledged point that nobody forgot is gone");
            }
            let references = state.sessions[session].references;
            if visible && !forgotten && !(store.live.has(session) && is_readable(store, references))
            {
                return Some("a point lacks data");
            }
            let kept = store.copy.has(session) && past.acknowledged.has(session);
            if lost
                && kept
                && !forgotten
                && !(store.live.has(session) && is_readable(store, references))
            {
                return Some("a damaged point lacks data");
            }
        }
        let mut sessions = 0..self.bounds.sessions();
        sessions
            .any(|session| self.lacks_pin(state, session))
            .then_some("a session cannot read what it pinned")
    }

    fn lacks_pin(&self, state: &State, session: usize) -> bool {
        let one = &state.sessions[session];
        if one.ended || state.past.fenced.has(session) || !self.is_past(state, session, Part::Check)
        {
            return false;
        }
        // From the commit on, its own references count.
        if !self.bounds.is_reader(session) && self.is_past(state, session, Part::Commit) {
            return false;
        }
        let needs = |pin: usize| {
            let all = state.sessions[pin].references;
            if self.bounds.is_reader(session) {
                all
            } else {
                all.firsts()
            }
        };
        one.pins
            .iter()
            .any(|pin| !is_readable(&state.store, needs(pin)))
    }

    /// What a step must never do, whatever state it leads to.
    pub(super) fn step_violation(&self, before: &State, after: &State) -> Option<&'static str> {
        let (old, new) = (&before.store, &after.store);
        (0..self.bounds.writers).find_map(|session| {
            let open = new.open.has(session);
            let begun = before.sessions[session].at.is_some_and(|at| at > 0);
            let reopened = open && !old.open.has(session) && begun;
            let freed = old.slot[session] != Slot::Empty && new.slot[session] == Slot::Empty;
            let risen = old.tomb.has(session) && !new.tomb.has(session);
            let lost = after.past.losses > before.past.losses;
            if reopened {
                Some("a start record came back")
            } else if freed && open && !lost {
                Some("a slot was freed while its start record is there")
            } else if risen && open {
                Some("a forget order was deleted while the start record is there")
            } else {
                None
            }
        })
    }

    /// All processes are dead and fenced: what do two runs, alone and to their end, leave behind?
    pub(super) fn leak(&self, state: &State) -> Option<&'static str> {
        self.leftover(&self.quiet(state))
    }

    /// The state after all processes have died and were fenced, and two runs have ended.
    pub(super) fn quiet(&self, state: &State) -> State {
        let mut quiet = state.clone();
        quiet.collectors = [Collector::default(); COLLECTORS];
        for session in 0..self.bounds.sessions() {
            let one = &mut quiet.sessions[session];
            *one = Session {
                ended: true,
                at: Some(u8::MAX),
                pins: one.pins,
                adopts: one.adopts,
                references: one.references,
                ..Session::default()
            };
            fence(self, &mut quiet, session);
        }
        let alone = Self {
            bounds: super::bounds::Bounds {
                collectors: 1,
                runs: u8::MAX,
                pages: 1,
                any_order: false,
                ..self.bounds
            },
            mutation: self.mutation,
        };
        for _ in 0..2 {
            quiet.past.runs = 0;
            loop {
                let mut next = Vec::new();
                alone.collector_steps(&quiet, &mut next);
                match next.pop() {
                    Some((_, after)) => quiet = after,
                    None => break,
                }
                if quiet.collectors[0] == Collector::default() {
                    break;
                }
            }
        }
        quiet
    }

    /// A late copy beside a late manifest looks as if the store had lost two objects: a person decides.
    pub(super) fn asks_a_person(&self, state: &State) -> bool {
        let store = &state.store;
        (0..self.bounds.writers).any(|session| {
            let manifest = store.copy.has(session) && store.has_manifest(session);
            manifest && !store.open.has(session) && !store.live.has(session)
        })
    }

    fn leftover(&self, state: &State) -> Option<&'static str> {
        let store = &state.store;
        let stands = |session: usize| {
            let found = store.is_whole(session) || store.copy.has(session);
            found && !state.past.forgotten.has(session)
        };
        let needed = (0..self.bounds.writers)
            .filter(|session| stands(*session))
            .fold(Chunks::default(), |all, session| {
                all.union(state.sessions[session].references)
            });
        if self.asks_a_person(state) {
            return None;
        }
        for session in 0..self.bounds.sessions() {
            let decided = store.slot[session] != Slot::Empty;
            let control = store.open.has(session) || decided || store.live.has(session);
            if store.tomb.has(session) {
                return Some("a forget order is left behind");
            }
            if control && !stands(session) {
                return Some("control objects are left behind");
            }
            if store.copy.has(session) && !(stands(session) && store.live.has(session)) {
                return Some("a copy is left behind");
            }
            if self.bounds.mends && store.is_whole(session) && !store.copy.has(session) {
                return Some("a point is left without a second copy");
            }
            let live = needed.ordinals(session);
            let generations: Vec<Ordinals> =
                store.data[session].iter().flatten().copied().collect();
            match (generations.as_slice(), live.is_empty()) {
                ([], true) => {}
                ([only], false) if *only == live || !self.bounds.compaction => {}
                _ => return Some("data is left behind, or gone"),
            }
        }
        None
    }
}

fn fence(world: &World, quiet: &mut State, session: usize) {
    let store = &mut quiet.store;
    if world.bounds.by_register() && !world.bounds.is_reader(session) {
        if store.register[session] == Slot::Empty && store.open.has(session) {
            store.register[session] = Slot::Abort(FENCER);
        }
        if matches!(store.register[session], Slot::Abort(_)) && store.open.has(session) {
            store.tomb.add(session);
        }
    } else if store.open.has(session) && store.slot[session] == Slot::Empty {
        store.slot[session] = Slot::Abort(FENCER);
    }
}

/// Every reference is in every generation that is there, and in at least one.
fn is_readable(store: &Store, references: Chunks) -> bool {
    (0..store.data.len()).all(|session| {
        let needed = references.ordinals(session);
        let mut there = store.data[session].iter().flatten().peekable();
        needed.is_empty() || (there.peek().is_some() && there.all(|body| body.includes(needed)))
    })
}
