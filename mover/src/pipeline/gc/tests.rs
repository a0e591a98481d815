//! Collecting small repositories: what goes and what stays.

mod faults;
mod fencing;
mod replay;
mod simulation;
mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::pipeline::testing::{self, Bed, Layout};
use crate::pipeline::verify::{self, VerifyLevel, VerifyRequest};
use crate::repository::ids::SessionKey;
use crate::repository::map::Location;
use crate::repository::session::points::Point;
use crate::repository::session::writer::WriterSession;
use crate::repository::store::faulty::{Fault, FaultyStore, Gate, Operation, Rule};
use world::World;

fn collect(world: &World) -> GcReport {
    run(&world.context(), &GcRequest::default()).unwrap()
}

fn collect_over(world: &World, rules: impl IntoIterator<Item = Rule>) -> Result<GcReport> {
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&world.store) as Arc<dyn Store>));
    rules.into_iter().for_each(|rule| faulty.add(rule));
    let request = GcRequest {
        pause: Duration::ZERO,
        ..GcRequest::default()
    };
    run(&world::context(&world.repository_over(faulty)), &request)
}

fn unfinished(world: &World, machine: usize) -> WriterSession {
    let here = world::elsewhere(machine);
    let session = world::begin(&world.repository, None, &here, Duration::MAX).unwrap();
    world::put_segments(&world.repository, session.key().session, &[3]).unwrap();
    session
}

fn any_left_of(world: &World, key: &SessionKey) -> bool {
    let session = key.session.to_string();
    world.objects().iter().any(|name| name.contains(&session))
}

fn ordinals(point: &Point, number: u32, ordinals: impl Iterator<Item = u16>) -> Vec<Location> {
    let segment = crate::repository::ids::SegmentId {
        session: point.key.session,
        number,
    };
    let at = |ordinal| Location { segment, ordinal };
    ordinals.map(at).collect()
}

#[test]
fn what_only_a_forgotten_point_used_goes_in_one_run() {
    let bed = Bed::new();
    let image = |seed| testing::image(40, 777, seed);
    let first = bed.point("disk", &image(1), Layout::default());
    let second = bed.point("disk", &image(2), Layout::default());
    let store = &bed.repository.store;
    store
        .create(&name::tomb(&first), world::forget_order())
        .unwrap();
    let report = run(&bed.context(), &GcRequest::default()).unwrap();
    assert_eq!(report.points, [first.point().to_string()]);
    assert!(report.segments_deleted > 0 && report.map_segments_deleted > 0);
    let (one, other) = (first.session.to_string(), second.session.to_string());
    let objects = bed.objects("");
    assert!(
        !objects.iter().any(|name| name.contains(&one)),
        "{objects:?}"
    );
    assert!(objects.iter().any(|name| name.contains(&other)));
    let request = VerifyRequest {
        points: Vec::new(),
        level: VerifyLevel::Data,
        sample_percent: 5.0,
    };
    let verified = verify::run(&bed.context(), &request).unwrap();
    assert_eq!((verified.points, verified.errors), (1, Vec::new()));
    let again = run(&bed.context(), &GcRequest::default()).unwrap();
    assert_eq!(again.freed_bytes + again.points_purged, 0);
}

#[test]
fn a_dry_run_tells_the_same_and_changes_nothing() {
    let world = World::new(1000);
    let first = world.point(&[8, 8], None, &[]);
    let kept = ordinals(&first, 0, 5..7);
    world.point(&[4], Some(&first), &kept);
    let dead = unfinished(&world, 1).key();
    world.forget(&first);
    world.store.delete(&name::copy(&world.valid()[0])).unwrap();
    let request = GcRequest {
        dry_run: true,
        fence_after: Duration::ZERO,
        abort: vec![dead.session],
        ..GcRequest::default()
    };
    let (before, puts) = (world.store.names(), world.store.counts().put);
    let told = run(&world.context(), &request).unwrap();
    assert_eq!(world.store.names(), before);
    assert_eq!(world.store.counts().put, puts);
    let request = GcRequest {
        dry_run: false,
        ..request
    };
    let done = run(&world.context(), &request).unwrap();
    assert_eq!(
        (
            told.points,
            told.sessions_purged,
            told.segments_deleted,
            told.segments_rewritten
        ),
        (
            done.points,
            done.sessions_purged,
            done.segments_deleted,
            done.segments_rewritten
        )
    );
    assert_eq!(
        (told.freed_bytes, told.fenced),
        (done.freed_bytes, done.fenced)
    );
    assert_eq!((done.copies_added, done.segments_rewritten), (1, 1));
    assert!(done.written_bytes < done.freed_bytes);
}

#[test]
fn a_sparse_segment_is_rewritten_and_every_chunk_stays_readable() {
    let world = World::new(1000);
    let first = world.point(&[10, 10, 10], None, &[]);
    let kept = [ordinals(&first, 1, 3..7), ordinals(&first, 2, 9..10)].concat();
    let second = world.point(&[4], Some(&first), &kept);
    world.forget(&first);
    let report = collect(&world);
    assert_eq!((report.segments_deleted, report.segments_rewritten), (1, 2));
    assert!(report.written_bytes <= report.freed_bytes, "{report:?}");
    world::Judge::default().check(&world, &second.key).unwrap();
    let segments: Vec<String> = world
        .objects()
        .into_iter()
        .filter(|name| name.contains(&first.key.session.to_string()))
        .collect();
    assert_eq!(segments.len(), 2, "{segments:?}");
    assert!(segments.iter().all(|name| name.ends_with(".g01")));
    assert_eq!(collect(&world).segments_rewritten, 0);
}

#[test]
fn what_stays_dead_is_told_where_nothing_is_rewritten() {
    for has_conditional_writes in [true, false] {
        let world = World::new(1000);
        let first = world.point(&[10, 10, 10], None, &[]);
        world.point(&[4], Some(&first), &ordinals(&first, 1, 3..4));
        world.forget(&first);
        let request = GcRequest {
            rewrite: !has_conditional_writes,
            ..GcRequest::default()
        };
        let mut repository = world.repository_over(Arc::clone(&world.store) as Arc<dyn Store>);
        let profile = &mut Arc::get_mut(&mut repository).unwrap().config.profile;
        profile.conditional_writes = has_conditional_writes;
        let report = run(&world::context(&repository), &request).unwrap();
        assert_eq!(report.segments_rewritten, 0);
        assert!(report.dead_bytes_left > 0, "{report:?}");
    }
}

#[test]
fn a_listing_of_many_pages_is_split_and_misses_nothing() {
    let world = World::new(2);
    let points: Vec<Point> = (0..12)
        .map(|_| world.point(&[2, 2, 2], None, &[]))
        .collect();
    points[..6].iter().for_each(|point| world.forget(point));
    let report = collect(&world);
    assert_eq!((report.points_purged, report.segments_deleted), (6, 18));
    for (at, point) in points.iter().enumerate() {
        assert_eq!(any_left_of(&world, &point.key), at >= 6);
    }
}

#[test]
fn a_network_file_system_is_collected_by_the_host_that_made_it() {
    let world = World::with_profile(1000, |profile| profile.single_host = Some("another".into()));
    let error = run(&world.context(), &GcRequest::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let request = GcRequest {
        any_host: true,
        ..GcRequest::default()
    };
    run(&world.context(), &request).unwrap();
    let here = crate::repository::store::host::host_id();
    let world = World::with_profile(1000, |profile| profile.single_host = Some(here));
    collect(&world);
}

#[test]
fn a_stop_ends_the_run_and_the_next_one_goes_on() {
    let world = World::new(1000);
    for _ in 0..4 {
        world.forget(&world.point(&[3], None, &[]));
    }
    let context = world.context();
    context.stop.stop();
    let error = run(&context, &GcRequest::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    collect(&world);
    assert_eq!(world.objects(), Vec::<String>::new());
}

#[test]
fn strangers_are_left_alone() {
    let world = World::new(1000);
    let strange = ["seg/readme", "open/x", "quarantine/x", "notes/y"];
    for name in strange {
        world.store.put(name, Bytes::from_static(b"mine")).unwrap();
    }
    collect(&world);
    assert!(strange.iter().all(|name| world.has(name)));
}
