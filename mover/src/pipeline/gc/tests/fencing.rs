//! Who is given up, and by whom.

use super::*;

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
fn a_forgotten_point_that_lost_its_slot_is_named_and_freed_by_a_person() {
    let world = World::new(1000);
    let point = world.point(&[3], None, &[]);
    world.forget(&point);
    world.store.delete(&name::slot(&point.key)).unwrap();
    for _ in 0..2 {
        let report = collect(&world);
        let command = format!("gc --abort {}", point.key.session);
        assert!(
            report.warnings.iter().any(|line| line.contains(&command)),
            "{:?}",
            report.warnings
        );
        assert!(any_left_of(&world, &point.key));
    }
    let request = GcRequest {
        abort: vec![point.key.session],
        ..GcRequest::default()
    };
    let report = run(&world.context(), &request).unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(world.objects(), Vec::<String>::new());
}
