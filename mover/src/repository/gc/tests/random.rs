//! Random repositories: the planner against a naive one that works on names and sets, in the words of the protocol.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SESSIONS: u8 = 5;

/// One session of a random repository.
#[derive(Clone, Debug)]
struct Random {
    open: bool,
    /// Nothing, a manifest, an abort marker.
    slot: u8,
    tomb: bool,
    copy: bool,
    live: bool,
    pins: BTreeSet<u8>,
    adopts: BTreeSet<u8>,
    /// Segment number and generation.
    segments: BTreeSet<(u32, u8)>,
    maps: BTreeSet<u32>,
    /// Session, segment, ordinal.
    chunks: Vec<(u8, u32, u16)>,
    pages: Vec<(u8, u32, u16)>,
}

impl Random {
    fn whole(&self) -> bool {
        self.open && self.slot == 1
    }

    fn liveness(&self) -> Option<Liveness> {
        let places = |all: &[(u8, u32, u16)]| {
            let places = all.iter().map(|(id, number, at)| chunk(*id, *number, *at));
            places.collect::<Vec<_>>()
        };
        self.live
            .then(|| Liveness::of(&places(&self.chunks), &places(&self.pages)))
    }
}

fn session() -> impl Strategy<Value = Random> {
    let some = || proptest::collection::btree_set(0..SESSIONS, 0..2);
    let chunks = || {
        let ordinal = prop_oneof![0..4u16, 60..70u16, Just(4095u16)];
        proptest::collection::vec((0..SESSIONS, 0..3u32, ordinal), 0..4)
    };
    // Most of what a session stores is there most of the time: else there is nothing to get wrong.
    let flags = (
        prop::bool::weighted(0.8),
        prop_oneof![1 => Just(0u8), 3 => Just(1), 1 => Just(2)],
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.6),
        prop::bool::weighted(0.95),
    );
    let segments = proptest::collection::btree_set((0..3u32, 0..3u8), 0..5);
    let maps = proptest::collection::btree_set(0..3u32, 0..3);
    (flags, some(), some(), segments, maps, (chunks(), chunks())).prop_map(
        |((open, slot, tomb, copy, live), pins, adopts, segments, maps, (chunks, pages))| Random {
            open,
            slot,
            tomb,
            copy,
            live,
            pins,
            adopts,
            segments,
            maps,
            chunks,
            pages,
        },
    )
}

fn listed(world: &[Random]) -> Listed {
    let mut names = Listed::default();
    for (id, one) in (0u8..).zip(world) {
        let key = key(id);
        let mut put = |there: bool, name: String, size: u64| {
            if there {
                names.0.push((name, size));
            }
        };
        put(one.open, name::open(&key), 300);
        put(one.slot == 1, name::slot(&key), MANIFEST);
        put(one.slot == 2, name::slot(&key), ABORT);
        put(one.tomb, name::tomb(&key), 100);
        put(one.copy, name::copy(&key), MANIFEST);
        put(one.live, name::live(&key), 400);
        for (number, generation) in &one.segments {
            put(
                true,
                name::segment(segment(id, *number), *generation),
                SEGMENT,
            );
        }
        for number in &one.maps {
            put(true, name::map_segment(segment(id, *number)), SEGMENT);
        }
    }
    names
}

/// Runs the planner on a repository in which nothing else happens.
fn planned(world: &[Random]) -> Result<Plan, StartOver> {
    let at = |session: SessionId| usize::from(session.0[0]);
    let mut census = listed(world).census();
    for open in census.in_flight() {
        let one = &world[at(open.session())];
        let keys = |all: &BTreeSet<u8>| all.iter().map(|id| key(*id)).collect::<Vec<_>>();
        census.hold(open, Some((&keys(&one.pins), &keys(&one.adopts))))?;
    }
    for suspect in census.suspects() {
        let one = &world[at(suspect.session)];
        let found = Lookup {
            tomb: one.tomb,
            open: one.open,
            manifest: one.slot == 1,
            copy: one.copy,
        };
        census.examine(&suspect, found)?;
    }
    let mut marking = census.finish()?;
    for root in marking.roots() {
        let liveness = world[at(root.key.session)].liveness();
        marking.fold(&root.key, liveness.as_ref())?;
    }
    marking.finish()
}

/// What a run deletes: `None` where it must start over.
fn naive(world: &[Random]) -> Option<BTreeSet<String>> {
    let (mut keep, mut pins) = (BTreeSet::<u8>::new(), BTreeSet::<u8>::new());
    for (id, one) in (0u8..).zip(world) {
        if one.open && one.slot == 0 {
            keep.insert(id);
            keep.extend(&one.adopts);
            pins.extend(&one.pins);
        }
    }
    let mut dead = BTreeSet::new();
    let (mut chunks, mut pages, mut rooted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (id, one) in (0u8..).zip(world) {
        let lost = one.copy && !one.tomb && !one.whole();
        let bare = !one.open && one.slot != 1;
        let pinned = pins.contains(&id);
        let root = lost
            || (one.whole() && !one.tomb)
            || (pinned && (one.slot == 1 || one.copy || one.live));
        if root && !one.live && !(lost && bare && !pinned) {
            return None;
        }
        if root && one.live {
            chunks.extend(one.chunks.iter().map(|(id, number, _)| (*id, *number)));
            pages.extend(one.pages.iter().map(|(id, number, _)| (*id, *number)));
            rooted.insert(id);
        }
        let (key, kept) = (key(id), keep.contains(&id));
        if one.tomb {
            if !kept && !pinned {
                dead.extend([name::copy(&key), name::open(&key), name::slot(&key)]);
                dead.extend([name::live(&key), name::tomb(&key)]);
            }
        } else if lost {
            if !one.live && bare && !pinned {
                dead.insert(name::copy(&key));
            }
        } else if one.slot == 2 && one.open && !kept {
            dead.extend([name::open(&key), name::slot(&key)]);
        } else if one.slot != 0 && !one.open && !kept && !pinned {
            dead.insert(name::slot(&key));
        }
    }
    for (id, one) in (0u8..).zip(world) {
        if keep.contains(&id) {
            continue;
        }
        if one.live && !rooted.contains(&id) {
            dead.insert(name::live(&key(id)));
        }
        for (number, generation) in &one.segments {
            let highest = one
                .segments
                .iter()
                .filter(|(other, _)| other == number)
                .max();
            let lower = highest.is_some_and(|(_, highest)| generation < highest);
            if lower || !chunks.contains(&(id, *number)) {
                dead.insert(name::segment(segment(id, *number), *generation));
            }
        }
        let unused = one
            .maps
            .iter()
            .filter(|number| !pages.contains(&(id, **number)));
        dead.extend(unused.map(|number| name::map_segment(segment(id, *number))));
    }
    Some(dead)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_planner_deletes_what_the_naive_one_does(
        world in proptest::collection::vec(session(), usize::from(SESSIONS)),
    ) {
        let plan = planned(&world);
        let expected = naive(&world);
        prop_assert_eq!(plan.is_err(), expected.is_none(), "{:?}", plan.err());
        if let (Ok(plan), Some(expected)) = (plan, expected) {
            let mut found: BTreeSet<_> = deletions(&plan).into_iter().collect();
            found.extend(plan.superseded().map(|dead| dead.name()));
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn live_ordinals_are_the_union_of_what_the_roots_need(
        worlds in proptest::collection::vec(session(), usize::from(SESSIONS)),
    ) {
        let world: Vec<_> = worlds
            .into_iter()
            .map(|one| Random { open: true, slot: 1, tomb: false, copy: true, live: true, ..one })
            .collect();
        let plan = planned(&world).unwrap();
        for (id, _, live) in plan.living() {
            let needed: BTreeSet<u16> = world
                .iter()
                .flat_map(|one| &one.chunks)
                .filter(|(owner, number, _)| segment(*owner, *number) == id)
                .map(|(_, _, ordinal)| *ordinal)
                .collect();
            prop_assert_eq!(live.ordinals().collect::<BTreeSet<_>>(), needed.clone());
            prop_assert_eq!(live.ordinals().count(), needed.len());
            prop_assert_eq!(usize::try_from(live.count()).unwrap(), needed.len());
            prop_assert_eq!(live.end(), u32::from(*needed.last().unwrap()) + 1);
        }
    }
}
