//! What is written again and what is not.

use std::collections::BTreeSet;

use crate::error::ErrorKind;
use crate::repository::map::testing::{Model, data, leaf_of, read, repository, write, writer};
use crate::repository::map::{Leaf, MapCursor};

fn full(chunks: u64) -> Model {
    (0..chunks).map(|chunk| (chunk, data(chunk))).collect()
}

#[test]
fn an_unchanged_map_is_not_written_again() {
    let (repository, _) = repository();
    for (session, chunks) in [(1, 100), (10, 20_000), (20, 70_000)] {
        let model = full(chunks);
        let first = write(&repository, session, None, &model, chunks);
        let second = write(&repository, session + 1, Some(&first.root), &model, chunks);
        assert_eq!(second.root, first.root);
        assert_eq!(
            (second.pages_written, second.segments, second.stored_bytes),
            (0, 0, 0)
        );
    }
}

#[test]
fn one_changed_chunk_rewrites_its_path() {
    let (repository, _) = repository();
    let chunks = 70_000;
    let mut model = full(chunks);
    let first = write(&repository, 1, None, &model, chunks);
    model.insert(66_000, data(1_000_000));
    let second = write(&repository, 2, Some(&first.root), &model, chunks);
    assert_eq!(second.pages_written, u64::from(second.root.depth));
    assert_eq!(second.segments, 1);
    assert_eq!(read(&repository, &second.root), model);
}

#[test]
fn growth_puts_the_old_root_below() {
    let (repository, _) = repository();
    let mut model = full(256);
    let first = write(&repository, 1, None, &model, 256);
    assert_eq!((first.root.depth, first.pages_written), (1, 1));
    let second = write(&repository, 2, Some(&first.root), &model, 70_000);
    assert_eq!(
        (second.root.depth, second.pages_written),
        (3, 2),
        "only two new roots"
    );
    model.insert(69_999, data(5));
    let third = write(&repository, 3, Some(&second.root), &model, 70_000);
    assert_eq!(third.pages_written, 3, "a leaf, its node, the root");
    model.retain(|chunk, _| *chunk < 256);
    let fourth = write(&repository, 4, Some(&third.root), &model, 256);
    assert_eq!(
        fourth.root, first.root,
        "shrinking finds the old root again"
    );
    assert_eq!(fourth.pages_written, 0);
}

#[test]
fn a_map_of_zeros_has_no_pages() {
    let (repository, _) = repository();
    let mut writer = writer(&repository, 1, 1 << 20);
    writer.push(0, &Leaf::zero()).unwrap();
    writer.push(7, &Leaf::zero()).unwrap();
    let written = writer.finish(5000).unwrap();
    assert_eq!((written.root.pointer, written.root.depth), (None, 2));
    assert_eq!(written.segments, 0);
}

#[test]
fn a_node_spread_over_many_segments_is_written_together() {
    let (repository, _) = repository();
    let chunks = 256 * 256;
    let mut model = full(chunks);
    let mut root = write(&repository, 0, None, &model, chunks).root;
    let mut rewrites = 0;
    for session in 1..=80 {
        model.insert(session * 256, data(1_000_000 + session));
        let written = write(&repository, session, Some(&root), &model, chunks);
        rewrites += u32::from(written.pages_written > 2);
        root = written.root;
        let mut cursor = MapCursor::new(&repository, &root);
        let mut segments = BTreeSet::new();
        for index in 0..256 {
            let leaf = cursor.leaf(index).unwrap().unwrap();
            assert_eq!(*leaf.leaf, leaf_of(&model, index));
            segments.insert(leaf.pointer.location.segment);
        }
        assert!(
            segments.len() <= super::MAX_SPREAD,
            "{} segments",
            segments.len()
        );
    }
    assert_eq!(rewrites, 2, "every 32nd of 80 sessions");
}

#[test]
fn segments_are_cut_at_their_size_and_at_their_pages() {
    let (repository, _) = repository();
    let model = full(256 * 1000);
    let written = write(&repository, 1, None, &model, 256 * 1000);
    assert!(
        written.segments >= 4,
        "{} segments of 1 MiB",
        written.segments
    );
    assert!(written.stored_bytes / u64::from(written.segments) <= (1 << 20) + (256 << 10));
    let small = (0..9000u64)
        .map(|leaf| (leaf * 256, data(leaf)))
        .collect::<Model>();
    let written = write(&repository, 2, None, &small, 9000 * 256);
    assert_eq!(written.segments, 3, "4,096 pages each");
    assert_eq!(read(&repository, &written.root), small);
}

#[test]
fn leaves_must_ascend_and_lie_inside_the_volume() {
    let (repository, _) = repository();
    let leaf = leaf_of(&full(1), 0);
    let mut out_of_order = writer(&repository, 1, 1 << 20);
    out_of_order.push(4, &leaf).unwrap();
    assert_eq!(
        out_of_order.push(4, &leaf).unwrap_err().kind(),
        ErrorKind::Internal
    );
    let mut outside = writer(&repository, 2, 1 << 20);
    outside.push(4, &leaf).unwrap();
    assert_eq!(
        outside.finish(1024).unwrap_err().kind(),
        ErrorKind::Internal
    );
}

#[test]
fn a_failed_emit_fails_the_map() {
    let (repository, _) = repository();
    let emit = |_, _| Err(crate::Error::new(ErrorKind::NoSpace, "put a map segment"));
    let keys = std::sync::Arc::clone(&repository.keys);
    let session = crate::repository::map::testing::session(1);
    let mut writer = super::MapWriter::new(keys, session, 1 << 20, Box::new(emit));
    writer.push(0, &leaf_of(&full(1), 0)).unwrap();
    assert_eq!(writer.finish(1).unwrap_err().kind(), ErrorKind::NoSpace);
}
