//! The real planner, asked about a modelled view.
//!
//! ```text
//!   model's sets ─► View ─► Census ─► Marking ─► Plan ─► model's tasks
//! ```
//!
//! Owns: the translation, and the mutations that are mistakes of a collector's use of the planner: they change what goes in
//! or what comes out. Must not: decide anything itself.

use super::super::controls::Seen as Fact;
use super::super::{
    Cause, Census, CompactionPolicy, DeadObject, Lookup, Marking, Plan, StartOver, View,
};
use super::mutation::Mutation;
use super::search::World;
use super::state::{GENERATIONS, Mend, Ordinals, Rewrite, Seen, Set, State, Tasks, Why};
use crate::repository::ids::{ReaderKey, SegmentId, Sequence, SessionId, SessionKey, VolumeId};
use crate::repository::map::{Liveness, Location};

/// Bytes a chunk takes, so that sizes tell how full a segment is.
const CHUNK: u64 = 100;

const VOLUME: VolumeId = VolumeId([0; 16]);

fn key(session: usize) -> SessionKey {
    let number = u8::try_from(session).expect("few sessions");
    SessionKey {
        volume: VOLUME,
        sequence: Sequence(u32::from(number)),
        session: SessionId([number; 16]),
    }
}

fn number(session: SessionId) -> usize {
    usize::from(session.0[0])
}

fn reader(session: usize) -> ReaderKey {
    ReaderKey {
        volume: VOLUME,
        session: key(session).session,
    }
}

fn segment(session: usize) -> SegmentId {
    SegmentId {
        session: key(session).session,
        number: 0,
    }
}

/// What must be read after the listings.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) bodies: Set,
    pub(super) suspects: Set,
}

impl World {
    pub(super) fn questions(&self, seen: &Seen) -> Questions {
        let census = self.census(seen);
        Questions {
            bodies: self.in_flight(&census),
            suspects: census
                .suspects()
                .iter()
                .map(|key| number(key.session))
                .collect(),
        }
    }

    fn in_flight(&self, census: &Census) -> Set {
        let in_flight = census.in_flight();
        in_flight.iter().map(|key| number(key.session())).collect()
    }

    /// Roots whose liveness must be read.
    pub(super) fn roots(&self, state: &State, seen: &Seen) -> Result<Set, StartOver> {
        let marking = self.marking(state, seen, true)?;
        Ok(self.wanted_roots(&marking, seen))
    }

    fn wanted_roots(&self, marking: &Marking, seen: &Seen) -> Set {
        let roots = marking.roots();
        let roots = roots.iter().map(|root| number(root.key.session));
        roots
            .filter(|root| {
                self.mutation != Mutation::M20SecondListing || seen.opens_after.has(*root)
            })
            .collect()
    }

    /// What the run may do.
    pub(super) fn tasks(&self, state: &State, seen: &Seen) -> Result<Tasks, StartOver> {
        let plan = self.plan(state, seen, true)?;
        let mut tasks = Tasks::default();
        assert_eq!(plan.brake(), None, "too few sessions for the brake");
        for chain in plan.chains() {
            let why = match chain.cause {
                Cause::Aborted => Why::Aborted,
                Cause::Forgotten => Why::Forgotten,
                Cause::Leftover => Why::Leftover,
                Cause::Ghost => Why::Ghost,
            };
            tasks.chains[number(chain.key.session())] = Some((why, 0));
        }
        if self.bounds.mends {
            for key in plan.missing_copies() {
                tasks.mends[number(key.session)] = Some(Mend::Look);
            }
        }
        for dead in plan.dead_data() {
            self.note(&mut tasks, dead);
        }
        for lower in plan.superseded() {
            if let DeadObject::Segment { id, .. } = lower {
                tasks.superseded.add(number(id.session));
            }
            self.note(&mut tasks, self.kept_instead(seen, lower));
        }
        if self.bounds.compaction {
            match self.mutation {
                Mutation::M19Unpinned => {
                    let plan = self.plan(state, seen, false)?;
                    self.compact(&plan, &mut tasks);
                }
                _ => self.compact(&plan, &mut tasks),
            }
        }
        Ok(tasks)
    }

    fn note(&self, tasks: &mut Tasks, dead: DeadObject) {
        match dead {
            DeadObject::Segment { id, generation, .. } => {
                tasks.segments[number(id.session)] |= 1 << generation;
            }
            DeadObject::Live { key, .. } => tasks.live.add(number(key.session)),
            DeadObject::Map { .. } => unreachable!("the model has no map segments"),
        }
    }

    /// The mutation that keeps the lower generation deletes the highest in its place.
    fn kept_instead(&self, seen: &Seen, lower: DeadObject) -> DeadObject {
        match lower {
            DeadObject::Segment { id, size, .. } if self.mutation == Mutation::M19KeepLower => {
                let listed = &seen.data[number(id.session)];
                let highest = listed.iter().rposition(Option::is_some).expect("listed");
                let generation = u8::try_from(highest).expect("few");
                DeadObject::Segment {
                    id,
                    generation,
                    size,
                }
            }
            other => other,
        }
    }

    fn compact(&self, plan: &Plan, tasks: &mut Tasks) {
        let policy = CompactionPolicy {
            max_body: u32::try_from(CHUNK).expect("small"),
            min_dead_permille: 1,
            tolerated_permille: 0,
            at_any_cost: false,
        };
        for found in plan.compactions(&policy, u64::from(u32::MAX)) {
            let ordinals = found.live.ordinals().map(|ordinal| 1u8 << ordinal);
            let room = usize::from(found.generation) + 1 < GENERATIONS;
            if room {
                tasks.compact[number(found.id.session)] = Some(Rewrite {
                    generation: found.generation,
                    live: Ordinals(ordinals.fold(0, |all, one| all | one)),
                    read: None,
                    deleted: false,
                });
            }
        }
    }

    fn plan(&self, state: &State, seen: &Seen, pins: bool) -> Result<Plan, StartOver> {
        let mut marking = self.marking(state, seen, pins)?;
        let wanted = self.wanted_roots(&marking, seen);
        for root in marking.roots() {
            let session = number(root.key.session);
            let liveness = if !wanted.has(session) {
                // Left out by a mutation.
                Some(Liveness::of(&[], &[]))
            } else if seen.no_live.has(session) {
                (self.mutation == Mutation::M10LivenessGone).then(|| Liveness::of(&[], &[]))
            } else {
                Some(liveness(state, session))
            };
            marking.fold(&root.key, liveness.as_ref())?;
        }
        marking.finish()
    }

    fn marking(&self, state: &State, seen: &Seen, pins: bool) -> Result<Marking, StartOver> {
        let mut census = self.held(state, seen, pins)?;
        for suspect in census.suspects() {
            let bits = seen.looked[number(suspect.session)];
            let bit = |at: u8| bits >> at & 1 == 1;
            census.examine(
                &suspect,
                Lookup {
                    tomb: bit(0),
                    open: bit(1),
                    manifest: bit(2),
                    copy: bit(3),
                },
            )?;
        }
        census.finish()
    }

    /// Whether the bodies that were read let this run go on.
    pub(super) fn can_hold(&self, state: &State, seen: &Seen) -> bool {
        self.held(state, seen, true).is_ok()
    }

    /// Whether the run must start over because the liveness of a root is gone.
    pub(super) fn is_lost(&self, state: &State, seen: &Seen, root: usize) -> bool {
        let gone = |mut marking: Marking| marking.fold(&key(root), None).is_err();
        self.mutation != Mutation::M10LivenessGone
            && self.marking(state, seen, true).map_or(true, gone)
    }

    fn held(&self, state: &State, seen: &Seen, pins: bool) -> Result<Census, StartOver> {
        let mut census = self.census(seen);
        for open in census.in_flight() {
            let session = number(open.session());
            let one = &state.sessions[session];
            let pinned: Vec<_> = match self.mutation {
                Mutation::M9NoPins => Vec::new(),
                _ if !pins => Vec::new(),
                _ => one.pins.iter().map(key).collect(),
            };
            let adopted: Vec<_> = match self.mutation {
                Mutation::M11NotKept => Vec::new(),
                _ => one.adopts.iter().map(key).collect(),
            };
            let body = if !seen.no_open.has(session) {
                Some((pinned.as_slice(), adopted.as_slice()))
            } else if self.mutation == Mutation::M10BodyGone {
                Some((&[][..], &[][..]))
            } else {
                None
            };
            census.hold(open, body)?;
        }
        Ok(census)
    }

    fn census(&self, seen: &Seen) -> Census {
        let mut view = View::default();
        for session in 0..self.bounds.sessions() {
            let hidden = self.is_hidden(seen, session);
            let opens = seen.opens_before.union(seen.opens_after);
            let facts = [
                (
                    seen.copies.has(session) && self.mutation != Mutation::CopyIgnored,
                    Fact::COPY,
                ),
                (seen.tombs.has(session), Fact::TOMB),
                (opens.has(session) && !hidden, Fact::OPEN),
                (seen.manifests.has(session), Fact::MANIFEST),
                (seen.aborts.has(session), Fact::ABORT),
                // Any subset of the data may be listed, and liveness that shows would hide this mistake for millions of states.
                (
                    seen.live.has(session) && self.mutation != Mutation::M22DataLate,
                    Fact::LIVE,
                ),
            ];
            for (_, fact) in facts.into_iter().filter(|(there, _)| *there) {
                if self.bounds.is_reader(session) {
                    view.note_reader(reader(session), fact);
                } else {
                    view.note_control(key(session), fact);
                }
            }
            for (generation, body) in seen.data[session].iter().enumerate() {
                if let Some(ordinals) = body {
                    let size = CHUNK * u64::from(ordinals.0.count_ones());
                    let generation = u8::try_from(generation).expect("few");
                    view.note_segment(segment(session), generation, size);
                }
            }
        }
        view.finish(self.bounds.decided_by)
    }

    /// Mutations that do not see an open session.
    fn is_hidden(&self, seen: &Seen, session: usize) -> bool {
        let decided = seen.manifests.has(session) || seen.aborts.has(session);
        match self.mutation {
            Mutation::M9NoKeep => !decided,
            Mutation::M7NoFence => !decided && !self.bounds.is_reader(session),
            _ => false,
        }
    }
}

/// The body of a point's liveness.
fn liveness(state: &State, session: usize) -> Liveness {
    let mut chunks = Vec::new();
    for owner in 0..state.sessions.len() {
        let ordinals = state.sessions[session].references.ordinals(owner);
        chunks.extend(ordinals.iter().map(|ordinal| Location {
            segment: segment(owner),
            ordinal,
        }));
    }
    Liveness::of(&chunks, &[])
}
