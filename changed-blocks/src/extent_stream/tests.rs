//! Every adaptor against a bitmap and against the set of the same name; what they hold; what they refuse.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ExtentSet;

const SIZE: usize = 300;

fn any_order() -> impl Strategy<Value = Vec<Extent>> {
    vec((0..SIZE as u64, 0..40u64), 0..12).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(offset, len)| Extent::data(offset, len.min(SIZE as u64 - offset)))
            .collect()
    })
}

fn ascending() -> impl Strategy<Value = Vec<Extent>> {
    any_order().prop_map(|mut extents| {
        extents.sort_by_key(|extent| extent.offset);
        extents
    })
}

fn stream(extents: &[Extent]) -> impl ExtentStream<Error = OutOfOrder> {
    extents.iter().copied().map(Ok)
}

fn bits(extents: &[Extent]) -> Vec<bool> {
    let mut bits = vec![false; SIZE];
    for extent in extents {
        let range = range_of(*extent);
        bits[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].fill(true);
    }
    bits
}

/// The extents of a stream, which must not touch.
fn told(stream: impl ExtentStream<Error = OutOfOrder>) -> Vec<Extent> {
    let extents: Vec<_> = stream.map(Result::unwrap).collect();
    assert!(extents.iter().all(|extent| extent.len.0 > 0));
    for pair in extents.windows(2) {
        assert!(pair[0].end().unwrap() < pair[1].offset.0, "{pair:?} touch");
    }
    extents
}

fn same(stream: impl ExtentStream<Error = OutOfOrder>, set: &ExtentSet) {
    assert!(told(stream).into_iter().eq(set.iter()));
}

proptest! {
    #[test]
    fn joined_keeps_exactly_the_bytes(a in ascending()) {
        prop_assert_eq!(bits(&told(stream(&a).joined())), bits(&a));
        same(stream(&a).joined(), &a.iter().copied().collect());
    }

    #[test]
    fn union_and_subtract_match_the_bitmap(a in ascending(), b in ascending()) {
        let pairs = || bits(&a).into_iter().zip(bits(&b));
        let either: Vec<_> = pairs().map(|(a, b)| a || b).collect();
        let first: Vec<_> = pairs().map(|(a, b)| a && !b).collect();
        prop_assert_eq!(bits(&told(stream(&a).union(stream(&b)))), either);
        prop_assert_eq!(bits(&told(stream(&a).subtract(stream(&b)))), first);
        let [set, other]: [ExtentSet; 2] = [&a, &b].map(|e| e.iter().copied().collect());
        same(stream(&a).union(stream(&b)), &set.union(&other));
        same(stream(&a).subtract(stream(&b)), &set.subtract(&other));
    }

    #[test]
    fn clip_round_out_and_coalesce_match_the_set(
        a in ascending(), at in 0..SIZE as u64, len in 0..SIZE as u64, unit in 0..50u64,
    ) {
        let set: ExtentSet = a.iter().copied().collect();
        let window = Extent::data(at, len);
        same(stream(&a).clip(window), &set.clip(window));
        let (unit, size) = (ByteLen(unit), ByteLen(at));
        same(stream(&a).round_out(unit, size), &set.round_out(unit, size));
        same(stream(&a).coalesce(unit), &set.coalesce(unit, ByteLen(u64::MAX)));
    }

    #[test]
    fn a_window_puts_in_order_what_it_reaches(a in any_order(), window in 0..12usize) {
        let result: Result<Vec<_>, _> = stream(&a).in_order(window).collect();
        match result {
            Ok(sorted) => {
                prop_assert!(sorted.is_sorted_by_key(|extent| extent.offset));
                prop_assert_eq!(bits(&sorted), bits(&a));
                prop_assert_eq!(sorted.len(), a.len());
            }
            // Refused only where one came after more later ones than the window holds.
            Err(fault) => {
                let late = a.iter().rposition(|e| e.offset == fault.offset).unwrap();
                let before = a.iter().filter(|e| e.offset > fault.offset).count();
                prop_assert!(late > window && before > 0);
            }
        }
        prop_assert!(stream(&a).in_order(a.len()).all(|extent| extent.is_ok()));
    }

    #[test]
    fn nothing_out_of_order_passes(a in any_order()) {
        let result: Result<ExtentSet, _> = stream(&a).joined().collect();
        if let Ok(set) = result {
            prop_assert_eq!(set, a.iter().copied().collect::<ExtentSet>());
        } else {
            prop_assert!(!a.is_sorted_by_key(|extent| extent.offset));
        }
    }
}

#[test]
fn an_error_ends_every_stream() {
    let fault = OutOfOrder {
        offset: ByteOffset(1),
        after: ByteOffset(2),
    };
    let broken = || [Ok(Extent::data(0, 4)), Err(fault), Ok(Extent::data(8, 4))].into_iter();
    let whole = || [Ok(Extent::data(2, 100))].into_iter();
    let fails = |mut stream: Box<dyn Iterator<Item = Result<Extent, OutOfOrder>>>| {
        assert_eq!(stream.find_map(Result::err), Some(fault));
        assert!(stream.all(|extent| extent.is_ok()), "one error is enough");
    };
    fails(Box::new(broken().joined()));
    fails(Box::new(broken().union(whole())));
    fails(Box::new(whole().union(broken())));
    fails(Box::new(broken().subtract(whole())));
    fails(Box::new(whole().subtract(broken())));
    fails(Box::new(broken().clip(Extent::data(0, 100))));
    fails(Box::new(broken().round_out(ByteLen(4), ByteLen(100))));
    fails(Box::new(broken().in_order(5)));
}

#[test]
fn the_end_of_the_address_space_does_not_wrap() {
    let edge = [
        Extent::data(u64::MAX - 5, 10),
        Extent::data(u64::MAX - 3, 1),
    ];
    let expected = [Extent::data(u64::MAX - 5, 5)];
    assert_eq!(told(stream(&edge).coalesce(ByteLen(100))), expected);
    let rounded = told(stream(&edge).round_out(ByteLen(4096), ByteLen(u64::MAX)));
    assert_eq!(rounded, [Extent::data(u64::MAX - 4095, 4095)]);
}

/// Counts how many extents were taken from a stream and not given on yet.
struct Live {
    now: Cell<u64>,
    most: Cell<u64>,
}

impl Live {
    fn taken(&self) {
        self.now.set(self.now.get() + 1);
        self.most.set(self.most.get().max(self.now.get()));
    }

    fn given(&self) {
        self.now.set(self.now.get().saturating_sub(1));
    }
}

const MILLIONS: u64 = 4_000_000;

/// One extent in every 4 MiB of 16 TiB.
fn comb(live: &Live, shift: u64) -> impl ExtentStream<Error = OutOfOrder> {
    (0..MILLIONS).map(move |number| {
        live.taken();
        Ok(Extent::data((number << 22) + shift, 65_536))
    })
}

/// Runs a stream of millions and gives the most extents it held.
fn most_held(
    expected: u64,
    make: impl for<'a> FnOnce(&'a Live) -> Box<dyn Iterator<Item = Result<Extent, OutOfOrder>> + 'a>,
    given_each: u64,
) -> u64 {
    let live = Live {
        now: Cell::new(0),
        most: Cell::new(0),
    };
    let mut count = 0;
    for extent in make(&live) {
        extent.unwrap();
        count += 1;
        (0..given_each).for_each(|_| live.given());
    }
    assert_eq!(count, expected);
    live.most.get()
}

#[test]
fn millions_of_extents_are_never_held_at_once() {
    let far = 1 << 21;
    let joined = most_held(MILLIONS, |live| Box::new(comb(live, 0).joined()), 1);
    assert!(joined <= 2, "{joined}");
    let union = most_held(
        2 * MILLIONS,
        |live| Box::new(comb(live, 0).union(comb(live, far))),
        1,
    );
    assert!(union <= 4, "{union}");
    let subtract = most_held(
        MILLIONS,
        |live| Box::new(comb(live, 0).subtract(comb(live, 32_768))),
        2,
    );
    assert!(subtract <= 6, "{subtract}");
    let rounded = most_held(
        MILLIONS,
        |live| Box::new(comb(live, 0).round_out(ByteLen(1 << 17), ByteLen(1 << 44))),
        1,
    );
    assert!(rounded <= 4, "{rounded}");
    let sorted = most_held(MILLIONS, |live| Box::new(comb(live, 0).in_order(1000)), 1);
    assert!(sorted <= 1001, "{sorted}");
}
