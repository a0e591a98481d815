//! Breadth-first search over all states within the bounds.
//!
//! Owns: the visited set, one 64-bit fingerprint a state, and the shortest trace to a violation. Two states with the same
//! fingerprint would hide one another: at 10 million states the chance is below one in 300,000.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::bounds::Bounds;
use super::mutation::Mutation;
use super::state::State;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub(super) bounds: Bounds,
    pub(super) mutation: Mutation,
}

/// What a step did, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) who: char,
    pub(super) number: usize,
    pub(super) what: &'static str,
    pub(super) about: Option<usize>,
}

impl Step {
    pub(super) fn session(number: usize, what: &'static str, about: Option<usize>) -> Self {
        Self {
            who: 's',
            number,
            what,
            about,
        }
    }

    pub(super) fn collector(number: usize, what: &'static str) -> Self {
        Self {
            who: 'c',
            number,
            what,
            about: None,
        }
    }

    pub(super) fn environment(what: &'static str, about: usize) -> Self {
        Self {
            who: '-',
            number: 0,
            what,
            about: Some(about),
        }
    }
}

/// How a search ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) states: usize,
    pub(super) depth: usize,
    /// Without one, every state within the bounds was seen.
    pub(super) violation: Option<Violation>,
}

/// A property that does not hold, and the shortest way there.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) property: &'static str,
    pub(super) steps: usize,
    pub(super) trace: String,
}

/// One in so many states is also checked for leaks, besides all that nothing follows on.
const LEAK_SAMPLE: u64 = 16;

/// Fingerprints of all states seen, each with that of the state it was reached from; zero stands before the first.
pub(super) type Visited = HashMap<u64, u64, BuildHasherDefault<AsIs>>;

impl World {
    pub(super) fn explore(&self) -> Outcome {
        let first = self.first_state();
        let mut parents = Visited::default();
        parents.insert(fingerprint(&first), 0);
        let mut frontier = vec![first];
        let mut depth = 0;
        let mut next = Vec::new();
        while !frontier.is_empty() {
            let mut reached = Vec::new();
            for state in frontier.drain(..) {
                let from = fingerprint(&state);
                next.clear();
                self.successors(&state, &mut next);
                if let Some(property) = self.leaks(&state, from, next.is_empty()) {
                    return self.found(&parents, from, property);
                }
                for (_, mut after) in next.drain(..) {
                    after.collectors[..self.bounds.collectors].sort_unstable();
                    let print = fingerprint(&after);
                    if parents.contains_key(&print) {
                        continue;
                    }
                    parents.insert(print, from);
                    if let Some(property) = self.wrong(&state, &after) {
                        return self.found(&parents, print, property);
                    }
                    reached.push(after);
                }
            }
            depth += usize::from(!reached.is_empty());
            if std::env::var_os("SNAPHAUL_TEST_PROGRESS").is_some() {
                eprintln!(
                    "depth {depth}: {} states, {} new",
                    parents.len(),
                    reached.len()
                );
            }
            frontier = reached;
        }
        outcome(&parents, depth)
    }

    pub(super) fn successors(&self, state: &State, next: &mut Vec<(Step, State)>) {
        self.session_steps(state, next);
        self.environment_steps(state, next);
        self.collector_steps(state, next);
    }

    fn wrong(&self, before: &State, after: &State) -> Option<&'static str> {
        // Planted mistakes must be found by what they lead to.
        let step = (self.mutation == Mutation::Sound)
            .then(|| self.step_violation(before, after))
            .flatten();
        step.or_else(|| self.violation(after))
    }

    fn leaks(&self, state: &State, print: u64, last: bool) -> Option<&'static str> {
        let checked = matches!(
            self.mutation,
            Mutation::Sound | Mutation::LivenessLate | Mutation::MendUnconfirmed
        );
        // What collectors add shows nowhere else but here.
        let all = self.bounds.mends;
        (checked && (last || all || print.is_multiple_of(LEAK_SAMPLE)))
            .then(|| self.leak(state))
            .flatten()
    }

    fn found(&self, parents: &Visited, last: u64, property: &'static str) -> Outcome {
        let path = self.path(parents, last);
        let trace = self.replay(&path);
        Outcome {
            violation: Some(Violation {
                property,
                steps: path.len(),
                trace: format!("{property}:\n{trace}"),
            }),
            ..outcome(parents, path.len())
        }
    }

    /// The way from the first state, which is not part of it, to one of those seen.
    pub(super) fn path(&self, visited: &Visited, last: u64) -> Vec<u64> {
        let mut path = vec![last];
        while let Some(from) = visited.get(path.last().expect("not empty")) {
            path.push(*from);
        }
        // Zero stands before the first state.
        path.truncate(path.len().saturating_sub(2));
        path.reverse();
        path
    }

    fn replay(&self, path: &[u64]) -> String {
        let mut state = self.first_state();
        let mut text = String::new();
        for print in path {
            let mut next = Vec::new();
            self.successors(&state, &mut next);
            let taken = next.into_iter().find_map(|(step, mut after)| {
                after.collectors[..self.bounds.collectors].sort_unstable();
                (fingerprint(&after) == *print).then_some((step, after))
            });
            let (step, after) = taken.expect("the same steps lead to the same states");
            let about = step.about.map(|at| format!(" {at}")).unwrap_or_default();
            let (who, number, what) = (step.who, step.number, step.what);
            writeln!(text, "  {who}{number} {what}{about}").expect("a String takes everything");
            state = after;
        }
        write!(text, "{:?}", state.store).expect("a String takes everything");
        text
    }
}

fn outcome(parents: &Visited, depth: usize) -> Outcome {
    Outcome {
        states: parents.len(),
        depth,
        violation: None,
    }
}

/// Never zero, which stands before the first state.
pub(super) fn fingerprint(state: &State) -> u64 {
    let mut hasher = Fingerprint::default();
    state.hash(&mut hasher);
    hasher.finish().max(1)
}

/// A fast hash of states, whose parts are all small numbers: each is one byte, eight of them one multiplication.
#[derive(Default)]
struct Fingerprint {
    state: u64,
    word: u64,
    bytes: u32,
}

impl Fingerprint {
    fn push(&mut self, byte: u8) {
        self.word = self.word << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes.is_multiple_of(8) {
            self.state = mix(self.state, self.word);
        }
    }
}

fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
    let halves = |part: u128| u64::try_from(part & u128::from(u64::MAX)).expect("64 bits");
    (halves(product) ^ halves(product >> 64)).wrapping_add(state.rotate_left(29))
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        let last = mix(self.state, self.word ^ u64::from(self.bytes) << 56);
        mix(last, self.state)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.push(*byte));
    }

    fn write_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn write_u16(&mut self, value: u16) {
        value
            .to_le_bytes()
            .into_iter()
            .for_each(|byte| self.push(byte));
    }

    /// Lengths of arrays: the same in all states.
    fn write_usize(&mut self, _: usize) {}

    /// Which variant of an enum.
    fn write_isize(&mut self, value: isize) {
        self.push(value.to_le_bytes()[0]);
    }
}

/// Fingerprints are their own hash.
#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are looked up");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
