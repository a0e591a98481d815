//! What a verification found wrong, and whom it hurts.
//!
//! Owns: one finding per object and volume, with its points, byte ranges, and what to do next. Must not: read anything. Memory is
//! bounded: [`MAX_OBJECTS`] objects are named and [`MAX_RANGES`] ranges of each, all others are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind};
use crate::pipeline::report::VerifyFinding;
use crate::pipeline::restore::losses::describe;
use crate::repository::ids::name;
use crate::repository::map::damaged_page;
use crate::repository::segments::is_missing;
use crate::repository::session::points::Point;

/// Objects named in one report: who has more needs no list of them.
const MAX_OBJECTS: usize = 10_000;
/// Ranges told for one object and volume.
const MAX_RANGES: usize = 4096;

/// How an object is wrong.
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

/// What is wrong with an object, for scripts and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub fault: Fault,
    pub why: String,
}

impl Flaw {
    pub(crate) fn new(fault: Fault, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { fault, why }
    }

    /// What an error says about the object it names; `None` where it is about the store or us.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let why = describe(error);
        Fault::of(error).map(|fault| Self { fault, why })
    }
}

impl Fault {
    /// As [`Flaw::of`], without words.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        if !matches!(
            error.kind(),
            ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Io
        ) {
            return None;
        }
        if is_missing(error) || damaged_page(error).is_some_and(|page| page.is_missing()) {
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

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Truncated => "truncated",
            Self::Swapped => "swapped",
            Self::Damaged => "damaged",
        }
    }
}

/// What to do about a faulty object, by its kind.
fn next_step(object: &str) -> &'static str {
    let of = |prefix| object.starts_with(prefix);
    if of(name::SEG) {
        "the next backup of the volume stores these chunks again where the source still has them; \
         `snaphaul restore --salvage` saves the rest of a point"
    } else if of(name::MAP) {
        "`snaphaul repair` rebuilds the map from the segments where that can be proved right; the next backup writes it anew"
    } else if of(name::LIVE) {
        "`snaphaul repair` works it out again from the map; the point can still be restored"
    } else if of(name::OPEN) || of(name::SNAP) {
        "`snaphaul repair` commits the point again from its second copy"
    } else {
        "`snaphaul repair` writes it again from its other copy"
    }
}

#[derive(Debug, Default)]
struct Hurt {
    points: BTreeSet<String>,
    /// Byte ranges `[start, end)` by start.
    ranges: BTreeMap<u64, u64>,
    /// Whether it hurts all of the volume.
    whole: bool,
    /// Ranges beyond [`MAX_RANGES`].
    untold: u64,
}

#[derive(Debug)]
struct Found {
    flaw: Flaw,
    volumes: BTreeMap<String, Hurt>,
}

/// All findings of a run; filled by any thread.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    found: BTreeMap<String, Found>,
    /// Notes on objects beyond [`MAX_OBJECTS`].
    untold: u64,
}

impl Findings {
    /// Notes that an object is faulty, whoever that hurts. The first flaw of an object is kept.
    pub(crate) fn object(&self, object: &str, flaw: &Flaw) {
        self.with(object, flaw, |_| {});
    }

    /// Notes that a faulty object hurts a point: `range` of its volume, or all of it.
    pub(crate) fn hurts(
        &self,
        object: &str,
        flaw: &Flaw,
        point: &Point,
        range: Option<(u64, u64)>,
    ) {
        self.hurts_named(
            object,
            flaw,
            (&point.manifest.volume, &point.id().to_string()),
            range,
        );
    }

    /// As [`hurts`](Self::hurts), for a point of which only names are known.
    pub(crate) fn hurts_named(
        &self,
        object: &str,
        flaw: &Flaw,
        (volume, point): (&str, &str),
        range: Option<(u64, u64)>,
    ) {
        self.with(object, flaw, |found| {
            let hurt = found.volumes.entry(volume.to_owned()).or_default();
            hurt.points.insert(point.to_owned());
            match range {
                Some((start, end)) => {
                    if hurt.ranges.len() < MAX_RANGES || touches(&hurt.ranges, start) {
                        add_range(&mut hurt.ranges, start, end);
                    } else {
                        hurt.untold += 1;
                    }
                }
                None => hurt.whole = true,
            }
        });
    }

    /// As they are reported: by object, then by volume; and how many more notes there were than a report holds.
    pub(crate) fn finish(self) -> (Vec<VerifyFinding>, u64) {
        let all = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let found = all.found.into_iter();
        let findings = found.flat_map(|(object, found)| found.finish(&object));
        (findings.collect(), all.untold)
    }

    fn with(&self, object: &str, flaw: &Flaw, note: impl FnOnce(&mut Found)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.found.len() >= MAX_OBJECTS && !all.found.contains_key(object) {
            all.untold += 1;
            return;
        }
        let found = all.found.entry(object.to_owned()).or_insert_with(|| Found {
            flaw: flaw.clone(),
            volumes: BTreeMap::new(),
        });
        note(found);
    }
}

impl Found {
    fn finish(self, object: &str) -> Vec<VerifyFinding> {
        let finding = |volume, hurt: Hurt| VerifyFinding {
            kind: self.flaw.fault.as_str().to_owned(),
            object: object.to_owned(),
            message: message(&self.flaw, object, hurt.untold),
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

fn message(flaw: &Flaw, object: &str, untold: u64) -> String {
    let more = if untold > 0 {
        format!(" ({untold} more ranges are not listed)")
    } else {
        String::new()
    };
    format!("{}{more}; {}", flaw.why, next_step(object))
}

/// Whether a range that begins at `start` would join one that is there.
fn touches(ranges: &BTreeMap<u64, u64>, start: u64) -> bool {
    ranges
        .range(..=start)
        .next_back()
        .is_some_and(|(_, end)| *end >= start)
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
        findings.object("config.b", &Flaw::new(Fault::Missing, "it is gone"));
        let (found, _) = findings.finish();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].kind.as_str(), found[0].object.as_str()),
            ("missing", "config.b")
        );
        assert!(found[0].points.is_empty() && found[0].volume.is_none());
        assert!(
            found[0].message.contains("it is gone; `snaphaul repair`"),
            "{}",
            found[0].message
        );
    }

    #[test]
    fn one_finding_per_object_and_volume() {
        let findings = Findings::default();
        findings.hurts_named(
            "seg/a",
            &Flaw::new(Fault::Damaged, "bad"),
            ("db", "p1"),
            Some((0, 10)),
        );
        findings.hurts_named(
            "seg/a",
            &Flaw::new(Fault::Damaged, "bad"),
            ("db", "p2"),
            Some((10, 20)),
        );
        findings.hurts_named(
            "seg/a",
            &Flaw::new(Fault::Damaged, "bad"),
            ("web", "p3"),
            Some((5, 6)),
        );
        findings.hurts_named(
            "snap/a",
            &Flaw::new(Fault::Truncated, "bad"),
            ("db", "p1"),
            None,
        );
        let (found, untold) = findings.finish();
        assert_eq!((found.len(), untold), (3, 0));
        assert_eq!(found[0].points, ["p1", "p2"]);
        assert_eq!(found[0].ranges, [(0, 20)]);
        assert_eq!(found[1].volume.as_deref(), Some("web"));
        assert!(found[2].ranges.is_empty());
    }

    #[test]
    fn a_report_does_not_grow_without_end() {
        let findings = Findings::default();
        let flaw = Flaw::new(Fault::Missing, "gone");
        for n in 0..MAX_OBJECTS as u64 + 7 {
            findings.hurts_named(&format!("seg/{n:06}"), &flaw, ("db", "p"), Some((n, n + 1)));
        }
        for n in 0..MAX_RANGES as u64 + 9 {
            findings.hurts_named("seg/000000", &flaw, ("db", "p"), Some((10 * n, 10 * n + 1)));
        }
        let (found, untold) = findings.finish();
        assert_eq!((found.len(), untold), (MAX_OBJECTS, 7));
        assert_eq!(found[0].ranges.len(), MAX_RANGES);
        assert!(
            found[0].message.contains("(9 more ranges"),
            "{}",
            found[0].message
        );
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
