//! Choices and refusals against a repository in a directory; nothing may be forgotten where anything is refused.

use std::sync::Arc;

use super::*;
use crate::pipeline::testing::{Bed, Layout};
use crate::repository::ids::name;
use crate::repository::retention::TagRule;
use crate::repository::session::forget::read_tomb;
use crate::repository::store::faulty::{Fault, FaultyStore, Operation, Rule};

const DAY: i64 = 24 * 3600 * 1000;
const TODAY: i64 = 20_778 * DAY;

/// A point of `volume`, taken so many days ago, with these tags.
fn point(bed: &Bed, volume: &str, days_ago: i64, tags: &[(&str, &str)]) -> SessionKey {
    let key = bed.point(volume, &[], Layout::default());
    let mut manifest = points::load(&bed.repository, &key)
        .unwrap()
        .unwrap()
        .manifest;
    manifest.created_unix_millis = TODAY - days_ago * DAY;
    manifest.tags = tags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let object = manifest.seal(&bed.repository.keys).unwrap();
    for object_name in [name::slot(&key), name::copy(&key)] {
        bed.repository.store.delete(&object_name).unwrap();
        bed.repository
            .store
            .put(&object_name, object.clone())
            .unwrap();
    }
    key
}

fn policy(volume: Option<&str>, policy: Policy) -> ForgetRequest {
    ForgetRequest {
        selection: Selection::Policy {
            volume: volume.map(str::to_owned),
            policy,
        },
        dry_run: false,
        now_unix_millis: TODAY,
    }
}

fn last(count: u32) -> Policy {
    Policy {
        last: count,
        ..Policy::default()
    }
}

fn tagged(key: &str, value: Option<&str>) -> Policy {
    Policy {
        tags: vec![TagRule {
            key: key.to_owned(),
            value: value.map(str::to_owned),
        }],
        ..Policy::default()
    }
}

fn named(texts: &[&str]) -> ForgetRequest {
    ForgetRequest {
        selection: Selection::Points(texts.iter().map(|text| (*text).to_owned()).collect()),
        dry_run: false,
        now_unix_millis: TODAY,
    }
}

fn keys(judged: &[Judged]) -> Vec<SessionKey> {
    judged.iter().map(|judged| judged.key).collect()
}

#[test]
fn a_policy_sees_each_volume_on_its_own() {
    let bed = Bed::new();
    let a: Vec<_> = (0..3).map(|n| point(&bed, "a", 3 - n, &[])).collect();
    let b: Vec<_> = (0..2).map(|n| point(&bed, "b", 300 - n, &[])).collect();
    let dry = ForgetRequest {
        dry_run: true,
        ..policy(None, last(1))
    };
    let planned = run(&bed.repository, &dry).unwrap();
    assert!(bed.objects("tomb/").is_empty(), "a dry run forgot points");
    let done = run(&bed.repository, &policy(None, last(1))).unwrap();
    assert!(done.failure.is_none());
    assert_eq!(keys(&done.forgotten), [a[0], a[1], b[0]]);
    assert_eq!(keys(&planned.forgotten), keys(&done.forgotten));
    assert_eq!(keys(&done.kept), [a[2], b[1]]);
    assert_eq!(done.kept[1].volume.as_deref(), Some("b"));
    assert_eq!(bed.objects("tomb/").len(), 3);
    let tomb = read_tomb(&bed.repository, &a[0]).unwrap().unwrap();
    assert_eq!(
        (tomb.why.as_str(), tomb.unix_secs),
        ("not of the last 1", TODAY / 1000)
    );
    // The same policy again has nothing to do.
    let again = run(&bed.repository, &policy(None, last(1))).unwrap();
    assert!(again.forgotten.is_empty());
    assert_eq!(keys(&again.kept), [a[2], b[1]]);
}

#[test]
fn a_volume_may_be_named_and_must_exist() {
    let bed = Bed::new();
    for volume in ["a", "a", "b", "b"] {
        point(&bed, volume, 1, &[]);
    }
    let done = run(&bed.repository, &policy(Some("b"), last(1))).unwrap();
    assert_eq!((done.forgotten.len(), done.kept.len()), (1, 1));
    let error = run(&bed.repository, &policy(Some("c"), last(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn tags_must_be_known_and_must_keep_something_of_every_volume() {
    let bed = Bed::new();
    point(&bed, "a", 3, &[("release", "1")]);
    point(&bed, "a", 2, &[]);
    point(&bed, "a", 1, &[]);
    for unknown in [tagged("relaese", None), tagged("release", Some("2"))] {
        let error = run(&bed.repository, &policy(None, unknown)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.hint_text().unwrap().contains("release=1"), "{error}");
    }
    point(&bed, "b", 2, &[]);
    point(&bed, "b", 1, &[]);
    let error = run(&bed.repository, &policy(None, tagged("release", None))).unwrap_err();
    assert!(error.message().contains("nothing of volume `b`"), "{error}");
    assert!(bed.objects("tomb/").is_empty());
    let done = run(&bed.repository, &policy(Some("a"), tagged("release", None))).unwrap();
    assert_eq!((done.forgotten.len(), done.kept.len()), (1, 2));
}

#[test]
fn points_are_named_all_or_none() {
    let bed = Bed::new();
    let (first, second) = (point(&bed, "a", 2, &[]), point(&bed, "a", 1, &[]));
    let id = |key: &SessionKey| key.point().to_string();
    let other = Bed::new();
    let foreign = id(&point(&other, "a", 1, &[]));
    for (wrong, kind) in [
        ("0123456789abcdef-01234567", ErrorKind::NotFound),
        ("nobody@latest", ErrorKind::NotFound),
        ("xyz", ErrorKind::InvalidRequest),
        (foreign.as_str(), ErrorKind::NotFound),
    ] {
        let error = run(&bed.repository, &named(&[&id(&first), wrong])).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(bed.objects("tomb/").is_empty(), "{wrong}");
    }
    let error = run(&bed.repository, &named(&[&foreign])).unwrap_err();
    assert!(error.hint_text().unwrap().contains("--repo"), "{error}");
    // The same point by two names is one point; the newest may be forgotten by its id, and the user is told.
    let done = run(&bed.repository, &named(&[&id(&second), "a@latest"])).unwrap();
    assert_eq!(keys(&done.forgotten), [second]);
    assert!(
        done.warnings[0].contains("was the newest of volume a"),
        "{:?}",
        done.warnings
    );
    let done = run(&bed.repository, &named(&[&id(&second), &id(&first)])).unwrap();
    assert_eq!(
        (keys(&done.forgotten), done.already),
        (vec![first], vec![second])
    );
    assert!(
        done.warnings[0].contains("no intact point left"),
        "{:?}",
        done.warnings
    );
}

#[test]
fn points_that_cannot_be_read_stay_unless_they_are_named() {
    let bed = Bed::new();
    let lost = point(&bed, "a", 9, &[]);
    let slotless = point(&bed, "a", 8, &[]);
    let good = point(&bed, "a", 7, &[]);
    for object in [name::slot(&lost), name::copy(&lost)] {
        crate::pipeline::testing::flip(&bed.object(&object), 80);
    }
    bed.repository.store.delete(&name::slot(&slotless)).unwrap();
    let done = run(&bed.repository, &policy(None, last(1))).unwrap();
    assert!(done.forgotten.is_empty());
    assert_eq!(keys(&done.kept), [lost, slotless, good]);
    assert!(done.kept[0].point.is_none() && done.kept[0].reasons[0].starts_with("damaged"));
    let id = lost.point().to_string();
    let done = run(
        &bed.repository,
        &named(&[&id, &slotless.point().to_string()]),
    )
    .unwrap();
    assert_eq!(keys(&done.forgotten), [lost, slotless]);
    assert!(done.warnings.is_empty(), "{:?}", done.warnings);
}

#[test]
fn a_store_that_fails_half_way_keeps_what_was_ordered() {
    let bed = Bed::new();
    let all: Vec<_> = (0..6).map(|n| point(&bed, "a", 6 - n, &[])).collect();
    let faulty = FaultyStore::new(Arc::clone(&bed.repository.store));
    faulty.add(Rule::nth(
        Operation::Create,
        "tomb/",
        2,
        Fault::Fail(ErrorKind::Unavailable),
    ));
    let context = bed.context_over(Arc::new(faulty));
    let done = run(&context.repository, &policy(None, last(1))).unwrap();
    let failure = done.failure.unwrap();
    assert_eq!(failure.kind(), ErrorKind::Unavailable);
    assert!(failure.hint_text().unwrap().contains("again"), "{failure}");
    assert_eq!(bed.objects("tomb/").len(), done.forgotten.len());
    let done = run(&bed.repository, &policy(None, last(1))).unwrap();
    assert!(done.failure.is_none());
    assert_eq!(bed.objects("tomb/").len(), all.len() - 1);
}

#[test]
fn a_store_that_only_lists_and_reads_can_be_planned_for() {
    let bed = Bed::new();
    for days in [2, 1] {
        point(&bed, "a", days, &[]);
    }
    let faulty = FaultyStore::new(Arc::clone(&bed.repository.store));
    for operation in [
        Operation::Put,
        Operation::PutOnce,
        Operation::Create,
        Operation::Delete,
    ] {
        faulty.add(Rule::always(
            operation,
            "",
            Fault::Fail(ErrorKind::AccessDenied),
        ));
    }
    let context = bed.context_over(Arc::new(faulty));
    let dry = ForgetRequest {
        dry_run: true,
        ..policy(None, last(1))
    };
    assert_eq!(run(&context.repository, &dry).unwrap().forgotten.len(), 1);
    let done = run(&context.repository, &policy(None, last(1))).unwrap();
    assert_eq!(done.failure.unwrap().kind(), ErrorKind::AccessDenied);
    assert!(done.forgotten.is_empty());
}
