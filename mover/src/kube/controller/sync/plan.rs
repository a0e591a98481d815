//! What is to be made and removed: a pure function of points, resources and namespaces.
//!
//! Owns: who is offered what, once, and the bounds. Must not: ask or change anything.
//!
//! The same look after everything was done plans nothing. Whatever is planned is safe to do twice, or half.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{name_of, point_of};
use crate::kube::api::repository::{Grant, Sync};
use crate::kube::controller::restore::point::{Origin, may_have};
use crate::repository::ids::VolumeId;

/// Resources that exist for a repository at most. Each takes its space in etcd, and in the memory of whoever lists them.
pub(super) const MOST: usize = 5000;
/// Pairs of namespaces that are remembered at most.
pub(super) const MOST_PAIRS: usize = 4096;

/// A point that can be relied on, as far as it is decided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownPoint {
    /// Its id.
    pub id: String,
    /// Its volume.
    pub volume: VolumeId,
    /// When the image was taken, in milliseconds since 1970.
    pub taken: i64,
    /// UID of the backup that it was made for.
    pub owner: String,
    /// Where it was made.
    pub origin: Arc<Origin>,
}

/// A backup of the cluster that names the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Existing {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether `sync` made it of this repository.
    pub synced: bool,
    /// The point that its status names.
    pub point: Option<String>,
    /// Whether its status is written.
    pub written: bool,
    /// Whether its point goes with it.
    pub deletes: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A namespace that may have backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its UID.
    pub uid: String,
}

/// Everything that is decided by.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    /// What is asked for.
    pub mode: Sync,
    /// UID of this cluster.
    pub cluster_uid: &'a str,
    /// The repository's grants.
    pub grants: &'a [Grant],
    /// What was offered before.
    pub offered: &'a BTreeSet<String>,
    /// Ids of all points that nobody forgot, damaged ones as well.
    pub held: &'a BTreeSet<String>,
    /// Those that can be relied on and were made in a cluster.
    pub points: &'a [KnownPoint],
    /// Namespaces that exist, stay, and are served by the repository.
    pub places: &'a BTreeMap<String, Place>,
    /// All backups of the cluster that name the repository.
    pub existing: &'a [Existing],
    /// UIDs of all backups of the cluster.
    pub backups: &'a BTreeSet<String>,
    /// Resources at most.
    pub most: usize,
}

/// A resource of a point that should be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    /// The namespace.
    pub namespace: String,
    /// The point.
    pub point: String,
    /// Whether it is there by a grant.
    pub granted: bool,
}

/// What one origin's points mean for one namespace that was not offered them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Its fingerprint, to be remembered when all of it is done.
    pub pair: String,
    /// What to create.
    pub create: Vec<Wanted>,
    /// Whether there was no room for more of it.
    pub is_cut: bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Resources that go: their point is gone, or has its own backup. By their index in `existing`.
    pub remove: Vec<usize>,
    /// Resources that were created and whose status is still to be written.
    pub write: Vec<Wanted>,
    /// What is offered now.
    pub offers: Vec<Offer>,
    /// What was offered before and still counts.
    pub kept: BTreeSet<String>,
    /// Resources of ours that stay.
    pub there: usize,
    /// Points that no namespace may see.
    pub unserved: usize,
    /// Points without a resource because of a bound, or because somebody else's has its name.
    pub omitted: usize,
}

/// Plans.
#[must_use]
pub(super) fn plan(seen: &Seen<'_>) -> Plan {
    let index = Index::new(seen);
    let mut plan = Plan::default();
    for (at, existing) in seen.existing.iter().enumerate() {
        if let (true, false, Some(point)) =
            (existing.synced, existing.deleting, point_of(&existing.name))
        {
            index.judge(at, existing, point, &mut plan);
        }
    }
    if seen.mode != Sync::None {
        index.offer(&mut plan);
    }
    plan
}

struct Index<'a> {
    seen: &'a Seen<'a>,
    points: BTreeMap<&'a str, &'a KnownPoint>,
    /// Points that have a backup of their own, by namespace and id.
    originals: BTreeSet<(&'a str, &'a str)>,
    names: BTreeMap<(&'a str, &'a str), &'a Existing>,
}

impl<'a> Index<'a> {
    fn new(seen: &'a Seen<'a>) -> Self {
        let all = seen.existing.iter();
        Self {
            seen,
            points: seen
                .points
                .iter()
                .map(|point| (point.id.as_str(), point))
                .collect(),
            originals: all
                .clone()
                .filter(|one| !one.synced)
                .filter_map(|one| Some((one.namespace.as_str(), one.point.as_deref()?)))
                .collect(),
            names: all
                .map(|one| ((one.namespace.as_str(), one.name.as_str()), one))
                .collect(),
        }
    }

    /// What becomes of a resource that `sync` made before.
    fn judge(&self, at: usize, existing: &Existing, point: &str, plan: &mut Plan) {
        let known = self.points.get(point);
        let namespace = existing.namespace.as_str();
        let has_own = self.originals.contains(&(namespace, point))
            || known.is_some_and(|known| self.seen.backups.contains(&known.owner));
        // One that would take the point along is for people to remove: also where no point is seen, which a listing may say that is not whole.
        if !existing.deletes && (has_own || !self.seen.held.contains(point)) {
            plan.remove.push(at);
            return;
        }
        if existing.written {
            plan.there += 1;
            return;
        }
        // What cannot be read now may be read later; without a status the resource goes by itself in the end.
        let Some(known) = known else { return };
        match self.granted(known) {
            Some(granted) if known.origin.namespace == namespace => {
                plan.there += 1;
                plan.write.push(Wanted {
                    namespace: namespace.to_owned(),
                    point: point.to_owned(),
                    granted,
                });
            }
            _ => plan.remove.push(at),
        }
    }

    /// Whether the namespace of the point's record may see it, and if so whether by a grant.
    fn granted(&self, point: &KnownPoint) -> Option<bool> {
        let origin = point.origin.as_ref();
        let place = self.seen.places.get(&origin.namespace)?;
        let asking = Origin {
            cluster_uid: self.seen.cluster_uid.to_owned(),
            namespace: origin.namespace.clone(),
            namespace_uid: place.uid.clone(),
        };
        may_have(&asking, Some(origin), self.seen.grants).then(|| asking != *origin)
    }

    fn offer(&self, plan: &mut Plan) {
        let mut origins: BTreeMap<(&str, &str, &str), Vec<&KnownPoint>> = BTreeMap::new();
        for point in self.seen.points {
            let origin = point.origin.as_ref();
            let key = (
                origin.cluster_uid.as_str(),
                origin.namespace.as_str(),
                origin.namespace_uid.as_str(),
            );
            origins.entry(key).or_default().push(point);
        }
        let mut pairs = Vec::new();
        for points in origins.into_values() {
            let Some((pair, granted)) = self.pair(&points) else {
                plan.unserved += points.len();
                continue;
            };
            if self.seen.offered.contains(&pair) {
                plan.kept.insert(pair);
            } else {
                pairs.push((pair, granted, points));
            }
        }
        let room = MOST_PAIRS.saturating_sub(plan.kept.len());
        for (_, _, points) in pairs.iter().skip(room) {
            plan.omitted += points.len();
        }
        pairs.truncate(room);
        for (pair, granted, points) in pairs {
            let create = self.missing(&points, granted, plan);
            plan.offers.push(Offer {
                pair,
                create,
                is_cut: false,
            });
        }
        bound(plan, self.seen, &self.points);
    }

    /// The fingerprint of an origin and the namespace that may see it; nothing where none may.
    fn pair(&self, points: &[&KnownPoint]) -> Option<(String, bool)> {
        let first = points.first()?;
        let granted = self.granted(first)?;
        let place = self.seen.places.get(&first.origin.namespace)?;
        let mode = match self.seen.mode {
            Sync::None => return None,
            Sync::Latest => "latest",
            Sync::All => "all",
        };
        let origin = &first.origin;
        let parts = [mode, &place.uid, &origin.cluster_uid, &origin.namespace_uid];
        let hash = blake3::hash(parts.join("\0").as_bytes()).to_hex();
        Some((hash.chars().take(16).collect(), granted))
    }

    /// What of the points of one origin has no resource yet.
    fn missing(&self, points: &[&KnownPoint], granted: bool, plan: &mut Plan) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for point in self.chosen(points) {
            let namespace = point.origin.namespace.as_str();
            if self.originals.contains(&(namespace, point.id.as_str()))
                || self.seen.backups.contains(&point.owner)
            {
                continue;
            }
            match self.names.get(&(namespace, name_of(&point.id).as_str())) {
                Some(taken) if !taken.synced => plan.omitted += 1,
                Some(_) => {}
                None => wanted.push(Wanted {
                    namespace: namespace.to_owned(),
                    point: point.id.clone(),
                    granted,
                }),
            }
        }
        wanted
    }

    fn chosen<'p>(&self, points: &[&'p KnownPoint]) -> Vec<&'p KnownPoint> {
        if self.seen.mode == Sync::All {
            return points.to_vec();
        }
        let mut newest: BTreeMap<VolumeId, &KnownPoint> = BTreeMap::new();
        for point in points {
            let known = newest.entry(point.volume).or_insert(point);
            if (point.taken, &point.id) > (known.taken, &known.id) {
                *known = point;
            }
        }
        newest.into_values().collect()
    }
}

/// Leaves out the oldest of what would be too many.
fn bound(plan: &mut Plan, seen: &Seen<'_>, points: &BTreeMap<&str, &KnownPoint>) {
    let room = seen.most.saturating_sub(plan.there);
    let mut ages: Vec<(i64, String)> = plan
        .offers
        .iter()
        .flat_map(|offer| &offer.create)
        .map(|wanted| (taken(points, &wanted.point), wanted.point.clone()))
        .collect();
    if ages.len() <= room {
        return;
    }
    plan.omitted += ages.len() - room;
    ages.sort_unstable_by_key(|age| Reverse(age.clone()));
    ages.truncate(room);
    let chosen: BTreeSet<&str> = ages.iter().map(|(_, point)| point.as_str()).collect();
    for offer in &mut plan.offers {
        let all = offer.create.len();
        offer
            .create
            .retain(|wanted| chosen.contains(wanted.point.as_str()));
        offer.is_cut = offer.create.len() < all;
    }
}

fn taken(points: &BTreeMap<&str, &KnownPoint>, id: &str) -> i64 {
    points.get(id).map_or(i64::MIN, |point| point.taken)
}

#[cfg(test)]
mod tests;
