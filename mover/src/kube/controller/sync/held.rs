//! What a repository holds, as far as `sync` decides by it.
//!
//! Owns: reading it page by page, and what was read of manifests, which never change. Must not: run on a thread of the runtime.
//!
//! Each look lists the names of all points, which is cheap, and reads the manifests it has not seen: a repository of 100,000 points costs as
//! many requests once in the life of a process, and about 200 bytes of memory for each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::KnownPoint;
use crate::error::{ErrorKind, Result};
use crate::kube::controller::recorded::Recorded;
use crate::kube::controller::restore::point::Origin;
use crate::kube::point_tags as tags;
use crate::pipeline::progress::StopFlag;
use crate::repository::access::Repository;
use crate::repository::ids::SessionKey;
use crate::repository::session::points::{self, Candidate, Point, PointStatus};
use crate::repository::session::resolve::resolve;

/// Points that a listing lacks and that are looked up in one look; the others count as there until then.
const LOOKED_UP: usize = 200;
/// Manifests that are in memory at once.
const PAGE: usize = 256;

/// What was read of one repository. It outlives a look that was stopped: the next one goes on from there.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<SessionKey, Option<KnownPoint>>>);

/// What a look saw.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Ids of all points that nobody forgot.
    pub ids: BTreeSet<String>,
    /// Those that can be relied on and were made in a cluster.
    pub points: Vec<KnownPoint>,
    /// The objects of each point, to read it again.
    pub keys: BTreeMap<String, SessionKey>,
}

/// Looks at all points. `suspects` are ids that are believed to exist: where the listing does not show one, it is looked up.
///
/// # Errors
/// What the store answers; `Interrupted` where `stop` says so.
pub(super) fn look(
    repository: &Repository,
    known: &Known,
    suspects: &[String],
    stop: &StopFlag,
) -> Result<Held> {
    let mut candidates = points::candidates(repository)?;
    // Their tombs are proof enough: they need not be looked up.
    let forgotten: BTreeSet<String> = candidates
        .iter()
        .filter(|candidate| candidate.is_forgotten())
        .map(|candidate| candidate.key().point().to_string())
        .collect();
    candidates.retain(|candidate| !candidate.is_forgotten());
    read(repository, known, &candidates, stop)?;
    let mut all = known.0.lock().unwrap_or_else(PoisonError::into_inner);
    let keys: BTreeSet<SessionKey> = candidates.iter().map(Candidate::key).collect();
    all.retain(|key, _| keys.contains(key));
    let mut held = Held {
        points: all.values().flatten().cloned().collect(),
        ..Held::default()
    };
    drop(all);
    held.points.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    for key in keys {
        let id = key.point().to_string();
        held.ids.insert(id.clone());
        held.keys.insert(id, key);
    }
    let missing: Vec<&String> = suspects
        .iter()
        .filter(|suspect| !held.ids.contains(*suspect) && !forgotten.contains(*suspect))
        .collect();
    for (at, suspect) in missing.into_iter().enumerate() {
        stop.check()?;
        if at >= LOOKED_UP || is_there(repository, suspect)? {
            held.ids.insert(suspect.clone());
        }
    }
    Ok(held)
}

/// Reads the manifests that were not read yet.
fn read(
    repository: &Repository,
    known: &Known,
    candidates: &[Candidate],
    stop: &StopFlag,
) -> Result<()> {
    let lock = || known.0.lock().unwrap_or_else(PoisonError::into_inner);
    let new: Vec<Candidate> = {
        let all = lock();
        let is_new = |candidate: &&Candidate| !all.contains_key(&candidate.key());
        candidates.iter().filter(is_new).copied().collect()
    };
    let mut origins: BTreeMap<String, Arc<Origin>> = BTreeMap::new();
    for page in new.chunks(PAGE) {
        stop.check()?;
        let listing = points::load_candidates(repository, page)?;
        let mut all = lock();
        for point in listing.points {
            // One that is damaged may be mended: it is read again the next time.
            if point.status == PointStatus::Complete {
                all.insert(point.key, of_cluster(&point, &mut origins));
            }
        }
    }
    Ok(())
}

fn of_cluster(point: &Point, origins: &mut BTreeMap<String, Arc<Origin>>) -> Option<KnownPoint> {
    let recorded = recorded(point)?.0;
    if recorded.cluster_uid.is_empty() || recorded.namespace_uid.is_empty() {
        return None;
    }
    let origin = Origin {
        cluster_uid: recorded.cluster_uid.clone(),
        namespace: recorded.namespace.clone(),
        namespace_uid: recorded.namespace_uid.clone(),
    };
    let name = format!("{}/{}", origin.cluster_uid, origin.namespace_uid);
    let shared = origins
        .entry(name)
        .or_insert_with(|| Arc::new(origin.clone()));
    // The same UIDs with another name are damaged or forged, and of no use to anybody.
    if **shared != origin {
        return None;
    }
    let read = point.manifest.taken_unix_millis();
    let taken = recorded.taken.as_ref().map(|time| time.0.as_millisecond());
    Some(KnownPoint {
        id: point.id().to_string(),
        volume: point.key.volume,
        taken: taken.map_or(read, |taken| taken.min(read)),
        owner: point
            .manifest
            .tags
            .get(tags::OWNER)
            .cloned()
            .unwrap_or_default(),
        origin: Arc::clone(shared),
    })
}

/// What a point says of its claim, as it is and as text; nothing where it was not made in a cluster, or the claim has no name.
pub(super) fn recorded(point: &Point) -> Option<(Recorded, String)> {
    let text = tags::text(&point.manifest.tags)?;
    let recorded = Recorded::from_json(&text)?;
    let has_name = !recorded.claim.is_empty() && recorded.claim.len() <= 253;
    has_name.then_some((recorded, text))
}

/// A point that can be relied on, read anew; nothing where it is gone, forgotten or damaged.
///
/// # Errors
/// What the store answers.
pub(super) fn point(repository: &Repository, key: &SessionKey) -> Result<Option<Point>> {
    match points::load(repository, key) {
        Ok(found) => Ok(found.filter(|point| point.status == PointStatus::Complete)),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a point is there and nobody forgot it. A listing is no snapshot.
fn is_there(repository: &Repository, id: &str) -> Result<bool> {
    match resolve(repository, id) {
        Ok(point) => Ok(point.status != PointStatus::Forgotten),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(false),
            ErrorKind::Corrupt | ErrorKind::InvalidRequest => Ok(true),
            _ => Err(error),
        },
    }
}
