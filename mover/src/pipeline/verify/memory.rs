//! What was checked when, so that samples take what was not looked at for longest (`checked/<run>`).
//!
//! ```text
//!   every memory there is ─► newest stamp of each segment ─► choose the oldest ─► check ─► one new memory, the old ones go
//! ```
//!
//! Owns: that memory and the choice. Must not: matter: any of these objects may be lost, refused or deleted by anybody, and then
//! segments are only checked sooner than needed. No clock is asked: a stamp is the number of a run. Two runs at once keep both of
//! their memories, which the next one joins.

use std::collections::HashMap;

use minicbor::{Decode, Encode};

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::restore::sample::Random;
use crate::repository::access::Repository;
use crate::repository::format::Class;
use crate::repository::ids::{SegmentId, SessionId, from_hex, name, random};
use crate::repository::session::records;
use crate::repository::store::list_all;

/// Memories that one run joins; more are left by verifiers that may not delete, and the rest waits.
const MAX_JOINED: usize = 64;

/// The stored form: for each session pairs of segment number and stamp.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[n(0)]
    run: u32,
    #[n(1)]
    sessions: Vec<StoredSession>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct StoredSession {
    #[n(0)]
    session: SessionId,
    #[n(1)]
    stamps: Vec<u32>,
}

/// When segments were last checked.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    stamps: HashMap<SegmentId, u32>,
    run: u32,
    joined: Vec<String>,
}

impl Memory {
    /// Joins all memories that can be read.
    ///
    /// # Errors
    /// What the store answers; a damaged memory is none.
    pub(crate) fn load(repository: &Repository) -> Result<Self> {
        let mut memory = Self::default();
        for info in list_all(repository.store.as_ref(), name::CHECKED)?
            .into_iter()
            .take(MAX_JOINED)
        {
            let Some(run) = info.name.strip_prefix(name::CHECKED).and_then(from_hex) else {
                continue;
            };
            match records::get::<Stored>(repository, Class::Note, SessionId(run), &info.name) {
                Ok(stored) => memory.join(&stored),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::info!(%error, "forget what a damaged memory held");
                }
                Err(error) => return Err(error),
            }
            memory.joined.push(info.name);
        }
        Ok(memory)
    }

    fn join(&mut self, stored: &Stored) {
        self.run = self.run.max(stored.run);
        for session in &stored.sessions {
            for pair in session.stamps.chunks_exact(2) {
                let id = SegmentId {
                    session: session.session,
                    number: pair[0],
                };
                let stamp = self.stamps.entry(id).or_default();
                *stamp = (*stamp).max(pair[1]);
            }
        }
    }

    /// Chooses from `segments`, given with their lengths, those that were not checked for longest, until they make `percent` of
    /// all bytes. Among equals `seed` decides.
    pub(crate) fn choose(
        &self,
        segments: &[(SegmentId, u64)],
        percent: f64,
        seed: u64,
    ) -> Vec<SegmentId> {
        let mut random = Random::new(seed);
        let mut order: Vec<(u32, u64, SegmentId, u64)> = segments
            .iter()
            .map(|(id, len)| {
                let stamp = self.stamps.get(id).copied().unwrap_or(0);
                (stamp, random.below(u64::MAX), *id, *len)
            })
            .collect();
        order.sort_unstable();
        let total: u64 = segments.iter().map(|(_, len)| len).sum();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a sum of lengths, rounded up"
        )]
        let wanted = (total as f64 * percent / 100.0).ceil() as u64;
        let mut taken = 0;
        order
            .into_iter()
            .take_while(|(_, _, _, len)| {
                let goes_on = taken < wanted;
                taken += len;
                goes_on
            })
            .map(|(_, _, id, _)| id)
            .collect()
    }

    /// Stores that `checked` were looked at now, and removes the memories that the new one holds. With `known`, all others are
    /// forgotten.
    ///
    /// # Errors
    /// What the store answers to the new memory; `AccessDenied` or `NoSpace` where it takes none.
    pub(crate) fn store(
        mut self,
        repository: &Repository,
        checked: &[SegmentId],
        known: Option<&[(SegmentId, u64)]>,
    ) -> Result<()> {
        self.run = self.run.saturating_add(1);
        if let Some(known) = known {
            let known: std::collections::HashSet<_> = known.iter().map(|(id, _)| *id).collect();
            self.stamps.retain(|id, _| known.contains(id));
        }
        for id in checked {
            self.stamps.insert(*id, self.run);
        }
        let session = SessionId(random());
        let object = name::checked(session);
        let body = records::seal(repository, Class::Note, session, &object, &self.to_stored())?;
        repository.store.put(&object, body)?;
        repository.store.sync()?;
        for old in &self.joined {
            if let Err(error) = repository.store.delete(old) {
                tracing::info!(%error, old, "leave an old memory of a verification behind");
            }
        }
        Ok(())
    }

    fn to_stored(&self) -> Stored {
        let mut stamps: Vec<_> = self.stamps.iter().collect();
        stamps.sort_unstable();
        let mut sessions: Vec<StoredSession> = Vec::new();
        for (id, stamp) in stamps {
            match sessions.last_mut() {
                Some(last) if last.session == id.session => {
                    last.stamps.extend([id.number, *stamp]);
                }
                _ => sessions.push(StoredSession {
                    session: id.session,
                    stamps: vec![id.number, *stamp],
                }),
            }
        }
        Stored {
            run: self.run,
            sessions,
        }
    }
}

/// A share of the data to sample, above 0 and at most 100.
///
/// # Errors
/// `InvalidRequest` for anything else.
pub(crate) fn check_percent(percent: f64) -> Result<()> {
    if percent > 0.0 && percent <= 100.0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!("sample {percent} % of the data"),
    )
    .hint("give --sample-percent a number above 0, at most 100"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::testing::Bed;

    fn segments(lens: &[u64]) -> Vec<(SegmentId, u64)> {
        let id = |at: usize| SegmentId {
            session: SessionId([u8::try_from(at % 3).unwrap(); 16]),
            number: u32::try_from(at).unwrap(),
        };
        let ids = lens.iter().enumerate();
        ids.map(|(at, len)| (id(at), *len)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn everything_is_checked_once_in_as_many_runs_as_shares(
            lens in proptest::collection::vec(1u64..1000, 1..60),
            percent in 1.0f64..100.0,
            seed in any::<u64>(),
        ) {
            let bed = Bed::new();
            let segments = segments(&lens);
            let mut seen = std::collections::HashSet::new();
            let mut run = 0u64;
            while (run as f64) < (100.0 / percent).ceil() {
                let memory = Memory::load(&bed.repository).unwrap();
                let chosen = memory.choose(&segments, percent, seed ^ run);
                prop_assert!(!chosen.is_empty());
                seen.extend(chosen.iter().copied());
                memory.store(&bed.repository, &chosen, Some(&segments)).unwrap();
                run += 1;
            }
            prop_assert_eq!(seen.len(), segments.len(), "after {} runs of {} %", run, percent);
            prop_assert_eq!(bed.objects(name::CHECKED).len(), 1);
        }
    }

    #[test]
    fn two_verifiers_at_once_lose_nothing() {
        let bed = Bed::new();
        let segments = segments(&[5; 10]);
        let ids: Vec<_> = segments.iter().map(|(id, _)| *id).collect();
        let (one, two) = (
            Memory::load(&bed.repository).unwrap(),
            Memory::load(&bed.repository).unwrap(),
        );
        one.store(&bed.repository, &ids[..4], None).unwrap();
        two.store(&bed.repository, &ids[4..8], None).unwrap();
        let joined = Memory::load(&bed.repository).unwrap();
        let mut next = joined.choose(&segments, 20.0, 1);
        next.sort_unstable();
        let mut unchecked = ids[8..].to_vec();
        unchecked.sort_unstable();
        assert_eq!(next, unchecked);
        joined.store(&bed.repository, &ids[8..], None).unwrap();
        assert_eq!(bed.objects(name::CHECKED).len(), 1, "joined into one");
    }

    #[test]
    fn a_damaged_memory_is_none_and_goes() {
        let bed = Bed::new();
        let segments = segments(&[5; 4]);
        Memory::default()
            .store(&bed.repository, &[segments[0].0], None)
            .unwrap();
        let object = bed.objects(name::CHECKED).remove(0);
        crate::pipeline::testing::flip(&bed.object(&object), 70);
        let memory = Memory::load(&bed.repository).unwrap();
        assert_eq!(memory.choose(&segments, 100.0, 1).len(), 4);
        memory.store(&bed.repository, &[], None).unwrap();
        assert_ne!(bed.objects(name::CHECKED), [object]);
    }

    #[test]
    fn percents_are_checked() {
        assert!(check_percent(100.0).is_ok() && check_percent(0.1).is_ok());
        for wrong in [0.0, -1.0, 100.5, f64::NAN] {
            assert!(check_percent(wrong).is_err(), "{wrong}");
        }
    }
}
