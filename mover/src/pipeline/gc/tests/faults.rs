//! What each fault changes: nothing that is needed goes, and it is said what is wrong.

use super::*;

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
fn a_copy_that_comes_after_the_purge_of_its_point_is_taken_back() {
    let world = World::new(1000);
    let [purged, lost] = [(), ()].map(|()| world.point(&[3], None, &[]));
    for (point, is_purged) in [(&purged, true), (&lost, false)] {
        let copy = name::copy(&point.key);
        world.store.delete(&copy).unwrap();
        let gate = Arc::new(Gate::default());
        let stalled = Rule::always(Operation::Put, &copy, Fault::Stall(Arc::clone(&gate)));
        std::thread::scope(|scope| {
            let late = scope.spawn(|| collect_over(&world, [stalled]));
            gate.wait_for(1);
            if is_purged {
                world.forget(point);
                collect(&world);
            } else {
                // The store lost it: the copy is all that says so.
                world.store.delete(&name::open(&point.key)).unwrap();
            }
            gate.open();
            drop(late.join().unwrap());
        });
        assert_eq!(world.has(&copy), !is_purged);
    }
    assert!(!any_left_of(&world, &purged.key));
}
