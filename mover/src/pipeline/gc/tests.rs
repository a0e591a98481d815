//! Collecting small repositories: what goes, what stays, and what each fault changes.

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
use crate::repository::store::faulty::{Fault, FaultyStore, Operation, Rule};
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
fn a_refused_deletion_stops_that_session_only() {
    let world = World::new(1000);
    let points = [world.point(&[3], None, &[]), world.point(&[3], None, &[])];
    points.iter().for_each(|point| world.forget(point));
    let open = name::open(&points[0].key);
    let denied = Rule::always(
        Operation::Delete,
        &open,
        Fault::Fail(ErrorKind::AccessDenied),
    );
    let report = collect_over(&world, [denied]).unwrap();
    assert_eq!(report.points, [points[1].key.point().to_string()]);
    assert_eq!(
        (report.refused, &report.refused_objects[..]),
        (1, &[open.clone()][..])
    );
    assert!(report.warnings[0].contains(&open), "{:?}", report.warnings);
    let [_, open, slot, live, tomb] = World::controls(&points[0].key);
    assert!([open, slot, live, tomb].iter().all(|name| world.has(name)));
    assert!(!any_left_of(&world, &points[1].key));
    collect(&world);
    assert!(!any_left_of(&world, &points[0].key));
}

#[test]
fn without_the_right_to_delete_the_run_fails() {
    let world = World::new(1000);
    world.forget(&world.point(&[3], None, &[]));
    let before = world.store.names();
    let denied = Rule::always(Operation::Delete, "/", Fault::Fail(ErrorKind::AccessDenied));
    let error = collect_over(&world, [denied]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.object_name().is_some() && error.hint_text().is_some());
    assert_eq!(world.store.names(), before);
}

#[test]
fn a_listing_that_fails_in_the_middle_deletes_nothing() {
    let world = World::new(1000);
    world.forget(&world.point(&[3], None, &[]));
    world.point(&[3], None, &[]);
    let before = world.store.names();
    for prefix in [
        "beat/", "copy/", "seg/", "map/", "live/", "tomb/", "open/", "snap/",
    ] {
        let failing = Rule::always(Operation::List, prefix, Fault::Fail(ErrorKind::Unavailable));
        let error = collect_over(&world, [failing]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{prefix}");
        assert_eq!(world.store.names(), before, "{prefix}");
    }
    let second = Rule::nth(
        Operation::List,
        "open/",
        1,
        Fault::Fail(ErrorKind::Unavailable),
    );
    collect_over(&world, [second]).unwrap_err();
    assert_eq!(world.store.names(), before);
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
fn a_lost_liveness_stops_gc_and_is_named() {
    let world = World::new(1000);
    let points = [world.point(&[3], None, &[]), world.point(&[3], None, &[])];
    world.forget(&points[0]);
    let live = name::live(&points[1].key);
    world.store.delete(&live).unwrap();
    let before = world.store.names();
    let error = collect_over(&world, []).unwrap_err();
    assert_eq!(
        (error.kind(), error.object_name()),
        (ErrorKind::Corrupt, Some(live.as_str()))
    );
    assert_eq!(world.store.names(), before);
}

#[test]
fn a_damaged_liveness_stops_gc_and_is_named() {
    let world = World::new(1000);
    let points = [world.point(&[3], None, &[]), world.point(&[3], None, &[])];
    world.forget(&points[0]);
    let live = name::live(&points[1].key);
    let damaged = Rule::always(Operation::Get, &live, Fault::Corrupt(90));
    let error = collect_over(&world, [damaged]).unwrap_err();
    assert_eq!(
        (error.kind(), error.object_name()),
        (ErrorKind::Corrupt, Some(live.as_str()))
    );
    assert!(any_left_of(&world, &points[0].key));
}

#[test]
fn a_lost_prefix_stops_gc() {
    let world = World::new(1000);
    for _ in 0..9 {
        let point = world.point(&[1], None, &[]);
        world.store.delete(&name::open(&point.key)).unwrap();
        world.store.delete(&name::copy(&point.key)).unwrap();
    }
    let before = world.store.names();
    let error = collect_over(&world, []).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("9 of 9"), "{error}");
    assert_eq!(world.store.names(), before);
}

#[test]
fn a_point_whose_start_record_is_lost_is_kept_by_its_copy_and_told() {
    let world = World::new(1000);
    let point = world.point(&[3], None, &[]);
    world.store.delete(&name::open(&point.key)).unwrap();
    let before = world.store.names();
    let report = collect(&world);
    assert_eq!(report.damaged, [point.key.point().to_string()]);
    assert!(!report.warnings.is_empty());
    assert_eq!(world.store.names(), before);
}

#[test]
fn a_silent_session_is_fenced_and_gone_after_the_same_run() {
    let world = World::new(1000);
    let session = unfinished(&world, 1);
    let key = session.key();
    let report = collect(&world);
    assert_eq!(report.unfinished.len(), 1);
    assert_eq!(
        (report.unfinished[0].host.as_str(), report.fenced.len()),
        ("machine-1", 0)
    );
    world
        .store
        .set_time(world.store.time() + Duration::from_secs(24 * 3600 + 1));
    let report = collect(&world);
    assert_eq!(report.fenced, [key.session.to_string()]);
    assert_eq!(report.sessions_purged, 1);
    assert_eq!(world.objects(), Vec::<String>::new());
    let late = world::commit(&world.repository, session, None, &[]).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced);
    // What the late commit left is none of anybody's.
    collect(&world);
    assert_eq!(world.objects(), Vec::<String>::new());
}

#[test]
fn a_clock_that_jumps_costs_a_session_its_commit_and_nobody_a_point() {
    let world = World::new(1000);
    let point = world.point(&[3], None, &[]);
    let years = Duration::from_secs(5 * 365 * 24 * 3600);
    let start = world.store.time();
    let session = unfinished(&world, 1);
    world.store.set_time(start - years);
    assert!(collect(&world).fenced.is_empty(), "time went backwards");
    world.store.set_time(start + years);
    assert_eq!(collect(&world).fenced.len(), 1);
    let refused = world::commit(&world.repository, session, None, &[]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    world::Judge::default().check(&world, &point.key).unwrap();
    assert_eq!(world.valid(), [point.key]);
}

#[test]
fn a_session_of_this_machine_is_never_fenced_while_its_process_runs() {
    let world = World::new(1000);
    let here = crate::repository::session::origin::Origin::current();
    let session = world::begin(&world.repository, None, &here, Duration::MAX).unwrap();
    world
        .store
        .set_time(world.store.time() + Duration::from_secs(1_000_000_000));
    let request = GcRequest {
        fence_after: Duration::ZERO,
        ..GcRequest::default()
    };
    assert!(run(&world.context(), &request).unwrap().fenced.is_empty());
    let request = GcRequest {
        abort: vec![session.key().session],
        ..request
    };
    let error = run(&world.context(), &request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    world::commit(&world.repository, session, None, &[]).unwrap();
}

#[test]
fn without_create_only_writes_only_a_person_gives_sessions_up() {
    let world = World::with_profile(1000, |profile| profile.conditional_writes = false);
    let session = unfinished(&world, 1).key();
    world
        .store
        .set_time(world.store.time() + Duration::from_secs(1_000_000_000));
    assert!(collect(&world).fenced.is_empty());
    assert!(any_left_of(&world, &session));
    let abort = |session| GcRequest {
        abort: vec![session],
        ..GcRequest::default()
    };
    let report = run(&world.context(), &abort(session.session)).unwrap();
    assert_eq!(report.fenced, [session.session.to_string()]);
    assert!(!any_left_of(&world, &session));
    let unknown = run(&world.context(), &abort(session.session)).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_session_with_a_damaged_start_record_stops_gc_until_it_is_given_up() {
    let world = World::new(1000);
    let key = unfinished(&world, 1).key();
    let open = name::open(&key);
    let bytes = world.store.peek(&open).unwrap();
    world.store.delete(&open).unwrap();
    world
        .store
        .put(&open, bytes.slice(..bytes.len() - 1))
        .unwrap();
    let error = run(&world.context(), &GcRequest::default()).unwrap_err();
    assert_eq!(
        (error.kind(), error.object_name()),
        (ErrorKind::Corrupt, Some(open.as_str()))
    );
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains(&key.session.to_string())
    );
    let request = GcRequest {
        abort: vec![key.session],
        ..GcRequest::default()
    };
    run(&world.context(), &request).unwrap();
    assert!(!any_left_of(&world, &key));
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
fn a_full_store_is_emptied_before_anything_is_written() {
    let world = World::new(1000);
    let first = world.point(&[10, 10], None, &[]);
    let second = world.point(&[4], Some(&first), &ordinals(&first, 1, 6..8));
    world.store.delete(&name::copy(&second.key)).unwrap();
    world.forget(&first);
    unfinished(&world, 1);
    let full = [Operation::Put, Operation::Create]
        .map(|operation| Rule::always(operation, "/", Fault::Fail(ErrorKind::NoSpace)));
    let report = collect_over(&world, full).unwrap();
    assert_eq!(
        (
            report.points_purged,
            report.segments_deleted,
            report.segments_rewritten
        ),
        (1, 1, 0)
    );
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.contains("too full")),
        "{:?}",
        report.warnings
    );
    world::Judge::default().check(&world, &second.key).unwrap();
    assert_eq!(
        collect(&world).segments_rewritten,
        1,
        "as soon as there is room"
    );
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
fn a_chunk_that_is_misread_keeps_its_segment() {
    let world = World::new(1000);
    let first = world.point(&[10, 10], None, &[]);
    let second = world.point(&[4], Some(&first), &ordinals(&first, 1, 2..4));
    world.forget(&first);
    let segment = name::segment(ordinals(&first, 1, 0..1)[0].segment, 0);
    // The first request of a segment brings its directory.
    let misread = Rule::nth(Operation::Get, &segment, 1, Fault::Corrupt(100));
    let report = collect_over(&world, [misread]).unwrap();
    assert_eq!(report.segments_rewritten, 0);
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.contains(&segment)),
        "{:?}",
        report.warnings
    );
    world::Judge::default().check(&world, &second.key).unwrap();
}

#[test]
fn a_kill_between_any_two_requests_leaves_work_for_the_next_run_only() {
    for kill_at in (0..400).step_by(7) {
        let world = World::new(1000);
        let first = world.point(&[10, 10], None, &[]);
        let second = world.point(&[4], Some(&first), &ordinals(&first, 1, 2..6));
        world.forget(&first);
        unfinished(&world, 1);
        world
            .store
            .set_time(world.store.time() + Duration::from_secs(1_000_000));
        let killed = Rule {
            operation: None,
            name: String::new(),
            calls: kill_at..u64::MAX,
            fault: Fault::Fail(ErrorKind::Interrupted),
        };
        let ended = collect_over(&world, [killed]).is_ok();
        world::Judge::default().check(&world, &second.key).unwrap();
        collect(&world);
        world::Judge::default().check(&world, &second.key).unwrap();
        assert_eq!(world.valid(), [second.key]);
        collect(&world);
        let orphans = world
            .objects()
            .into_iter()
            .filter(|name| name.contains(&first.key.session.to_string()));
        assert!(orphans.count() <= 1, "the segment that is still used");
        if ended {
            return;
        }
    }
    panic!("a run takes fewer requests than that");
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
