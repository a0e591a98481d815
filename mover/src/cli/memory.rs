//! What this machine remembers of a repository: the newest point of each volume that it saw.
//!
//! ```text
//!   $XDG_STATE_HOME/snaphaul/<repository id>.json       (else ~/.local/state/snaphaul)
//! ```
//!
//! Owns: the file, and the warning that a store shows an older state than it did before. Must not: decide anything else, or
//! fail a run: whoever has no place for state goes without.
//!
//! A store can withhold objects or be put back to yesterday's copy, and every object in it is authentic. Only somebody who was
//! there before can tell.

mod file;
mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::run::Run;
use super::units;
use crate::error::{ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::ids::{SessionKey, VolumeId, name};
use crate::repository::session::forget::read_tomb;
use crate::repository::session::points::{self, Listing, PointStatus};
use ledger::{Ledger, Remembered, Seen};

/// Compares a listing with what is remembered, warns, and remembers. `scope` is the volume that was listed; none means all.
pub(super) fn observe(
    run: &Run,
    repository: &Repository,
    listing: &Listing,
    scope: Option<VolumeId>,
) -> Result<()> {
    let Some(path) = path(repository) else {
        return Ok(());
    };
    observe_at(run, repository, listing, (scope, path))
}

fn observe_at(
    run: &Run,
    repository: &Repository,
    listing: &Listing,
    (scope, path): (Option<VolumeId>, PathBuf),
) -> Result<()> {
    let mut ledger = read(run, &path);
    let before = ledger.clone();
    for point in &listing.points {
        let is_newest = ledger
            .newest(point.key.volume)
            .is_some_and(|known| known.key == point.key);
        if is_newest
            && point.status == PointStatus::Forgotten
            && is_forgotten(run, repository, &point.key)?
        {
            ledger.forgot(&point.key);
        }
    }
    let seen = newest(listing);
    for seen in &seen {
        ledger.note(seen, now());
    }
    let there: BTreeSet<SessionKey> = all(listing).map(|seen| seen.key).collect();
    for remembered in ledger.missing(scope, &seen, |key| there.contains(key)) {
        judge(run, repository, &mut ledger, (&remembered, &path))?;
    }
    if ledger != before {
        write(&path, &ledger);
    }
    Ok(())
}

/// Warns if the newest point of a volume that this machine remembers is gone and no newer one is there. Two requests where all
/// is well.
pub(super) fn check(run: &Run, repository: &Repository, volume: VolumeId) -> Result<()> {
    let Some(path) = path(repository) else {
        return Ok(());
    };
    let Some(remembered) = read(run, &path).newest(volume) else {
        return Ok(());
    };
    let (store, key) = (&repository.store, remembered.key);
    if store.head(&name::slot(&key))?.is_some() && store.head(&name::open(&key))?.is_some() {
        return Ok(());
    }
    let listing = points::list(repository, Some(volume))?;
    observe_at(run, repository, &listing, (Some(volume), path))
}

/// Remembers a point that this machine took.
pub(super) fn took(run: &Run, repository: &Repository, volume: &str, key: SessionKey) {
    change(run, repository, |ledger| {
        let seen = Seen {
            key,
            volume: volume.to_owned(),
        };
        ledger.note(&seen, now());
    });
}

/// Remembers points that this machine forgot: that they vanish is no surprise.
pub(super) fn forgot(run: &Run, repository: &Repository, keys: impl Iterator<Item = SessionKey>) {
    change(run, repository, |ledger| {
        for key in keys {
            ledger.forgot(&key);
        }
    });
}

fn change(run: &Run, repository: &Repository, change: impl FnOnce(&mut Ledger)) {
    let Some(path) = path(repository) else {
        return;
    };
    let before = read(run, &path);
    let mut ledger = before.clone();
    change(&mut ledger);
    if ledger != before {
        write(&path, &ledger);
    }
}

/// A remembered point is gone, and nothing newer is there: forgotten by somebody, or withheld by the store?
fn judge(
    run: &Run,
    repository: &Repository,
    ledger: &mut Ledger,
    (remembered, path): (&Remembered, &Path),
) -> Result<()> {
    let (key, volume) = (remembered.key, &remembered.volume);
    if is_forgotten(run, repository, &key)? {
        ledger.forgot(&key);
        return Ok(());
    }
    run.warn(format!(
        "the repository may have been put back to an older state: point {} of volume {volume}, which this machine saw on {}, is gone, \
         and no newer one is there. If somebody forgot it on another machine and gc collected it, remove {}",
        key.point(),
        units::timestamp_secs(remembered.seen_unix_secs),
        path.display()
    ));
    Ok(())
}

/// Whether somebody with the key ordered a point to be forgotten. Anybody who can write to the store can make up an order.
fn is_forgotten(run: &Run, repository: &Repository, key: &SessionKey) -> Result<bool> {
    match read_tomb(repository, key) {
        Ok(tomb) => Ok(tomb.is_some()),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            run.warn(format!(
                "the forget order of point {} is damaged, or was made by somebody without the key",
                key.point()
            ));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Every point that nobody forgot, damaged ones included.
fn all(listing: &Listing) -> impl Iterator<Item = Seen> + '_ {
    let points = listing
        .points
        .iter()
        .filter(|point| point.status != PointStatus::Forgotten)
        .map(|point| Seen {
            key: point.key,
            volume: point.manifest.volume.clone(),
        });
    let unreadable = listing.unreadable.iter().map(|(key, _)| Seen {
        key: *key,
        volume: String::new(),
    });
    points.chain(unreadable)
}

/// The newest of them of each volume.
fn newest(listing: &Listing) -> Vec<Seen> {
    let mut newest: BTreeMap<VolumeId, Seen> = BTreeMap::new();
    for seen in all(listing) {
        match newest.get(&seen.key.volume) {
            Some(other) if other.key >= seen.key => {}
            _ => {
                newest.insert(seen.key.volume, seen);
            }
        }
    }
    newest.into_values().collect()
}

fn path(repository: &Repository) -> Option<PathBuf> {
    let folder = file::folder(
        std::env::var_os("XDG_STATE_HOME").as_deref(),
        std::env::var_os("HOME").as_deref(),
    )?;
    Some(folder.join(format!("{}.json", repository.config.repository)))
}

fn read(run: &Run, path: &Path) -> Ledger {
    file::read(path).unwrap_or_else(|error| {
        run.warn(format!(
            "{error}: whether the repository was put back to an older state cannot be told this time"
        ));
        Ledger::default()
    })
}

fn write(path: &Path, ledger: &Ledger) {
    if let Err(error) = file::write(path, ledger) {
        tracing::info!(%error, "remember nothing of the repository");
    }
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
