//! From what a person types to a point: an id, a unique prefix of one, or `NAME@latest`.
//!
//! Owns: that resolution. Must not: guess: two candidates are an error that names both.

use super::points::{self, Listing, Point, PointStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::ids::to_hex;

/// Fewer digits than this match too much to be meant.
const MIN_PREFIX_DIGITS: usize = 4;

/// Finds the point that `text` names.
///
/// # Errors
/// `NotFound` where there is none, `InvalidRequest` where there are several or `text` is no name of a point, `Corrupt` where
/// its manifest is lost.
pub fn resolve(repository: &Repository, text: &str) -> Result<Point> {
    match text.rsplit_once('@') {
        Some((volume, "latest")) => latest(repository, volume),
        Some(_) => Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("parse `{text}` as a point: only NAME@latest is known"),
        )
        .object(text)
        .hint("give a point id, a unique prefix of one, or NAME@latest")),
        None => by_prefix(repository, text),
    }
}

fn latest(repository: &Repository, volume: &str) -> Result<Point> {
    let listing = points::list(repository, Some(repository.keys.volume_id(volume)))?;
    let newest_unreadable = listing
        .unreadable
        .last()
        .map(|(key, _)| (key.sequence, key.session));
    let newest = listing
        .points
        .into_iter()
        .filter(|point| point.status != PointStatus::Forgotten)
        .max_by_key(|point| (point.key.sequence, point.key.session));
    match (newest, newest_unreadable) {
        (Some(point), lost)
            if lost.is_none_or(|lost| lost < (point.key.sequence, point.key.session)) =>
        {
            Ok(point)
        }
        (_, Some(_)) => Err(unreadable(listing.unreadable)),
        _ => Err(Error::new(
            ErrorKind::NotFound,
            format!("find a point of volume `{volume}`"),
        )
        .object(format!("{volume}@latest"))
        .hint("`snaphaul points` lists the volumes and their points")),
    }
}

fn by_prefix(repository: &Repository, text: &str) -> Result<Point> {
    let (session, volume) = text.split_once('-').unwrap_or((text, ""));
    let is_hex = |part: &str| {
        part.bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
    };
    let whole = text.contains('-');
    if session.len() < MIN_PREFIX_DIGITS
        || session.len() > 16
        || (whole && session.len() != 16)
        || volume.len() > 8
        || !is_hex(session)
        || !is_hex(volume)
    {
        return Err(Error::new(ErrorKind::InvalidRequest, format!("parse `{text}` as a point"))
            .object(text)
            .hint("give a point id as `snaphaul points` shows it, at least its first 4 digits, or NAME@latest"));
    }
    // Only the listing under the volume's prefix is needed; without one it is the whole repository.
    let listing = points::list_prefix(repository, volume)?;
    let (mut matching, unreadable_matching) = matching(listing, session);
    match (matching.len(), unreadable_matching.is_empty()) {
        (1, true) => Ok(matching.remove(0)),
        (0, true) => Err(Error::new(ErrorKind::NotFound, "find the point")
            .object(text)
            .hint("`snaphaul points` lists what the repository holds")),
        (0, false) => Err(unreadable(unreadable_matching)),
        _ => {
            let ids: Vec<_> = matching
                .iter()
                .map(|point| point.id().to_string())
                .collect();
            Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "find the point: `{text}` is the beginning of {}",
                    ids.join(", ")
                ),
            )
            .object(text)
            .hint("give more digits"))
        }
    }
}

type Unreadable = Vec<(crate::repository::ids::SessionKey, Error)>;

fn matching(listing: Listing, session: &str) -> (Vec<Point>, Unreadable) {
    let points = listing
        .points
        .into_iter()
        .filter(|point| to_hex(&point.key.session.0).starts_with(session))
        .collect();
    let unreadable = listing
        .unreadable
        .into_iter()
        .filter(|(key, _)| to_hex(&key.session.0).starts_with(session))
        .collect();
    (points, unreadable)
}

fn unreadable(mut lost: Unreadable) -> Error {
    match lost.pop() {
        Some((key, error)) => error
            .context(format!("read the manifest of point {}", key.point()))
            .hint("choose an older point with `snaphaul points`; `snaphaul verify` says what is damaged"),
        None => Error::new(ErrorKind::Internal, "no unreadable point to report"),
    }
}
