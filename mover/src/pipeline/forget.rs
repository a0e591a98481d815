//! Forget: points chosen by name or by a policy get their forget orders.
//!
//! ```text
//!   ids ───────────► resolve all ─┐
//!                                 ├─► checks, nothing written ─► forget orders, oldest first ─► sync
//!   policy ─► list ─► judge each ─┘
//!             volume on its own
//! ```
//!
//! Owns: the choice, its refusals, and the orders. Must not: delete anything (gc does), or know flags.
//!
//! Nothing is forgotten if any argument is wrong. A run that fails half way is simply run again: orders are idempotent.

mod orders;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::PointState;
use crate::repository::ids::{SessionKey, VolumeId, to_hex};
use crate::repository::retention::{Candidate, Condition, Policy, judge};
use crate::repository::session::points::{self, Listing, Point, PointStatus};
use crate::repository::session::resolve::resolve;

/// Tags named in a hint.
const SHOWN_TAGS: usize = 8;

/// Which points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These, by id, unique prefix of one, or `NAME@latest`.
    Points(Vec<String>),
    /// Those that a policy does not keep.
    Policy {
        /// Of this volume; of each one where none is named.
        volume: Option<String>,
        /// What it keeps.
        policy: Policy,
    },
}

/// What to forget.
#[derive(Clone, Debug)]
pub struct ForgetRequest {
    /// Which points.
    pub selection: Selection,
    /// Whether only to say what would be forgotten.
    pub dry_run: bool,
    /// Now, in milliseconds since 1970.
    pub now_unix_millis: i64,
}

/// One point, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What its objects are named by.
    pub key: SessionKey,
    /// Name of its volume, where any point of it can be read.
    pub volume: Option<String>,
    /// The point; `None` where its manifest cannot be read.
    pub point: Option<Point>,
    /// Why, in words; never empty.
    pub reasons: Vec<String>,
}

/// What a run did, or would do.
#[derive(Debug, Default)]
pub struct ForgetOutcome {
    /// Points that are forgotten now, by volume and age.
    pub forgotten: Vec<Judged>,
    /// Points that a policy keeps, by volume and age.
    pub kept: Vec<Judged>,
    /// Points that were named and had been forgotten before.
    pub already: Vec<SessionKey>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What ended the run early. The orders that were given stand.
    pub failure: Option<Error>,
}

/// Forgets points, or says which it would forget.
///
/// # Errors
/// `InvalidRequest` for a policy that keeps nothing or a tag that no point has, `NotFound` for unknown points and volumes, and
/// what the store answers before the first order. Nothing is forgotten then.
pub fn run(repository: &Repository, request: &ForgetRequest) -> Result<ForgetOutcome> {
    let mut outcome = match &request.selection {
        Selection::Points(texts) => by_name(repository, texts)?,
        Selection::Policy { volume, policy } => {
            policy.check()?;
            by_policy(
                repository,
                volume.as_deref(),
                policy,
                request.now_unix_millis,
            )?
        }
    };
    if !request.dry_run {
        orders::give(repository, &mut outcome, request.now_unix_millis / 1000);
    }
    Ok(outcome)
}

fn by_name(repository: &Repository, texts: &[String]) -> Result<ForgetOutcome> {
    let mut outcome = ForgetOutcome::default();
    let mut seen = BTreeSet::new();
    for text in texts {
        let (key, point) = find(repository, text)?;
        if !seen.insert(key) {
            continue;
        }
        if point
            .as_ref()
            .is_some_and(|point| point.status == PointStatus::Forgotten)
        {
            outcome.already.push(key);
            continue;
        }
        outcome.forgotten.push(Judged {
            key,
            volume: point.as_ref().map(|point| point.manifest.volume.clone()),
            point,
            reasons: vec!["named".to_owned()],
        });
    }
    outcome.forgotten.sort_by_key(|judged| judged.key);
    warn_of_newest(repository, &mut outcome)?;
    Ok(outcome)
}

/// A point by its name; without its content where the manifest is lost: that may be why it is to be forgotten.
fn find(repository: &Repository, text: &str) -> Result<(SessionKey, Option<Point>)> {
    let error = match resolve(repository, text) {
        Ok(point) => return Ok((point.key, Some(point))),
        Err(error) => error,
    };
    match (error.kind(), text.split_once('-').unwrap_or((text, ""))) {
        (ErrorKind::Corrupt, (session, volume)) if !text.contains('@') => {
            let unreadable = points::list_prefix(repository, volume)?.unreadable;
            let mut matching = unreadable
                .into_iter()
                .filter(|(key, _)| to_hex(&key.session.0).starts_with(session));
            match (matching.next(), matching.next()) {
                (Some((key, _)), None) => Ok((key, None)),
                _ => Err(error),
            }
        }
        (ErrorKind::NotFound, (_, volume)) if volume.len() == 8 => {
            let known = points::list_prefix(repository, volume)?;
            if known.points.is_empty() && known.unreadable.is_empty() {
                return Err(error.hint(
                    "the repository has no volume of which this could be a point: check --repo, or see `snaphaul points`",
                ));
            }
            Err(error)
        }
        _ => Err(error),
    }
}

/// By its id even the newest point of a volume can be forgotten; whoever does that should know.
fn warn_of_newest(repository: &Repository, outcome: &mut ForgetOutcome) -> Result<()> {
    let named: BTreeSet<SessionKey> = outcome.forgotten.iter().map(|judged| judged.key).collect();
    let volumes: BTreeSet<VolumeId> = named.iter().map(|key| key.volume).collect();
    for volume in volumes {
        let sound: Vec<Point> = points::list(repository, Some(volume))?
            .points
            .into_iter()
            .filter(|point| point.status == PointStatus::Complete)
            .collect();
        let newest = sound
            .iter()
            .max_by_key(|point| (point.key.sequence, point.key.session));
        let Some(newest) = newest.filter(|newest| named.contains(&newest.key)) else {
            continue;
        };
        let left = sound.iter().filter(|p| !named.contains(&p.key)).count();
        let volume = &newest.manifest.volume;
        outcome.warnings.push(if left == 0 {
            format!("volume {volume} has no intact point left")
        } else {
            format!("point {} was the newest of volume {volume}", newest.id())
        });
    }
    Ok(())
}

fn by_policy(
    repository: &Repository,
    volume: Option<&str>,
    policy: &Policy,
    now: i64,
) -> Result<ForgetOutcome> {
    let id = volume.map(|name| repository.keys.volume_id(name));
    let listing = points::list(repository, id)?;
    if let Some(name) = volume.filter(|_| is_empty(&listing)) {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("find a point of volume `{name}`"),
        )
        .object(name)
        .hint("`snaphaul points` lists the volumes and their points"));
    }
    check_tags(policy, &listing)?;
    let mut outcome = ForgetOutcome::default();
    for (_, volume) in by_volume(listing) {
        judge_volume(policy, volume, now, &mut outcome)?;
    }
    Ok(outcome)
}

fn is_empty(listing: &Listing) -> bool {
    listing.points.is_empty() && listing.unreadable.is_empty()
}

/// A tag that no point carries is a slip of the pen, and would drop what it was meant to keep.
fn check_tags(policy: &Policy, listing: &Listing) -> Result<()> {
    let unknown = policy.tags.iter().find(|rule| {
        !listing
            .points
            .iter()
            .any(|point| rule.matches(&point.manifest.tags))
    });
    let Some(rule) = unknown.filter(|_| !listing.points.is_empty()) else {
        return Ok(());
    };
    let known: BTreeSet<String> = listing
        .points
        .iter()
        .flat_map(|point| &point.manifest.tags)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let shown: Vec<&str> = known.iter().map(String::as_str).take(SHOWN_TAGS).collect();
    let hint = match (shown.is_empty(), known.len() > SHOWN_TAGS) {
        (true, _) => "no point has a tag: `snaphaul backup --tag KEY=VALUE` sets one".to_owned(),
        (false, false) => format!("the points have the tags {}", shown.join(" ")),
        (false, true) => format!("the points have the tags {} and others", shown.join(" ")),
    };
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!("keep points by the tag `{rule}`: no point has it"),
    )
    .hint(hint))
}

/// The points of one volume that nobody forgot yet.
#[derive(Default)]
struct Volume {
    name: Option<String>,
    points: Vec<Point>,
    unreadable: Vec<SessionKey>,
}

fn by_volume(listing: Listing) -> BTreeMap<(Option<String>, VolumeId), Volume> {
    let mut volumes: BTreeMap<VolumeId, Volume> = BTreeMap::new();
    for point in listing.points {
        let volume = volumes.entry(point.key.volume).or_default();
        volume.name = Some(point.manifest.volume.clone());
        if point.status != PointStatus::Forgotten {
            volume.points.push(point);
        }
    }
    for (key, _) in listing.unreadable {
        volumes.entry(key.volume).or_default().unreadable.push(key);
    }
    volumes
        .into_iter()
        .map(|(id, volume)| ((volume.name.clone(), id), volume))
        .collect()
}

fn judge_volume(
    policy: &Policy,
    volume: Volume,
    now: i64,
    outcome: &mut ForgetOutcome,
) -> Result<()> {
    let no_tags = BTreeMap::new();
    let readable = volume.points.iter().map(candidate);
    let unreadable = volume.unreadable.iter().map(|key| Candidate {
        key: *key,
        created_unix_millis: 0,
        tags: &no_tags,
        condition: Condition::Damaged,
    });
    let candidates: Vec<Candidate<'_>> = readable.chain(unreadable).collect();
    let verdicts = judge(policy, &candidates, now);
    check_keeps(
        policy,
        &volume,
        verdicts.iter().any(|verdict| !verdict.keep),
    )?;
    let mut points: BTreeMap<SessionKey, Point> = volume
        .points
        .into_iter()
        .map(|point| (point.key, point))
        .collect();
    for verdict in verdicts {
        let judged = Judged {
            key: verdict.key,
            volume: volume.name.clone(),
            point: points.remove(&verdict.key),
            reasons: verdict.reasons.iter().map(ToString::to_string).collect(),
        };
        if verdict.keep {
            outcome.kept.push(judged);
        } else {
            outcome.forgotten.push(judged);
        }
    }
    Ok(())
}

/// A policy of tags alone says nothing about a volume without them: all but its newest point would go.
fn check_keeps(policy: &Policy, volume: &Volume, drops: bool) -> Result<()> {
    let is_kept = |point: &Point| {
        policy
            .tags
            .iter()
            .any(|rule| rule.matches(&point.manifest.tags))
    };
    if !drops || policy.keeps_of_every_volume() || volume.points.iter().any(is_kept) {
        return Ok(());
    }
    let name = volume.name.as_deref().unwrap_or("?");
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!(
            "refuse a policy that keeps nothing of volume `{name}`: none of its points has the tag"
        ),
    )
    .hint("add another rule, e.g. --keep-last 1, or choose volumes with --volume"))
}

fn candidate(point: &Point) -> Candidate<'_> {
    Candidate {
        key: point.key,
        created_unix_millis: point.manifest.taken_unix_millis(),
        tags: &point.manifest.tags,
        condition: match (&point.status, point.manifest.state) {
            (PointStatus::Damaged(_), _) => Condition::Damaged,
            (_, PointState::Fuzzy) => Condition::Fuzzy,
            _ => Condition::Intact,
        },
    }
}

#[cfg(test)]
mod tests;
