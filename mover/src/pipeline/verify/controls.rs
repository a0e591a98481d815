//! Checks the small objects: repository roots, and the records of each point.
//!
//! Owns: which objects a committed point needs besides its map and data. Must not: walk maps.

use crate::error::{Error, ErrorKind, Result};
use crate::repository::access::{Repository, check_roots};
use crate::repository::format::Manifest;
use crate::repository::ids::{SessionKey, name};
use crate::repository::map::Liveness;
use crate::repository::session::points::Point;
use crate::repository::session::records;

use super::findings::{Fault, Findings, Flaw};

/// Notes a fault of the object that the error names, or passes on what is no fault of an object.
pub(crate) fn note(
    findings: &Findings,
    error: Error,
    object: &str,
    point: Option<&Point>,
) -> Result<()> {
    let Some(flaw) = Flaw::of(&error) else {
        return Err(error);
    };
    tracing::debug!(%error, object, "note a finding");
    match point {
        Some(point) => findings.hurts(object, &flaw, point, None),
        None => findings.object(object, &flaw),
    }
    Ok(())
}

/// Checks config and key slots, both copies of each.
pub(crate) fn check_repository(repository: &Repository, findings: &Findings) -> Result<()> {
    for error in check_roots(repository.store.as_ref())? {
        let object = error.object_name().unwrap_or(name::CONFIG).to_owned();
        note(findings, error, &object, None)?;
    }
    Ok(())
}

/// Checks start record, slot, second copy and liveness of a point; gives the liveness where it can be read, and whether the
/// second copy is only missing, which is settled at the end of the run.
pub(crate) fn check_point(
    repository: &Repository,
    point: &Point,
    findings: &Findings,
) -> Result<(Option<Liveness>, bool)> {
    let key = &point.key;
    let open = name::open(key);
    match records::get_open(repository, key) {
        Ok(Some(_)) => {}
        Ok(None) => {
            let flaw = Flaw::new(
                Fault::Missing,
                "find the start record of the point: it is gone",
            );
            findings.hurts(&open, &flaw, point, None);
        }
        Err(error) => note(findings, error, &open, Some(point))?,
    }
    check_manifest(repository, point, &name::slot(key), findings)?;
    let copy_is_missing = match repository.store.head(&name::copy(key))? {
        None => true,
        Some(_) => {
            check_manifest(repository, point, &name::copy(key), findings)?;
            false
        }
    };
    let live = name::live(key);
    let liveness = repository.store.get(&live).and_then(|object| {
        Liveness::open(&repository.keys, key, &point.manifest.liveness, &object)
    });
    match liveness {
        Ok(liveness) => Ok((Some(liveness), copy_is_missing)),
        Err(error) => {
            note(findings, error, &live, Some(point))?;
            Ok((None, copy_is_missing))
        }
    }
}

/// The writer stores the second copy right after the commit; one that is still missing after the run is lost.
pub(crate) fn settle_copy(
    repository: &Repository,
    (key, volume): &(SessionKey, String),
    findings: &Findings,
) -> Result<()> {
    let copy = name::copy(key);
    if repository.store.head(&copy)?.is_none() {
        let flaw = Flaw::new(
            Fault::Missing,
            "find the second copy of the manifest: it is gone",
        );
        let point = key.point().to_string();
        findings.hurts_named(&copy, &flaw, (volume, &point), None);
    }
    Ok(())
}

fn check_manifest(
    repository: &Repository,
    point: &Point,
    name: &str,
    findings: &Findings,
) -> Result<()> {
    let read = repository.store.get(name).and_then(|object| {
        let manifest = Manifest::open(&repository.keys, &point.key, name, &object)?;
        if manifest == point.manifest {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            "compare a manifest with its copy: they differ",
        )
        .object(name))
    });
    read.or_else(|error| note(findings, error, name, Some(point)))
}
