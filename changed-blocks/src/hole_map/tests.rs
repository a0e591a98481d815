use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ExtentSet;
use crate::contract;

const MIB: u64 = 1 << 20;

fn sparse(size: u64, data: &[(u64, u64)]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    for &(offset, len) in data {
        file.write_all_at(&vec![0xA5; usize::try_from(len).unwrap()], offset)
            .unwrap();
    }
    file
}

fn set(data: &[(u64, u64)]) -> ExtentSet {
    data.iter()
        .map(|&(offset, len)| Extent::data(offset, len))
        .collect()
}

fn answer(map: &mut HoleMap) -> ExtentSet {
    let mut extents = Vec::new();
    map.allocated(&mut |extent| {
        extents.push(extent);
        true
    })
    .unwrap();
    extents.into_iter().collect()
}

#[test]
fn passes_the_contract_and_leaves_holes_out() {
    let data = [(0, 4096), (5 * MIB, 65536), (16 * MIB - 100, 100)];
    let file = sparse(16 * MIB, &data);
    let mut map = HoleMap::new(&file, 16 * MIB).unwrap();
    contract::check_allocated(&mut map, 16 * MIB, &set(&data));
    contract::check_without_base(&mut map);
    let (told, needed) = (answer(&mut map).bytes().0, set(&data).bytes().0);
    assert!(
        told <= needed + 3 * 65536,
        "holes told as data: {told} for {needed} bytes"
    );
}

#[test]
fn a_file_of_one_hole_has_no_data() {
    let file = sparse(1 << 40, &[]);
    assert!(answer(&mut HoleMap::new(&file, 1 << 40).unwrap()).is_empty());
}

#[test]
fn data_past_the_bound_size_is_clipped() {
    let file = sparse(4 * MIB, &[(0, 2 * MIB)]);
    let mut map = HoleMap::new(&file, MIB + 10).unwrap();
    assert_eq!(answer(&mut map), set(&[(0, MIB + 10)]));
}

#[test]
fn a_file_cut_behind_our_back_is_no_panic() {
    let file = sparse(4 * MIB, &[(3 * MIB, MIB)]);
    let mut map = HoleMap::new(&file, 4 * MIB).unwrap();
    file.set_len(MIB).unwrap();
    assert!(answer(&mut map).is_empty());
}

#[test]
fn without_a_map_everything_is_data() {
    // /proc files seek by line, not by data.
    let file = OpenOptions::new()
        .read(true)
        .open("/proc/self/status")
        .unwrap();
    assert_eq!(
        answer(&mut HoleMap::new(&file, 1000).unwrap()),
        set(&[(0, 1000)])
    );
}

#[test]
fn a_consumer_that_stops_gets_no_summary() {
    let file = sparse(MIB, &[(0, 4096), (512 * 1024, 4096)]);
    let mut seen = 0;
    let answer = HoleMap::new(&file, MIB).unwrap().allocated(&mut |_| {
        seen += 1;
        false
    });
    assert_eq!(seen, 1);
    assert!(answer.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_written_byte_is_covered(pieces in vec((0..8 * MIB, 1..100_000u64), 0..8)) {
        let size = 9 * MIB;
        let data: Vec<_> = pieces;
        let file = sparse(size, &data);
        contract::check_allocated(&mut HoleMap::new(&file, size).unwrap(), size, &set(&data));
    }
}
