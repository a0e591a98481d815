//! Which points are copied, in which order, and since which point.
//!
//! ```text
//!   source   a1 ── a2 ── a3 ── a4        origin of a point: the repository and point it was first taken in,
//!   target         b2 (of a2)            kept through any number of copies
//!   plan                 a3 since a2, onto b2 · then a4 since a3, onto the copy just made
//! ```
//!
//! Owns: that decision; pure but for ids. Must not: do I/O.

use std::collections::BTreeMap;

use crate::repository::access::Repository;
use crate::repository::format::manifest::{Manifest, TAKEN};
use crate::repository::ids::PointId;
use crate::repository::session::points::{Point, PointStatus};

/// Names of the identity records that say where a copy comes from.
const FROM_REPOSITORY: &str = "copied-from-repository";
const FROM_POINT: &str = "copied-from-point";

/// The repository and point in which an image was first stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginOfPoint {
    repository: String,
    point: String,
}

impl OriginOfPoint {
    /// The identity records of a copy: those of the original, where it comes from, and when it was taken.
    pub(super) fn into_identity(self, original: &Manifest) -> Vec<(String, String)> {
        let is_origin = |name: &str| [FROM_REPOSITORY, FROM_POINT, TAKEN].contains(&name);
        let mut identity: Vec<_> = original
            .identity
            .iter()
            .filter(|(name, _)| !is_origin(name))
            .cloned()
            .collect();
        identity.push((FROM_REPOSITORY.to_owned(), self.repository));
        identity.push((FROM_POINT.to_owned(), self.point));
        identity.push((TAKEN.to_owned(), original.taken_unix_millis().to_string()));
        identity
    }
}

/// Where a point of `repository` comes from: itself, unless it is a copy.
#[must_use]
pub fn origin_of(repository: &Repository, point: &Point) -> OriginOfPoint {
    let record = |wanted: &str| {
        let found = point.manifest.identity.iter();
        found
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| value.clone())
            .next()
    };
    match (record(FROM_REPOSITORY), record(FROM_POINT)) {
        (Some(repository), Some(point)) => OriginOfPoint { repository, point },
        _ => OriginOfPoint {
            repository: repository.config.repository.to_string(),
            point: point.id().to_string(),
        },
    }
}

/// A point to read from, which the target has as `parent`.
#[derive(Clone, Debug)]
pub struct Since {
    /// The point of the source repository.
    pub base: Point,
    /// Its copy in the target.
    pub parent: PointId,
}

/// One point to copy.
#[derive(Clone, Debug)]
pub struct Task {
    /// The point of the source repository.
    pub point: Point,
    /// What only the difference is read from.
    pub since: Option<Since>,
}

/// What of `wanted` the target lacks, oldest first for each volume, and how many it has already.
///
/// `have` is every point of the source repository, `there` of the target. A task's `since` tells of what is there now; once a
/// task is done, its copy is the better base of the next: plan again.
#[must_use]
pub fn plan(
    (source, have): (&Repository, &[Point]),
    (target, there): (&Repository, &[Point]),
    wanted: &[Point],
) -> (Vec<Task>, usize) {
    let copies: BTreeMap<OriginOfPoint, PointId> = there
        .iter()
        .filter(|point| point.status == PointStatus::Complete)
        .map(|point| (origin_of(target, point), point.id()))
        .collect();
    let mut missing: Vec<&Point> = wanted
        .iter()
        .filter(|point| !copies.contains_key(&origin_of(source, point)))
        .collect();
    missing.sort_by_key(|point| point.key);
    missing.dedup_by_key(|point| point.key);
    let tasks: Vec<Task> = missing
        .into_iter()
        .map(|point| Task {
            point: point.clone(),
            since: nearest(source, have, &copies, point),
        })
        .collect();
    let present = wanted
        .iter()
        .filter(|point| copies.contains_key(&origin_of(source, point)))
        .count();
    (tasks, present)
}

/// The newest older point of the volume that the target has, else the oldest newer one.
fn nearest(
    source: &Repository,
    have: &[Point],
    copies: &BTreeMap<OriginOfPoint, PointId>,
    point: &Point,
) -> Option<Since> {
    let order = |point: &Point| (point.key.sequence, point.key.session);
    let candidates = || {
        have.iter()
            .filter(|base| base.status == PointStatus::Complete)
            .filter(|base| base.key.volume == point.key.volume && base.key != point.key)
            .filter_map(|base| Some((base, *copies.get(&origin_of(source, base))?)))
    };
    let older = candidates()
        .filter(|(base, _)| order(base) < order(point))
        .max_by_key(|(base, _)| order(base));
    let newer = || {
        candidates()
            .filter(|(base, _)| order(base) > order(point))
            .min_by_key(|(base, _)| order(base))
    };
    older.or_else(newer).map(|(base, parent)| Since {
        base: base.clone(),
        parent,
    })
}
