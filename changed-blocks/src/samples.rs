//! Which chunks a run reads although its source says that they did not change (rule R8).
//!
//! ```text
//!   outside the delta ──┬─ half at hot places: start, end, superblocks, tables, journals, next to what changed
//!                       └─ half at random, evenly over what the parent had allocated
//! ```
//!
//! Owns: the choice, pure and the same for the same seed, and the chance that it finds a lie. Must not: read chunks.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::chunk_set::ChunkSet;
use crate::extent::ByteLen;
use crate::split_mix::SplitMix64;

mod hot;

/// Samples of a run. They find one wrong chunk in a hundred with a chance of 92 %, and cost 32 MiB of chunks of 128 KiB.
pub const SAMPLES: usize = 256;

/// What samples are drawn from.
#[derive(Clone, Copy, Debug)]
pub struct SampleSpace<'a> {
    /// Number of chunks that parent and target have both.
    pub chunks: u64,
    /// Bytes of a chunk.
    pub chunk: ByteLen,
    /// Chunks that are read anyway.
    pub delta: &'a ChunkSet,
    /// Chunks that the parent had allocated; `None` where that is not known, and all are drawn from.
    pub allocated: Option<&'a ChunkSet>,
}

/// Chooses the samples that `seed` stands for: ascending, each once, none in the delta.
///
/// There are [`SAMPLES`], fewer where fewer chunks are left, and twice as many where nothing changed: that is legal, but
/// it is also what a source says that tells nothing (rule R4).
#[must_use]
pub fn choose(space: &SampleSpace<'_>, seed: u64) -> Vec<u64> {
    let count = if space.delta.is_empty() {
        2 * SAMPLES
    } else {
        SAMPLES
    };
    let mut random = SplitMix64::new(seed);
    let mut chosen = at_hot_places(space, count / 2, &mut random);
    let missing = count - chosen.len();
    let drawn = at_random(space, missing, &chosen, &mut random);
    chosen.extend(drawn);
    chosen.into_iter().collect()
}

/// Whether `chunk` is among the chunks that `seed` draws, each with a chance of `wanted` in `of`.
#[must_use]
pub fn is_drawn(seed: u64, chunk: u64, wanted: u64, of: u64) -> bool {
    let mut random = SplitMix64::new(seed ^ chunk.rotate_left(32));
    random.below(of.max(1)) < wanted
}

/// The chance that at least one of `samples` chunks drawn at random is wrong if `wrong` of all are (0 to 1).
#[must_use]
pub fn detection_chance(wrong: f64, samples: u64) -> f64 {
    if samples == 0 {
        return 0.0;
    }
    // 1 - (1 - wrong)^samples without losing the small digits.
    -((-wrong.clamp(0.0, 1.0)).ln_1p() * samples as f64).exp_m1()
}

/// Up to `count` chunks outside the delta, by turns from every kind of hot place.
fn at_hot_places(space: &SampleSpace<'_>, count: usize, random: &mut SplitMix64) -> BTreeSet<u64> {
    let unit = space.chunk.0.max(1);
    let size = space.chunks.saturating_mul(unit);
    let mut places: Vec<u64> = hot::places(size)
        .iter()
        .map(|offset| offset / unit)
        .collect();
    shuffle(&mut places, random);
    let last = size.saturating_sub(hot::LAST_BYTES) / unit..space.chunks;
    let mut kinds: [Box<dyn Iterator<Item = u64> + '_>; 4] = [
        Box::new((0..hot::FIRST_BYTES.div_ceil(unit)).take(count)),
        Box::new(last.take(count)),
        Box::new(places.into_iter()),
        Box::new(beside_changes(space.delta, count, random)),
    ];
    let mut chosen = BTreeSet::new();
    let mut left = true;
    while left {
        left = false;
        for kind in &mut kinds {
            let Some(chunk) = kind.next() else { continue };
            left = true;
            if chosen.len() < count && chunk < space.chunks && !space.delta.contains(chunk) {
                chosen.insert(chunk);
            }
        }
    }
    chosen
}

/// Chunks right before and after changed ranges, which are drawn by their length.
fn beside_changes(
    delta: &ChunkSet,
    count: usize,
    random: &mut SplitMix64,
) -> impl Iterator<Item = u64> {
    let changed: Vec<u64> = (0..count)
        .filter_map(|_| delta.nth(random.below(delta.len())))
        .collect();
    changed.into_iter().flat_map(|chunk| {
        let before = delta.previous_absent(chunk);
        before.into_iter().chain([delta.next_absent(chunk)])
    })
}

/// Up to `count` chunks that are allocated, not in the delta and not `taken`, each as likely as any other.
fn at_random(
    space: &SampleSpace<'_>,
    count: usize,
    taken: &BTreeSet<u64>,
    random: &mut SplitMix64,
) -> Vec<u64> {
    let eligible = unchanged(space).map(|range| range.end - range.start).sum();
    // As many more as may turn out to be taken.
    let ranks = distinct_below(eligible, count + taken.len(), random);
    let chunks = by_rank(unchanged(space), &ranks);
    let free = chunks.into_iter().filter(|chunk| !taken.contains(chunk));
    free.take(count).collect()
}

/// The allocated ranges outside the delta, ascending.
fn unchanged<'a>(space: &SampleSpace<'a>) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let SampleSpace {
        chunks,
        delta,
        allocated,
        ..
    } = *space;
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < chunks {
            let start = match allocated {
                None => at,
                Some(allocated) => allocated.next(at)?,
            };
            if delta.contains(start) {
                at = delta.next_absent(start);
                continue;
            }
            let held = allocated.map_or(chunks, |allocated| allocated.next_absent(start));
            let end = held.min(delta.next(start).unwrap_or(chunks)).min(chunks);
            at = end;
            return (start < end).then_some(start..end);
        }
        None
    })
}

/// `count` distinct numbers below `end` in random order, every choice of them equally likely (Floyd's algorithm).
fn distinct_below(end: u64, count: usize, random: &mut SplitMix64) -> Vec<u64> {
    let count = (count as u64).min(end);
    let mut seen = BTreeSet::new();
    let mut numbers = Vec::new();
    for bound in end - count..end {
        let drawn = random.below(bound + 1);
        let number = if seen.contains(&drawn) { bound } else { drawn };
        seen.insert(number);
        numbers.push(number);
    }
    // The later ones lean to the end.
    shuffle(&mut numbers, random);
    numbers
}

/// The members of `ranges` with these ranks, in the order of `ranks`; those too high are left out.
fn by_rank(ranges: impl Iterator<Item = Range<u64>>, ranks: &[u64]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_unstable_by_key(|index| ranks[*index]);
    let mut chunks = vec![None; ranks.len()];
    let mut wanted = order.into_iter().peekable();
    let mut passed = 0;
    for range in ranges {
        let len = range.end - range.start;
        while let Some(index) = wanted.next_if(|index| ranks[*index] < passed + len) {
            chunks[index] = Some(range.start + (ranks[index] - passed));
        }
        passed += len;
    }
    chunks.into_iter().flatten().collect()
}

fn shuffle(numbers: &mut [u64], random: &mut SplitMix64) {
    for last in (1..numbers.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(last);
        numbers.swap(last, other);
    }
}

#[cfg(test)]
mod tests;
