//! Which point a restore means, and whether its namespace may have it.
//!
//! Owns: the choice and the check. Must not: open repositories (`observe` does).
//!
//! A namespace owns the points that record its cluster, its name and its UID: one that was deleted and made again under the old
//! name owns none of the old points. Others' points need a grant of the repository.

use k8s_openapi::jiff::Timestamp;

use crate::kube::api::conditions::Reason;
use crate::kube::api::repository::Grant;
use crate::kube::api::restore::{RecordedClaim, RestoreSource, VolumeSource};

/// Where a point was made, or a restore is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// UID of the namespace `kube-system`.
    pub cluster_uid: String,
    /// Name of the namespace.
    pub namespace: String,
    /// Its UID.
    pub namespace_uid: String,
}

/// What a repository says of a point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PointRecord {
    /// Its id.
    pub id: String,
    /// Id of the repository.
    pub repository_id: String,
    /// When the image was taken, in milliseconds since 1970.
    pub taken_unix_millis: i64,
    /// Where it was made. Absent: not in a cluster, so that no namespace owns it.
    pub origin: Option<Origin>,
    /// Name of the claim it was made of.
    pub claim_name: String,
    /// The claim as it was.
    pub claim: RecordedClaim,
}

/// The answer to the question which point is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PointAnswer {
    /// It was not asked: the status has the point.
    #[default]
    NotAsked,
    /// This one, and the restore may have it.
    Found(Box<PointRecord>),
    /// None.
    Refused {
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        message: String,
        /// Whether it may be another answer later.
        may_change: bool,
    },
}

impl PointAnswer {
    /// An answer that stays.
    #[must_use]
    pub fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self::Refused {
            reason,
            message: message.into(),
            may_change: false,
        }
    }

    /// An answer that may become another: what is missing may come.
    #[must_use]
    pub fn not_yet(reason: Reason, message: impl Into<String>) -> Self {
        Self::Refused {
            reason,
            message: message.into(),
            may_change: true,
        }
    }
}

/// Whether `asking` may have points of `origin`.
#[must_use]
pub fn may_have(asking: &Origin, origin: Option<&Origin>, grants: &[Grant]) -> bool {
    let Some(origin) = origin else {
        return false;
    };
    // A record without these is damaged or forged: an empty UID equals no UID.
    if origin.cluster_uid.is_empty() || origin.namespace_uid.is_empty() {
        return false;
    }
    origin == asking
        || grants.iter().any(|grant| {
            let cluster = grant.from.cluster_uid.as_ref();
            cluster.unwrap_or(&asking.cluster_uid) == &origin.cluster_uid
                && grant.from.namespace == origin.namespace
                && grant.to.contains(&asking.namespace)
        })
}

/// The point that `source` means among `points`, which are those that can be relied on.
#[must_use]
pub fn choose(
    source: &RestoreSource,
    points: &[PointRecord],
    asking: &Origin,
    grants: &[Grant],
) -> PointAnswer {
    match (&source.point_id, &source.volume) {
        (Some(id), _) => by_id(id, points, asking, grants),
        (None, Some(volume)) => newest(volume, points, asking, grants),
        (None, None) => PointAnswer::refused(Reason::NotFound, "the source names no point"),
    }
}

fn by_id(id: &str, points: &[PointRecord], asking: &Origin, grants: &[Grant]) -> PointAnswer {
    let mut matching = points.iter().filter(|point| point.id.starts_with(id));
    let Some(point) = matching.next() else {
        return PointAnswer::refused(
            Reason::NotFound,
            format!("the repository has no point {id}"),
        );
    };
    if matching.next().is_some() {
        let message = format!("several points begin with {id}: give more digits");
        return PointAnswer::refused(Reason::NotFound, message);
    }
    if !may_have(asking, point.origin.as_ref(), grants) {
        return not_granted(&point.id, asking);
    }
    PointAnswer::Found(Box::new(point.clone()))
}

/// The refusal of a point that exists. It does not say whose the point is.
fn not_granted(id: &str, asking: &Origin) -> PointAnswer {
    let message = format!(
        "point {id} was not made in this namespace of this cluster, and no grant of the repository names {}",
        asking.namespace
    );
    PointAnswer::refused(Reason::PointNotGranted, message)
}

/// Of the points of a claim of this namespace's name: what others called the same is reached by id only.
fn newest(
    volume: &VolumeSource,
    points: &[PointRecord],
    asking: &Origin,
    grants: &[Grant],
) -> PointAnswer {
    let limit = volume.as_of.as_ref().map(|time| end_of_second(time.0));
    let mine = points.iter().filter(|point| {
        point.claim_name == volume.claim_name
            && point
                .origin
                .as_ref()
                .is_some_and(|origin| origin.namespace == asking.namespace)
            && may_have(asking, point.origin.as_ref(), grants)
    });
    let newest = mine
        .filter(|point| limit.is_none_or(|limit| point.taken_unix_millis <= limit))
        .max_by_key(|point| (point.taken_unix_millis, &point.id));
    match newest {
        Some(point) => PointAnswer::Found(Box::new(point.clone())),
        // A later backup can bring one.
        None => PointAnswer::not_yet(
            Reason::NotFound,
            match &volume.as_of {
                Some(time) => format!(
                    "the repository has no point of claim {} up to {}",
                    volume.claim_name, time.0
                ),
                None => format!("the repository has no point of claim {}", volume.claim_name),
            },
        ),
    }
}

/// The last millisecond of the second that people see: a point that is listed with this time is meant, too.
fn end_of_second(time: Timestamp) -> i64 {
    time.as_second().saturating_mul(1000).saturating_add(999)
}

#[cfg(test)]
mod tests;
