//! Chunks seen in this session: a table of fixed size, digest to location.
//!
//! Owns: that table. Must not: grow. The oldest entry of a bucket makes room; forgetting one only costs storing a chunk twice.

use std::sync::{Mutex, RwLock};

use crate::repository::ids::{Digest, SegmentId, SessionId};
use crate::repository::map::Location;

/// Memory of the table, part of the budgets of a process.
const TABLE_BYTES: usize = 32 << 20;
/// Entries that share a bucket.
const WAYS: usize = 4;
/// Locks; more than any machine has cores, so that two workers rarely meet.
const SHARDS: usize = 64;

/// 24 bytes: the digest and the location, its session as an index from 1 into the table of sessions; 0 is an empty slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    digest: [u8; 16],
    number: u32,
    session: u16,
    ordinal: u16,
}

#[derive(Default)]
struct Shard {
    slots: Vec<Slot>,
    /// Per bucket, the way that is overwritten next.
    oldest: Vec<u8>,
}

/// Digests of chunks stored or adopted by this session.
#[derive(Default)]
pub struct DedupeTable {
    shards: Vec<Mutex<Shard>>,
    /// This session and those it adopted: few.
    sessions: RwLock<Vec<SessionId>>,
}

impl std::fmt::Debug for DedupeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DedupeTable")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl DedupeTable {
    /// An empty table of the standard size; pages are touched only when used.
    #[must_use]
    pub fn new() -> Self {
        Self::with_slots(TABLE_BYTES / size_of::<Slot>())
    }

    fn with_slots(slots: usize) -> Self {
        let buckets = (slots / WAYS / SHARDS).max(1);
        let shard = || Shard {
            slots: vec![Slot::default(); buckets * WAYS],
            oldest: vec![0; buckets],
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            sessions: RwLock::default(),
        }
    }

    /// Where the chunk with this digest is stored, if it is still remembered. The whole digest is compared.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<Location> {
        let shard = self.shard(digest).lock().expect("no holder panics");
        let first = bucket(digest, shard.oldest.len()) * WAYS;
        let slot = *shard.slots[first..first + WAYS]
            .iter()
            .find(|slot| slot.session != 0 && slot.digest == digest.0)?;
        drop(shard);
        let sessions = self.sessions.read().expect("no holder panics");
        let session = *sessions.get(usize::from(slot.session) - 1)?;
        let segment = SegmentId {
            session,
            number: slot.number,
        };
        Some(Location {
            segment,
            ordinal: slot.ordinal,
        })
    }

    /// Remembers a chunk.
    pub fn insert(&self, digest: &Digest, location: Location) {
        let Some(session) = self.intern(location.segment.session) else {
            return;
        };
        let mut shard = self.shard(digest).lock().expect("no holder panics");
        let bucket = bucket(digest, shard.oldest.len());
        let way = usize::from(shard.oldest[bucket]);
        shard.slots[bucket * WAYS + way] = Slot {
            digest: digest.0,
            number: location.segment.number,
            session,
            ordinal: location.ordinal,
        };
        shard.oldest[bucket] = u8::try_from((way + 1) % WAYS).expect("ways are few");
    }

    fn shard(&self, digest: &Digest) -> &Mutex<Shard> {
        &self.shards[usize::from(digest.0[0]) % SHARDS]
    }

    /// Number of a session, from 1.
    fn intern(&self, id: SessionId) -> Option<u16> {
        let position = |sessions: &[SessionId]| {
            sessions
                .iter()
                .position(|known| *known == id)
                .and_then(|at| u16::try_from(at + 1).ok())
        };
        if let Some(number) = position(&self.sessions.read().expect("no holder panics")) {
            return Some(number);
        }
        let mut sessions = self.sessions.write().expect("no holder panics");
        if position(&sessions).is_none() {
            sessions.push(id);
        }
        position(&sessions)
    }
}

fn bucket(digest: &Digest, buckets: usize) -> usize {
    let mut low = [0; 8];
    low.copy_from_slice(&digest.0[8..]);
    usize::try_from(u64::from_le_bytes(low) % buckets as u64).expect("smaller than a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        bytes[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Digest(bytes)
    }

    fn location(n: u32) -> Location {
        Location {
            segment: SegmentId {
                session: SessionId([7; 16]),
                number: n / 100,
            },
            ordinal: u16::try_from(n % 100).unwrap(),
        }
    }

    #[test]
    fn what_was_put_in_is_found() {
        let table = DedupeTable::with_slots(64 * 4 * 1024);
        for n in 0..1000 {
            table.insert(&digest(u64::from(n)), location(n));
        }
        for n in 0..1000 {
            assert_eq!(table.get(&digest(u64::from(n))), Some(location(n)));
        }
        assert_eq!(table.get(&digest(1000)), None);
    }

    #[test]
    fn the_newest_survive_and_memory_does_not_grow() {
        let table = DedupeTable::with_slots(SHARDS * WAYS);
        for n in 0..10_000 {
            table.insert(&digest(u64::from(n)), location(n));
        }
        assert_eq!(table.get(&digest(9_999)), Some(location(9_999)));
        assert_eq!(table.get(&digest(0)), None);
    }
}
