//! Which points a repository holds.
//!
//! Owns: the test whether a session's objects make a point, and reading its manifest, through the second copy where the
//! first is lost. Must not: change anything.
//!
//! A point exists if and only if its `open` exists and its slot holds a manifest. Listings are no snapshot, so whatever
//! looks like a loss is looked up again, key by key, before it is called one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::records::MAX_ABORT_LEN;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::manifest::Manifest;
use crate::repository::ids::{PointId, Sequence, SessionKey, VolumeId, name};
use crate::repository::store::{ObjectInfo, Store};

/// Manifests fetched at once: enough to hide a store's latency, few enough for one that throttles.
const PARALLEL_GETS: usize = 16;

/// Whether a point can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointStatus {
    /// Everything that makes the point is there.
    Complete,
    /// A forget order exists; the data stays until it is collected.
    Forgotten,
    /// The store lost or damaged a control object of the point; the second copy of the manifest still describes it.
    Damaged(String),
}

/// A point with its manifest.
#[derive(Clone, Debug)]
pub struct Point {
    /// What its objects are named by.
    pub key: SessionKey,
    /// What it holds.
    pub manifest: Manifest,
    /// Whether it can be relied on.
    pub status: PointStatus,
}

impl Point {
    /// Its public name.
    #[must_use]
    pub fn id(&self) -> PointId {
        self.key.point()
    }
}

/// All points under a prefix, and those whose manifest cannot be read at all.
#[derive(Debug, Default)]
pub struct Listing {
    /// Ascending by volume, sequence and session.
    pub points: Vec<Point>,
    /// Committed points without a readable manifest, with the reason.
    pub unreadable: Vec<(SessionKey, Error)>,
}

/// The control objects of one session, as a listing saw them.
#[derive(Clone, Copy, Debug, Default)]
struct Controls {
    open: bool,
    tomb: bool,
    copy: bool,
    slot_len: Option<u64>,
}

impl Controls {
    fn is_manifest(self) -> bool {
        self.slot_len.is_some_and(|len| len > MAX_ABORT_LEN)
    }

    /// A point or the remains of one.
    fn may_be_point(self) -> bool {
        self.copy || (self.open && self.is_manifest())
    }
}

/// Which control objects are under a prefix, from four listings.
#[derive(Debug, Default)]
pub struct Catalog(BTreeMap<SessionKey, Controls>);

impl Catalog {
    /// Lists the sessions of one volume.
    ///
    /// # Errors
    /// What the store answers.
    pub fn list(store: &dyn Store, volume: VolumeId) -> Result<Self> {
        Self::list_prefix(store, &format!("{volume}/"))
    }

    /// Slots come last: a point that is committed meanwhile shows whole or not at all; what a purge leaves meanwhile is
    /// settled by [`load`].
    fn list_prefix(store: &dyn Store, prefix: &str) -> Result<Self> {
        let mut controls: BTreeMap<SessionKey, Controls> = BTreeMap::new();
        let mut collect = |kind: &str, note: &dyn Fn(&mut Controls, &ObjectInfo)| {
            store.list(&format!("{kind}{prefix}"), &mut |page| {
                for info in &page {
                    if let Some(key) = info.name.strip_prefix(kind).and_then(SessionKey::parse) {
                        note(controls.entry(key).or_default(), info);
                    }
                }
                Ok(())
            })
        };
        collect(name::COPY, &|c, _| c.copy = true)?;
        collect(name::TOMB, &|c, _| c.tomb = true)?;
        collect(name::OPEN, &|c, _| c.open = true)?;
        collect(name::SNAP, &|c, info| c.slot_len = Some(info.size))?;
        Ok(Self(controls))
    }

    /// The newest intact point that nobody forgot.
    ///
    /// # Errors
    /// What the store answers; a point that cannot be read is passed over with a warning.
    pub fn newest_complete(
        &self,
        repository: &Repository,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Point>> {
        let mut newest: Vec<_> = self
            .0
            .iter()
            .filter(|(_, c)| !c.tomb && c.may_be_point())
            .collect();
        newest.sort_by_key(|(key, _)| std::cmp::Reverse((key.sequence, key.session)));
        for (key, controls) in newest {
            match load_listed(repository, key, *controls) {
                Ok(Some(point)) if point.status == PointStatus::Complete => return Ok(Some(point)),
                Ok(Some(Point {
                    status: PointStatus::Damaged(why),
                    ..
                })) => {
                    warnings.push(format!(
                        "point {} is passed over as parent: {why}",
                        key.point()
                    ));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    warnings.push(format!(
                        "point {} is passed over as parent: {error}",
                        key.point()
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The newest points whose manifest can be read, forgotten or damaged ones not left out: what they knew stays true. Nothing is
    /// built on them. Runs that began at the same time have one sequence, and none of them knows what the others met.
    ///
    /// # Errors
    /// What the store answers.
    pub fn newest_known(&self, repository: &Repository) -> Result<Vec<Point>> {
        let may_be = self.0.iter().filter(|(_, c)| c.may_be_point());
        let mut newest: Vec<_> = may_be.collect();
        newest.sort_by_key(|(key, _)| std::cmp::Reverse((key.sequence, key.session)));
        let mut known: Vec<Point> = Vec::new();
        for (key, controls) in newest {
            let found = known.first();
            if found.is_some_and(|point| point.key.sequence != key.sequence) {
                break;
            }
            match load_listed(repository, key, *controls) {
                Ok(point) => known.extend(point),
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    /// Whether no other point of the volume is newer than `key`, or as new.
    #[must_use]
    pub fn is_newest(&self, key: &SessionKey) -> bool {
        let mut keys = self.0.iter();
        !keys.any(|(other, c)| c.may_be_point() && other != key && other.sequence >= key.sequence)
    }

    /// Whether the second copy of a point's manifest is there.
    #[must_use]
    pub fn has_copy(&self, key: &SessionKey) -> bool {
        self.0.get(key).is_some_and(|controls| controls.copy)
    }

    /// Sessions that neither committed nor were fenced. One with a copy did commit: the store lost its manifest.
    pub fn undecided(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.0
            .iter()
            .filter(|(_, controls)| controls.open && controls.slot_len.is_none() && !controls.copy)
            .map(|(key, _)| *key)
    }

    /// One more than the highest sequence; `None` where there is no higher one.
    #[must_use]
    pub fn next_sequence(&self) -> Option<Sequence> {
        match self.0.keys().map(|key| key.sequence.0).max() {
            Some(highest) => highest.checked_add(1).map(Sequence),
            None => Some(Sequence(0)),
        }
    }
}

/// Lists the points of one volume, or of all.
///
/// # Errors
/// What the store answers; damaged points are no error but part of the listing.
pub fn list(repository: &Repository, volume: Option<VolumeId>) -> Result<Listing> {
    let prefix = volume.map_or_else(String::new, |volume| format!("{volume}/"));
    list_prefix(repository, &prefix)
}

/// Lists the points whose `<vol>/<seq>-<sid>` begins with `prefix`.
///
/// # Errors
/// As [`list`].
pub fn list_prefix(repository: &Repository, prefix: &str) -> Result<Listing> {
    load_candidates(repository, &candidates_under(repository, prefix)?)
}

/// What a listing shows of a session that may be a point: [`load_candidates`] says whether it is one. About 60 bytes, where a
/// point takes about 1 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    key: SessionKey,
    controls: Controls,
}

impl Candidate {
    /// What its objects are named by.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        self.key
    }

    /// Whether the listing showed a forget order.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.controls.tomb
    }

    /// Forgets what the listing showed, which is not true any more: loading asks for everything.
    pub fn doubt(&mut self) {
        self.controls = Controls::default();
    }
}

/// Everything that may be a point, ascending by volume, sequence and session.
///
/// # Errors
/// What the store answers.
pub fn candidates(repository: &Repository) -> Result<Vec<Candidate>> {
    candidates_under(repository, "")
}

fn candidates_under(repository: &Repository, prefix: &str) -> Result<Vec<Candidate>> {
    let catalog = Catalog::list_prefix(repository.store.as_ref(), prefix)?;
    let candidates = catalog.0.into_iter();
    Ok(candidates
        .filter(|(_, controls)| controls.may_be_point())
        .map(|(key, controls)| Candidate { key, controls })
        .collect())
}

/// Loads those of `candidates` that are points.
///
/// # Errors
/// As [`list`].
pub fn load_candidates(repository: &Repository, candidates: &[Candidate]) -> Result<Listing> {
    let loaded = load_all(repository, candidates);
    let mut listing = Listing::default();
    for (key, result) in loaded {
        match result {
            Ok(Some(point)) => listing.points.push(point),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                listing.unreadable.push((key, error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listing)
}

/// Loads one point by its key; `None` where it is none (any more).
///
/// # Errors
/// What the store answers; `Corrupt` where the manifest and its copy are both unreadable.
pub fn load(repository: &Repository, key: &SessionKey) -> Result<Option<Point>> {
    let store = repository.store.as_ref();
    let tomb = store.head(&name::tomb(key))?.is_some();
    let open = store.head(&name::open(key))?.is_some();
    let slot = read_manifest(repository, key, &name::slot(key));
    let (manifest, mut status) = match slot {
        Ok(manifest) if open => (manifest, PointStatus::Complete),
        Ok(manifest) => match from_copy(repository, key)? {
            Some(_) => (
                manifest,
                damaged("its start record", &name::open(key), "is missing"),
            ),
            None => return Ok(None),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => match from_copy(repository, key)? {
            Some(copy) => (
                copy,
                damaged("its manifest", &name::slot(key), "is missing"),
            ),
            None => return Ok(None),
        },
        Err(error) if error.kind() == ErrorKind::Corrupt => match from_copy(repository, key)? {
            Some(copy) => (
                copy,
                damaged("its manifest", &name::slot(key), "is damaged"),
            ),
            None if is_abort_or_gone(repository, key) => return Ok(None),
            None => return Err(error),
        },
        Err(error) => return Err(error),
    };
    if tomb {
        status = PointStatus::Forgotten;
    }
    Ok(Some(Point {
        key: *key,
        manifest,
        status,
    }))
}

fn damaged(what: &str, name: &str, how: &str) -> PointStatus {
    PointStatus::Damaged(format!("{what} ({name}) {how}"))
}

/// Whether a slot that holds no manifest holds an abort marker; a collector may have removed that meanwhile.
fn is_abort_or_gone(repository: &Repository, key: &SessionKey) -> bool {
    super::records::get_abort(repository, key).is_ok()
}

/// The second copy, which is written only after a commit was acknowledged and deleted first in a purge.
fn from_copy(repository: &Repository, key: &SessionKey) -> Result<Option<Manifest>> {
    match read_manifest(repository, key, &name::copy(key)) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_manifest(repository: &Repository, key: &SessionKey, name: &str) -> Result<Manifest> {
    let object = repository.store.get(name)?;
    Manifest::open(&repository.keys, key, name, &object)
}

type Loaded = (SessionKey, Result<Option<Point>>);

/// Loads many points, [`PARALLEL_GETS`] at a time, in the given order.
fn load_all(repository: &Repository, candidates: &[Candidate]) -> Vec<Loaded> {
    let next = AtomicUsize::new(0);
    let loaded: Mutex<Vec<(usize, Loaded)>> = Mutex::new(Vec::with_capacity(candidates.len()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(Candidate { key, controls }) = candidates.get(index) else {
                return;
            };
            let result = load_listed(repository, key, *controls);
            loaded
                .lock()
                .expect("no holder panics")
                .push((index, (*key, result)));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_GETS.min(candidates.len()) {
            scope.spawn(work);
        }
    });
    let mut loaded = loaded.into_inner().expect("no holder panics");
    loaded.sort_by_key(|(index, _)| *index);
    loaded.into_iter().map(|(_, loaded)| loaded).collect()
}

/// One GET where the listing shows a whole point, a closer look where it does not.
fn load_listed(
    repository: &Repository,
    key: &SessionKey,
    controls: Controls,
) -> Result<Option<Point>> {
    if !(controls.open && controls.is_manifest()) {
        return load(repository, key);
    }
    match read_manifest(repository, key, &name::slot(key)) {
        Ok(manifest) => {
            let status = if controls.tomb {
                PointStatus::Forgotten
            } else {
                PointStatus::Complete
            };
            Ok(Some(Point {
                key: *key,
                manifest,
                status,
            }))
        }
        Err(_) => load(repository, key),
    }
}
