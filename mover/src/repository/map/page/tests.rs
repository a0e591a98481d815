//! Pages to bytes and back, and everything else refused.

use proptest::prelude::*;

use super::*;
use crate::repository::map::Entry;
use crate::repository::map::testing::{data, session};

fn leaf(entries: &[(usize, u64)]) -> Leaf {
    let mut leaf = Leaf::zero();
    entries
        .iter()
        .for_each(|(place, seed)| leaf.set(*place, data(*seed)));
    leaf
}

fn node(entries: &[(usize, u64)]) -> Node {
    let mut node = Node::new();
    for (place, seed) in entries {
        let Entry::Data { digest, location } = data(*seed) else {
            unreachable!()
        };
        let mut hash = [7; 32];
        hash[..16].copy_from_slice(&digest.0);
        node.slots.set(*place, Some(PagePointer { hash, location }));
    }
    node
}

fn entries() -> impl Strategy<Value = Vec<(usize, u64)>> {
    proptest::collection::vec((0..FANOUT, 0..2000u64), 1..300)
}

proptest! {
    #[test]
    fn a_leaf_survives(entries in entries()) {
        let leaf = leaf(&entries);
        let bytes = encode_leaf(&leaf);
        prop_assert!(bytes.len() <= MAX_PAGE_LEN as usize);
        prop_assert_eq!(decode(&bytes, 0), Ok(Page::Leaf(leaf)));
        prop_assert!(decode(&bytes, 1).is_err());
    }

    #[test]
    fn a_node_survives(entries in entries(), level in 1..7u8) {
        let node = node(&entries);
        let bytes = encode_node(level, &node);
        prop_assert!(bytes.len() <= MAX_PAGE_LEN as usize);
        prop_assert_eq!(decode(&bytes, level), Ok(Page::Node(node)));
        prop_assert!(decode(&bytes, level + 1).is_err());
        prop_assert!(decode(&bytes, 0).is_err());
    }

    /// Whatever is accepted has one spelling: a change of one byte is refused or gives another page.
    #[test]
    fn a_page_has_one_spelling(
        entries in proptest::collection::vec((0..FANOUT, 0..2000u64), 1..6),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = encode_leaf(&leaf(&entries));
        prop_assert!(decode(&bytes[..cut.index(bytes.len())], 0).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Page::Leaf(leaf)) = decode(&bytes, 0) {
            prop_assert_eq!(encode_leaf(&leaf), bytes);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), level in 0..4u8) {
        drop(decode(&bytes, level));
    }
}

#[test]
fn a_full_page_with_256_segments_fits() {
    let mut leaf = Leaf::zero();
    let mut node = Node::new();
    for place in 0..FANOUT {
        let number = u32::try_from(place).unwrap();
        let location = Location {
            segment: SegmentId {
                session: session(1),
                number,
            },
            ordinal: u16::MAX,
        };
        leaf.set(
            place,
            Entry::Data {
                digest: Digest([9; 16]),
                location,
            },
        );
        node.slots.set(
            place,
            Some(PagePointer {
                hash: [8; 32],
                location,
            }),
        );
    }
    let bytes = encode_leaf(&leaf);
    assert_eq!(decode(&bytes, 0), Ok(Page::Leaf(leaf)));
    let bytes = encode_node(3, &node);
    assert!(bytes.len() <= MAX_PAGE_LEN as usize, "{}", bytes.len());
    assert_eq!(decode(&bytes, 3), Ok(Page::Node(node)));
}

#[test]
fn a_leaf_with_one_chunk_is_small() {
    for place in [0, 17, 255] {
        assert!(encode_leaf(&leaf(&[(place, 3)])).len() <= 60);
    }
}

#[test]
fn the_same_leaf_has_the_same_bytes_whatever_way_it_was_filled() {
    let mut other = leaf(&[(9, 77), (4, 5), (200, 6)]);
    other.set(9, Entry::Zero);
    other.set(4, data(1));
    other.set(4, data(5));
    assert_eq!(encode_leaf(&other), encode_leaf(&leaf(&[(4, 5), (200, 6)])));
}

#[test]
fn refuses_what_is_not_the_one_spelling() {
    let good = encode_leaf(&leaf(&[(1, 1), (2, 2)]));
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        decode(&bytes, 0).expect_err("must be refused").0
    };
    assert_eq!(refused(&|bytes| bytes.push(0)), "bytes follow the end");
    assert_eq!(refused(&|bytes| bytes[0] = 0x85), "a page has six parts");
    assert_eq!(
        refused(&|bytes| bytes[1] = 1),
        "the page is of another level"
    );
    // Runs: kind, then lengths minus one of 1 zero, 2 data, 253 zeros.
    assert_eq!(good[2..7], [0x44, 0, 0, 1, 252]);
    assert_eq!(refused(&|bytes| bytes[3] = 2), "the runs are out of range");
    assert_eq!(
        refused(&|bytes| bytes[6] = 253),
        "the runs are longer than the page"
    );
    assert_eq!(
        refused(&|bytes| bytes[6] = 251),
        "the runs are shorter than the page"
    );
    assert_eq!(
        refused(&|bytes| bytes[5] = 2),
        "the runs are longer than the page"
    );
    // Two rows of 20 bytes, two digests, then the row column 00 01.
    let rows = 7 + 2;
    assert_eq!(good[7..9], [0x58, 40]);
    assert_eq!(
        refused(&|bytes| bytes.copy_within(rows..rows + 20, rows + 20)),
        "a row stands twice"
    );
    let column = rows + 40 + 2 + 32 + 1;
    assert_eq!(good[column..column + 2], [0, 1]);
    assert_eq!(
        refused(&|bytes| bytes[column] = 1),
        "rows are not in order of first use"
    );
    assert_eq!(
        refused(&|bytes| bytes[column + 1] = 0),
        "a row is never used"
    );
    assert_eq!(
        refused(&|bytes| bytes[column + 1] = 2),
        "rows are not in order of first use"
    );
    assert!(decode(&[], 0).is_err());
}
