//! Generations, the cache and its budget.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::repository::format::{Codec, ContainerBuilder};
use crate::repository::map::testing::{MemoryStore, repository, session};
use crate::repository::store::Store;

fn id(number: u32) -> SegmentId {
    SegmentId {
        session: session(1),
        number,
    }
}

/// A data segment with these bodies, bound to its name without a generation.
fn segment(repository: &Repository, number: u32, bodies: &[&[u8]]) -> Bytes {
    let keys = &repository.keys;
    let mut builder =
        ContainerBuilder::new(Arc::clone(keys), Class::Data, id(number), 1 << 20, 4096);
    for (key, body) in bodies.iter().enumerate() {
        let len = u32::try_from(body.len()).unwrap();
        builder
            .append(key as u64, len, keys.digest(body), Codec::Raw, body)
            .unwrap();
    }
    builder.finish(&name::segment(id(number), 0)).unwrap()
}

fn store_segment(repository: &Repository, store: &MemoryStore, number: u32, generation: u8) {
    let object = segment(repository, number, &[b"first body", b"second body"]);
    store
        .put(&name::segment(id(number), generation), object)
        .unwrap();
}

#[test]
fn a_directory_is_read_once() {
    let (repository, store) = repository();
    store_segment(&repository, &store, 0, 0);
    let reader = SegmentReader::new(&repository);
    assert!(reader.cached(Class::Data, id(0)).is_none());
    let (first, head) = reader.directory_and_head(Class::Data, id(0)).unwrap();
    assert!(head.is_some());
    assert_eq!(first.entries().len(), 2);
    let before = store.counts().get;
    assert!(Arc::ptr_eq(
        &first,
        &reader.directory(Class::Data, id(0)).unwrap()
    ));
    assert_eq!(store.counts().get, before);
    let entry = &first.entries()[1];
    let range = entry.offset..entry.offset + u64::from(entry.stored_len);
    assert_eq!(reader.read(&first, range).unwrap().len(), 11);
}

#[test]
fn finds_whatever_generation_is_there() {
    let (repository, store) = repository();
    store_segment(&repository, &store, 3, 4);
    let reader = SegmentReader::new(&repository);
    let directory = reader.directory(Class::Data, id(3)).unwrap();
    assert_eq!(directory.object(), name::segment(id(3), 4));
}

#[test]
fn goes_on_after_a_compaction_under_its_feet() {
    let (repository, store) = repository();
    store_segment(&repository, &store, 3, 0);
    let reader = SegmentReader::new(&repository);
    reader.directory(Class::Data, id(3)).unwrap();
    store_segment(&repository, &store, 3, 1);
    store.delete(&name::segment(id(3), 0)).unwrap();
    let mut seen = Vec::new();
    let bytes = reader.retrying(Class::Data, id(3), |directory| {
        seen.push(directory.object().to_owned());
        let entry = &directory.entries()[0];
        reader.read(
            directory,
            entry.offset..entry.offset + u64::from(entry.stored_len),
        )
    });
    assert_eq!(bytes.unwrap().len(), 10);
    assert_eq!(seen, [name::segment(id(3), 0), name::segment(id(3), 1)]);
}

#[test]
fn a_segment_that_is_gone_is_missing_and_corrupt() {
    let (repository, store) = repository();
    store_segment(&repository, &store, 1, 0);
    store_segment(&repository, &store, 10, 0);
    let reader = SegmentReader::new(&repository);
    for class in [Class::Data, Class::Map] {
        let error = reader.directory(class, id(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(is_missing(&error));
        assert!(error.object_name().unwrap().contains("00000000"), "{error}");
    }
    reader.directory(Class::Data, id(1)).unwrap();
    store.delete(&name::segment(id(1), 0)).unwrap();
    let error = reader
        .retrying(Class::Data, id(1), |directory| reader.read(directory, 0..1))
        .unwrap_err();
    assert!(is_missing(&error));
    let damaged = Error::new(ErrorKind::Corrupt, "decode");
    assert!(!is_missing(&damaged));
}

#[test]
fn a_truncated_object_is_corrupt() {
    let (repository, store) = repository();
    store_segment(&repository, &store, 0, 0);
    let reader = SegmentReader::new(&repository);
    let directory = reader.directory(Class::Data, id(0)).unwrap();
    let object = name::segment(id(0), 0);
    store.alter(&object, |bytes| bytes.truncate(bytes.len() - 1));
    let range = directory.entries()[1].offset..directory.object_len();
    let error = reader.read(&directory, range).unwrap_err();
    assert_eq!(
        (error.kind(), error.object_name()),
        (ErrorKind::Corrupt, Some(object.as_str()))
    );
    reader.forget(Class::Data, id(0));
    store.alter(&object, |bytes| bytes.truncate(70));
    let error = reader.directory(Class::Data, id(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    store.alter(&object, Vec::clear);
    assert_eq!(
        reader.directory(Class::Data, id(0)).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn directories_longer_than_the_first_read_are_read_in_two() {
    let (repository, store) = repository();
    let bodies = (0..4000u32).map(u32::to_le_bytes).collect::<Vec<_>>();
    let bodies = bodies.iter().map(<[u8; 4]>::as_slice).collect::<Vec<_>>();
    store
        .put(&name::segment(id(0), 0), segment(&repository, 0, &bodies))
        .unwrap();
    let reader = SegmentReader::new(&repository);
    let directory = reader.directory(Class::Data, id(0)).unwrap();
    assert_eq!(directory.entries().len(), 4000);
    assert!(store.counts().get <= 3);
}

#[test]
fn the_cache_keeps_to_its_budget_and_drops_the_oldest() {
    let (repository, store) = repository();
    (0..8).for_each(|number| store_segment(&repository, &store, number, 0));
    let size = SegmentReader::new(&repository)
        .directory(Class::Data, id(0))
        .unwrap()
        .memory();
    let reader = SegmentReader::with_budget(&repository, size * 3 + size / 2);
    for number in [0, 1, 2, 0, 3] {
        reader.directory(Class::Data, id(number)).unwrap();
    }
    let cached = |number| reader.cached(Class::Data, id(number)).is_some();
    assert_eq!([0, 1, 2, 3].map(cached), [true, false, true, true]);
    let tiny = SegmentReader::with_budget(&repository, 1);
    tiny.directory(Class::Data, id(0)).unwrap();
    assert!(
        tiny.cached(Class::Data, id(0)).is_some(),
        "one always stays"
    );
    tiny.directory(Class::Data, id(1)).unwrap();
    assert!(tiny.cached(Class::Data, id(0)).is_none());
}
