//! Which points a run looks at, a batch at a time.
//!
//! ```text
//!   listing ─► names of what may be points ─► batch: manifests ─► reader's record ─► the points    (the records stay to the end)
//! ```
//!
//! Owns: the choice, and that the manifests of a large repository are never in memory all at once. Must not: check anything.

use super::VerifyRequest;
use super::findings::{Findings, Flaw};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::repository::access::Repository;
use crate::repository::ids::{SessionKey, name};
use crate::repository::session::points::{self, Candidate, Listing, Point, PointStatus};
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::Kind;
use crate::repository::session::resolve::resolve;

/// Points whose manifests are held at once, about 1 KiB each.
const BATCH: usize = if cfg!(test) { 2 } else { 1024 };
/// How often a batch is loaded before a point that is forgotten meanwhile ends the run.
const ATTEMPTS: usize = 3;

/// The points of a run.
#[derive(Debug)]
pub(super) enum Selection {
    /// They were named.
    Named(Vec<Point>),
    /// All that nobody forgot, about 60 bytes each.
    All(Vec<Candidate>),
}

impl Selection {
    /// # Errors
    /// `NotFound` for a name that is unknown, and what the store answers.
    pub(super) fn new(repository: &Repository, request: &VerifyRequest) -> Result<Self> {
        if request.points.is_empty() {
            return Ok(Self::All(points::candidates(repository)?));
        }
        let named = request.points.iter();
        let named: Result<_> = named.map(|text| resolve(repository, text)).collect();
        Ok(Self::Named(named?))
    }

    /// Takes a reader's record for each batch and gives both to `work`. Points that are lost, in part or whole, are findings.
    ///
    /// # Errors
    /// Those of `work`, and what the store answers.
    pub(super) fn hold(
        &self,
        context: &Context,
        findings: &Findings,
        work: &mut dyn FnMut(&[Point], ReaderLease) -> Result<()>,
    ) -> Result<()> {
        let lease = |points: &[Point]| {
            let pins: Vec<&Point> = points.iter().collect();
            ReaderLease::take(&context.repository, Kind::Verify, &pins)
        };
        let listed = match self {
            Self::Named(points) => return work(points, lease(points)?),
            Self::All(listed) => listed,
        };
        for batch in listed.chunks(BATCH) {
            let mut attempts = 0;
            let mut batch = batch.to_vec();
            loop {
                context.stop.check()?;
                attempts += 1;
                let Listing { points, unreadable } = load(&context.repository, &batch)?;
                match lease(&points) {
                    Ok(lease) => {
                        note(findings, unreadable)?;
                        work(&points, lease)?;
                        break;
                    }
                    // Somebody forgot one since the listing.
                    Err(error) if error.kind() == ErrorKind::NotFound && attempts < ATTEMPTS => {
                        batch.iter_mut().for_each(Candidate::doubt);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The points of `held` again, which ascend; for as long as the records of [`hold`](Self::hold) are there. One that cannot be
    /// read any more is a finding.
    ///
    /// # Errors
    /// Those of `work`, and what the store answers.
    pub(super) fn again(
        &self,
        repository: &Repository,
        held: &[SessionKey],
        findings: &Findings,
        work: &mut dyn FnMut(&[Point]) -> Result<()>,
    ) -> Result<()> {
        let listed = match self {
            Self::Named(points) => return work(points),
            Self::All(listed) => listed,
        };
        listed.chunks(BATCH).try_for_each(|batch| {
            let is_held = |key: &SessionKey| held.binary_search(key).is_ok();
            let loaded = points::load_candidates(repository, batch)?;
            let Listing {
                mut points,
                mut unreadable,
            } = loaded;
            points.retain(|point| is_held(&point.key));
            unreadable.retain(|(key, _)| is_held(key));
            note(findings, unreadable)?;
            work(&points)
        })
    }
}

fn load(repository: &Repository, batch: &[Candidate]) -> Result<Listing> {
    let mut listing = points::load_candidates(repository, batch)?;
    listing
        .points
        .retain(|point| point.status != PointStatus::Forgotten);
    Ok(listing)
}

fn note(findings: &Findings, unreadable: Vec<(SessionKey, Error)>) -> Result<()> {
    for (key, error) in unreadable {
        let Some(flaw) = Flaw::of(&error) else {
            return Err(error);
        };
        let point = key.point().to_string();
        findings.hurts_named(&name::slot(&key), &flaw, ("", &point), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pipeline::testing::{Bed, Layout, image};
    use crate::pipeline::verify::VerifyLevel;

    fn all() -> VerifyRequest {
        VerifyRequest {
            points: Vec::new(),
            level: VerifyLevel::Data,
            sample_percent: 5.0,
        }
    }

    #[test]
    fn many_points_are_held_a_batch_at_a_time() {
        let bed = Bed::new();
        for number in 0..5 {
            bed.point(&format!("v{number}"), &image(20, 0, 60), Layout::default());
        }
        let context = bed.context();
        let selection = Selection::new(&bed.repository, &all()).unwrap();
        let (mut leases, mut sizes) = (Vec::new(), Vec::new());
        selection
            .hold(&context, &Findings::default(), &mut |points, lease| {
                leases.push(lease);
                sizes.push(points.len());
                assert_eq!(bed.objects(name::OPEN).len(), 5 + leases.len());
                Ok(())
            })
            .unwrap();
        assert_eq!(sizes, [2, 2, 1]);
        drop(leases);
        assert_eq!(bed.objects(name::OPEN).len(), 5);
    }

    #[test]
    fn what_is_forgotten_or_purged_after_the_listing_is_passed_over() {
        let bed = Bed::new();
        let keys: Vec<SessionKey> = (0..4)
            .map(|number| bed.point(&format!("v{number}"), &image(20, 0, 61), Layout::default()))
            .collect();
        let selection = Selection::new(&bed.repository, &all()).unwrap();
        let order = bytes::Bytes::from_static(b"forgotten by a test, 16 bytes and more");
        bed.repository
            .store
            .put(&name::tomb(&keys[0]), order)
            .unwrap();
        for object in [
            name::copy(&keys[1]),
            name::open(&keys[1]),
            name::slot(&keys[1]),
        ] {
            fs::remove_file(bed.object(&object)).unwrap();
        }
        let mut seen = Vec::new();
        let mut note = |points: &[Point]| seen.extend(points.iter().map(|point| point.key));
        let findings = Findings::default();
        selection
            .hold(&bed.context(), &findings, &mut |points, _| {
                note(points);
                Ok(())
            })
            .unwrap();
        seen.sort_unstable();
        let mut left = keys[2..].to_vec();
        left.sort_unstable();
        assert_eq!(seen, left);
        let mut again = Vec::new();
        selection
            .again(&bed.repository, &left, &findings, &mut |points| {
                again.extend(points.iter().map(|point| point.key));
                Ok(())
            })
            .unwrap();
        assert_eq!(again, left);
        assert_eq!(findings.finish().0, []);
    }

    #[test]
    fn what_became_unreadable_since_the_first_look_is_a_finding() {
        let bed = Bed::new();
        let keys = ["v0", "v1"].map(|name| bed.point(name, &image(20, 0, 63), Layout::default()));
        let selection = Selection::new(&bed.repository, &all()).unwrap();
        let mut held = keys.to_vec();
        held.sort_unstable();
        for object in [name::slot(&keys[0]), name::copy(&keys[0])] {
            crate::pipeline::testing::flip(&bed.object(&object), 40);
        }
        let (findings, mut again) = (Findings::default(), Vec::new());
        selection
            .again(&bed.repository, &held, &findings, &mut |points| {
                again.extend(points.iter().map(|point| point.key));
                Ok(())
            })
            .unwrap();
        assert_eq!(again, [keys[1]]);
        let (found, _) = findings.finish();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].points, [keys[0].point().to_string()]);
    }

    #[test]
    fn a_fault_hurts_points_of_every_batch() {
        let bed = Bed::new();
        let same = image(20, 0, 62);
        let ids: Vec<String> = (0..5)
            .map(|number| bed.point(&format!("v{number}"), &same, Layout::default()))
            .map(|key| key.point().to_string())
            .collect();
        for object in bed.objects(name::SEG) {
            fs::remove_file(bed.object(&object)).unwrap();
        }
        let report = crate::pipeline::verify::run(&bed.context(), &all()).unwrap();
        assert_eq!(report.points, 5);
        for id in &ids {
            let hurt = report.errors.iter().any(|found| found.points.contains(id));
            assert!(hurt, "{id}: {:?}", report.errors);
        }
    }
}
