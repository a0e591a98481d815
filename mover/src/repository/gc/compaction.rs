//! Which sparse segments are worth rewriting.
//!
//! Owns: the choice. Must not: read directories: it works from sizes and live ordinals, so that a run costs no request a
//! segment. Before one is rewritten, its directory says what that really saves: [`CompactionPolicy::is_worth`].

use super::live_union::Live;
use super::objects::SegmentRow;
use super::plan::Plan;
use crate::repository::ids::{SegmentId, SessionId};

/// When rewriting pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Most bytes a stored chunk can take: the chunk size and its tag.
    pub max_body: u32,
    /// A segment is rewritten if at least so many thousandths of it are dead.
    pub min_dead_permille: u32,
    /// Dead bytes, in thousandths of all stored ones, that may stay: below, nothing is rewritten, unless at any cost.
    pub tolerated_permille: u32,
    /// Rewrite also where that writes more than it frees.
    pub at_any_cost: bool,
}

impl CompactionPolicy {
    /// What `gc` does unless told otherwise.
    #[must_use]
    pub fn new(max_body: u32) -> Self {
        Self {
            max_body,
            min_dead_permille: 50,
            tolerated_permille: 10,
            at_any_cost: false,
        }
    }

    /// Whether rewriting saves enough, by the exact lengths of the segment's directory.
    #[must_use]
    pub fn is_worth(&self, stored: u64, live: u64) -> bool {
        let dead = stored.saturating_sub(live);
        dead * 1000 >= stored * u64::from(self.min_dead_permille) && dead > 0
    }
}

/// One segment to rewrite: create its next generation with the live ordinals only (numbers kept), then delete this one
/// and all below. "Exists already" is as good as success: every view writes a superset of what is needed. A store without
/// create-only PUT would let two runs store different bytes under one name, and a reader in between would read parts of
/// both: there nothing is rewritten.
#[derive(Clone, Copy, Debug)]
pub struct Compaction<'a> {
    /// The segment.
    pub id: SegmentId,
    /// The generation to read; the next is written.
    pub generation: u8,
    /// Bytes of the object.
    pub size: u32,
    /// Estimate of the bytes that stay; never more than `size`.
    pub live_bytes: u32,
    /// What stays.
    pub live: Live<'a>,
}

/// The last generation that its two digits can name: such a segment is compacted no more.
const LAST_GENERATION: u8 = 99;

impl Plan {
    /// Segments to rewrite, sparsest first. Taken in this order, what was written never exceeds what was freed, with
    /// `freed` bytes of whole objects deleted before, unless that is wanted at any cost.
    #[must_use]
    pub fn compactions(&self, policy: &CompactionPolicy, freed: u64) -> Vec<Compaction<'_>> {
        self.choose(policy, freed).0
    }

    /// As [`compactions`](Self::compactions), with an estimate of the dead bytes in the segments that stay as they are.
    pub(crate) fn choose(
        &self,
        policy: &CompactionPolicy,
        freed: u64,
    ) -> (Vec<Compaction<'_>>, u64) {
        let mut stored = 0u64;
        let mut dead = 0u64;
        let mut sparse = Vec::new();
        self.estimate(policy, &mut |found| {
            stored += u64::from(found.size);
            dead += u64::from(found.size - found.live_bytes);
            if found.generation < LAST_GENERATION
                && policy.is_worth(u64::from(found.size), u64::from(found.live_bytes))
            {
                sparse.push(found);
            }
        });
        let is_tolerated = dead * 1000 <= stored * u64::from(policy.tolerated_permille);
        if is_tolerated && !policy.at_any_cost {
            return (Vec::new(), dead);
        }
        sparse.sort_unstable_by_key(|found| {
            (
                u64::from(found.live_bytes) * 1_000_000 / u64::from(found.size.max(1)),
                found.id,
            )
        });
        let (mut freed, mut written) = (freed, 0u64);
        let paid = sparse.iter().take_while(|found| {
            freed += u64::from(found.size - found.live_bytes);
            written += u64::from(found.live_bytes);
            written <= freed || policy.at_any_cost
        });
        let paid = paid.count();
        sparse.truncate(paid);
        let gone = sparse
            .iter()
            .map(|found| u64::from(found.size - found.live_bytes));
        let stays = dead - gone.sum::<u64>();
        (sparse, stays)
    }

    /// An estimate of the dead bytes in all segments, which stay where nothing is rewritten.
    pub(crate) fn dead_bytes(&self, policy: &CompactionPolicy) -> u64 {
        let mut dead = 0;
        self.estimate(policy, &mut |found| {
            dead += u64::from(found.size - found.live_bytes);
        });
        dead
    }

    /// Estimates every living segment. The number of its chunks is at least the highest live ordinal, and about what the
    /// densest segment of the same session says; no chunk is longer than the chunk size.
    fn estimate<'a>(&'a self, policy: &CompactionPolicy, found: &mut dyn FnMut(Compaction<'a>)) {
        let mut group: Vec<(SegmentId, SegmentRow, Live<'a>)> = Vec::new();
        let mut session: Option<SessionId> = None;
        for living in self.living() {
            if session.replace(living.0.session) != Some(living.0.session) {
                estimate_session(policy, &mut group, found);
            }
            group.push(living);
        }
        estimate_session(policy, &mut group, found);
    }
}

fn estimate_session<'a>(
    policy: &CompactionPolicy,
    group: &mut Vec<(SegmentId, SegmentRow, Live<'a>)>,
    found: &mut dyn FnMut(Compaction<'a>),
) {
    // Chunks in 2^20 bytes, as far as is known.
    let density = group
        .iter()
        .map(|(_, row, live)| (u64::from(live.end()) << 20) / u64::from(row.size.max(1)))
        .max()
        .unwrap_or(0);
    for (id, row, live) in group.drain(..) {
        let size = u64::from(row.size);
        let chunks = u64::from(live.end()).max((density * size) >> 20).max(1);
        let count = u64::from(live.count());
        let share = size * count / chunks;
        let most = count * u64::from(policy.max_body);
        let live_bytes = share.min(most).min(size);
        found(Compaction {
            id,
            generation: row.generation,
            size: row.size,
            live_bytes: u32::try_from(live_bytes).unwrap_or(row.size),
            live,
        });
    }
}
