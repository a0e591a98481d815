//! The planner on views made by hand. The model explores it; random worlds compare it with a naive one.

use super::*;
use crate::repository::ids::{
    ReaderKey, SegmentId, Sequence, SessionId, SessionKey, VolumeId, name,
};
use crate::repository::map::{Liveness, Location};
use crate::repository::store::ObjectInfo;

mod random;

fn key(session: u8) -> SessionKey {
    SessionKey {
        volume: VolumeId([1; 16]),
        sequence: Sequence(u32::from(session)),
        session: SessionId([session; 16]),
    }
}

fn segment(session: u8, number: u32) -> SegmentId {
    SegmentId {
        session: key(session).session,
        number,
    }
}

fn chunk(session: u8, number: u32, ordinal: u16) -> Location {
    Location {
        segment: segment(session, number),
        ordinal,
    }
}

const MANIFEST: u64 = 700;
const ABORT: u64 = 200;
const SEGMENT: u64 = 1 << 20;

/// A store as names and sizes, listed all at once.
#[derive(Default)]
struct Listed(Vec<(String, u64)>);

impl Listed {
    fn with(mut self, name: String, size: u64) -> Self {
        self.0.push((name, size));
        self
    }

    fn point(self, session: u8) -> Self {
        let key = key(session);
        self.with(name::open(&key), 300)
            .with(name::slot(&key), MANIFEST)
            .with(name::copy(&key), MANIFEST)
            .with(name::live(&key), 400)
            .with(name::segment(segment(session, 0), 0), SEGMENT)
            .with(name::map_segment(segment(session, 0)), 5000)
    }

    fn without(mut self, name: &str) -> Self {
        let before = self.0.len();
        self.0.retain(|(other, _)| other != name);
        assert_ne!(before, self.0.len(), "{name} was listed");
        self
    }

    fn census(&self) -> Census {
        let mut view = View::default();
        for stage in Stage::ORDER {
            let prefixes = stage.prefixes();
            // Backwards, because a store need not list in order.
            for (name, size) in self.0.iter().rev() {
                if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                    view.note(&ObjectInfo {
                        name: name.clone(),
                        size: *size,
                        modified: None,
                    });
                }
            }
        }
        assert_eq!(view.strangers(), 0);
        view.finish(DecidedBy::Slot)
    }
}

fn finish(census: Census, live: &dyn Fn(&SessionKey) -> Option<Liveness>) -> Plan {
    let mut marking = census.finish().unwrap();
    for root in marking.roots() {
        marking.fold(&root.key, live(&root.key).as_ref()).unwrap();
    }
    marking.finish().unwrap()
}

/// Ordinal 0 of its own first segment, and its own map segment.
fn own(key: &SessionKey) -> Option<Liveness> {
    let id = key.session.0[0];
    Some(Liveness::of(&[chunk(id, 0, 0)], &[chunk(id, 0, 0)]))
}

fn deletions(plan: &Plan) -> Vec<String> {
    assert_eq!(plan.brake(), None);
    let chains = plan.chains().flat_map(|chain| {
        chain
            .steps()
            .iter()
            .filter_map(move |step| chain.name(*step))
    });
    chains
        .chain(plan.dead_data().map(|dead| dead.name()))
        .collect()
}

#[test]
fn nothing_of_a_point_is_deleted() {
    let census = Listed::default().point(1).point(2).census();
    assert!(census.in_flight().is_empty());
    assert!(census.suspects().is_empty());
    let plan = finish(census, &own);
    assert_eq!(deletions(&plan), Vec::<String>::new());
    assert_eq!(plan.missing_copies().count(), 0);
}

#[test]
fn a_forgotten_point_goes_control_first_and_in_order() {
    let census = Listed::default()
        .point(1)
        .with(name::tomb(&key(1)), 100)
        .point(2)
        .census();
    let plan = finish(census, &own);
    let gone = key(1);
    assert_eq!(
        deletions(&plan),
        [
            name::copy(&gone),
            name::open(&gone),
            name::slot(&gone),
            name::live(&gone),
            name::tomb(&gone),
            name::segment(segment(1, 0), 0),
            name::map_segment(segment(1, 0)),
        ]
    );
}

#[test]
fn what_a_session_in_flight_pins_and_adopts_stays() {
    let listed = Listed::default()
        .point(1)
        .with(name::tomb(&key(1)), 100)
        .with(name::open(&key(2)), 300)
        .with(name::slot(&key(2)), ABORT)
        .with(name::segment(segment(2, 0), 0), SEGMENT)
        .with(name::open(&key(3)), 300)
        .with(name::segment(segment(3, 0), 0), SEGMENT);
    let mut census = listed.census();
    assert_eq!(census.in_flight(), [OpenKey::Writer(key(3))]);
    census
        .hold(OpenKey::Writer(key(3)), Some((&[key(1)], &[key(2)])))
        .unwrap();
    assert_eq!(deletions(&finish(census, &own)), Vec::<String>::new());

    // Decided and not adopted, the fenced session and the forgotten point go.
    let census = listed.with(name::slot(&key(3)), ABORT).census();
    assert_eq!(deletions(&finish(census, &own)).len(), 2 + 2 + 1 + 1 + 7);
}

#[test]
fn a_session_with_a_copy_is_not_fenced() {
    let lost = Listed::default().point(1).without(&name::slot(&key(1)));
    let census = lost.with(name::open(&key(2)), 300).census();
    assert_eq!(census.in_flight().len(), 2);
    assert_eq!(census.fenceable(), [OpenKey::Writer(key(2))]);
}

#[test]
fn a_record_that_is_gone_starts_the_run_over_except_a_readers() {
    let reader = ReaderKey {
        volume: VolumeId([1; 16]),
        session: SessionId([9; 16]),
    };
    let listed = Listed::default()
        .point(1)
        .with(name::open(&key(2)), 300)
        .with(name::reader(reader.volume, reader.session), 300);
    let mut census = listed.census();
    assert_eq!(
        census.in_flight(),
        [OpenKey::Writer(key(2)), OpenKey::Reader(reader)]
    );
    census.hold(OpenKey::Reader(reader), None).unwrap();
    let gone = census.hold(OpenKey::Writer(key(2)), None).unwrap_err();
    assert_eq!(gone.object, name::open(&key(2)));
    assert_eq!(census.finish().unwrap_err(), gone, "and was never read");

    let mut marking = Listed::default().point(1).census().finish().unwrap();
    assert_eq!(
        marking.fold(&key(1), None).unwrap_err().object,
        name::live(&key(1))
    );
    assert_eq!(marking.finish().unwrap_err().object, name::live(&key(1)));
}

#[test]
fn a_copy_keeps_a_point_whose_control_objects_the_store_lost() {
    let lost = Lookup {
        tomb: false,
        open: false,
        manifest: true,
        copy: true,
    };
    let listed = Listed::default().point(1).without(&name::open(&key(1)));
    let mut census = listed.census();
    assert_eq!(census.suspects(), [key(1)]);
    assert!(listed.census().finish().is_err(), "not looked up again");
    census.examine(&key(1), lost).unwrap();
    let plan = finish(census, &own);
    assert_eq!(deletions(&plan), Vec::<String>::new());
    assert_eq!(plan.damaged().collect::<Vec<_>>(), [key(1)]);

    let mut census = listed.census();
    let forgotten = Lookup { tomb: true, ..lost };
    assert!(census.examine(&key(1), forgotten).is_err());

    // The purge had begun before the listing of start records: it is no loss.
    let mut census = listed.census();
    let purged = Lookup {
        copy: false,
        ..lost
    };
    census.examine(&key(1), purged).unwrap();
    assert!(deletions(&finish(census, &own)).contains(&name::slot(&key(1))));
}

#[test]
fn a_pinned_point_stays_a_root_without_start_record_and_copy() {
    let census = || {
        let listed = Listed::default()
            .point(1)
            .without(&name::open(&key(1)))
            .without(&name::copy(&key(1)))
            .with(name::tomb(&key(1)), 100)
            .with(name::open(&key(2)), 300);
        let mut census = listed.census();
        let pins = [key(1)];
        census
            .hold(OpenKey::Writer(key(2)), Some((&pins, &[])))
            .unwrap();
        census
    };
    assert_eq!(deletions(&finish(census(), &own)), Vec::<String>::new());
    let mut marking = census().finish().unwrap();
    assert!(marking.fold(&key(1), None).is_err(), "another run is ahead");
}

#[test]
fn a_copy_that_came_after_the_purge_is_deleted() {
    let listed = Listed::default().with(name::copy(&key(1)), MANIFEST);
    let mut census = listed.census();
    let nothing = Lookup {
        tomb: false,
        open: false,
        manifest: false,
        copy: true,
    };
    census.examine(&key(1), nothing).unwrap();
    let plan = finish(census, &|_| None);
    assert_eq!(deletions(&plan), [name::copy(&key(1))]);
    assert_eq!(plan.damaged().count(), 0);
}

#[test]
fn many_manifests_without_start_records_stop_the_run() {
    let lost = |count: u8| {
        let listed = (0..count).fold(Listed::default(), |listed, at| {
            listed.with(name::slot(&key(at)), MANIFEST)
        });
        finish(listed.census(), &own).brake()
    };
    assert_eq!(lost(8), None);
    assert_eq!(
        lost(9),
        Some(Brake {
            without_open: 9,
            manifests: 9
        })
    );
    // A purge that was stopped half-way leaves forget orders, and may leave many.
    let listed = (0..20).fold(Listed::default(), |listed, at| {
        listed
            .with(name::slot(&key(at)), MANIFEST)
            .with(name::tomb(&key(at)), 100)
    });
    assert_eq!(finish(listed.census(), &own).brake(), None);
}

#[test]
fn the_lower_generations_of_a_living_segment_go_and_all_of_a_dead_one() {
    let census = Listed::default()
        .point(1)
        .with(name::segment(segment(1, 0), 2), SEGMENT)
        .with(name::segment(segment(1, 0), 1), SEGMENT)
        .with(name::segment(segment(1, 1), 0), SEGMENT)
        .with(name::segment(segment(1, 1), 1), SEGMENT)
        .census();
    let plan = finish(census, &own);
    let superseded: Vec<_> = plan.superseded().map(|dead| dead.name()).collect();
    let generation = |number, generation| name::segment(segment(1, number), generation);
    assert_eq!(superseded, [generation(0, 0), generation(0, 1)]);
    assert_eq!(deletions(&plan), [generation(1, 0), generation(1, 1)]);
    let living: Vec<_> = plan
        .living()
        .map(|(id, row, _)| (id, row.generation))
        .collect();
    assert_eq!(living, [(segment(1, 0), 2)]);
}

#[test]
fn sparse_segments_are_rewritten_while_that_writes_less_than_it_frees() {
    let listed = (1..4).fold(Listed::default().point(1), |listed, number| {
        listed.with(name::segment(segment(1, number), 0), SEGMENT)
    });
    // Of 64 chunks each: 60, 8, 32 and 64 live.
    let live = |_: &SessionKey| {
        let counts = [(0, 60), (1, 8), (2, 32), (3, 64)];
        let chunks = counts
            .iter()
            .flat_map(|(number, count)| (64 - count..64).map(|at| chunk(1, *number, at)));
        Some(Liveness::of(&chunks.collect::<Vec<_>>(), &[]))
    };
    let plan = finish(listed.census(), &live);
    let policy = CompactionPolicy::new(16 * 1024);
    let chosen = |freed| {
        let compactions = plan.compactions(&policy, freed);
        let numbers = compactions.iter().map(|found| found.id.number);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(chosen(0), [1, 2]);
    assert_eq!(chosen(u64::from(u32::MAX)), [1, 2, 0]);
    // Half of two and nothing of the third is freed; 4 of 64 chunks stay dead.
    assert_eq!(plan.choose(&policy, 0).1, 4 * 16 * 1024);
    let thorough = CompactionPolicy {
        at_any_cost: true,
        ..policy
    };
    let (compactions, stays) = plan.choose(&thorough, 0);
    assert_eq!((compactions.len(), stays), (3, 0));
    let compactions = plan.compactions(&policy, 0);
    assert_eq!(compactions[0].live_bytes, 8 * 16 * 1024);
    assert_eq!(
        compactions[0].live.ordinals().collect::<Vec<_>>(),
        (56..64).collect::<Vec<_>>()
    );
    assert_eq!(compactions[0].live.count(), 8);
}

#[test]
fn what_is_tolerated_is_rewritten_all_the_same_at_any_cost() {
    let listed = (1..10).fold(Listed::default().point(1), |listed, number| {
        listed.with(name::segment(segment(1, number), 0), SEGMENT)
    });
    // Of 64 chunks each: 60 in the first one, else all.
    let live = |_: &SessionKey| {
        let first = (4..64).map(|at| chunk(1, 0, at));
        let others = (1..10).flat_map(|number| (0..64).map(move |at| chunk(1, number, at)));
        Some(Liveness::of(&first.chain(others).collect::<Vec<_>>(), &[]))
    };
    let plan = finish(listed.census(), &live);
    let policy = CompactionPolicy::new(16 * 1024);
    let (compactions, stays) = plan.choose(&policy, u64::MAX >> 1);
    assert_eq!((compactions.len(), stays), (0, 4 * 16 * 1024));
    assert_eq!(plan.dead_bytes(&policy), stays);
    let thorough = CompactionPolicy {
        at_any_cost: true,
        ..policy
    };
    let (compactions, stays) = plan.choose(&thorough, 0);
    assert_eq!((compactions.len(), stays), (1, 0));
    assert_eq!(plan.dead_bytes(&thorough), 4 * 16 * 1024);
}

#[test]
fn heartbeats_without_an_owner_are_leftovers() {
    let listed = Listed::default()
        .point(1)
        .with(name::beat(key(1).session), 100)
        .with(name::beat(key(7).session), 100);
    let plan = finish(listed.census(), &own);
    assert_eq!(plan.dead_beats(), [key(7).session]);
}

#[test]
fn a_mark_goes_with_its_segment_unless_a_point_still_needs_that() {
    let mark = |id, first| name::quarantine(id, first, first);
    let listed = Listed::default()
        .point(1)
        .point(2)
        .with(mark(segment(1, 0), 3), 100)
        .with(mark(segment(2, 0), 0), 100)
        .with(mark(segment(9, 4), 0), 100)
        .with(mark(segment(9, 4), 7), 100)
        // Lost by the store: the next backup of point 2 must store it again.
        .without(&name::segment(segment(2, 0), 0));
    let plan = finish(listed.census(), &own);
    assert_eq!(plan.dead_marks().collect::<Vec<_>>(), [segment(9, 4)]);
}

#[test]
fn a_run_remembers_little() {
    let sessions = 20_000u32;
    let key = |number: u32| {
        let mut session = [0; 16];
        session[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
        SessionKey {
            session: SessionId(session),
            ..key(1)
        }
    };
    let mut listed = Listed::default();
    for session in 0..sessions {
        let key = key(session);
        listed = listed
            .with(name::open(&key), 300)
            .with(name::slot(&key), MANIFEST)
            .with(name::copy(&key), MANIFEST)
            .with(name::live(&key), 400);
        for number in 0..5 {
            let id = SegmentId {
                session: key.session,
                number,
            };
            listed = listed.with(name::segment(id, 0), SEGMENT);
        }
    }
    let marking = listed.census().finish().unwrap();
    assert_eq!(marking.roots().len(), 20_000);
    assert!(
        marking.memory() <= 20_000 * (44 + 24 + 5 * 20),
        "{} bytes",
        marking.memory()
    );
}
