//! The steps by which a session takes a dead one over, as in `repository::session::adopt`.
//!
//! ```text
//!   take the slot ─► open still there? ─► markers of what the dead one had taken over ─► their opens, along the chain of owners
//! ```
//!
//! Owns: that part of a writer's program. With a register the look at `open` comes before the swap.

use super::mutation::Mutation;
use super::search::World;
use super::state::{Session, Set, Slot, State, Store};

/// Requests of this part.
const LOOK_TOMB: u8 = 0;
const LOOK_OPEN: u8 = 1;
const TAKE: u8 = 2;
const RECHECK: u8 = 3;
const MARKER: u8 = 4;
const OWNER: u8 = 5;

impl World {
    /// Where this part begins.
    pub(super) fn first_look(&self) -> u8 {
        match (self.bounds.by_register(), self.mutation) {
            (true, Mutation::M23NoLook) => TAKE,
            (true, _) => LOOK_TOMB,
            (false, Mutation::M12CheckBefore) => LOOK_OPEN,
            (false, _) => TAKE,
        }
    }

    pub(super) fn take_over(&self, after: &mut State, session: usize) -> &'static str {
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
}
