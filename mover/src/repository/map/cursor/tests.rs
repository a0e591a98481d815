//! Every way to go through a map, and what damage does.

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::repository::ids::{SegmentId, name};
use crate::repository::map::testing::{
    MemoryStore, Model, data, leaf_of, leaves_of, read, repository, repository_on, session, write,
    writer,
};
use crate::repository::map::{Leaf, MapCursor, MapRoot, damaged_page};
use crate::repository::segments;
use crate::repository::store::Store;
use crate::repository::store::directory::DirectoryStore;

/// Leaves in three nodes of level 1, of which two share one of level 2.
fn scattered() -> Model {
    let leaves = [0, 1, 7, 255, 256, 300, 65_536, 65_540];
    leaves
        .iter()
        .map(|leaf| (leaf * 256 + leaf % 256, data(*leaf + 1)))
        .collect()
}

const CHUNKS: u64 = (65_541 * 256) + 9;

#[test]
fn begins_at_every_leaf() {
    let (repository, _) = repository();
    let model = scattered();
    let root = write(&repository, 1, None, &model, CHUNKS).root;
    let leaves = leaves_of(&model);
    let starts = leaves
        .iter()
        .flat_map(|leaf| [leaf.saturating_sub(1), *leaf, leaf + 1]);
    for start in starts {
        let mut cursor = MapCursor::new(&repository, &root);
        let mut next = start;
        for expected in leaves.range(start..) {
            let (index, leaf) = cursor.next(next).unwrap().expect("a leaf is left");
            assert_eq!(
                (index, &*leaf.leaf),
                (*expected, &leaf_of(&model, *expected))
            );
            next = index + 1;
        }
        assert!(cursor.next(next).unwrap().is_none());
        assert!(cursor.next(u64::MAX).unwrap().is_none());
    }
}

#[test]
fn gives_single_leaves_and_none_for_zeros() {
    let (repository, _) = repository();
    let model = scattered();
    let root = write(&repository, 1, None, &model, CHUNKS).root;
    let mut cursor = MapCursor::new(&repository, &root);
    for index in (0..400).chain(65_500..65_560) {
        let found = cursor
            .leaf(index)
            .unwrap()
            .map_or_else(Leaf::zero, |leaf| (*leaf.leaf).clone());
        assert_eq!(found, leaf_of(&model, index), "leaf {index}");
        // Asking twice is not going back.
        assert_eq!(cursor.leaf(index).unwrap().is_some(), !found.is_zero());
    }
    // Going back starts again.
    assert!(cursor.leaf(7).unwrap().is_some());
}

#[test]
fn an_empty_map_has_no_leaves() {
    let (repository, store) = repository();
    let mut cursor = MapCursor::new(&repository, &MapRoot::zero(CHUNKS));
    assert!(cursor.next(0).unwrap().is_none());
    assert!(cursor.leaf(5).unwrap().is_none());
    assert_eq!(store.counts().get, 0);
}

#[test]
fn reads_only_what_is_selected() {
    let (repository, store) = repository();
    let model = (0..3000u64)
        .map(|leaf| (leaf * 256, data(leaf)))
        .collect::<Model>();
    let root = write(&repository, 1, None, &model, 3000 * 256).root;
    let before = store.counts();
    let mut cursor = MapCursor::new(&repository, &root).select(vec![700..702, 2900..2901]);
    let mut found = Vec::new();
    let mut next = 0;
    while let Some((index, _)) = cursor.next(next).unwrap() {
        found.push(index);
        next = index + 1;
    }
    assert_eq!(found, [700, 701, 2900]);
    let after = store.counts();
    assert!(
        after.get - before.get <= 8,
        "{} requests",
        after.get - before.get
    );
}

#[test]
fn a_dropped_cursor_stops_its_thread() {
    let (repository, _) = repository();
    let model = (0..5000u64)
        .map(|leaf| (leaf * 256, data(leaf)))
        .collect::<Model>();
    let root = write(&repository, 1, None, &model, 5000 * 256).root;
    let mut cursor = MapCursor::new(&repository, &root);
    assert!(cursor.next(0).unwrap().is_some());
    drop(cursor);
    assert_eq!(
        Arc::strong_count(&repository),
        1,
        "the thread still holds the repository"
    );
}

/// Writes 600 leaves of one chunk each and gives the store, the root and the offset of each leaf's stored bytes.
fn six_hundred() -> (
    Arc<crate::repository::access::Repository>,
    Arc<MemoryStore>,
    MapRoot,
) {
    let (repository, store) = repository();
    let model = (0..600u64)
        .map(|leaf| (leaf * 256, data(leaf)))
        .collect::<Model>();
    let root = write(&repository, 1, None, &model, 600 * 256).root;
    assert_eq!(read(&repository, &root), model);
    (repository, store, root)
}

fn only_segment() -> String {
    name::map_segment(SegmentId {
        session: session(1),
        number: 0,
    })
}

#[test]
fn a_damaged_leaf_hurts_that_leaf_only() {
    let (repository, store, root) = six_hundred();
    let reader = segments::SegmentReader::new(&repository);
    let id = SegmentId {
        session: session(1),
        number: 0,
    };
    let directory = reader
        .directory(crate::repository::format::Class::Map, id)
        .unwrap();
    let entry = directory
        .entries()
        .iter()
        .find(|entry| entry.key == 300 * 256)
        .unwrap();
    let at = usize::try_from(entry.offset).unwrap() + 3;
    store.alter(&only_segment(), |bytes| bytes[at] ^= 1);

    let mut cursor = MapCursor::new(&repository, &root);
    assert!(cursor.leaf(299).unwrap().is_some());
    let error = cursor.next(300).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some(only_segment().as_str()));
    let page = damaged_page(&error).expect("the error names the page");
    assert_eq!(page.chunks(), 300 * 256..301 * 256);
    assert!(!page.is_missing());
    assert!(cursor.leaf(300).is_err(), "it stays damaged");
    assert_eq!(cursor.next(page.next_leaf()).unwrap().unwrap().0, 301);
    assert!(cursor.leaf(599).unwrap().is_some());
}

#[test]
fn a_damaged_node_hurts_its_leaves_only() {
    let (repository, store, root) = six_hundred();
    let reader = segments::SegmentReader::new(&repository);
    let id = SegmentId {
        session: session(1),
        number: 0,
    };
    let directory = reader
        .directory(crate::repository::format::Class::Map, id)
        .unwrap();
    // Children are packed together: 256 leaves, 256 leaves, 88 leaves, then the three nodes.
    let node = directory
        .entries()
        .iter()
        .rev()
        .find(|entry| entry.key == 256 * 256)
        .unwrap();
    let at = usize::try_from(node.offset).unwrap() + 3;
    store.alter(&only_segment(), |bytes| bytes[at] ^= 1);

    let mut cursor = MapCursor::new(&repository, &root);
    assert!(cursor.leaf(255).unwrap().is_some());
    let error = cursor.leaf(256).unwrap_err();
    let page = damaged_page(&error).unwrap();
    assert_eq!(page.leaves(), 256..512);
    assert!(cursor.leaf(511).is_err());
    assert!(cursor.leaf(512).unwrap().is_some());
}

#[test]
fn a_missing_segment_is_told_from_a_damaged_one() {
    let (repository, store, root) = six_hundred();
    store.delete(&only_segment()).unwrap();
    let error = MapCursor::new(&repository, &root).next(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some(only_segment().as_str()));
    assert!(damaged_page(&error).unwrap().is_missing());
}

#[test]
fn a_truncated_segment_is_noticed() {
    let (repository, store, root) = six_hundred();
    store.alter(&only_segment(), |bytes| bytes.truncate(bytes.len() - 1));
    let error = MapCursor::new(&repository, &root).next(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    store.alter(&only_segment(), |bytes| bytes.truncate(100));
    assert_eq!(
        MapCursor::new(&repository, &root)
            .next(0)
            .unwrap_err()
            .kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn a_segment_that_vanishes_meanwhile_is_missing() {
    let (repository, store, root) = six_hundred();
    let segments = Arc::new(segments::SegmentReader::new(&repository));
    let id = SegmentId {
        session: session(1),
        number: 0,
    };
    segments
        .directory(crate::repository::format::Class::Map, id)
        .unwrap();
    store.delete(&only_segment()).unwrap();
    let error = MapCursor::with_segments(&segments, &root)
        .next(0)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(damaged_page(&error).unwrap().is_missing());
}

#[test]
fn a_sparse_16_tib_map_takes_few_requests_and_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(folder.path(), true).unwrap();
    let repository = repository_on(Arc::new(store));
    let mut writer = writer(&repository, 1, 32 << 20);
    // 62,000 leaves with one chunk each, spread over 524,288.
    let leaves = (0..62_000u64).map(|n| n * 524_288 / 62_000);
    for (n, index) in leaves.clone().enumerate() {
        let mut leaf = Leaf::zero();
        leaf.set(n % 256, data(n as u64));
        writer.push(index, &leaf).unwrap();
    }
    let written = writer.finish(1 << 27).unwrap();
    assert_eq!(written.root.depth, 4);
    assert!(
        written.stored_bytes < 12 << 20,
        "{} bytes",
        written.stored_bytes
    );

    let before = repository.store.counts();
    let started = std::time::Instant::now();
    let mut cursor = MapCursor::new(&repository, &written.root);
    for index in leaves {
        assert!(cursor.leaf(index).unwrap().is_some(), "leaf {index}");
    }
    assert!(cursor.next(524_288).unwrap().is_none());
    let after = repository.store.counts();
    let (gets, bytes) = (after.get - before.get, after.get_bytes - before.get_bytes);
    println!(
        "{} pages in {} segments, {} bytes: {gets} requests, {bytes} bytes, {:?}",
        written.pages_written,
        written.segments,
        written.stored_bytes,
        started.elapsed()
    );
    assert!(
        gets <= u64::from(written.segments) * 2 + 64,
        "{gets} requests"
    );
    assert!(bytes <= written.stored_bytes * 3, "{bytes} bytes");
}
