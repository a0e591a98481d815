//! Parallel work keeps its order; ranges that were read ahead are bounded.

use super::*;
use crate::repository::map::testing::{repository, session};

#[test]
fn results_come_in_the_order_of_the_items() {
    let items = (0..1000).collect::<Vec<u32>>();
    for threads in [1, 2, 16] {
        let doubled = in_parallel(&items, threads, |item| item * 2);
        assert_eq!(
            doubled,
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
    }
    assert!(in_parallel(&[], 4, |item: &u32| *item).is_empty());
}

#[test]
fn kept_ranges_stay_within_their_budget() {
    let (repository, _) = repository();
    let pages = PageReader::new(Arc::new(SegmentReader::new(&repository)));
    let id = |number| SegmentId {
        session: session(1),
        number,
    };
    for number in 0..20 {
        pages.keep(KeptRange {
            segment: id(number),
            start: 100,
            bytes: vec![0; 1 << 20].into(),
        });
        let kept = pages.kept.lock().unwrap();
        assert!(kept.iter().map(|range| range.bytes.len()).sum::<usize>() <= RANGE_CACHE_BYTES);
    }
    assert!(pages.kept(id(19), &(100..200)).is_some());
    assert!(pages.kept(id(19), &(99..200)).is_none());
    assert!(pages.kept(id(19), &(100..101 + (1 << 20))).is_none());
    assert!(pages.kept(id(0), &(100..200)).is_none());
}
