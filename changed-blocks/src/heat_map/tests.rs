//! Pictures of known volumes, and that no byte is lost on the way.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

#[test]
fn a_picture_shows_how_much_of_each_cell_changed() {
    let mut map = HeatMap::new(ByteLen(16 * GIB), 16);
    map.extend([
        Extent::data(0, GIB),
        Extent::data(GIB, GIB / 2),
        Extent::zero(2 * GIB, GIB / 10),
        Extent::data(3 * GIB, 1),
        Extent::data(15 * GIB, GIB / 100 + 1000),
    ]);
    let expected = "\
\u{20}      0 B  █▓▒░····
     8 GiB  ·······▒
            one cell is 1 GiB: · nothing  ░ to 1 %  ▒ to 10 %  ▓ to 50 %  █ more
";
    assert_eq!(map.render(8), expected);
}

#[test]
fn a_volume_without_bytes_has_only_a_legend() {
    let map = HeatMap::new(ByteLen(0), 100);
    assert_eq!(map.render(10).lines().count(), 1);
    assert!(map.cells().is_empty());
}

#[test]
fn few_bytes_have_few_cells() {
    let mut map = HeatMap::new(ByteLen(3), 100);
    map.add(Extent::data(1, 100));
    assert_eq!(map.cells(), [0, 1, 1]);
    assert!(map.render(0).starts_with("       0 B  ·\n       1 B  █\n"));
}

#[test]
fn the_last_cell_is_judged_by_its_own_length() {
    let mut map = HeatMap::new(ByteLen(2100), 2);
    assert_eq!(map.cell_len(), ByteLen(1050));
    map = HeatMap::new(ByteLen(2101), 2);
    map.add(Extent::data(1051, 1050));
    assert!(map.render(2).contains("·█"));
}

#[test]
fn sizes_are_told_in_their_unit() {
    let cases = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (GIB, "1 GiB"),
        (u64::MAX, "15.9 EiB"),
    ];
    for (bytes, text) in cases {
        assert_eq!(binary(bytes), text);
    }
}

#[test]
fn the_largest_volume_does_not_overflow() {
    let mut map = HeatMap::new(ByteLen(u64::MAX), 1000);
    map.add(Extent::data(0, u64::MAX));
    map.add(Extent::data(u64::MAX - 1, u64::MAX));
    assert!(map.render(40).contains(&"█".repeat(40)));
}

proptest! {
    #[test]
    fn every_byte_is_counted_once(
        size in 1..5000u64, cells in 0..200usize, width in 0..100usize,
        steps in vec((0..500u64, 1..500u64), 0..20),
    ) {
        let mut map = HeatMap::new(ByteLen(size), cells);
        let mut bytes = vec![false; usize::try_from(size).unwrap()];
        let mut at = 0;
        for (gap, len) in steps {
            at += gap;
            map.add(Extent::data(at, len));
            for byte in at..(at + len).min(size) {
                bytes[usize::try_from(byte).unwrap()] = true;
            }
            at += len;
        }
        prop_assert!(map.cells().len() <= cells.max(1));
        let cell = usize::try_from(map.cell_len().0).unwrap();
        let counted = bytes.chunks(cell).map(|c| c.iter().filter(|set| **set).count() as u64);
        prop_assert!(counted.eq(map.cells().iter().copied()));
        let rows = map.cells().len().div_ceil(width.max(1));
        prop_assert_eq!(map.render(width).lines().count(), rows + 1);
    }
}
