use super::*;
use proptest::prelude::*;

fn body(start: u64, len: u64) -> Body<u64> {
    Body {
        bytes: start..start + len,
        tag: start,
    }
}

#[test]
fn joins_near_bodies_and_splits_far_ones() {
    let near = MAX_GAP_BYTES;
    let ranges = coalesce(vec![
        body(0, 10),
        body(10 + near, 5),
        body(16 + 2 * near, 1),
    ]);
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[0].bytes, 0..15 + near);
    assert_eq!(ranges[1].bodies.len(), 1);
}

#[test]
fn a_full_segment_is_two_requests() {
    let bodies: Vec<_> = (0..256)
        .map(|i| body(32768 + i * 131_072, 131_072))
        .collect();
    let ranges = coalesce(bodies);
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[0].bytes.end, ranges[1].bytes.start);
}

#[test]
fn a_body_wanted_twice_is_fetched_once() {
    let ranges = coalesce(vec![body(100, 50), body(100, 50)]);
    assert_eq!(ranges.len(), 1);
    assert_eq!(ranges[0].bytes, 100..150);
    assert_eq!(ranges[0].bodies.len(), 2);
}

proptest! {
    #[test]
    fn every_body_is_inside_exactly_one_range(
        bodies in proptest::collection::vec((0u64..200 << 20, 1u64..1 << 20), 0..200)
    ) {
        let bodies: Vec<_> = bodies.into_iter().map(|(start, len)| body(start, len)).collect();
        let mut tags: Vec<_> = bodies.iter().map(|body| (body.tag, body.bytes.end)).collect();
        let ranges = coalesce(bodies);
        let mut found = Vec::new();
        for range in &ranges {
            prop_assert!(range.bytes.end - range.bytes.start <= MAX_GET_BYTES);
            for body in &range.bodies {
                prop_assert!(range.bytes.start <= body.bytes.start && body.bytes.end <= range.bytes.end);
                found.push((body.tag, body.bytes.end));
            }
        }
        tags.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, tags);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].bytes.start <= pair[1].bytes.start));
    }
}
