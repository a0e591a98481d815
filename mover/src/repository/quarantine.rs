//! Marks on stored bodies that were found bad or missing (`quarantine/<sid>/<n>/<first>-<last>`).
//!
//! Owns: making marks and knowing them. Must not: decide what is bad, or delete anything. The names say it all, so that a backup
//! learns every mark with one listing, and `quarantine.used` spares it that where there never was a mark. A mark costs that a chunk is stored again, never data: a mark that is lost, forged or out of
//! date does no harm beyond that.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use minicbor::{Decode, Encode};

use super::access::Repository;
use super::format::{Class, MAX_BODIES};
use super::ids::{SegmentId, SessionId, from_hex, name};
use super::map::Location;
use super::session::records;
use super::store::Store;
use crate::error::{ErrorKind, Result};

/// The last ordinal there can be: a mark up to it from 0 is on the whole segment.
#[allow(clippy::cast_possible_truncation, reason = "4,096 fits into 16 bits")]
const LAST_ORDINAL: u16 = MAX_BODIES as u16 - 1;

/// What a mark's object holds, for people.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Mark {
    /// What is wrong.
    #[n(0)]
    why: String,
}

/// Every mark of a repository.
#[derive(Clone, Debug, Default)]
pub struct Quarantine(BTreeMap<SegmentId, Vec<RangeInclusive<u16>>>);

impl Quarantine {
    /// Lists the marks.
    ///
    /// # Errors
    /// What the store answers.
    pub fn load(store: &dyn Store) -> Result<Self> {
        let mut marks = Self::default();
        store.list(name::QUARANTINE, &mut |page| {
            for info in page {
                if let Some((segment, ordinals)) = parse(&info.name) {
                    marks.0.entry(segment).or_default().push(ordinals);
                }
            }
            Ok(())
        })?;
        Ok(marks)
    }

    /// As [`load`](Self::load), with one look instead of a listing where there never was a mark.
    ///
    /// # Errors
    /// What the store answers.
    pub fn load_if_used(store: &dyn Store) -> Result<Self> {
        match store.head(name::QUARANTINE_USED)? {
            Some(_) => Self::load(store),
            None => Ok(Self::default()),
        }
    }

    /// Whether there is no mark.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a body is marked.
    #[must_use]
    pub fn contains(&self, body: Location) -> bool {
        self.0
            .get(&body.segment)
            .is_some_and(|marks| marks.iter().any(|mark| mark.contains(&body.ordinal)))
    }

    /// Marks bodies that are not marked yet (all of the segment without `ordinals`) and gives the number of new marks.
    ///
    /// # Errors
    /// What the store answers: `AccessDenied` or `NoSpace` where it takes no marks.
    pub fn mark(
        &mut self,
        repository: &Repository,
        segment: SegmentId,
        ordinals: Option<&[u16]>,
        why: &str,
    ) -> Result<u64> {
        let runs = match ordinals {
            None => vec![0..=LAST_ORDINAL],
            Some(ordinals) => runs_of(ordinals),
        };
        sign(repository)?;
        let mut made = 0;
        for run in runs {
            let known = self.0.entry(segment).or_default();
            if known
                .iter()
                .any(|mark| mark.start() <= run.start() && run.end() <= mark.end())
            {
                continue;
            }
            let object = name::quarantine(segment, *run.start(), *run.end());
            let mark = Mark {
                why: why.to_owned(),
            };
            let body = records::seal(repository, Class::Note, segment.session, &object, &mark)?;
            // Somebody else's mark of the same name is as good.
            repository.store.create(&object, body)?;
            known.push(run);
            made += 1;
        }
        Ok(made)
    }
}

/// Says that there are marks, before the first of them; nobody ever takes that back.
fn sign(repository: &Repository) -> Result<()> {
    let store = repository.store.as_ref();
    if store.head(name::QUARANTINE_USED)?.is_some() {
        return Ok(());
    }
    let mark = Mark {
        why: "marks are under quarantine/".to_owned(),
    };
    let nobody = SessionId([0; 16]);
    let object = name::QUARANTINE_USED;
    let body = records::seal(repository, Class::Note, nobody, object, &mark)?;
    store.create(object, body).map(drop)
}

/// The segment that an object under `quarantine/` marks bodies of; `None` for a name that is no mark.
#[must_use]
pub fn marked_segment(object: &str) -> Option<SegmentId> {
    parse(object).map(|(segment, _)| segment)
}

/// Whether an error says that the store takes no notes from us, which stops nobody.
#[must_use]
pub fn is_refusal(error: &crate::Error) -> bool {
    matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::NoSpace)
}

fn parse(object: &str) -> Option<(SegmentId, RangeInclusive<u16>)> {
    let mut parts = object.strip_prefix(name::QUARANTINE)?.split('/');
    let segment = SegmentId {
        session: SessionId(from_hex(parts.next()?)?),
        number: parts.next()?.parse().ok()?,
    };
    let (first, last) = parts.next()?.split_once('-')?;
    Some((segment, first.parse().ok()?..=last.parse().ok()?))
}

/// Neighbouring ordinals together, ascending.
fn runs_of(ordinals: &[u16]) -> Vec<RangeInclusive<u16>> {
    let mut ordinals = ordinals.to_vec();
    ordinals.sort_unstable();
    let mut runs: Vec<RangeInclusive<u16>> = Vec::new();
    for ordinal in ordinals {
        match runs.last_mut() {
            Some(run) if ordinal <= run.end().saturating_add(1) => *run = *run.start()..=ordinal,
            _ => runs.push(ordinal..=ordinal),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::Bed;

    fn at(number: u32, ordinal: u16) -> Location {
        let session = SessionId([7; 16]);
        Location {
            segment: SegmentId { session, number },
            ordinal,
        }
    }

    #[test]
    fn marks_are_found_again_by_their_names() {
        let bed = Bed::new();
        let mut marks = Quarantine::default();
        let segment = at(3, 0).segment;
        let made = marks.mark(
            &bed.repository,
            segment,
            Some(&[9, 4, 5, 6]),
            "a bit is wrong",
        );
        assert_eq!(made.unwrap(), 2, "4 to 6, and 9");
        assert_eq!(
            marks
                .mark(&bed.repository, segment, Some(&[5]), "again")
                .unwrap(),
            0
        );
        marks
            .mark(&bed.repository, at(4, 0).segment, None, "gone")
            .unwrap();
        let loaded = Quarantine::load_if_used(&*bed.repository.store).unwrap();
        for (location, marked) in [
            (at(3, 3), false),
            (at(3, 4), true),
            (at(3, 6), true),
            (at(3, 7), false),
            (at(3, 9), true),
            (at(4, 0), true),
            (at(4, 4095), true),
            (at(5, 0), false),
        ] {
            assert_eq!(loaded.contains(location), marked, "{location:?}");
            assert_eq!(marks.contains(location), marked, "{location:?}");
        }
        assert_eq!(bed.objects(name::QUARANTINE).len(), 3);
    }

    #[test]
    fn where_there_never_was_a_mark_nothing_is_listed() {
        let bed = Bed::new();
        let store = &*bed.repository.store;
        let before = store.counts();
        assert!(Quarantine::load_if_used(store).unwrap().is_empty());
        let after = store.counts();
        assert_eq!((after.list - before.list, after.head - before.head), (0, 1));
    }

    #[test]
    fn two_may_mark_the_same_at_once() {
        let bed = Bed::new();
        for _ in 0..2 {
            let mut marks = Quarantine::default();
            let made = marks.mark(&bed.repository, at(1, 0).segment, Some(&[1]), "bad");
            assert_eq!(made.unwrap(), 1);
        }
        assert_eq!(bed.objects(name::QUARANTINE).len(), 1);
    }

    #[test]
    fn foreign_names_are_no_marks() {
        for object in [
            "quarantine/x",
            "quarantine/1/2/3-4",
            "beat/07",
            "quarantine/",
        ] {
            assert!(parse(object).is_none(), "{object}");
        }
    }
}
