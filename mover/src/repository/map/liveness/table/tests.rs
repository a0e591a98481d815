//! The packed table against a plain set.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::repository::map::testing::session;

fn segment(number: u32) -> SegmentId {
    SegmentId {
        session: session(u64::from(number % 3)),
        number: number / 3 * 1000,
    }
}

fn plain(table: &SegmentTable) -> BTreeMap<SegmentId, BTreeSet<u16>> {
    table
        .iter()
        .map(|(segment, set)| (segment, set.iter().collect()))
        .collect()
}

proptest! {
    #[test]
    fn agrees_with_a_plain_set(
        changes in proptest::collection::vec((any::<bool>(), 0..9u32, prop_oneof![0..40u16, 4000..4200u16, any::<u16>()]), 0..400),
        compact_at in 0..400usize,
    ) {
        let mut table = SegmentTable::default();
        let mut model = BTreeMap::<SegmentId, BTreeSet<u16>>::new();
        for (at, (insert, number, ordinal)) in changes.into_iter().enumerate() {
            let segment = segment(number);
            let set = model.entry(segment).or_default();
            if insert {
                prop_assert_eq!(table.insert(segment, ordinal), set.insert(ordinal));
            } else {
                prop_assert_eq!(table.remove(segment, ordinal), set.remove(&ordinal));
            }
            prop_assert_eq!(table.get(segment).count() as usize, set.len());
            prop_assert_eq!(table.get(segment).end(), set.last().map_or(0, |last| u32::from(*last) + 1));
            if at == compact_at {
                table.compact();
            }
        }
        model.retain(|_, set| !set.is_empty());
        prop_assert_eq!(&plain(&table), &model);
        table.compact();
        prop_assert_eq!(&plain(&table), &model);
    }
}

#[test]
fn all_65536_ordinals_fit() {
    let mut table = SegmentTable::default();
    for ordinal in 0..=u16::MAX {
        assert!(table.insert(segment(0), ordinal));
    }
    table.compact();
    assert_eq!(table.get(segment(0)).count(), 65_536);
    assert!(table.contains(segment(0), u16::MAX));
}

#[test]
fn a_full_16_tib_volume_stays_small() {
    // 2 TiB of 256 chunks a segment; 16 TiB is eight times as much.
    let segments = 65_536u32;
    let mut table = SegmentTable::default();
    let id = |number| SegmentId {
        session: session(1),
        number,
    };
    for number in 0..segments {
        for ordinal in 0..256 {
            table.insert(id(number), ordinal);
        }
    }
    assert!(
        table.memory() * 8 <= 10 << 20,
        "whole segments: {}",
        table.memory() * 8
    );
    // Fully fragmented: every other chunk is dead, in an order that is not that of the segments.
    for step in 0..segments {
        let number = step.wrapping_mul(40_503) % segments;
        for ordinal in 0..128 {
            table.remove(id(number), ordinal * 2);
        }
    }
    assert!(
        table.memory() * 8 <= 28 << 20,
        "while it changes: {}",
        table.memory() * 8
    );
    table.compact();
    assert!(
        table.memory() * 8 <= 24 << 20,
        "fragmented: {}",
        table.memory() * 8
    );
}
