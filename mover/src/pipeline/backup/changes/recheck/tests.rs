use super::*;
use crate::repository::ids::{Digest, SegmentId};
use crate::repository::map::Location;

const CHUNK: u32 = 64 * 1024;
const LEAVES: u64 = 40;
const PARENT: SessionId = SessionId([7; 16]);

/// A leaf of data, of which every fourth chunk was stored by the parent itself.
fn leaf() -> Leaf {
    let mut leaf = Leaf::zero();
    for place in 0..256_u16 {
        let session = match place % 4 {
            0 => PARENT,
            _ => SessionId([9; 16]),
        };
        let location = Location {
            segment: SegmentId { session, number: 0 },
            ordinal: place,
        };
        let digest = Digest([u8::try_from(place).unwrap(); 16]);
        leaf.set(usize::from(place), Entry::Data { digest, location });
    }
    leaf
}

fn plan(rolled_to: u64) -> RecheckPlan {
    let size = LEAVES * LEAF_CHUNKS * u64::from(CHUNK);
    RecheckPlan {
        geometry: Geometry {
            size,
            chunk_size: CHUNK,
        },
        parent_data_bytes: size,
        recent: (PARENT, size / 4),
        rolled_to,
        seed: 0x5eed,
    }
}

fn delta_of(chunks: u64) -> ChunkSet {
    let mut delta = ChunkSet::new(LEAVES * LEAF_CHUNKS);
    delta.insert_range(0..chunks);
    delta
}

fn chosen(recheck: &Recheck, delta: &ChunkSet) -> Vec<u64> {
    let leaf = leaf();
    (0..LEAVES)
        .flat_map(|index| recheck.choose(index, &leaf, delta))
        .collect()
}

#[test]
fn small_deltas_move_the_round_as_well() {
    for (changed, moved) in [(0, 1), (1, 1), (19, 1), (20, 1), (21, 2), (400, 20)] {
        let delta = delta_of(changed);
        let recheck = Recheck::new(&plan(0), &delta);
        chosen(&recheck, &delta);
        let unit = u64::from(CHUNK);
        let rolled_to = recheck.rolled_to();
        assert!(
            rolled_to >= (changed + moved) * unit && rolled_to.is_multiple_of(unit),
            "{changed}: {rolled_to}"
        );
    }
}

#[test]
fn the_round_comes_to_the_end_and_begins_again() {
    let delta = delta_of(200);
    let (mut from, mut seen, mut rounds) = (0, vec![false; 10_240], 0);
    loop {
        let recheck = Recheck::new(&plan(from), &delta);
        for chunk in chosen(&recheck, &delta) {
            seen[usize::try_from(chunk).unwrap()] = true;
        }
        rounds += 1;
        let next = recheck.rolled_to();
        if next == 0 {
            break;
        }
        assert!(next > from, "{next} after {from}");
        from = next;
    }
    // Ten chunks a run, and those that were samples on the way cost nothing.
    assert!((700..=1024).contains(&rounds), "{rounds}");
    assert!(seen.iter().skip(200).all(|seen| *seen));
}

#[test]
fn what_the_parent_stored_is_read_more_often() {
    let delta = delta_of(5);
    let (mut recent, mut older) = (0_u64, 0_u64);
    for seed in 0..50 {
        let recheck = Recheck::new(&RecheckPlan { seed, ..plan(0) }, &delta);
        for chunk in chosen(&recheck, &delta) {
            match chunk % 4 {
                0 => recent += 1,
                _ => older += 1,
            }
        }
    }
    // 128 among 10,240 for all, and 64 more among the 2,560 that the parent stored.
    assert!((80 * 50..115 * 50).contains(&recent), "{recent}");
    assert!((80 * 50..115 * 50).contains(&older), "{older}");
}

#[test]
fn a_copy_with_other_chunks_goes_on_at_the_same_byte() {
    let small = Recheck::new(&plan(64 << 20), &delta_of(0));
    let wide = RecheckPlan {
        geometry: Geometry {
            chunk_size: 4 * CHUNK,
            ..plan(0).geometry
        },
        ..plan(64 << 20)
    };
    let delta = ChunkSet::new(wide.geometry.chunks());
    let wide = Recheck::new(&wide, &delta);
    assert_eq!(small.from * small.chunk_size, wide.from * wide.chunk_size);
    chosen(&small, &delta_of(0));
    let next = small.rolled_to();
    assert!(next > 64 << 20 && next.is_multiple_of(u64::from(CHUNK)));
}
