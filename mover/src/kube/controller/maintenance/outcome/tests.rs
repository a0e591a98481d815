use super::*;
use crate::error::ErrorKind;
use crate::pipeline::report::{VerifyFinding, VerifyReport};

fn at(second: i64) -> Moment {
    Moment {
        now: Timestamp::from_second(second).unwrap(),
        generation: Some(3),
    }
}

fn verified(hurt: &[&str], still: &[&str], all_data: bool) -> Result<Done> {
    let finding = |point: &&str| VerifyFinding {
        kind: "damaged".to_owned(),
        object: "seg/1".to_owned(),
        message: "wrong bytes".to_owned(),
        volume: Some("c/ns/db".to_owned()),
        points: vec![(*point).to_owned()],
        ranges: Vec::new(),
    };
    Ok(Done::Verify(Verified {
        report: VerifyReport {
            errors: hurt.iter().map(finding).collect(),
            ..VerifyReport::default()
        },
        all_data,
        still_there: still.iter().map(|&point| point.to_owned()).collect(),
    }))
}

fn step(status: &mut Status, task: Task, outcome: &Result<Done>, second: i64) -> Option<Note> {
    *status = begun(status, task, at(second).now);
    let (next, note) = ended(status, task, outcome, at(second + 1));
    *status = next;
    note
}

fn health(status: &Status) -> (String, Option<Reason>) {
    let condition = conditions::find(&status.conditions, HEALTHY).unwrap();
    (
        condition.status.clone(),
        conditions::reason(&status.conditions, HEALTHY),
    )
}

fn is(word: &str, reason: Reason) -> (String, Option<Reason>) {
    (word.to_owned(), Some(reason))
}

fn unreachable() -> Result<Done> {
    Err(Error::new(ErrorKind::Unavailable, "list objects").hint("start the server"))
}

#[test]
fn damage_is_forgotten_only_when_it_is_gone_or_everything_was_read() {
    let mut status = Status::default();
    assert!(step(&mut status, Task::Verify, &verified(&[], &[], false), 1).is_none());
    assert_eq!(health(&status), is("True", Reason::Verified));
    let note = step(&mut status, Task::Verify, &verified(&["a"], &[], false), 10).unwrap();
    assert!(note.warning && note.message.contains("c/ns/db"), "{note:?}");
    assert_eq!(health(&status), is("False", Reason::DamageFound));
    assert_eq!(status.damaged_points, ["a"]);
    // Another sample looks elsewhere: it finds other damage, then nothing.
    step(
        &mut status,
        Task::Verify,
        &verified(&["b"], &["a"], false),
        20,
    );
    step(
        &mut status,
        Task::Verify,
        &verified(&[], &["a", "b"], false),
        30,
    );
    assert_eq!(health(&status), is("False", Reason::DamageFound));
    assert_eq!(status.damaged_point_count, Some(2));
    let message = &conditions::find(&status.conditions, HEALTHY)
        .unwrap()
        .message;
    assert!(
        message.contains("a b") && message.contains("verifyLevel"),
        "{message}"
    );
    // One was deleted, the other mended.
    step(&mut status, Task::Verify, &verified(&[], &["b"], false), 40);
    assert_eq!(status.damaged_points, ["b"]);
    step(&mut status, Task::Verify, &verified(&[], &["b"], true), 50);
    assert_eq!(health(&status), is("True", Reason::Verified));
    assert_eq!(status.damaged_point_count, None);
}

#[test]
fn points_that_are_too_many_to_be_listed_are_not_forgotten() {
    let mut status = Status::default();
    let many: Vec<String> = (0..70).map(|n| format!("p{n:02}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    step(&mut status, Task::Verify, &verified(&many, &[], false), 1);
    assert_eq!(status.damaged_points.len(), LISTED);
    assert_eq!(status.damaged_point_count, Some(70));
    step(&mut status, Task::Verify, &verified(&[], &[], false), 10);
    assert_eq!(health(&status), is("False", Reason::DamageFound));
    step(&mut status, Task::Verify, &verified(&[], &[], true), 20);
    assert_eq!(health(&status), is("True", Reason::Verified));
}

#[test]
fn failures_are_counted_and_say_why() {
    let mut status = Status::default();
    step(&mut status, Task::Verify, &verified(&[], &[], false), 1);
    let completed = status.last_verify.clone().unwrap().completed;
    for failures in 1..=3 {
        let note = step(&mut status, Task::Verify, &unreachable(), 10 * failures).unwrap();
        assert!(
            note.message.ends_with("list objects; start the server"),
            "{note:?}"
        );
        let run = status.last_verify.clone().unwrap();
        assert_eq!((run.failures, run.succeeded), (failures, false));
        // What the last whole run brought stays.
        assert_eq!((run.findings, &run.completed), (Some(0), &completed));
    }
    assert_eq!(health(&status), is("Unknown", Reason::MaintenanceFailed));
    step(&mut status, Task::Verify, &verified(&[], &[], false), 50);
    assert_eq!(health(&status), is("True", Reason::Verified));
}

#[test]
fn a_run_that_took_its_process_with_it_failed() {
    let mut status = begun(&Status::default(), Task::Gc, at(1).now);
    assert_eq!(status.last_gc.as_ref().unwrap().failures, 0);
    status = begun(&status, Task::Gc, at(2).now);
    status = begun(&status, Task::Gc, at(3).now);
    assert_eq!(status.last_gc.as_ref().unwrap().failures, 2);
    let (status, note) = ended(&status, Task::Gc, &Ok(Done::Gc(GcReport::default())), at(4));
    assert_eq!(status.last_gc.as_ref().unwrap().failures, 0);
    assert!(note.is_none(), "nothing was done: {note:?}");
    assert_eq!(health(&status), is("Unknown", Reason::NotVerified));
}

#[test]
fn a_collection_says_what_it_freed_and_what_it_could_not() {
    let mut status = Status::default();
    let report = GcReport {
        points_purged: 2,
        freed_bytes: 7,
        dead_bytes_left: 5,
        ..GcReport::default()
    };
    let note = step(&mut status, Task::Gc, &Ok(Done::Gc(report.clone())), 1).unwrap();
    assert!(
        !note.warning && note.message.contains("freed 7 bytes"),
        "{note:?}"
    );
    assert_eq!(
        (status.dead_bytes, status.unfinished_sessions),
        (Some(5), Some(0))
    );
    assert_eq!(status.last_gc.as_ref().unwrap().freed_bytes, Some(7));
    let damaged = GcReport {
        damaged: vec!["p1".to_owned()],
        refused: 3,
        ..report
    };
    let note = step(&mut status, Task::Gc, &Ok(Done::Gc(damaged)), 10).unwrap();
    assert!(note.warning && note.message.contains("p1"), "{note:?}");
    assert!(note.message.contains("refused to delete 3"), "{note:?}");
    assert_eq!(health(&status), is("False", Reason::DamageFound));
}

#[test]
fn what_is_turned_off_is_not_announced() {
    let mut status = Status::default();
    let settings = Maintenance {
        verify_interval: "0s".to_owned(),
        ..Maintenance::default()
    };
    schedule(&mut status, &settings, at(0).now, at(10).now);
    assert_eq!(status.next_gc, Some(Time(at(3600).now)));
    assert_eq!(status.next_verify, None);
}
