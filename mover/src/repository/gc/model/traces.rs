//! Traces of the model, for real code to repeat: `pipeline::gc::tests::replay`.
//!
//! ```text
//!   bounds ─► search: every n-th end, and the first way to each pair of steps in a row ┐
//!             walk: a seeded way to an end, where a search would not end               ┴─► moves, and the store after each
//! ```
//!
//! Owns: which traces are given, and their form outside the model. Must not: know the code that repeats them.

use std::collections::{BTreeSet, HashSet};

use super::bounds::{Adoption, Bounds, Parents};
use super::mutation::Mutation;
use super::search::{Step, Visited, World, fingerprint};
use super::state::{Chunks, Collector, SESSIONS, Slot, State, Store};
use crate::pipeline::restore::sample::Random;

/// What a trace takes for granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    pub(crate) writers: usize,
    /// Readers are the last ones.
    pub(crate) sessions: usize,
    pub(crate) collectors: usize,
    pub(crate) compaction: bool,
    /// Writers store second copies of their manifests.
    pub(crate) copies: bool,
    /// Collectors store those that are missing.
    pub(crate) mends: bool,
    /// Pages that the model splits each listing of a collector into, by the numbers of sessions.
    pub(crate) pages: usize,
    /// The store has create-only PUT.
    pub(crate) create_only: bool,
    /// Chunks that each writer stores.
    pub(crate) stored: u16,
}

/// An object as the model knows it: which session it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Open(usize),
    Manifest(usize),
    Abort(usize),
    Tomb(usize),
    Copy(usize),
    Live(usize),
    /// A segment in one generation.
    Data(usize, u8),
}

/// What a session is to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// The point it builds on, or reads.
    pub(crate) pin: Option<usize>,
    /// The dead session it means to take over.
    pub(crate) dead: Option<usize>,
    /// It reads a damaged point, through the copy.
    pub(crate) by_copy: bool,
    /// Owner and ordinal of every chunk that its point references, as far as it comes to that.
    pub(crate) references: Vec<(usize, u16)>,
}

/// Who makes a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Session(usize),
    Collector(usize),
    /// Nobody that could be watched, to a session.
    Environment(usize),
}

/// One step of a trace.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) who: Who,
    pub(crate) what: &'static str,
    /// The store after it.
    pub(crate) after: BTreeSet<Object>,
    /// Sessions whose data some collector is rewriting: in any order.
    pub(crate) unsettled: Vec<usize>,
    /// The reader may have been fenced: it is not owed its point.
    pub(crate) fenced: bool,
}

/// One way through the model, from the start to a state in which all processes die.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) cast: Cast,
    pub(crate) founded: bool,
    pub(crate) scripts: Vec<Script>,
    pub(crate) moves: Vec<Move>,
    pub(crate) acknowledged: Vec<usize>,
    /// Sessions that are done, or gave up.
    pub(crate) ended: Vec<usize>,
    /// What is left when everybody was fenced and two runs have ended; `None` where a person has to decide.
    pub(crate) settled: Option<BTreeSet<Object>>,
}

/// Bounds whose traces are given.
pub(crate) const GIVEN: [&str; 12] = [
    "one",
    "child",
    "children",
    "heir",
    "chain",
    "reader",
    "compaction",
    "losses",
    "duplicates",
    "mends",
    "pages",
    "nothing decides",
];

fn bounds(name: &str) -> Bounds {
    match name {
        "one" => Bounds::new(1, (2, 2), 1, 1).copies(),
        "child" => Bounds::new(2, (1, 1), 1, 1)
            .parents(Parents::Previous)
            .copies(),
        "children" => Bounds::new(2, (2, 2), 1, 0)
            .parents(Parents::Previous)
            .founded(),
        "heir" => Bounds::new(2, (1, 1), 0, 1).adoption(Adoption::Previous),
        "chain" => Bounds::new(3, (1, 1), 0, 1).adoption(Adoption::Previous),
        "reader" => Bounds::new(1, (1, 2), 1, 1).readers(1),
        "compaction" => Bounds::new(1, (2, 2), 1, 0).readers(1).compaction(),
        "losses" => Bounds::new(1, (1, 2), 1, 0).copies().losses(1).readers(1),
        "duplicates" => Bounds::new(1, (1, 2), 1, 1).copies().duplicates(1),
        "mends" => Bounds::new(1, (1, 2), 1, 1).copies().mends().duplicates(1),
        "pages" => Bounds::new(2, (1, 1), 1, 1)
            .parents(Parents::Previous)
            .copies()
            .pages(2),
        // A store without create-only PUT, and no cluster.
        "nothing decides" => Bounds::new(2, (1, 2), 2, 0)
            .parents(Parents::Any)
            .duplicates(1)
            .without_create_only(),
        "everything" => Bounds::new(4, (2, 4), 2, 2)
            .parents(Parents::Any)
            .adoption(Adoption::Any)
            .readers(1)
            .copies()
            .compaction()
            .duplicates(1),
        "everything, in pages" => Bounds::new(3, (2, 4), 2, 2)
            .parents(Parents::Any)
            .adoption(Adoption::Any)
            .readers(1)
            .copies()
            .mends()
            .compaction()
            .duplicates(1)
            .pages(3),
        "everything, with losses" => Bounds::new(2, (2, 4), 1, 1)
            .parents(Parents::Any)
            .readers(1)
            .copies()
            .losses(1),
        other => panic!("no bounds are called {other}"),
    }
}

/// Searches the bounds: the ways to every `nth` state that nothing follows on, and the first way to every two kinds of steps in
/// a row.
pub(crate) fn searched(name: &str, nth: usize) -> Vec<Trace> {
    let world = World {
        bounds: bounds(name),
        mutation: Mutation::Sound,
    };
    let first = world.first_state();
    let mut visited = Visited::default();
    visited.insert(fingerprint(&first), 0);
    let mut pairs = HashSet::new();
    let mut chosen = Vec::new();
    let mut ends = 0;
    let mut frontier = vec![(first, "")];
    let mut next = Vec::new();
    while !frontier.is_empty() {
        let mut reached = Vec::new();
        for (state, last) in frontier.drain(..) {
            let from = fingerprint(&state);
            world.successors(&state, &mut next);
            if next.is_empty() {
                ends += 1;
                if ends % nth == 0 {
                    chosen.push(from);
                }
            }
            for (step, mut after) in next.drain(..) {
                after.collectors[..world.bounds.collectors].sort_unstable();
                let print = fingerprint(&after);
                if visited.contains_key(&print) {
                    continue;
                }
                visited.insert(print, from);
                if pairs.insert((last, step.what)) {
                    chosen.push(print);
                }
                reached.push((after, step.what));
            }
        }
        frontier = reached;
    }
    let paths = chosen.iter().map(|last| world.path(&visited, *last));
    paths.map(|path| world.trace(&path)).collect()
}

/// One way through bounds that are too wide for a search, chosen by a seed, to a state that nothing follows on.
pub(crate) fn walked(name: &str, seed: u64) -> Trace {
    let world = World {
        bounds: bounds(name),
        mutation: Mutation::Sound,
    };
    let mut random = Random::new(seed);
    let mut state = world.first_state();
    let mut path = Vec::new();
    let mut next = Vec::new();
    loop {
        world.successors(&state, &mut next);
        if next.is_empty() {
            return world.trace(&path);
        }
        let at = usize::try_from(random.below(next.len() as u64)).expect("few");
        let (_, mut after) = next.swap_remove(at);
        next.clear();
        after.collectors[..world.bounds.collectors].sort_unstable();
        path.push(fingerprint(&after));
        state = after;
    }
}

/// What happened on the way, besides the moves.
struct Observed {
    scripts: Vec<Script>,
    /// Which collector stands at which place of the state: states are sorted.
    places: Vec<usize>,
    /// Sessions whose data each collector rewrites in this run.
    rewrites: Vec<Vec<usize>>,
}

impl World {
    fn trace(&self, path: &[u64]) -> Trace {
        let bounds = &self.bounds;
        let mut observed = Observed {
            scripts: vec![Script::default(); bounds.sessions()],
            places: (0..bounds.collectors).collect(),
            rewrites: vec![Vec::new(); bounds.collectors],
        };
        let mut state = self.first_state();
        let mut moves = Vec::new();
        for (step, after) in self.steps_to(path) {
            let who = match step.who {
                's' => Who::Session(step.number),
                'c' => Who::Collector(observed.places[step.number]),
                _ => Who::Environment(step.about.expect("the environment acts on somebody")),
            };
            let unsorted = after;
            let mut after = unsorted.clone();
            self.observe(&mut observed, &state, &unsorted, &mut after);
            moves.push(Move {
                who,
                what: step.what,
                after: objects(&after.store, bounds.sessions()),
                unsettled: observed.rewrites.concat(),
                fenced: matches!(who, Who::Session(at) if after.past.fenced.has(at)),
            });
            state = after;
        }
        for (session, script) in observed.scripts.iter_mut().enumerate() {
            script.references = chunks(state.sessions[session].references);
        }
        Trace {
            cast: Cast {
                writers: bounds.writers,
                sessions: bounds.sessions(),
                collectors: bounds.collectors,
                compaction: bounds.compaction,
                copies: bounds.copies,
                mends: bounds.mends,
                pages: usize::from(bounds.pages).min(bounds.sessions()),
                create_only: bounds.create_only,
                stored: if bounds.compaction { 2 } else { 1 },
            },
            founded: bounds.founded,
            scripts: observed.scripts,
            acknowledged: state.past.acknowledged.iter().collect(),
            ended: (usize::from(bounds.founded)..bounds.sessions())
                .filter(|session| state.sessions[*session].ended)
                .collect(),
            settled: self.settled(&state),
            moves,
        }
    }

    /// Notes what a step decided, and sorts the collectors.
    fn observe(&self, observed: &mut Observed, before: &State, raw: &State, after: &mut State) {
        for (session, script) in observed.scripts.iter_mut().enumerate() {
            let (was, is) = (&before.sessions[session], &raw.sessions[session]);
            if was.at.is_none() && is.at.is_some() {
                script.pin = is.pins.first();
                script.dead = is.candidates.first();
                script.by_copy = is.by_copy;
            }
        }
        let mut places: Vec<(Collector, usize)> = observed
            .places
            .iter()
            .enumerate()
            .map(|(place, collector)| (raw.collectors[place], *collector))
            .collect();
        for (at, collector) in &places {
            let rewrites = &mut observed.rewrites[*collector];
            if *at == Collector::default() {
                rewrites.clear();
            }
            rewrites.extend((0..SESSIONS).filter(|session| at.tasks.compact[*session].is_some()));
            rewrites.sort_unstable();
            rewrites.dedup();
        }
        places.sort_by_key(|(at, _)| *at);
        for (place, (at, collector)) in places.into_iter().enumerate() {
            after.collectors[place] = at;
            observed.places[place] = collector;
        }
    }

    fn settled(&self, state: &State) -> Option<BTreeSet<Object>> {
        let quiet = self.quiet(state);
        let asks = self.asks_a_person(&quiet);
        (!asks).then(|| objects(&quiet.store, self.bounds.sessions()))
    }

    /// The steps along a path of fingerprints, with the states as the steps left them: collectors not yet sorted.
    fn steps_to(&self, path: &[u64]) -> Vec<(Step, State)> {
        let mut state = self.first_state();
        let mut steps = Vec::new();
        for print in path {
            let mut next = Vec::new();
            self.successors(&state, &mut next);
            let taken = next.into_iter().find_map(|(step, raw)| {
                let mut after = raw.clone();
                after.collectors[..self.bounds.collectors].sort_unstable();
                (fingerprint(&after) == *print).then_some((step, raw, after))
            });
            let (step, raw, after) = taken.expect("the same steps lead to the same states");
            steps.push((step, raw));
            state = after;
        }
        steps
    }
}

fn chunks(references: Chunks) -> Vec<(usize, u16)> {
    let of = |owner| references.ordinals(owner).iter().map(move |at| (owner, at));
    (0..SESSIONS).flat_map(of).collect()
}

fn objects(store: &Store, sessions: usize) -> BTreeSet<Object> {
    let mut objects = BTreeSet::new();
    for session in 0..sessions {
        let slot = match store.slot[session] {
            Slot::Empty => None,
            Slot::Manifest => Some(Object::Manifest(session)),
            Slot::Abort(_) => Some(Object::Abort(session)),
        };
        objects.extend(slot);
        let facts = [
            (store.open, Object::Open(session)),
            (store.tomb, Object::Tomb(session)),
            (store.copy, Object::Copy(session)),
            (store.live, Object::Live(session)),
        ];
        let there = facts.into_iter().filter(|(set, _)| set.has(session));
        objects.extend(there.map(|(_, object)| object));
        for (generation, body) in (0..).zip(&store.data[session]) {
            objects.extend(body.map(|_| Object::Data(session, generation)));
        }
    }
    objects
}
