//! Which point a new one builds on.
//!
//! Owns: that choice, and mending a missing second copy of the parent's manifest. Must not: read chunks.

use bytes::Bytes;

use super::request::ParentChoice;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::ids::{Sequence, name};
use crate::repository::session::points::{Catalog, Point, PointStatus};
use crate::repository::session::resolve;

/// The parent, and where the new point stands in the volume's history.
#[derive(Debug)]
pub struct Chosen {
    /// The point to build on.
    pub parent: Option<Point>,
    /// Higher than that of every session of the volume so far, so that "latest" is the newest.
    pub sequence: Sequence,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Chooses the parent of the next point of a volume.
///
/// # Errors
/// `InvalidRequest` where a given point cannot be a parent; what the store answers.
pub fn choose(
    repository: &Repository,
    volume: &str,
    choice: &ParentChoice,
    catalog: &Catalog,
) -> Result<Chosen> {
    let mut warnings = Vec::new();
    let parent = match choice {
        ParentChoice::None => None,
        ParentChoice::Auto => catalog.newest_complete(repository, &mut warnings)?,
        ParentChoice::Point(text) => Some(given(repository, text)?),
    };
    if let Some(parent) = &parent
        && parent.manifest.volume == volume
        && !catalog.has_copy(&parent.key)
    {
        mend_copy(repository, parent);
    }
    let sequence = catalog.next_sequence().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "number one more point of this volume").object(volume)
    })?;
    Ok(Chosen {
        parent,
        sequence,
        warnings,
    })
}

/// The newest points of the volume, whatever is built on, and be they forgotten: they say who was caught. More than one where runs
/// went on at the same time.
///
/// # Errors
/// What the store answers.
pub fn newest(repository: &Repository, chosen: &Chosen, catalog: &Catalog) -> Result<Vec<Point>> {
    let parent = chosen.parent.as_ref();
    // The parent may be of another volume, or older.
    match parent.filter(|parent| catalog.has_copy(&parent.key) && catalog.is_newest(&parent.key)) {
        Some(parent) => Ok(Vec::from([parent.clone()])),
        None => catalog.newest_known(repository),
    }
}

/// A point of any volume: what was restored from it builds on it.
fn given(repository: &Repository, text: &str) -> Result<Point> {
    let point = resolve::resolve(repository, text)?;
    let refuse = |why: &str| {
        Error::new(
            ErrorKind::InvalidRequest,
            format!("use point {} as parent: {why}", point.id()),
        )
        .object(point.id())
        .hint("leave --parent out to build on the newest point of the volume")
    };
    match &point.status {
        PointStatus::Complete => Ok(point),
        PointStatus::Forgotten => Err(refuse("it was forgotten")),
        PointStatus::Damaged(why) => Err(refuse(why)),
    }
}

/// A copy is missing where the last writer died between its commit and the copy.
fn mend_copy(repository: &Repository, point: &Point) {
    let store = repository.store.as_ref();
    let mended = store
        .get(&name::slot(&point.key))
        .and_then(|manifest: Bytes| store.put(&name::copy(&point.key), manifest));
    match mended {
        Ok(()) => tracing::info!(point = %point.id(), "add the missing second copy of a manifest"),
        Err(error) => tracing::info!(%error, "leave the second copy of a manifest missing"),
    }
}
