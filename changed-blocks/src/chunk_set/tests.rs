//! The bitmap against a plain set of numbers, and what it costs in memory.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A little more than two blocks, so that every border is met.
const CHUNKS: u64 = 2 * BLOCK + 1000;

fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    let len = prop_oneof![4 => 0..70u64, 2 => 0..500u64, 1 => 0..2 * BLOCK];
    let near = prop_oneof![
        0..CHUNKS,
        BLOCK - 100..BLOCK + 100,
        CHUNKS - 100..CHUNKS + 100
    ];
    vec(
        (near, len).prop_map(|(start, len)| start..start + len),
        0..12,
    )
}

fn both(ranges: &[Range<u64>]) -> (ChunkSet, BTreeSet<u64>) {
    let mut set = ChunkSet::new(CHUNKS);
    for range in ranges {
        set.insert_range(range.clone());
    }
    let naive = ranges.iter().cloned().flatten();
    (set, naive.filter(|chunk| *chunk < CHUNKS).collect())
}

fn same(set: &ChunkSet, naive: &BTreeSet<u64>) {
    assert_eq!(set.len(), naive.len() as u64);
    assert_eq!(set.is_empty(), naive.is_empty());
    assert!(set.iter().eq(naive.iter().copied()));
    for (block, bits) in &set.blocks {
        assert!(bits.len() > 0, "block {block} is empty");
        let full = bits.len() == BLOCK;
        assert_eq!(full, matches!(bits, Block::Full), "block {block}");
    }
}

/// Bytes of bitmap words held.
fn words_held(set: &ChunkSet) -> usize {
    let some = set.blocks.values();
    some.filter(|block| matches!(block, Block::Some { .. }))
        .count()
        * WORDS
        * 8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn inserting_is_a_set(ranges in ranges()) {
        let (set, naive) = both(&ranges);
        same(&set, &naive);
        for range in set.ranges().collect::<Vec<_>>() {
            prop_assert!(range.end > range.start);
            prop_assert!(!set.contains(range.end), "ranges touch at {}", range.end);
        }
    }

    #[test]
    fn looking_up_is_a_set(ranges in ranges(), at in vec(0..CHUNKS + 200, 1..20)) {
        let (set, naive) = both(&ranges);
        for chunk in at {
            prop_assert_eq!(set.contains(chunk), naive.contains(&chunk));
            prop_assert_eq!(set.next(chunk), naive.range(chunk..).next().copied());
            prop_assert!(set.iter_from(chunk).take(300).eq(naive.range(chunk..).copied().take(300)));
            let absent = (chunk..).find(|chunk| !naive.contains(chunk));
            prop_assert_eq!(Some(set.next_absent(chunk)), absent);
            let absent = (0..=chunk).rev().find(|chunk| !naive.contains(chunk));
            prop_assert_eq!(set.previous_absent(chunk), absent);
            let index = usize::try_from(chunk).unwrap();
            prop_assert_eq!(set.nth(chunk), naive.iter().nth(index).copied());
        }
    }

    #[test]
    fn union_is_a_set(a in ranges(), b in ranges(), limit in prop_oneof![Just(CHUNKS), 0..CHUNKS]) {
        let (_, mut naive) = both(&a);
        let (other, more) = both(&b);
        let mut set = ChunkSet::new(limit);
        for range in a {
            set.insert_range(range);
        }
        set.union_with(&other);
        naive.extend(more);
        naive.retain(|chunk| *chunk < limit);
        same(&set, &naive);
        let mut again = set.clone();
        again.union_with(&other);
        prop_assert_eq!(again, set);
    }

    #[test]
    fn extents_are_rounded_out(offset in 0..1u64 << 20, len in 0..1u64 << 20, unit in 1..100_000u64) {
        let mut set = ChunkSet::new(u64::MAX);
        set.insert_extent(Extent::data(offset, len), ByteLen(unit));
        let expected = (len > 0).then(|| offset / unit..(offset + len - 1) / unit + 1);
        prop_assert!(set.ranges().eq(expected));
    }
}

#[test]
fn sixteen_tib_of_chunks_cost_sixteen_mib() {
    let chunks = 1 << 27;
    let mut set = ChunkSet::new(chunks);
    // The worst case: every block touched, none full.
    let mut inserted = 0;
    for chunk in (0..chunks).step_by(128) {
        set.insert(chunk);
        inserted += 1;
    }
    assert_eq!(set.len(), inserted);
    assert_eq!(set.blocks.len(), 4096);
    assert_eq!(words_held(&set), 16 << 20);
    set.insert_range(0..chunks);
    assert_eq!(set.len(), chunks);
    assert_eq!(words_held(&set), 0, "what is full needs no bits");
    assert!(set.ranges().eq(std::iter::once(0..chunks)));
}

#[test]
fn memory_is_taken_only_where_touched() {
    let mut set = ChunkSet::new(1 << 27);
    for chunk in 0..1000 {
        set.insert(chunk * 3);
    }
    assert_eq!(words_held(&set), WORDS * 8);
}

#[test]
fn the_end_of_the_numbers_is_no_overflow() {
    let mut set = ChunkSet::new(u64::MAX);
    set.insert(u64::MAX - 1);
    set.insert(u64::MAX);
    assert_eq!(set.len(), 1);
    assert!(set.ranges().eq(std::iter::once(u64::MAX - 1..u64::MAX)));
    assert_eq!(set.next(u64::MAX), None);
    set.insert_extent(Extent::data(u64::MAX, 5), ByteLen(1 << 17));
    assert_eq!(set.len(), 2);
}

#[test]
fn a_full_set_has_every_chunk() {
    for chunks in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1] {
        let set = ChunkSet::full(chunks);
        assert_eq!((set.len(), set.limit()), (chunks, chunks));
        assert!(set.iter().eq(0..chunks));
    }
}
