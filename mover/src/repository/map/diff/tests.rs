//! What comparing costs; that it is right is shown by the properties of the whole map.

use crate::error::ErrorKind;
use crate::repository::map::testing::{Model, data, repository, write};
use crate::repository::map::{MapRoot, diff};
use crate::repository::store::Store;

#[test]
fn equal_subtrees_are_not_read() {
    let (repository, store) = repository();
    let chunks = 1 << 24;
    let mut model = (0..20_000u64)
        .map(|n| (n * 800, data(n)))
        .collect::<Model>();
    let a = write(&repository, 1, None, &model, chunks).root;
    model.insert(12_345_678, data(9_999_999));
    let b = write(&repository, 2, Some(&a), &model, chunks).root;
    let before = store.counts().get;
    let mut found = Vec::new();
    diff(&repository, &a, &b, |first, count| {
        found.push((first, count));
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [(12_345_678, 1)]);
    let gets = store.counts().get - before;
    assert!(
        gets <= 14,
        "{gets} requests: heads and three pages on both sides"
    );
    let before = store.counts().get;
    diff(&repository, &a, &a, |_, _| panic!("nothing differs")).unwrap();
    assert_eq!(store.counts().get, before);
}

#[test]
fn a_moved_chunk_with_the_same_bytes_is_no_change() {
    let (repository, _) = repository();
    let entry = data(1);
    let mut moved = data(2);
    if let (crate::repository::map::Entry::Data { digest, .. }, Some(same)) =
        (&mut moved, entry.digest())
    {
        *digest = *same;
    }
    let a = write(&repository, 1, None, &Model::from([(5, entry)]), 10).root;
    let b = write(&repository, 2, None, &Model::from([(5, moved)]), 10).root;
    assert_ne!(a, b);
    diff(&repository, &a, &b, |_, _| panic!("the bytes are the same")).unwrap();
}

#[test]
fn stops_when_told_to() {
    let (repository, _) = repository();
    let a = write(
        &repository,
        1,
        None,
        &Model::from([(5, data(1)), (9, data(2))]),
        10,
    )
    .root;
    let stop = || crate::Error::new(ErrorKind::Interrupted, "stop");
    let result = diff(&repository, &a, &MapRoot::zero(10), |_, _| Err(stop()));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
}
