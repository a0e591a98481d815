//! A reader's lease: keeps the points it reads from being collected under it.
//!
//! Owns: the reader record, from its PUT to its delete. Must not: stop a restore because the store is read-only: without a
//! record the reader goes on, says so once, and names a later 404 for what it then is.

use std::sync::Arc;

use super::origin::Origin;
use super::points::{Point, PointStatus};
use super::records::{Kind, MAX_ABORT_LEN, Open, seal};
use super::writer::{OPEN_PAUSE, OPEN_TRIES};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::ids::{SessionId, SessionKey, VolumeId, name};
use crate::repository::store::discard;

/// Holds points in place while they are read; given back on drop.
#[derive(Debug)]
pub struct ReaderLease {
    repository: Arc<Repository>,
    record: Option<String>,
    warning: Option<String>,
    /// Whether points that were forgotten, but not collected yet, may be read.
    forgotten: bool,
}

impl ReaderLease {
    /// Pins `points` and then checks that none of them was forgotten before the pin was there.
    ///
    /// # Errors
    /// `NotFound` where a point is gone by now, otherwise what the store answers.
    pub fn take(repository: &Arc<Repository>, kind: Kind, points: &[&Point]) -> Result<Self> {
        Self::take_any(repository, kind, points, (false, Origin::current()))
    }

    /// As [`ReaderLease::take`], for a process elsewhere: of one of this very machine a collector would know whether it lives.
    #[cfg(test)]
    pub(crate) fn take_elsewhere(
        repository: &Arc<Repository>,
        kind: Kind,
        points: &[&Point],
        origin: Origin,
    ) -> Result<Self> {
        Self::take_any(repository, kind, points, (false, origin))
    }

    /// As [`ReaderLease::take`], also for points that were forgotten. The record keeps away every collector that begins after
    /// it was stored; one that began before may still remove the points while they are read.
    ///
    /// # Errors
    /// As [`ReaderLease::take`]; `NotFound` where gc removed a point already.
    pub fn take_forgotten(
        repository: &Arc<Repository>,
        kind: Kind,
        points: &[&Point],
    ) -> Result<Self> {
        Self::take_any(repository, kind, points, (true, Origin::current()))
    }

    fn take_any(
        repository: &Arc<Repository>,
        kind: Kind,
        points: &[&Point],
        (forgotten, origin): (bool, Origin),
    ) -> Result<Self> {
        let mut lease = Self {
            repository: Arc::clone(repository),
            record: None,
            warning: None,
            forgotten,
        };
        let Some(volume) = points.first().map(|point| point.key.volume) else {
            return Ok(lease);
        };
        lease.put(kind, (volume, origin), points)?;
        if lease.record.is_some() {
            for point in points {
                if let Some(warning) = lease.check(point)? {
                    lease.warning = Some(warning);
                }
            }
        }
        Ok(lease)
    }

    /// What a person should know about this lease.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Whether the store took the record. Without one, a 404 while reading means "removed by gc while reading".
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.record.is_some()
    }

    fn put(
        &mut self,
        kind: Kind,
        (volume, origin): (VolumeId, Origin),
        points: &[&Point],
    ) -> Result<()> {
        let open = Open {
            kind,
            pins: points.iter().map(|point| point.key).collect(),
            adopts: Vec::new(),
            volume: points
                .first()
                .map(|point| point.manifest.volume.clone())
                .unwrap_or_default(),
            origin,
        };
        let mut tries = 1;
        loop {
            let session = SessionId::fresh();
            let name = name::reader(volume, session);
            let body = seal(&self.repository, Class::Open, session, &name, &open)?;
            match self.repository.store.put_once(&name, body) {
                Ok(()) => {
                    self.record = Some(name);
                    return Ok(());
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::NoSpace) =>
                {
                    self.warning = Some(format!(
                        "reading without a reader record, because the store refused it ({error}): \
                         do not run gc until this ends"
                    ));
                    return Ok(());
                }
                // The record may or may not be there: it is removed, and another id taken.
                Err(error) => {
                    let removed = discard(self.repository.store.as_ref(), &name);
                    if error.kind() != ErrorKind::Unavailable || tries == OPEN_TRIES {
                        return Err(error);
                    }
                    tracing::info!(%error, removed = removed.is_ok(), "take another reader id");
                    std::thread::sleep(OPEN_PAUSE * tries);
                    tries += 1;
                }
            }
        }
    }

    /// Tomb first, then open, then slot: a purge removes them in the order open, slot, tomb. Of a damaged point, which lacks
    /// one of these, the liveness takes their place: a purge removes it before the tomb, too.
    fn check(&self, point: &Point) -> Result<Option<String>> {
        let key = &point.key;
        match point.status {
            PointStatus::Complete | PointStatus::Forgotten if self.forgotten => {
                check_present(&self.repository, key).map(|()| None)
            }
            PointStatus::Complete | PointStatus::Forgotten => {
                check_pin(&self.repository, key).map(|()| None)
            }
            PointStatus::Damaged(_) => Ok((!check_damaged(&self.repository, key)?).then(|| {
                format!(
                    "reading damaged point {} whose liveness ({}) is missing, too: do not run gc until this ends",
                    point.id(),
                    name::live(key)
                )
            })),
        }
    }
}

impl Drop for ReaderLease {
    fn drop(&mut self) {
        if let Some(record) = self.record.take()
            && let Err(error) = discard(self.repository.store.as_ref(), &record)
        {
            tracing::info!(%error, record, "leave the reader record behind; gc removes it later");
        }
    }
}

/// As [`check_pin`], for a point that may have lost its start record or slot, and is to be built upon: its liveness must show
/// that it was not purged.
pub(crate) fn check_held(repository: &Repository, point: &Point) -> Result<()> {
    if !matches!(point.status, PointStatus::Damaged(_)) {
        return check_pin(repository, &point.key);
    }
    if check_damaged(repository, &point.key)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!(
            "use point {}: with its liveness missing, too, it cannot be told from one that gc removed",
            point.id()
        ),
    )
    .object(name::live(&point.key))
    .hint("`snaphaul restore --salvage` saves what is left of it"))
}

/// Whether the liveness of a damaged point is there, after there was no forget order: then it was not purged.
fn check_damaged(repository: &Repository, key: &SessionKey) -> Result<bool> {
    let store = repository.store.as_ref();
    if store.head(&name::tomb(key))?.is_some() {
        return Err(gone(key, "was forgotten"));
    }
    Ok(store.head(&name::live(key))?.is_some())
}

/// Checks that a pinned point was neither forgotten nor purged before the pin was stored (gc-protocol 4.1.3).
pub(crate) fn check_pin(repository: &Repository, key: &SessionKey) -> Result<()> {
    if repository.store.head(&name::tomb(key))?.is_some() {
        return Err(gone(key, "was forgotten"));
    }
    check_present(repository, key)
}

/// Checks that a point was not purged.
fn check_present(repository: &Repository, key: &SessionKey) -> Result<()> {
    let store = repository.store.as_ref();
    if store.head(&name::open(key))?.is_none() {
        return Err(gone(key, "was removed"));
    }
    match store.head(&name::slot(key))? {
        Some(slot) if slot.size > MAX_ABORT_LEN => Ok(()),
        _ => Err(gone(key, "was removed")),
    }
}

fn gone(key: &SessionKey, why: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("use point {}: it {why}", key.point()),
    )
    .object(name::slot(key))
    .hint("choose another point with `snaphaul points`")
}
