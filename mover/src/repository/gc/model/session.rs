//! The steps of a writing and a reading session, one request each, in the order of `repository::session`.
//!
//! ```text
//!   writer:  open · check pins · take over dead sessions · list their data · data · commit · open still there? · copy
//!   reader:  open · check · read · delete open
//! ```
//!
//! Owns: those programs and what mutations change in them. Must not: look at more of the store than the request returns.

use super::bounds::{Adoption, Parents};
use super::mutation::Mutation;
use super::search::{Step, World};
use super::state::{Chunks, Ordinals, Session, Set, Slot, State, Store};

/// A part of a program; some take several requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Open,
    Check,
    TakeOver,
    List,
    Data,
    Commit,
    Confirm,
    SecondCopy,
    Close,
}

use Part::{Check, Close, Commit, Confirm, Data, List, Open, SecondCopy, TakeOver};

const WRITER: &[Part] = &[
    Open, Check, TakeOver, List, Data, Commit, Confirm, SecondCopy,
];
const READER: &[Part] = &[Open, Check, Close];

/// Requests of [`TakeOver`].
const LOOK_TOMB: u8 = 0;
const LOOK_OPEN: u8 = 1;
const TAKE: u8 = 2;
const RECHECK: u8 = 3;
const MARKER: u8 = 4;
const OWNER: u8 = 5;

/// The check failed: the own slot is taken next.
const GIVE_UP: u8 = 9;

impl World {
    pub(super) fn program(&self, session: usize) -> &'static [Part] {
        match (self.bounds.is_reader(session), self.mutation) {
            (true, Mutation::M17NoLease) => &[Check, Close],
            (true, _) => READER,
            (false, Mutation::M1CheckBeforeOpen) => &[
                Check, Open, TakeOver, List, Data, Commit, Confirm, SecondCopy,
            ],
            (false, Mutation::M1NoCheck) => {
                &[Open, TakeOver, List, Data, Commit, Confirm, SecondCopy]
            }
            (false, Mutation::M13TakeBeforeOpen) => &[
                TakeOver, Open, Check, List, Data, Commit, Confirm, SecondCopy,
            ],
            (false, Mutation::M16DataLast) => &[
                Open, Check, TakeOver, List, Commit, Data, Confirm, SecondCopy,
            ],
            (false, _) => WRITER,
        }
    }

    pub(super) fn part(&self, state: &State, session: usize) -> Option<Part> {
        let at = state.sessions[session].at?;
        self.program(session).get(usize::from(at)).copied()
    }

    /// Whether a part lies behind a session.
    pub(super) fn is_past(&self, state: &State, session: usize, part: Part) -> bool {
        let program = self.program(session);
        let place = program.iter().position(|other| *other == part);
        match (place, state.sessions[session].at) {
            (Some(place), Some(at)) => usize::from(at) > place,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    pub(super) fn session_steps(&self, state: &State, next: &mut Vec<(Step, State)>) {
        for session in 0..self.bounds.sessions() {
            let one = &state.sessions[session];
            if one.ended {
                continue;
            }
            match one.at {
                None => self.start(state, session, next),
                Some(_) => self.go_on(state, session, next),
            }
        }
    }

    /// Chooses what to build on, from listings that may be as old as this step is before the next.
    fn start(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        let reader = self.bounds.is_reader(session);
        // Writers begin in the order of their numbers: which is which does not matter.
        if !reader && session > 0 && state.sessions[session - 1].at.is_none() {
            return;
        }
        let points = state.past.committed;
        let parents: Vec<Option<usize>> = match self.bounds.parents {
            _ if reader => points.iter().map(Some).collect(),
            Parents::None => vec![None],
            Parents::Any => std::iter::once(None)
                .chain(points.iter().map(Some))
                .collect(),
            Parents::Previous if session == 0 => vec![None],
            Parents::Previous => points
                .iter()
                .filter(|at| at + 1 == session)
                .map(Some)
                .collect(),
        };
        for parent in parents {
            for candidate in self.candidates(state, session) {
                let mut after = state.clone();
                let one = &mut after.sessions[session];
                one.at = Some(0);
                one.pins = parent.into_iter().collect();
                one.candidates = candidate.into_iter().collect();
                one.adopts = match candidate {
                    Some(dead) if self.mutation != Mutation::M15ShallowAdopts => {
                        one.candidates.union(state.sessions[dead].adopts)
                    }
                    _ => one.candidates,
                };
                self.enter(&mut after, session);
                let step = Step::session(session, "begins", parent.or(candidate));
                let begun = next.len();
                if let Some(parent) = parent {
                    self.choose_how(state, after, (session, parent), step, next);
                } else {
                    next.push((step, after));
                }
                // What was committed stays so: without a start record or a copy to look at, time between the choice and
                // the first request makes no difference.
                if candidate.is_none() && self.bounds.losses == 0 {
                    for (_, after) in &mut next[begun..] {
                        self.open_at_once(after, session);
                    }
                }
            }
        }
    }

    fn open_at_once(&self, after: &mut State, session: usize) {
        if self.part(after, session) == Some(Open) {
            after.store.open.add(session);
            self.proceed(after, session);
        }
    }

    /// Nothing, or one acknowledged point.
    pub(super) fn first_state(&self) -> State {
        let mut state = State::default();
        if self.bounds.founded {
            state.store.open.add(0);
            state.store.live.add(0);
            state.store.slot[0] = Slot::Manifest;
            state.store.register[0] = Slot::Manifest;
            state.store.data[0][0] = Some(self.written());
            if self.bounds.copies {
                state.store.copy.add(0);
            }
            state.past.acknowledged.add(0);
            state.past.committed.add(0);
            state.sessions[0].references = Chunks::of(0, self.referenced());
            self.end(&mut state, 0);
        }
        state
    }

    /// A child keeps its parent's chunks or not; a reader reads a damaged point through its copy.
    fn choose_how(
        &self,
        state: &State,
        after: State,
        (session, parent): (usize, usize),
        step: Step,
        next: &mut Vec<(Step, State)>,
    ) {
        if self.bounds.is_reader(session) {
            let mut after = after;
            after.sessions[session].by_copy = self.bounds.losses > 0
                && state.store.copy.has(parent)
                && !state.store.is_whole(parent);
            next.push((step, after));
            return;
        }
        let mut keeps = after.clone();
        keeps.sessions[session].inherits = true;
        next.push((step, keeps));
        if self.bounds.parents == Parents::Any {
            next.push((step, after));
        }
    }

    /// Sessions whose start record was just read, and that may be dead.
    fn candidates(&self, state: &State, session: usize) -> Vec<Option<usize>> {
        let may = |dead: &usize| {
            *dead != session
                && !self.bounds.is_reader(*dead)
                && state.store.open.has(*dead)
                && match self.bounds.adoption {
                    Adoption::None => false,
                    Adoption::Any => true,
                    Adoption::Previous => dead + 1 == session,
                }
        };
        if self.bounds.is_reader(session) {
            return vec![None];
        }
        let dead = (0..self.bounds.writers).filter(may).map(Some);
        std::iter::once(None).chain(dead).collect()
    }

    fn go_on(&self, state: &State, session: usize, next: &mut Vec<(Step, State)>) {
        let Some(part) = self.part(state, session) else {
            return;
        };
        let mut after = state.clone();
        let store = &mut after.store;
        let one = &mut after.sessions[session];
        if one.request == GIVE_UP {
            if self.bounds.is_reader(session) {
                store.open.remove(session);
            } else if store.slot[session] == Slot::Empty {
                store.slot[session] = Slot::Abort(self.number(session));
            }
            after.past.fenced.add(session);
            self.end(&mut after, session);
            next.push((Step::session(session, "fences itself", None), after));
            return;
        }
        let what = match part {
            Open => {
                store.open.add(session);
                self.proceed(&mut after, session);
                "PUT open"
            }
            Check => self.check(&mut after, session),
            TakeOver => self.take_over(&mut after, session),
            List => {
                let dead = one.owned.first().expect("entered with something to list");
                one.owned.remove(dead);
                let found = stored(store, dead);
                one.references = one.references.union(Chunks::of(dead, found));
                if one.owned.is_empty() {
                    self.proceed(&mut after, session);
                }
                "LIST adopted data"
            }
            Data => {
                store.data[session][0] = Some(self.written());
                store.live.add(session);
                self.proceed(&mut after, session);
                "PUT data and liveness"
            }
            Commit => return self.commit(after, session, next),
            Confirm => self.confirm(&mut after, session),
            SecondCopy => {
                store.copy.add(session);
                self.end(&mut after, session);
                "PUT copy"
            }
            Close => {
                store.open.remove(session);
                self.end(&mut after, session);
                "DELETE open"
            }
        };
        next.push((Step::session(session, what, None), after));
    }

    /// A lone session writes a chunk that it does not reference; of several, a child keeps half of its parent's.
    fn referenced(&self) -> Ordinals {
        if self.bounds.writers == 1 {
            Ordinals::FIRST
        } else {
            self.written()
        }
    }

    fn written(&self) -> Ordinals {
        if self.bounds.compaction {
            Ordinals::BOTH
        } else {
            Ordinals::FIRST
        }
    }

    pub(super) fn number(&self, session: usize) -> u8 {
        u8::try_from(session).expect("few sessions")
    }

    /// Tomb first, then open, then slot: a purge removes them in the order open, slot, tomb.
    fn check(&self, after: &mut State, session: usize) -> &'static str {
        let one = &mut after.sessions[session];
        let pin = one.pins.first().expect("entered with a pin");
        let store = &after.store;
        let tomb = (!store.tomb.has(pin), "HEAD tomb of the pin");
        let open = (store.open.has(pin), "HEAD open of the pin");
        let slot = (store.has_manifest(pin), "HEAD slot of the pin");
        let live = (store.live.has(pin), "HEAD liveness of the pin");
        let order: &[(bool, &'static str)] = match self.mutation {
            Mutation::NoCopyCheck if one.by_copy => &[(true, "trusts the copy")],
            _ if one.by_copy => &[tomb, live],
            Mutation::M2TombLast => &[open, slot, tomb],
            Mutation::M8ManifestOnly => &[tomb, slot],
            _ => &[tomb, open, slot],
        };
        let (passed, what) = order[usize::from(one.request)];
        one.request += 1;
        if !passed {
            one.request = GIVE_UP;
            if !self.is_past(after, session, Open) {
                self.end(after, session);
            }
        } else if usize::from(one.request) == order.len() {
            self.proceed(after, session);
        }
        what
    }

    fn take_over(&self, after: &mut State, session: usize) -> &'static str {
        let one = &mut after.sessions[session];
        let dead = usize::from(one.taking.expect("entered with a candidate"));
        let store = &mut after.store;
        let by = self.number(session);
        let stays = |good: bool, request: u8| if good { Some(request) } else { None };
        let (what, request) = match one.request {
            LOOK_TOMB => (
                "HEAD tomb of the dead session",
                stays(!store.tomb.has(dead), LOOK_OPEN),
            ),
            LOOK_OPEN => (
                "HEAD open of the dead session",
                stays(store.open.has(dead), TAKE),
            ),
            TAKE => {
                let won = self.take(store, dead, by);
                if won && self.mutation != Mutation::M11NoTake {
                    after.past.fenced.add(dead);
                }
                let rechecks = !self.bounds.by_register()
                    && !matches!(
                        self.mutation,
                        Mutation::M12NoRecheck | Mutation::M12CheckBefore
                    );
                let request = if rechecks { RECHECK } else { MARKER };
                ("takes the slot of the dead session", stays(won, request))
            }
            RECHECK => (
                "HEAD open of the dead session, again",
                stays(store.open.has(dead), MARKER),
            ),
            MARKER => {
                let heir = one.unread.first().expect("something to read");
                one.unread.remove(heir);
                let deciders = if self.bounds.by_register() {
                    &store.register
                } else {
                    &store.slot
                };
                if let Slot::Abort(by) = deciders[heir] {
                    one.waiting[heir] = Some(by);
                }
                ("GET marker of what it had taken over", Some(MARKER))
            }
            _ => {
                let heir = self.next_heir(one).expect("somebody to look at");
                one.waiting[heir] = None;
                if store.open.has(heir) {
                    one.owners.add(heir);
                }
                ("HEAD open of what it had taken over", Some(OWNER))
            }
        };
        self.follow(after, session, request);
        what
    }

    /// Whether this session is now the only owner.
    fn take(&self, store: &mut Store, dead: usize, by: u8) -> bool {
        let decider = if self.bounds.by_register() {
            &mut store.register[dead]
        } else {
            &mut store.slot[dead]
        };
        if self.mutation == Mutation::M11NoTake {
            return *decider != Slot::Manifest;
        }
        let won = *decider == Slot::Empty;
        if won {
            *decider = Slot::Abort(by);
        }
        won
    }

    /// The next request of the take-over; `None` leaves the dead session alone.
    fn follow(&self, after: &mut State, session: usize, request: Option<u8>) {
        let inherited = after.sessions[session]
            .taking
            .map(|dead| after.sessions[usize::from(dead)].adopts)
            .unwrap_or_default();
        let one = &mut after.sessions[session];
        let Some(request) = request else {
            self.leave(after, session);
            return;
        };
        if request == MARKER && one.request < MARKER {
            one.unread = inherited;
            one.owners = one.taking.into_iter().map(usize::from).collect();
        }
        one.request = request;
        if request < MARKER || !one.unread.is_empty() {
            return;
        }
        one.request = OWNER;
        if self.mutation == Mutation::M15MarkerAlone {
            while let Some(heir) = self.next_heir(one) {
                one.waiting[heir] = None;
                one.owners.add(heir);
            }
        }
        if self.next_heir(one).is_none() {
            one.owned = one.owned.union(one.owners);
            self.leave(after, session);
        }
    }

    /// An inherited session whose owner is known to be owned.
    fn next_heir(&self, one: &Session) -> Option<usize> {
        let known = |by: u8| one.owners.has(usize::from(by)) || self.mutation == Mutation::CutChain;
        one.waiting.iter().position(|by| by.is_some_and(known))
    }

    /// Done with this dead session.
    fn leave(&self, after: &mut State, session: usize) {
        let one = &mut after.sessions[session];
        one.taking = None;
        one.waiting = Default::default();
        one.owners = Set::default();
        one.unread = Set::default();
        one.candidates = Set::default();
        self.proceed(after, session);
    }

    fn commit(&self, mut after: State, session: usize, next: &mut Vec<(Step, State)>) {
        let overwrites = self.mutation == Mutation::M6CommitOverwrites || self.bounds.by_register();
        if after.store.slot[session] != Slot::Empty && !overwrites {
            let mine = after.store.has_manifest(session);
            if mine {
                self.proceed(&mut after, session);
            } else {
                self.end(&mut after, session);
            }
            next.push((Step::session(session, "finds its slot taken", None), after));
            return;
        }
        after.store.slot[session] = Slot::Manifest;
        after.past.committed.add(session);
        self.proceed(&mut after, session);
        if after.past.duplicates < self.bounds.duplicates {
            let mut twice = after.clone();
            twice.past.duplicates += 1;
            twice.past.late_commit.add(session);
            next.push((Step::session(session, "PUT manifest, twice", None), twice));
        }
        next.push((Step::session(session, "PUT manifest", None), after));
    }

    fn confirm(&self, after: &mut State, session: usize) -> &'static str {
        let committed = if self.bounds.by_register() {
            let open = after.store.register[session] == Slot::Empty;
            if open {
                after.store.register[session] = Slot::Manifest;
            }
            open
        } else {
            after.store.open.has(session) || self.mutation == Mutation::M3NoConfirm
        };
        if committed {
            after.past.acknowledged.add(session);
            self.proceed(after, session);
        } else {
            self.end(after, session);
        }
        "looks whether it committed"
    }

    fn proceed(&self, after: &mut State, session: usize) {
        let one = &mut after.sessions[session];
        one.at = one.at.map(|at| at + 1);
        one.request = 0;
        self.enter(after, session);
    }

    /// Prepares the part a session stands at, and passes over those without a request.
    fn enter(&self, after: &mut State, session: usize) {
        let Some(part) = self.part(after, session) else {
            self.end(after, session);
            return;
        };
        let one = &mut after.sessions[session];
        let skip = match part {
            Check => one.pins.is_empty(),
            TakeOver => {
                one.taking = one.candidates.first().map(|dead| self.number(dead));
                one.request = if self.bounds.by_register() {
                    if self.mutation == Mutation::M23NoLook {
                        TAKE
                    } else {
                        LOOK_TOMB
                    }
                } else if self.mutation == Mutation::M12CheckBefore {
                    LOOK_OPEN
                } else {
                    TAKE
                };
                one.taking.is_none()
            }
            List => one.owned.is_empty(),
            Data | Commit => {
                // From here on it is known what the manifest will reference: its own chunk, what it adopted, and what it
                // keeps of its parent.
                one.references = one.references.union(Chunks::of(session, self.referenced()));
                if let (true, Some(parent)) = (one.inherits, one.pins.first()) {
                    let theirs = after.sessions[parent].references;
                    let one = &mut after.sessions[session];
                    one.references = one.references.union(theirs.firsts());
                }
                false
            }
            SecondCopy => !self.bounds.copies,
            _ => false,
        };
        if skip {
            self.proceed(after, session);
        }
    }

    /// Forgets what no later step needs, so that equal states are equal.
    fn end(&self, after: &mut State, session: usize) {
        let one = &mut after.sessions[session];
        *one = Session {
            ended: true,
            at: Some(u8::MAX),
            pins: one.pins,
            adopts: one.adopts,
            references: one.references,
            ..Session::default()
        };
    }
}

/// What the highest generation of a session's segment holds.
fn stored(store: &Store, session: usize) -> Ordinals {
    let found = store.data[session].iter().rev().find_map(|body| *body);
    found.unwrap_or_default()
}
