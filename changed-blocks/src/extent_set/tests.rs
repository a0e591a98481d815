//! Every operation against a bitmap of a few hundred bytes, where it is too simple to be wrong.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SIZE: usize = 300;

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    vec((0..SIZE as u64, 0..40u64), 0..12).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(offset, len)| Extent::data(offset, len.min(SIZE as u64 - offset)))
            .collect()
    })
}

fn bitmap(extents: impl IntoIterator<Item = Extent>) -> Vec<bool> {
    let mut bits = vec![false; SIZE];
    for extent in extents {
        let start = usize::try_from(extent.offset.0).unwrap();
        bits[start..start + usize::try_from(extent.len.0).unwrap()].fill(true);
    }
    bits
}

fn combine(a: &[bool], b: &[bool], rule: impl Fn(bool, bool) -> bool) -> Vec<bool> {
    a.iter().zip(b).map(|(a, b)| rule(*a, *b)).collect()
}

/// The invariant of the type, and the bits behind it.
fn checked_bits(set: &ExtentSet) -> Vec<bool> {
    assert!(
        set.ranges.iter().all(|range| !range.is_empty()),
        "empty range in {set:?}"
    );
    assert!(
        set.ranges
            .windows(2)
            .all(|pair| pair[0].end < pair[1].start),
        "touching or unsorted ranges in {set:?}"
    );
    let bits = bitmap(set.iter());
    assert_eq!(
        set.bytes().0,
        bits.iter().filter(|bit| **bit).count() as u64
    );
    for (offset, bit) in bits.iter().enumerate() {
        assert_eq!(
            set.contains(ByteOffset(offset as u64)),
            *bit,
            "byte {offset} of {set:?}"
        );
    }
    bits
}

/// Runs of clear bits between two runs of set bits.
fn gaps(bits: &[bool]) -> Vec<Range<usize>> {
    let mut gaps = Vec::new();
    let mut last = None;
    for (position, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
        if let Some(last) = last.filter(|last| last + 1 < position) {
            gaps.push(last + 1..position);
        }
        last = Some(position);
    }
    gaps
}

proptest! {
    #[test]
    fn normalise_keeps_exactly_the_bytes(extents in extents()) {
        let set = ExtentSet::normalise(extents.clone());
        prop_assert_eq!(checked_bits(&set), bitmap(extents));
    }

    #[test]
    fn union_and_subtract_match_the_bitmap(a in extents(), b in extents()) {
        let (left, right) = (bitmap(a.clone()), bitmap(b.clone()));
        let (a, b) = (ExtentSet::normalise(a), ExtentSet::normalise(b));
        prop_assert_eq!(checked_bits(&a.union(&b)), combine(&left, &right, |a, b| a || b));
        prop_assert_eq!(checked_bits(&a.subtract(&b)), combine(&left, &right, |a, b| a && !b));
        prop_assert_eq!(a.union(&b), b.union(&a));
    }

    #[test]
    fn clip_matches_the_bitmap(extents in extents(), offset in 0..SIZE as u64, len in 0..SIZE as u64) {
        let window = Extent::data(offset, len.min(SIZE as u64 - offset));
        let expected = combine(&bitmap(extents.clone()), &bitmap([window]), |a, b| a && b);
        prop_assert_eq!(checked_bits(&ExtentSet::normalise(extents).clip(window)), expected);
    }

    #[test]
    fn round_out_matches_the_bitmap(extents in extents(), unit in 1..70usize, size in 0..SIZE) {
        let bits = bitmap(extents.clone());
        let expected: Vec<bool> = (0..SIZE)
            .map(|position| {
                let first = position - position % unit;
                position < size && bits[first..(first + unit).min(size)].contains(&true)
            })
            .collect();
        let set = ExtentSet::normalise(extents);
        let rounded = set.round_out(ByteLen(unit as u64), ByteLen(size as u64));
        prop_assert_eq!(checked_bits(&rounded), expected);
    }

    #[test]
    fn coalesce_bridges_the_smallest_gaps_within_the_budget(
        extents in extents(), max_gap in 0..60usize, budget in 0..120usize
    ) {
        let mut expected = bitmap(extents.clone());
        let mut open = gaps(&expected);
        open.retain(|gap| gap.len() <= max_gap);
        open.sort_by_key(|gap| (gap.len(), gap.start));
        let mut left = budget;
        for gap in open {
            if gap.len() > left {
                break;
            }
            left -= gap.len();
            expected[gap].fill(true);
        }
        let set = ExtentSet::normalise(extents);
        let coalesced = set.coalesce(ByteLen(max_gap as u64), ByteLen(budget as u64));
        prop_assert_eq!(checked_bits(&coalesced), expected);
    }
}

#[test]
fn the_end_of_the_address_space_does_not_wrap() {
    let set = ExtentSet::normalise([Extent::data(u64::MAX - 10, 100), Extent::data(5, 0)]);
    assert_eq!(set.bytes(), ByteLen(10));
    assert_eq!(set.round_out(ByteLen(4096), ByteLen(u64::MAX)).len(), 1);
    assert_eq!(
        set.clip(Extent::data(u64::MAX - 5, 100)).bytes(),
        ByteLen(5)
    );
}

#[test]
fn a_unit_of_zero_rounds_nothing() {
    let set: ExtentSet = [Extent::data(3, 4)].into_iter().collect();
    assert_eq!(set.round_out(ByteLen(0), ByteLen(100)), set);
}
