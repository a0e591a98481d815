//! Maps made up, against the places of single bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fiemap::ioctl::RawExtent;
use crate::fiemap::map::Pieces;

/// Bytes of a made-up file.
const SIZE: u64 = 64;
const UNWRITTEN: u32 = 0x800;
const ENCODED: u32 = 0x8;

/// Extents as a file system might tell them: ascending, any places, harmless flags, some that prove nothing.
fn map() -> impl Strategy<Value = Vec<RawExtent>> {
    let flags = prop_oneof![
        6 => Just(0u32),
        2 => Just(0x2000),
        1 => Just(0x3001),
        2 => Just(UNWRITTEN),
        1 => Just(ENCODED),
        1 => Just(0x10),
    ];
    let extent = (0..3u64, 1..9u64, 0..5u64, flags);
    vec(extent, 0..12).prop_map(|steps| {
        let mut at = 0;
        let mut extents = Vec::new();
        for (gap, length, shift, flags) in steps {
            at += if gap == 2 { 3 } else { 0 };
            // Mostly the place that an untouched clone would have.
            let physical = 1000 + at + if shift < 3 { 0 } else { shift * 500 };
            extents.push(RawExtent::new(at, physical, length, flags));
            at += length;
        }
        extents
    })
}

fn pieces(extents: &[RawExtent], end: u64) -> impl Iterator<Item = Result<Piece, SourceError>> {
    Pieces::new(extents.iter().copied().map(Ok), end)
}

/// Where a byte is and under which flags that matter.
fn place(extents: &[RawExtent], byte: u64) -> Option<(u64, u32)> {
    let holds = |e: &&RawExtent| e.logical <= byte && byte < e.logical + e.length;
    let extent = extents.iter().find(holds)?;
    let physical = extent.physical + (byte - extent.logical);
    Some((physical, extent.flags & !0x3001))
}

fn delta(base: &[RawExtent], target: &[RawExtent], end: u64) -> (Vec<Extent>, Compared) {
    let mut extents = Vec::new();
    let compared = compare(pieces(base, end), pieces(target, end), end, &mut |extent| {
        extents.push(extent);
        true
    });
    (extents, compared.unwrap())
}

/// Cuts every extent in two where it can, as other sharers of its blocks make a file system do.
fn torn(extents: &[RawExtent]) -> Vec<RawExtent> {
    let cut = |e: &RawExtent| {
        let head = e.length / 2;
        if head == 0 || e.flags & (ENCODED | 0x10) != 0 {
            return vec![*e];
        }
        vec![
            RawExtent::new(e.logical, e.physical, head, e.flags ^ 0x2000),
            RawExtent::new(
                e.logical + head,
                e.physical + head,
                e.length - head,
                e.flags,
            ),
        ]
    };
    extents.iter().flat_map(cut).collect()
}

proptest! {
    #[test]
    fn every_byte_is_judged_by_its_place(base in map(), target in map(), end in 0..SIZE) {
        let (extents, compared) = delta(&base, &target, end);
        prop_assert_eq!(compared.extents, extents.len() as u64);
        for byte in 0..SIZE {
            let told: Vec<_> = extents
                .iter()
                .filter(|e| e.offset.0 <= byte && byte < e.end().unwrap())
                .collect();
            prop_assert!(told.len() <= 1, "byte {} is told twice", byte);
            let (before, after) = (place(&base, byte), place(&target, byte));
            let same = before == after
                && before.is_none_or(|(_, flags)| flags == 0 || flags == UNWRITTEN);
            prop_assert_eq!(told.is_empty(), same || byte >= end, "byte {}", byte);
            if let [extent] = told[..] {
                prop_assert_eq!(extent.kind == ExtentKind::Zero, after.is_none());
            }
        }
        for pair in extents.windows(2) {
            let apart = pair[0].end().unwrap() < pair[1].offset.0;
            prop_assert!(apart || pair[0].kind != pair[1].kind, "{:?} could be one", pair);
        }
    }

    #[test]
    fn a_map_torn_otherwise_is_the_same_map(base in map(), target in map(), end in 0..SIZE) {
        let (extents, compared) = delta(&base, &target, end);
        prop_assert_eq!(delta(&torn(&base), &torn(&target), end), (extents, compared));
        prop_assert_eq!(fingerprint(pieces(&torn(&base), end)).unwrap(), compared.maps.0);
        prop_assert_eq!(fingerprint(pieces(&target, end)).unwrap(), compared.maps.1);
    }

    #[test]
    fn another_map_has_another_fingerprint(base in map(), target in map()) {
        let same = (0..SIZE * 2).all(|byte| place(&base, byte) == place(&target, byte));
        let [one, other] = [&base, &target].map(|map| fingerprint(pieces(map, SIZE * 2)).unwrap());
        // Pieces that prove nothing are told apart by where they begin as well.
        prop_assert!(same || one != other);
    }
}

#[test]
fn a_map_out_of_order_is_refused() {
    let wrong = [
        vec![RawExtent::new(8, 1, 8, 0), RawExtent::new(0, 1, 8, 0)],
        vec![RawExtent::new(8, 1, 0, 0)],
        vec![RawExtent::new(8, 1, u64::MAX, 0)],
    ];
    for extents in wrong {
        assert!(
            fingerprint(pieces(&extents, SIZE)).is_err(),
            "{extents:?} passed"
        );
    }
}

#[test]
fn an_extent_that_overlaps_the_last_one_goes_on_where_that_ended() {
    let overlapping = [RawExtent::new(0, 100, 10, 0), RawExtent::new(4, 104, 10, 0)];
    let whole: Vec<_> = pieces(&overlapping, SIZE).map(Result::unwrap).collect();
    let place = Place::At {
        physical: 100,
        unwritten: false,
    };
    assert_eq!(
        whole,
        [Piece {
            start: 0,
            end: 14,
            place
        }]
    );
}

#[test]
fn a_place_that_was_not_told_proves_nothing() {
    let nowhere = [RawExtent::new(0, 0, 8, 0)];
    let (extents, _) = delta(&nowhere, &nowhere, 8);
    assert_eq!(extents, [Extent::data(0, 8)]);
}
