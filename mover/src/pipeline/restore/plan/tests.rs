use super::*;
use crate::repository::ids::SessionId;
use proptest::prelude::*;

fn segment(number: u32) -> SegmentId {
    SegmentId {
        session: SessionId([7; 16]),
        number,
    }
}

fn wanted(chunk: u64, ordinal: u16) -> Wanted {
    Wanted {
        chunk,
        ordinal,
        digest: Digest([0; 16]),
    }
}

fn job(ordinals: impl IntoIterator<Item = u16>) -> SegmentJob {
    let chunks = ordinals
        .into_iter()
        .enumerate()
        .map(|(i, o)| wanted(i as u64, o))
        .collect();
    SegmentJob {
        segment: segment(0),
        chunks,
    }
}

#[test]
fn groups_by_segment_in_order_of_appearance() {
    let mut builder = WindowBuilder::default();
    builder.zeros(0, 3);
    builder.data(segment(5), wanted(3, 0));
    builder.data(segment(2), wanted(4, 9));
    builder.data(segment(5), wanted(5, 1));
    builder.zeros(6, 1);
    builder.zeros(7, 2);
    let window = builder.take();
    assert_eq!(
        window.zeros,
        [Run { first: 0, count: 3 }, Run { first: 6, count: 3 }]
    );
    assert_eq!(window.segments.len(), 2);
    assert_eq!(window.segments[0].segment, segment(5));
    assert_eq!(window.segments[0].chunks, [wanted(3, 0), wanted(5, 1)]);
    assert!(builder.take().is_empty());
    builder.data(segment(5), wanted(9, 4));
    assert_eq!(builder.take().segments[0].chunks, [wanted(9, 4)]);
}

#[test]
fn reads_the_head_alone_of_sparse_segments() {
    let (head, chunk, cap) = (32 * 1024, 128 * 1024, 17 << 20);
    assert_eq!(job([200]).first_read(head, chunk, cap), head);
    assert_eq!(job([0, 50, 100]).first_read(head, chunk, cap), head);
    assert_eq!(job([0]).first_read(head, chunk, cap), head + chunk);
    assert_eq!(job(0..512).first_read(head, chunk, cap), cap);
    assert_eq!(
        job([0, 1, 2]).first_read(head, chunk, cap),
        head + 3 * chunk
    );
    // The same body wanted many times is one body.
    assert_eq!(
        job(std::iter::repeat_n(100, 90)).first_read(head, chunk, cap),
        head
    );
    assert_eq!(job([]).first_read(head, chunk, cap), head);
}

proptest! {
    #[test]
    fn runs_never_touch_and_keep_every_chunk(gaps in proptest::collection::vec((0u64..3, 0u64..4), 0..60)) {
        let (mut runs, mut naive, mut at) = (Vec::new(), Vec::new(), 0);
        for (gap, count) in gaps {
            at += gap;
            push_run(&mut runs, at, count);
            naive.extend(at..at + count);
            at += count;
        }
        let listed: Vec<u64> = runs.iter().flat_map(|run| run.first..run.end()).collect();
        prop_assert_eq!(listed, naive);
        prop_assert!(runs.windows(2).all(|pair| pair[0].end() < pair[1].first));
    }
}
