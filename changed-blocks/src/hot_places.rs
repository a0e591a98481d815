//! Where a forgotten change shows first: places that file systems write all the time, and the edges of what changed.
//!
//! Owns: the fixed half of the samples outside a delta (rule R8), and the hash that chooses the random half. Must not: read data.

use crate::chunk_set::ChunkSet;
use crate::extent::ByteLen;

const MIB: u64 = 1 << 20;
/// Boot sectors, partition tables, superblocks, the first group descriptors.
const START: u64 = 4 * MIB;
/// The second partition table, and the end that a change of size moves.
const END: u64 = MIB;
/// A block group of ext4 with 4 KiB blocks: 32,768 of them.
const BLOCK_GROUP: u64 = 128 * MIB;
/// Groups with a copy of the superblock (`sparse_super`): 1 and powers of 3, 5 and 7.
const BACKUP_GROUPS: [u64; 10] = [1, 3, 5, 7, 9, 25, 27, 49, 81, 125];
/// Allocation groups that mkfs.xfs makes of a volume below 4 TiB; each starts with its superblock, and the log is in the middle one.
const ALLOCATION_GROUPS: u64 = 4;

/// At most `wanted` chunks of `chunk` bytes outside `delta`, ascending, of a volume that has `chunks`: a quarter of them beside what
/// changed, the others where file systems keep what they always write.
#[must_use]
pub fn hot_places(chunks: u64, chunk: ByteLen, delta: &ChunkSet, wanted: u64) -> Vec<u64> {
    let mut places = ChunkSet::new(chunks);
    let edges = beside(delta, chunks).take(count(wanted / 4));
    for candidate in edges.chain(fixed(chunks, chunk.0.max(1))) {
        if places.len() == wanted {
            break;
        }
        if !delta.contains(candidate) {
            places.insert(candidate);
        }
    }
    places.iter().collect()
}

fn count(wanted: u64) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

/// The last unchanged chunk before each changed range, and the first one after it.
fn beside(delta: &ChunkSet, chunks: u64) -> impl Iterator<Item = u64> + '_ {
    delta
        .ranges()
        .flat_map(|range| [range.start.checked_sub(1), Some(range.end)])
        .flatten()
        .filter(move |chunk| *chunk < chunks)
}

/// Groups first, because there are few of them, then both ends.
fn fixed(chunks: u64, chunk: u64) -> impl Iterator<Item = u64> {
    let groups = BACKUP_GROUPS
        .into_iter()
        .map(move |group| group * BLOCK_GROUP / chunk);
    let quarters = (1..ALLOCATION_GROUPS).map(move |part| chunks / ALLOCATION_GROUPS * part);
    let ends = (0..END.div_ceil(chunk)).filter_map(move |back| chunks.checked_sub(back + 1));
    groups
        .chain(quarters)
        .chain(ends)
        .chain(0..START.div_ceil(chunk))
}

/// A hash of a chunk's number that looks random for each seed (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
#[must_use]
pub fn hash(seed: u64, chunk: u64) -> u64 {
    let mut mixed = chunk.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: ByteLen = ByteLen(128 << 10);

    #[test]
    fn a_quiet_volume_is_looked_at_where_file_systems_write() {
        let chunks = 1 << 23;
        let places = hot_places(chunks, CHUNK, &ChunkSet::new(chunks), 128);
        for expected in [0, 31, 1024, chunks / 2, chunks - 1] {
            assert!(places.contains(&expected), "{expected} not in {places:?}");
        }
    }

    #[test]
    fn the_edges_of_a_change_are_looked_at() {
        let mut delta = ChunkSet::new(10_000);
        delta.insert_range(5000..5010);
        let places = hot_places(10_000, CHUNK, &delta, 128);
        assert!(
            places.contains(&4999) && places.contains(&5010),
            "{places:?}"
        );
    }

    #[test]
    fn hashes_are_spread_evenly() {
        let below = (0..100_000)
            .filter(|chunk| hash(7, *chunk) < u64::MAX / 10)
            .count();
        assert!((9_500..10_500).contains(&below), "{below}");
        let again = (0..1000)
            .filter(|chunk| hash(7, *chunk) % 64 == hash(8, *chunk) % 64)
            .count();
        assert!(again < 60, "two seeds choose alike: {again}");
    }

    proptest! {
        #[test]
        fn places_are_outside_the_delta(
            chunks in 1_u64..100_000,
            ranges in proptest::collection::vec((0_u64..100_000, 1_u64..5000), 0..20),
            wanted in 0_u64..300,
        ) {
            let mut delta = ChunkSet::new(chunks);
            for (start, len) in ranges {
                delta.insert_range(start..start + len);
            }
            let places = hot_places(chunks, CHUNK, &delta, wanted);
            prop_assert!(places.len() as u64 <= wanted);
            prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
            for place in places {
                prop_assert!(place < chunks && !delta.contains(place));
            }
        }
    }
}
