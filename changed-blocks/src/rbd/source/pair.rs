//! Two snapshots of one image between which the storage can be asked: those of base and target, or of their common origin.
//!
//! Owns: finding them by the records, and every reason why they cannot be compared. Must not: ask for changes.

use std::sync::Arc;

use super::doubt;
use super::record::{Origin, Place, Record};
use crate::rbd::library::{
    Access, Cluster, Image, ImageName, Objects, Snapshot, SnapshotNamespace,
};
use crate::source::SourceError;

/// `RBD_FEATURE_MIGRATING`: part of the image is still somewhere else.
const MIGRATING: u64 = 1 << 9;

/// What is compared.
#[derive(Debug)]
pub(super) struct Pair {
    /// The image at the older snapshot.
    pub(super) older: Arc<Image>,
    /// The image at the younger snapshot.
    pub(super) younger: Arc<Image>,
    /// What the clones of ceph-csi have of their own: nothing, unless somebody wrote to them.
    pub(super) clones: Vec<Objects>,
    /// What the younger one calls the older's snapshot: it keeps the names that it was opened with, and some releases find the
    /// start of a difference by name only.
    pub(super) from_name: String,
    pub(super) facts: Facts,
}

/// What was found, to see whether it still holds after the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) from: Snapshot,
    pub(super) to: Snapshot,
    pub(super) older: Record,
    pub(super) younger: Record,
    clones: Vec<Record>,
}

impl Pair {
    /// Finds the pair of a recorded base and a target, which is opened anew unless it is given.
    ///
    /// Whoever gives it must find the pair once more after the answer, without it: what is open for reading is not told of
    /// what happens to it.
    pub(super) fn find(
        cluster: &Cluster,
        base: &Record,
        target: &Record,
        opened: Option<&Arc<Image>>,
    ) -> Result<Self, SourceError> {
        if base.fsid != target.fsid {
            let (theirs, ours) = (&base.fsid, &target.fsid);
            return Err(SourceError::full(format!(
                "the base is in the cluster {theirs}, not in {ours}"
            )));
        }
        if base.place.is_same_image(&target.place) {
            let (older, mut snapshots) = reopen(cluster, base, "the base")?;
            let younger = match opened {
                Some(image) => Arc::clone(image),
                None => {
                    let (younger, latest) = reopen(cluster, target, "the target")?;
                    snapshots = latest;
                    younger
                }
            };
            return Self::of((older, younger), &snapshots, Vec::new());
        }
        let (from, to) = common_origin(base, target)?;
        let mut clones = Vec::with_capacity(2);
        for (record, who, opened) in [(base, "the base", None), (target, "the target", opened)] {
            let image = match opened {
                Some(image) => Arc::clone(image),
                None => reopen(cluster, record, who)?.0,
            };
            refuse_layouts(&image)?;
            clones.push((Objects::of(&image).map_err(doubt)?, record.clone()));
        }
        let (older, _) = open(cluster, from, "the snapshot that the base was cloned from")?;
        let (younger, snapshots) =
            open(cluster, to, "the snapshot that the target was cloned from")?;
        let pair = Self::of((older, younger), &snapshots, clones)?;
        pair.check_sizes(base, target)?;
        Ok(pair)
    }

    /// `snapshots` is what the image has now: one of both may have been opened long ago.
    fn of(
        (older, younger): (Arc<Image>, Arc<Image>),
        snapshots: &[Snapshot],
        clones: Vec<(Objects, Record)>,
    ) -> Result<Self, SourceError> {
        let [older_record, younger_record] = [now(&older)?, now(&younger)?];
        let (from, to) = (older_record.place.snapshot, younger_record.place.snapshot);
        if from > to {
            return Err(SourceError::full(format!(
                "the base is younger than the target: its snapshot has the id {from}, the target's {to}"
            )));
        }
        refuse_layouts(&younger)?;
        refuse_flattened(&older_record, &younger_record)?;
        let find = |id: u64, who: &str| {
            let found = snapshots.iter().find(|snapshot| snapshot.id == id);
            found.cloned().ok_or_else(|| deleted(who, id))
        };
        let from = find(from, "the base")?;
        refuse_nameless(&younger, &from)?;
        let known = younger.snapshots().map_err(doubt)?;
        let from_name = known.into_iter().find(|snapshot| snapshot.id == from.id);
        let from_name = from_name.ok_or_else(|| deleted("the base", from.id))?.name;
        let (clones, records) = clones.into_iter().unzip();
        Ok(Self {
            facts: Facts {
                from,
                to: find(to, "the target")?,
                older: older_record,
                younger: younger_record,
                clones: records,
            },
            older,
            younger,
            clones,
            from_name,
        })
    }

    /// A clone that was resized shows zeros, or bytes of its own, where its origin shows something else.
    fn check_sizes(&self, base: &Record, target: &Record) -> Result<(), SourceError> {
        let pairs = [(base, &self.facts.older), (target, &self.facts.younger)];
        for (clone, origin) in pairs {
            let overlap = clone.origin.as_ref().map_or(0, |origin| origin.overlap);
            if clone.size != origin.size || overlap != origin.size {
                let (size, full) = (clone.size, origin.size);
                return Err(SourceError::full(format!(
                    "a clone of {size} bytes shows {overlap} bytes of a snapshot of {full}: it was resized"
                )));
            }
        }
        Ok(())
    }

    /// What changed between two findings of the same pair.
    pub(super) fn difference(&self, after: &Self) -> Option<&'static str> {
        let (before, after) = (&self.facts, &after.facts);
        if before.from != after.from || before.older != after.older {
            Some("the base changed")
        } else if before == after {
            None
        } else {
            Some("the target changed")
        }
    }
}

/// The snapshots that base and target were cloned from, where they are of one image.
fn common_origin<'a>(
    base: &'a Record,
    target: &'a Record,
) -> Result<(&'a Place, &'a Place), SourceError> {
    let other = |more: &str| {
        let [theirs, ours] = [base, target].map(|record| record.place.image_for_people());
        SourceError::full(format!(
            "the base is of another image: {theirs}, not {ours}{more}"
        ))
    };
    match (&base.origin, &target.origin) {
        (Some(from), Some(to)) if from.place.is_same_image(&to.place) => {
            Ok((&from.place, &to.place))
        }
        (Some(_), Some(_)) => Err(other(", and they are clones of different images")),
        (Some(_), None) => Err(other(", and the target is no clone, or was flattened")),
        (None, Some(_)) => Err(other(", and the base was no clone, or flattened")),
        (None, None) => Err(other("")),
    }
}

/// An image at a snapshot, and all snapshots that it has.
type Opened = (Arc<Image>, Vec<Snapshot>);

/// Opens what a record names, as long as it still is what was recorded.
fn reopen(cluster: &Cluster, record: &Record, who: &str) -> Result<Opened, SourceError> {
    let (image, snapshots) = open(cluster, &record.place, who)?;
    let mut now = now(&image)?;
    // Another version of the library sees the same.
    now.librbd.clone_from(&record.librbd);
    if now == *record {
        return Ok((image, snapshots));
    }
    if record.origin.is_some() && now.origin.is_none() {
        return Err(SourceError::full(format!(
            "{who} was flattened since it was recorded"
        )));
    }
    let difference = now.identity().difference(&record.identity());
    let difference = difference.unwrap_or_default();
    Err(SourceError::full(format!(
        "{who} is another one than recorded: {difference}"
    )))
}

fn open(cluster: &Cluster, place: &Place, who: &str) -> Result<Opened, SourceError> {
    let pool = cluster
        .pool_by_id(place.pool, &place.namespace)
        .map_err(doubt)?;
    let image = Image::open(&pool, ImageName::Id(&place.image), None, Access::Read);
    let image = image.map_err(|error| {
        if error.is_absent() {
            let id = &place.image;
            return SourceError::full(format!("{who} is gone: the image with id {id} was deleted"));
        }
        doubt(error)
    })?;
    // Only deletion takes a snapshot away; what opens the image but not the snapshot is said as that.
    let snapshots = image.snapshots().map_err(doubt)?;
    if !snapshots
        .iter()
        .any(|snapshot| snapshot.id == place.snapshot)
    {
        return Err(deleted(who, place.snapshot));
    }
    let image = image.at_snapshot(place.snapshot).map_err(doubt)?;
    Ok((Arc::new(image), snapshots))
}

fn deleted(who: &str, id: u64) -> SourceError {
    SourceError::full(format!(
        "{who} is gone: the snapshot with id {id} was deleted"
    ))
}

fn now(image: &Image) -> Result<Record, SourceError> {
    let snapshot = image.snapshot().unwrap_or_default();
    Record::of(image, snapshot).map_err(doubt)
}

/// In a striped image one request covers several objects, and librbd (`C_DiffObject::finish`) forgets the error of one where
/// another answers. While an image migrates, some of its objects are elsewhere.
pub(super) fn refuse_layouts(image: &Image) -> Result<(), SourceError> {
    let stripes = image.stripe_count().map_err(doubt)?;
    if stripes > 1 {
        return Err(SourceError::full(format!(
            "the image is striped over {stripes} objects: librbd's answer may be too short"
        )));
    }
    if image.features().map_err(doubt)? & MIGRATING != 0 {
        return Err(SourceError::full("the image is being migrated"));
    }
    Ok(())
}

/// A flatten copies what the parent showed; the difference of the objects then says nothing of the bytes.
fn refuse_flattened(older: &Record, younger: &Record) -> Result<(), SourceError> {
    let place = |record: &Record| {
        record
            .origin
            .as_ref()
            .map(|origin: &Origin| origin.place.clone())
    };
    match (place(older), place(younger)) {
        (before, after) if before == after => Ok(()),
        (Some(_), None) => Err(SourceError::full(
            "the image was flattened between base and target",
        )),
        _ => Err(SourceError::full(
            "the image has another parent at the base than at the target",
        )),
    }
}

/// By name only snapshots of users are found.
fn refuse_nameless(image: &Image, from: &Snapshot) -> Result<(), SourceError> {
    let library = image.pool().cluster().library();
    if library.diffs_by_id() || from.namespace == SnapshotNamespace::User {
        return Ok(());
    }
    let version = library.version();
    Err(SourceError::full(format!(
        "the base is in the trash, where librbd {version} finds nothing: it needs rbd_diff_iterate3 (Ceph 17.2.8, 18.2.5, \
         19.2.2 or later)"
    )))
}
