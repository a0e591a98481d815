//! The claims of the module, each against points whose clocks lie, and every rule against a naive reading of it.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::repository::ids::VolumeId;

const DAY: i64 = 24 * 3600 * 1000;
/// 2026-11-21T00:00:00Z.
const TODAY: i64 = 20_778 * DAY;

/// A point that owns what a candidate borrows.
#[derive(Clone, Debug)]
struct Owned {
    sequence: u32,
    session: u8,
    created: i64,
    tags: BTreeMap<String, String>,
    condition: Condition,
}

impl Owned {
    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            key: SessionKey {
                volume: VolumeId([1; 16]),
                sequence: Sequence(self.sequence),
                session: SessionId([self.session; 16]),
            },
            created_unix_millis: self.created,
            tags: &self.tags,
            condition: self.condition,
        }
    }
}

/// A point a day, the last of them taken `TODAY`.
fn daily(count: u32) -> Vec<Owned> {
    (0..count)
        .map(|n| point(n, TODAY - i64::from(count - 1 - n) * DAY))
        .collect()
}

fn point(sequence: u32, created: i64) -> Owned {
    Owned {
        sequence,
        session: 0,
        created,
        tags: BTreeMap::new(),
        condition: Condition::Intact,
    }
}

fn verdicts(policy: &Policy, points: &[Owned], now: i64) -> Vec<Verdict> {
    let candidates: Vec<_> = points.iter().map(Owned::candidate).collect();
    judge(policy, &candidates, now)
}

/// Sequences that stay.
fn kept(policy: &Policy, points: &[Owned]) -> Vec<u32> {
    kept_at(policy, points, TODAY)
}

fn kept_at(policy: &Policy, points: &[Owned], now: i64) -> Vec<u32> {
    verdicts(policy, points, now)
        .into_iter()
        .filter(|verdict| verdict.keep)
        .map(|verdict| verdict.key.sequence.0)
        .collect()
}

fn last(count: u32) -> Policy {
    Policy {
        last: count,
        ..Policy::default()
    }
}

fn span(span: Span, count: u32) -> Policy {
    Policy {
        spans: BTreeMap::from([(span, count)]),
        ..Policy::default()
    }
}

fn within(days: u64) -> Policy {
    Policy {
        within: Some(Duration::from_secs(days * 24 * 3600)),
        ..Policy::default()
    }
}

#[test]
fn policies_that_keep_nothing_are_refused() {
    for policy in [
        Policy::default(),
        last(0),
        span(Span::Day, 0),
        Policy {
            within: Some(Duration::ZERO),
            ..Policy::default()
        },
    ] {
        let error = policy.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.hint_text().unwrap().contains("--keep-"), "{error}");
    }
    for policy in [last(1), span(Span::Year, 1), within(1)] {
        policy.check().unwrap();
        assert!(policy.keeps_of_every_volume());
    }
    let tags = Policy {
        tags: vec![TagRule {
            key: "a".into(),
            value: None,
        }],
        ..Policy::default()
    };
    tags.check().unwrap();
    assert!(!tags.keeps_of_every_volume());
}

#[test]
fn each_rule_keeps_what_it_says() {
    let points = daily(30);
    assert_eq!(kept(&last(3), &points), [27, 28, 29]);
    assert_eq!(kept(&span(Span::Day, 2), &points), [28, 29]);
    // Today is a Saturday, so the Sundays 15 and 8 November end the weeks before.
    assert_eq!(kept(&span(Span::Week, 3), &points), [16, 23, 29]);
    // 31 October.
    assert_eq!(kept(&span(Span::Month, 5), &points), [8, 29]);
    assert_eq!(kept(&span(Span::Year, 5), &points), [29]);
    assert_eq!(kept(&within(3), &points), [26, 27, 28, 29]);
}

#[test]
fn tags_keep_by_key_and_by_value() {
    let mut points = daily(4);
    points[0].tags = BTreeMap::from([("release".into(), "1".into())]);
    points[1].tags = BTreeMap::from([("release".into(), "2".into())]);
    let by = |value: Option<&str>| Policy {
        tags: vec![TagRule {
            key: "release".into(),
            value: value.map(str::to_owned),
        }],
        ..Policy::default()
    };
    assert_eq!(kept(&by(None), &points), [0, 1, 3]);
    assert_eq!(kept(&by(Some("1")), &points), [0, 3]);
}

#[test]
fn every_rule_gives_its_reason() {
    let points = daily(3);
    let policy = Policy {
        last: 1,
        within: Some(Duration::from_secs(3600)),
        ..span(Span::Day, 2)
    };
    let text = |at: usize| {
        verdicts(&policy, &points, TODAY)[at]
            .reasons
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        text(2),
        [
            "newest of the volume",
            "last 1",
            "daily: 2026-11-21",
            "within 1h"
        ]
    );
    assert_eq!(text(1), ["daily: 2026-11-20"]);
    assert_eq!(
        text(0),
        [
            "not of the last 1",
            "daily: 2 younger days are kept",
            "older than 1h"
        ]
    );
}

#[test]
fn damaged_points_are_neither_dropped_nor_counted() {
    let mut points = daily(5);
    points[4].condition = Condition::Damaged;
    points[2].condition = Condition::Damaged;
    // 3 is the newest that can be restored; 4 and 2 wait for a person.
    assert_eq!(kept(&last(1), &points), [2, 3, 4]);
    assert_eq!(kept(&last(2), &points), [1, 2, 3, 4]);
    for point in &mut points {
        point.condition = Condition::Damaged;
    }
    assert_eq!(kept(&last(1), &points), [0, 1, 2, 3, 4]);
}

#[test]
fn fuzzy_points_count_but_never_take_the_place_of_the_last_good_one() {
    let mut points = daily(5);
    for point in &mut points[2..] {
        point.condition = Condition::Fuzzy;
    }
    assert_eq!(kept(&last(2), &points), [1, 3, 4]);
    let verdict = verdicts(&last(2), &points, TODAY).remove(1);
    assert_eq!(verdict.reasons[0], Reason::NewestConsistent);
}

#[test]
fn a_point_from_the_future_ages_with_its_neighbours() {
    let mut points = daily(20);
    points[10].created = TODAY + 73 * 365 * DAY;
    assert!(kept(&span(Span::Day, 12), &points).contains(&10));
    assert_eq!(kept(&span(Span::Day, 3), &points), [17, 18, 19]);
    assert_eq!(kept(&span(Span::Year, 1), &points), [19]);
    // By its own time it is younger than any limit: kept, and the reason says why.
    assert_eq!(kept(&within(1), &points), [10, 18, 19]);
    let verdict = verdicts(&within(1), &points, TODAY).remove(10);
    assert_eq!(
        verdict.reasons[0].to_string(),
        "within 1day: its time lies ahead"
    );
}

#[test]
fn a_clock_that_jumps_forward_expires_nothing_at_once() {
    let later = TODAY + 73 * 365 * DAY;
    let mut points = daily(10);
    points.push(point(10, later));
    // The machine that forgets is right about the time, or wrong in the same way.
    assert_eq!(kept_at(&within(2), &points, TODAY), [7, 8, 9, 10]);
    assert_eq!(kept_at(&within(2), &points, later), Vec::from_iter(0..=10));
    // A second point from there confirms that years went by.
    points.push(point(11, later + DAY));
    assert_eq!(kept_at(&within(2), &points, later + DAY), [10, 11]);
    // Only the machine that forgets is wrong: the newest point says what time it is.
    assert_eq!(kept_at(&within(2), &daily(10), later), [7, 8, 9]);
}

#[test]
fn a_clock_that_jumps_back_expires_nothing() {
    let mut points = daily(10);
    points.push(point(10, 0));
    assert_eq!(kept(&within(2), &points), Vec::from_iter(0..=10));
    assert_eq!(kept(&last(1), &points), [10]);
    assert_eq!(kept(&span(Span::Day, 2), &points), [9, 10]);
    assert_eq!(kept_at(&within(2), &daily(10), 0), Vec::from_iter(0..10));
    // A day that is lived twice is one day, and its last point counts.
    points.push(point(11, TODAY));
    assert_eq!(kept(&span(Span::Day, 2), &points), [10, 11]);
}

#[test]
fn a_volume_that_rests_for_years_loses_nothing_more() {
    let ten_years_later = TODAY + 3653 * DAY;
    assert_eq!(kept_at(&within(2), &daily(10), ten_years_later), [7, 8, 9]);
}

fn times() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => TODAY - 400 * DAY..TODAY,
        1 => TODAY..TODAY + 40_000 * DAY,
        1 => 0..10 * DAY,
        1 => any::<i64>(),
    ]
}

fn points() -> impl Strategy<Value = Vec<Owned>> {
    let tags = btree_map("[ab]", "[12]", 0..2);
    let condition = prop_oneof![
        4 => Just(Condition::Intact),
        1 => Just(Condition::Fuzzy),
        1 => Just(Condition::Damaged),
    ];
    let point = (0_u32..40, any::<u8>(), times(), tags, condition);
    vec(point, 0..40).prop_map(|points| {
        let mut seen = BTreeSet::new();
        points
            .into_iter()
            .map(|(sequence, session, created, tags, condition)| Owned {
                sequence,
                session,
                created,
                tags,
                condition,
            })
            .filter(|point| seen.insert((point.sequence, point.session)))
            .collect()
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let spans = btree_set(0_usize..5, 0..3).prop_flat_map(|spans| {
        let count = spans.len();
        vec(0_u32..6, count).prop_map(move |counts| {
            spans
                .iter()
                .map(|span| Span::ALL[*span])
                .zip(counts)
                .collect()
        })
    });
    let within =
        proptest::option::of((0_u64..500).prop_map(|days| Duration::from_secs(days * 86_400)));
    let tag =
        ("[abc]", proptest::option::of("[12]")).prop_map(|(key, value)| TagRule { key, value });
    (0_u32..5, spans, within, vec(tag, 0..2)).prop_map(|(last, spans, within, tags)| Policy {
        last,
        spans,
        within,
        tags,
    })
}

/// Each rule as its flag describes it, point by point and without any index.
fn naive(policy: &Policy, points: &[Owned], point: &Owned, now: i64) -> bool {
    let rank = |p: &Owned| (p.sequence, p.session);
    let sound: Vec<&Owned> = points
        .iter()
        .filter(|p| p.condition != Condition::Damaged)
        .collect();
    if point.condition == Condition::Damaged {
        return true;
    }
    let newer = |than: &Owned| sound.iter().filter(|p| rank(p) > rank(than)).count();
    let newest = sound.iter().max_by_key(|p| rank(p)).unwrap();
    let consistent = sound
        .iter()
        .filter(|p| p.condition == Condition::Intact)
        .max_by_key(|p| rank(p));
    let by_last = newer(point) < policy.last as usize;
    let by_span = policy.spans.iter().any(|(span, count)| {
        let bucket = |p: &Owned| span.bucket(p.created);
        let is_newest = sound
            .iter()
            .all(|p| bucket(p) != bucket(point) || rank(p) <= rank(point));
        let younger: BTreeSet<i64> = sound
            .iter()
            .filter(|p| rank(p) > rank(point) && bucket(p) != bucket(point))
            .map(|p| bucket(p))
            .collect();
        is_newest && younger.len() < *count as usize
    });
    let reference = newest.created.min(now);
    let others = sound.iter().filter(|p| rank(p) != rank(newest));
    let jump = others
        .map(|p| p.created)
        .max()
        .is_some_and(|t| i128::from(reference) - i128::from(t) > 365 * i128::from(DAY));
    let by_age = policy.within.is_some_and(|limit| {
        let age = i128::from(reference) - i128::from(point.created);
        !limit.is_zero() && (jump || age <= i128::try_from(limit.as_millis()).unwrap())
    });
    let by_tag = policy.tags.iter().any(|rule| {
        point.tags.iter().any(|(key, value)| {
            *key == rule.key && rule.value.as_ref().is_none_or(|wanted| wanted == value)
        })
    });
    let protected =
        rank(point) == rank(newest) || consistent.is_some_and(|p| rank(p) == rank(point));
    protected || by_last || by_span || by_age || by_tag
}

fn survivors(policy: &Policy, points: &[Owned], now: i64) -> Vec<Owned> {
    let kept: BTreeSet<_> = verdicts(policy, points, now)
        .into_iter()
        .filter(|verdict| verdict.keep)
        .map(|verdict| verdict.key)
        .collect();
    points
        .iter()
        .filter(|point| kept.contains(&point.candidate().key))
        .cloned()
        .collect()
}

proptest! {
    #[test]
    fn the_judgement_is_that_of_the_naive_reading(policy in policies(), points in points(), now in times()) {
        let judged = verdicts(&policy, &points, now);
        prop_assert_eq!(judged.len(), points.len());
        for verdict in judged {
            let point = points.iter().find(|p| p.candidate().key == verdict.key).unwrap();
            prop_assert_eq!(verdict.keep, naive(&policy, &points, point, now), "{:?}", verdict);
            prop_assert!(!verdict.reasons.is_empty() || policy.check().is_err());
        }
    }

    #[test]
    fn the_newest_of_a_volume_is_never_dropped(policy in policies(), points in points(), now in times()) {
        for wanted in [&[Condition::Intact, Condition::Fuzzy][..], &[Condition::Intact]] {
            let newest = |points: &[Owned]| {
                let sound = points.iter().filter(|p| wanted.contains(&p.condition));
                sound.map(|p| p.candidate().rank()).max()
            };
            prop_assert_eq!(newest(&survivors(&policy, &points, now)), newest(&points));
        }
    }

    #[test]
    fn damaged_points_stay_and_change_nothing(policy in policies(), points in points(), now in times()) {
        let sound: Vec<Owned> = points.iter().filter(|p| p.condition != Condition::Damaged).cloned().collect();
        let damaged = points.len() - sound.len();
        let expected = survivors(&policy, &sound, now).len() + damaged;
        prop_assert_eq!(survivors(&policy, &points, now).len(), expected);
    }

    #[test]
    fn order_does_not_matter(policy in policies(), points in points(), now in times(), turn in 0_usize..40) {
        let mut turned = points.clone();
        turned.rotate_left(turn.min(points.len()));
        turned.reverse();
        prop_assert_eq!(verdicts(&policy, &turned, now), verdicts(&policy, &points, now));
    }

    #[test]
    fn judging_what_was_kept_drops_nothing_more(policy in policies(), points in points(), now in times(), later in times()) {
        let once = survivors(&policy, &points, now);
        prop_assert_eq!(survivors(&policy, &once, now).len(), once.len());
        // A clock that goes on does not matter either, as long as no new point confirms it.
        let twice = survivors(&policy, &once, now.max(later));
        let newest = once.iter().filter(|p| p.condition != Condition::Damaged).max_by_key(|p| p.candidate().rank());
        if newest.is_none_or(|p| p.created <= now) {
            prop_assert_eq!(twice.len(), once.len());
        }
    }

    #[test]
    fn more_rules_keep_more(policy in policies(), more in policies(), points in points(), now in times()) {
        let both = Policy {
            last: policy.last.max(more.last),
            spans: policy.spans.clone(),
            within: policy.within,
            tags: [policy.tags.clone(), more.tags].concat(),
        };
        let few: BTreeSet<_> = survivors(&policy, &points, now).iter().map(|p| p.candidate().key).collect();
        let many: BTreeSet<_> = survivors(&both, &points, now).iter().map(|p| p.candidate().key).collect();
        prop_assert!(few.is_subset(&many));
    }
}
