//! What a verification found wrong, and whom it hurts.
//!
//! Owns: one finding per object and volume, with its points and byte ranges. Must not: read anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind};
use crate::pipeline::report::VerifyFinding;
use crate::pipeline::restore::losses::describe;
use crate::repository::segments::is_missing;
use crate::repository::session::points::Point;

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It is not there.
    Missing,
    /// It ends too early.
    Truncated,
    /// It is intact, but belongs somewhere else.
    Swapped,
    /// Its bytes are not those that were written.
    Damaged,
}

impl Fault {
    /// What an error says about the object it names; `None` where it is about the store or us.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        if !matches!(
            error.kind(),
            ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Io
        ) {
            return None;
        }
        if is_missing(error) {
            return Some(Self::Missing);
        }
        let text = describe(error);
        Some(
            if text.contains("truncated") || text.contains("ends after") {
                Self::Truncated
            } else if text.contains("swapped") {
                Self::Swapped
            } else {
                Self::Damaged
            },
        )
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Truncated => "truncated",
            Self::Swapped => "swapped",
            Self::Damaged => "damaged",
        }
    }
}

#[derive(Debug, Default)]
struct Hurt {
    points: BTreeSet<String>,
    /// Byte ranges `[start, end)` by start.
    ranges: BTreeMap<u64, u64>,
    /// Whether it hurts all of the volume.
    whole: bool,
}

#[derive(Debug)]
struct Found {
    fault: Fault,
    volumes: BTreeMap<String, Hurt>,
}

/// All findings of a run; filled by any thread.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<BTreeMap<String, Found>>);

impl Findings {
    /// Notes that an object is faulty, whoever that hurts. The first fault of an object is kept.
    pub(crate) fn object(&self, object: &str, fault: Fault) {
        self.with(object, fault, |_| {});
    }

    /// Notes that a faulty object hurts a point: `range` of its volume, or all of it.
    pub(crate) fn hurts(
        &self,
        object: &str,
        fault: Fault,
        point: &Point,
        range: Option<(u64, u64)>,
    ) {
        self.hurts_named(
            object,
            fault,
            (&point.manifest.volume, &point.id().to_string()),
            range,
        );
    }

    /// As [`hurts`](Self::hurts), for a point of which only names are known.
    pub(crate) fn hurts_named(
        &self,
        object: &str,
        fault: Fault,
        (volume, point): (&str, &str),
        range: Option<(u64, u64)>,
    ) {
        self.with(object, fault, |found| {
            let hurt = found.volumes.entry(volume.to_owned()).or_default();
            hurt.points.insert(point.to_owned());
            match range {
                Some((start, end)) => add_range(&mut hurt.ranges, start, end),
                None => hurt.whole = true,
            }
        });
    }

    /// As they are reported: by object, then by volume.
    pub(crate) fn finish(self) -> Vec<VerifyFinding> {
        let found = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        found
            .into_iter()
            .flat_map(|(object, found)| found.finish(&object))
            .collect()
    }

    fn with(&self, object: &str, fault: Fault, note: impl FnOnce(&mut Found)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.entry(object.to_owned()).or_insert_with(|| Found {
            fault,
            volumes: BTreeMap::new(),
        });
        note(found);
    }
}

impl Found {
    fn finish(self, object: &str) -> Vec<VerifyFinding> {
        let finding = |volume, hurt: Hurt| VerifyFinding {
            kind: self.fault.as_str().to_owned(),
            object: object.to_owned(),
            volume,
            points: hurt.points.into_iter().collect(),
            ranges: if hurt.whole {
                Vec::new()
            } else {
                hurt.ranges
                    .into_iter()
                    .map(|(start, end)| (start, end - start))
                    .collect()
            },
        };
        if self.volumes.is_empty() {
            return vec![finding(None, Hurt::default())];
        }
        self.volumes
            .into_iter()
            .map(|(volume, hurt)| finding(Some(volume).filter(|name| !name.is_empty()), hurt))
            .collect()
    }
}

/// Adds a range and joins it with those it touches.
fn add_range(ranges: &mut BTreeMap<u64, u64>, mut start: u64, mut end: u64) {
    while let Some((first, last)) = ranges
        .range(..=end)
        .next_back()
        .map(|(first, last)| (*first, *last))
    {
        if last < start {
            break;
        }
        ranges.remove(&first);
        start = start.min(first);
        end = end.max(last);
    }
    ranges.insert(start, end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_object_that_hurts_nobody_is_found_too() {
        let findings = Findings::default();
        findings.object("config.b", Fault::Missing);
        let found = findings.finish();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].kind.as_str(), found[0].object.as_str()),
            ("missing", "config.b")
        );
        assert!(found[0].points.is_empty() && found[0].volume.is_none());
    }

    #[test]
    fn one_finding_per_object_and_volume() {
        let findings = Findings::default();
        findings.hurts_named("seg/a", Fault::Damaged, ("db", "p1"), Some((0, 10)));
        findings.hurts_named("seg/a", Fault::Damaged, ("db", "p2"), Some((10, 20)));
        findings.hurts_named("seg/a", Fault::Damaged, ("web", "p3"), Some((5, 6)));
        findings.hurts_named("snap/a", Fault::Truncated, ("db", "p1"), None);
        let found = findings.finish();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].points, ["p1", "p2"]);
        assert_eq!(found[0].ranges, [(0, 20)]);
        assert_eq!(found[1].volume.as_deref(), Some("web"));
        assert!(found[2].ranges.is_empty());
    }

    #[test]
    fn faults_are_told_apart() {
        let of = |kind, text: &str| Fault::of(&Error::new(kind, text).object("x"));
        assert_eq!(
            of(ErrorKind::Corrupt, "read a truncated object: 1 of 2 bytes"),
            Some(Fault::Truncated)
        );
        assert_eq!(
            of(ErrorKind::Corrupt, "refuse a swapped or forged object"),
            Some(Fault::Swapped)
        );
        assert_eq!(
            of(ErrorKind::Corrupt, "read a damaged object"),
            Some(Fault::Damaged)
        );
        assert_eq!(
            of(ErrorKind::NotFound, "read an object"),
            Some(Fault::Missing)
        );
        assert_eq!(of(ErrorKind::Unavailable, "read an object"), None);
    }

    proptest! {
        #[test]
        fn ranges_cover_what_was_added(added in proptest::collection::vec((0u64..60, 1u64..9), 0..30)) {
            let (mut ranges, mut naive) = (BTreeMap::new(), [false; 70]);
            for (start, len) in added {
                add_range(&mut ranges, start, start + len);
                for at in start..start + len {
                    naive[usize::try_from(at).unwrap()] = true;
                }
            }
            let mut covered = [false; 70];
            for (start, end) in &ranges {
                for at in *start..*end {
                    covered[usize::try_from(at).unwrap()] = true;
                }
            }
            prop_assert_eq!(covered, naive);
            let listed: Vec<_> = ranges.into_iter().collect();
            prop_assert!(listed.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
