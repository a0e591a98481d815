//! Which points of a volume a policy keeps, and why.
//!
//! ```text
//!   points of one volume ─┐
//!   policy ───────────────┼─► judge ─► keep | drop of every point, with the reason of every rule
//!   now ──────────────────┘
//! ```
//!
//! Owns: the rules. Must not: read stores or clocks, or forget anything: it only judges.
//!
//! What always holds, whatever the clocks of the machines that took the points did:
//!
//! - The newest intact point of a volume is kept, and the newest that is not fuzzy. Newest is the highest (sequence, id),
//!   never the latest time.
//! - A damaged point is never dropped, and never kept in place of an intact one: rules do not see it.
//! - The judgement depends on the set of points, not on their order, and judging what was kept drops nothing more.

mod calendar;
mod reason;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use calendar::Span;
pub use reason::Reason;

use super::ids::{Sequence, SessionId, SessionKey};
use crate::error::{Error, ErrorKind, Result};

/// A jump of the clock beyond this between the newest point and all others is believed only once another point confirms it: a wrong
/// clock must not make all older points look expired at once.
const CLOCK_JUMP_MILLIS: i64 = 365 * 24 * 3600 * 1000;

/// What to keep. Rules add up: a point is kept if any of them keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// This many newest points.
    pub last: u32,
    /// The newest point of each of so many hours, days, weeks, months and years that have points.
    pub spans: BTreeMap<Span, u32>,
    /// Every point at most this much older than the newest.
    pub within: Option<Duration>,
    /// Every point that carries one of these tags.
    pub tags: Vec<TagRule>,
}

/// A tag that keeps a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRule {
    /// Its key.
    pub key: String,
    /// Its value; any where none is given.
    pub value: Option<String>,
}

impl TagRule {
    /// Whether a point with these tags is kept.
    #[must_use]
    pub fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        tags.get(&self.key)
            .is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

impl std::fmt::Display for TagRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

impl Policy {
    /// Refuses a policy without a rule that can keep anything.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn check(&self) -> Result<()> {
        let keeps = self.last > 0
            || self.spans.values().any(|count| *count > 0)
            || self.within.is_some_and(|within| !within.is_zero())
            || !self.tags.is_empty();
        if keeps {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::InvalidRequest, "refuse a policy that keeps nothing")
                .hint("give at least one --keep-… above zero; to forget all points of a volume, name them by their ids"),
        )
    }

    /// Whether some rule keeps points of every volume. A policy of tags alone may keep none of one.
    #[must_use]
    pub fn keeps_of_every_volume(&self) -> bool {
        Self {
            tags: Vec::new(),
            ..self.clone()
        }
        .check()
        .is_ok()
    }
}

/// What is known about a point's soundness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It can be restored, and its source did not change while it was read.
    Intact,
    /// It can be restored, but its source changed while it was read.
    Fuzzy,
    /// The store lost or damaged something of it.
    Damaged,
}

/// A point to be judged.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// What its objects are named by.
    pub key: SessionKey,
    /// When its source was read, by the clock of the machine that did; in milliseconds since 1970.
    pub created_unix_millis: i64,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
    /// Whether it can be relied on.
    pub condition: Condition,
}

/// Place in a volume's history.
type Rank = (Sequence, SessionId);

impl Candidate<'_> {
    fn rank(&self) -> Rank {
        (self.key.sequence, self.key.session)
    }

    fn counts(&self) -> bool {
        self.condition != Condition::Damaged
    }
}

/// What a policy says about one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The point.
    pub key: SessionKey,
    /// Whether it stays.
    pub keep: bool,
    /// Of a point that stays, every rule that keeps it; of another, why no rule does. Never empty.
    pub reasons: Vec<Reason>,
}

/// Judges all points of one volume, none of them forgotten before. Gives verdicts in the order of the volume's history.
#[must_use]
pub fn judge(policy: &Policy, points: &[Candidate<'_>], now_unix_millis: i64) -> Vec<Verdict> {
    let mut newest_first: Vec<&Candidate<'_>> = points.iter().collect();
    newest_first.sort_by_key(|point| std::cmp::Reverse(point.rank()));
    newest_first.dedup_by_key(|point| point.rank());
    let counted: Vec<&Candidate<'_>> = newest_first
        .iter()
        .copied()
        .filter(|point| point.counts())
        .collect();
    let judge = Judge::new(policy, counted, now_unix_millis);
    newest_first
        .iter()
        .rev()
        .map(|point| judge.verdict(point))
        .collect()
}

/// The points of a volume seen through every rule.
struct Judge<'a> {
    policy: &'a Policy,
    /// Undamaged points, newest first.
    counted: Vec<&'a Candidate<'a>>,
    /// The newest point of each bucket, and which buckets are kept.
    buckets: BTreeMap<Span, Buckets>,
    /// The time that `within` is measured from.
    reference: i64,
    /// Whether that time is too far ahead of all other points to be believed.
    is_jump: bool,
}

/// One calendar rule.
struct Buckets {
    newest: BTreeMap<i64, Rank>,
    kept: BTreeSet<i64>,
}

impl Buckets {
    /// Buckets count in the order of history, so that a point from a clock that was wrong uses up one of them and ages with
    /// its neighbours.
    fn new(span: Span, count: u32, counted: &[&Candidate<'_>]) -> Self {
        let mut newest = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        for point in counted {
            let bucket = span.bucket(point.created_unix_millis);
            newest.entry(bucket).or_insert_with(|| point.rank());
            if kept.len() < count {
                kept.insert(bucket);
            }
        }
        Self { newest, kept }
    }
}

impl<'a> Judge<'a> {
    fn new(policy: &'a Policy, counted: Vec<&'a Candidate<'a>>, now: i64) -> Self {
        let buckets = policy
            .spans
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(span, count)| (*span, Buckets::new(*span, *count, &counted)))
            .collect();
        // The newest point's time, so that a volume that rests loses nothing; but no time that is still to come.
        let reference = counted
            .first()
            .map_or(now, |newest| newest.created_unix_millis.min(now));
        let others = counted
            .iter()
            .skip(1)
            .map(|point| point.created_unix_millis);
        let is_jump = others
            .max()
            .is_some_and(|latest| reference.saturating_sub(latest) > CLOCK_JUMP_MILLIS);
        Self {
            policy,
            counted,
            buckets,
            reference,
            is_jump,
        }
    }

    fn verdict(&self, point: &Candidate<'_>) -> Verdict {
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        if point.counts() {
            self.judge_protection(point, &mut kept);
            let mut note = |keeps: bool, reason| {
                if keeps {
                    kept.push(reason);
                } else {
                    dropped.push(reason);
                }
            };
            self.judge_last(point, &mut note);
            self.judge_spans(point, &mut note);
            self.judge_within(point, &mut note);
            self.judge_tags(point, &mut note);
        } else {
            kept.push(Reason::Damaged);
        }
        let keep = !kept.is_empty();
        Verdict {
            key: point.key,
            keep,
            reasons: if keep { kept } else { dropped },
        }
    }

    fn judge_protection(&self, point: &Candidate<'_>, kept: &mut Vec<Reason>) {
        let is = |other: Option<&&Candidate<'_>>| other.is_some_and(|o| o.rank() == point.rank());
        if is(self.counted.first()) {
            kept.push(Reason::Newest);
        } else if is(self.newest_consistent()) {
            kept.push(Reason::NewestConsistent);
        }
    }

    fn newest_consistent(&self) -> Option<&&'a Candidate<'a>> {
        self.counted
            .iter()
            .find(|point| point.condition == Condition::Intact)
    }

    fn judge_last(&self, point: &Candidate<'_>, note: &mut dyn FnMut(bool, Reason)) {
        let limit = self.policy.last;
        if limit == 0 {
            return;
        }
        let oldest_kept = usize::try_from(limit - 1)
            .ok()
            .and_then(|index| self.counted.get(index));
        if oldest_kept.is_none_or(|oldest| point.rank() >= oldest.rank()) {
            note(true, Reason::Last(limit));
        } else {
            note(false, Reason::NotLast(limit));
        }
    }

    fn judge_spans(&self, point: &Candidate<'_>, note: &mut dyn FnMut(bool, Reason)) {
        for (span, buckets) in &self.buckets {
            let bucket = span.bucket(point.created_unix_millis);
            let is_newest = buckets.newest.get(&bucket) == Some(&point.rank());
            let limit = self.policy.spans.get(span).copied().unwrap_or_default();
            match (buckets.kept.contains(&bucket), is_newest) {
                (true, true) => note(true, Reason::Bucket(*span, bucket)),
                (true, false) => note(false, Reason::NotNewestOf(*span, bucket)),
                (false, _) => note(false, Reason::OldBucket(*span, limit)),
            }
        }
    }

    fn judge_within(&self, point: &Candidate<'_>, note: &mut dyn FnMut(bool, Reason)) {
        let Some(within) = self.policy.within.filter(|within| !within.is_zero()) else {
            return;
        };
        let age = i128::from(self.reference) - i128::from(point.created_unix_millis);
        let limit = i128::try_from(within.as_millis()).unwrap_or(i128::MAX);
        if age > limit && !self.is_jump {
            return note(false, Reason::NotWithin(within));
        }
        note(
            true,
            if age > limit {
                Reason::ClockJump
            } else if age < 0 {
                Reason::Ahead(within)
            } else {
                Reason::Within(within)
            },
        );
    }

    fn judge_tags(&self, point: &Candidate<'_>, note: &mut dyn FnMut(bool, Reason)) {
        let matching: Vec<&TagRule> = self
            .policy
            .tags
            .iter()
            .filter(|rule| rule.matches(point.tags))
            .collect();
        for rule in &matching {
            note(true, Reason::Tag(rule.to_string()));
        }
        if matching.is_empty() && !self.policy.tags.is_empty() {
            note(false, Reason::NotTagged);
        }
    }
}

#[cfg(test)]
mod tests;
