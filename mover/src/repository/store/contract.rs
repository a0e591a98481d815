//! What every store must do: one suite, run against each kind and each real server.
//!
//! Owns: the cases. Must not: know a kind of store. It panics where a store breaks the contract, naming the case.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test suite reports by panicking"
)]

use std::sync::{Arc, Barrier};

use bytes::Bytes;

use super::probe::{ProbeOptions, probe};
use super::{Created, Store, list_all};
use crate::device::AlignedBuffer;
use crate::error::{Error, ErrorKind};
use crate::repository::ids::{random, to_hex};

/// Around the borders of sectors, of direct I/O and of a page of memory.
const SIZES: [usize; 13] = [
    0,
    1,
    511,
    512,
    4095,
    4096,
    4097,
    65_535,
    65_536,
    65_537,
    1_048_576,
    1_048_576 + 4095,
    5_000_000,
];

/// Objects of the long listing: more than one page of any server.
const MANY: usize = 1_100;
const WRITERS: usize = 8;

/// Runs every case, each on a store that `make` gives and that holds no objects.
///
/// # Panics
/// If the store breaks the contract.
pub fn run(make: &dyn Fn() -> Arc<dyn Store>) {
    run_without_conditional_writes(make);
    one_create_wins(&*make());
    creates_race_for_one_winner(&*make());
    a_probe_passes_and_leaves_nothing(&*make());
}

/// Runs the cases that need no create-only PUT, for servers that have none.
///
/// # Panics
/// If the store breaks the contract.
pub fn run_without_conditional_writes(make: &dyn Fn() -> Arc<dyn Store>) {
    bodies_come_back(&*make());
    ranges_are_clipped(&*make());
    what_is_missing_is_said_so(&*make());
    the_same_bytes_may_be_put_again(&*make());
    an_object_is_sent_once(&*make());
    deletes_repeat(&*make());
    listings_are_ordered_in_each_folder(&*make());
    long_listings_come_in_pages(&*make());
    bad_names_are_refused(&*make());
    requests_are_counted(&*make());
}

/// Bytes that differ everywhere and between objects.
fn body(seed: usize, len: usize) -> Bytes {
    let mut hash = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();
    let mut bytes = vec![0; len];
    hash.fill(&mut bytes);
    Bytes::from(bytes)
}

/// The same bytes at an address that direct I/O can write from.
fn aligned(bytes: &Bytes) -> Bytes {
    let mut buffer = AlignedBuffer::new(bytes.len());
    buffer[..bytes.len()].copy_from_slice(bytes);
    buffer.into_bytes(0..bytes.len())
}

/// The same bytes at an odd address.
fn odd(bytes: &Bytes) -> Bytes {
    let mut buffer = AlignedBuffer::new(bytes.len() + 1);
    buffer[1..=bytes.len()].copy_from_slice(bytes);
    buffer.into_bytes(1..bytes.len() + 1)
}

fn check_kind(case: &str, error: &Error, kind: ErrorKind, name: &str) {
    assert_eq!(error.kind(), kind, "{case}: {error:?}");
    let object = error.object_name().unwrap_or_default();
    assert!(
        object.contains(name),
        "{case}: the error names `{object}`, not `{name}`"
    );
}

fn bodies_come_back(store: &dyn Store) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let expected = body(seed, size);
        for (kind, bytes) in [("aligned", aligned(&expected)), ("odd", odd(&expected))] {
            let name = format!("seg/{kind}/{size:08}.g00");
            store
                .put(&name, bytes)
                .unwrap_or_else(|e| panic!("put {name}: {e:?}"));
            let got = store
                .get(&name)
                .unwrap_or_else(|e| panic!("get {name}: {e:?}"));
            assert!(got == expected, "{name} came back changed");
            let info = store
                .head(&name)
                .unwrap()
                .unwrap_or_else(|| panic!("head {name}: missing"));
            assert_eq!(
                (info.name.as_str(), info.size),
                (name.as_str(), size as u64)
            );
            assert!(info.modified.is_some(), "head {name}: no time");
        }
    }
    store.sync().unwrap();
}

fn ranges_are_clipped(store: &dyn Store) {
    let len = 300_000;
    let bytes = body(1, len);
    store.put("seg/ranges", bytes.clone()).unwrap();
    let starts = [0, 1, 4095, 4096, 100_001, 299_999];
    for start in starts {
        for wanted in [1, 4096, 70_000, 300_000, 10_000_000] {
            let end = (start + wanted).min(len);
            let got = store
                .get_range("seg/ranges", start as u64..(start + wanted) as u64)
                .unwrap();
            assert!(
                got == bytes.slice(start..end),
                "range {start}+{wanted} is wrong, {} bytes",
                got.len()
            );
        }
    }
    let whole = store.get_range("seg/ranges", 0..u64::MAX).unwrap();
    assert!(whole == bytes, "a range without end is the whole object");
    for empty in [len as u64..len as u64 + 5, 1_000_000..2_000_000, 7..7] {
        let got = store
            .get_range("seg/ranges", empty.clone())
            .unwrap_or_else(|e| panic!("range {empty:?}: {e:?}"));
        assert!(
            got.is_empty(),
            "range {empty:?} brought {} bytes",
            got.len()
        );
    }
    store.put("seg/empty", Bytes::new()).unwrap();
    assert!(store.get_range("seg/empty", 0..10).unwrap().is_empty());
}

fn what_is_missing_is_said_so(store: &dyn Store) {
    check_kind(
        "get",
        &store.get("seg/none").unwrap_err(),
        ErrorKind::NotFound,
        "seg/none",
    );
    check_kind(
        "get_range",
        &store.get_range("seg/none", 0..9).unwrap_err(),
        ErrorKind::NotFound,
        "seg/none",
    );
    assert_eq!(store.head("seg/none").unwrap(), None);
    assert_eq!(store.head("seg").unwrap(), None);
    store.delete("seg/none").unwrap();
    store.delete("nowhere/at/all").unwrap();
    assert!(list_all(store, "").unwrap().is_empty());
    assert!(list_all(store, "seg/").unwrap().is_empty());
    store.sync().unwrap();
}

fn the_same_bytes_may_be_put_again(store: &dyn Store) {
    for len in [10, 200_000] {
        let name = format!("beat/{len}");
        store.put(&name, body(7, len)).unwrap();
        store
            .put(&name, body(7, len))
            .unwrap_or_else(|e| panic!("put {name} again: {e:?}"));
        assert!(store.get(&name).unwrap() == body(7, len));
    }
    store.sync().unwrap();
}

fn an_object_is_sent_once(store: &dyn Store) {
    store.put_once("open/v/s", body(3, 100)).unwrap();
    assert!(store.get("open/v/s").unwrap() == body(3, 100));
    store.sync().unwrap();
}

fn deletes_repeat(store: &dyn Store) {
    store.put("tomb/v/a", body(1, 10)).unwrap();
    store.put("tomb/v/b", body(2, 10)).unwrap();
    store.delete("tomb/v/a").unwrap();
    store.delete("tomb/v/a").unwrap();
    check_kind(
        "get",
        &store.get("tomb/v/a").unwrap_err(),
        ErrorKind::NotFound,
        "tomb/v/a",
    );
    assert!(store.get("tomb/v/b").unwrap() == body(2, 10));
    store.delete("tomb/v/b").unwrap();
    // The folder went with its last object, and comes again.
    store.put("tomb/v/c", body(3, 10)).unwrap();
    assert_eq!(list_all(store, "tomb/").unwrap().len(), 1);
    store.sync().unwrap();
}

/// Names of the shapes that the repository uses. SeaweedFS sorts folder by folder, which differs from S3 where a folder's
/// name begins its neighbour's (`a/…` and `a-b`); no two names of the repository are like that.
fn listings_are_ordered_in_each_folder(store: &dyn Store) {
    let names = [
        "a/b/c",
        "a/c",
        "a0",
        "ab/c",
        "config",
        "config.b",
        "snap/v/0-a",
        "snap/v/0-b",
        "snap/w/0-a",
    ];
    for (len, name) in names.iter().enumerate() {
        store.put(name, body(len, len)).unwrap();
    }
    for prefix in [
        "",
        "a",
        "a/",
        "a/b",
        "a/b/",
        "config",
        "snap/",
        "snap/v/",
        "snap/v/0-b",
        "x",
        "x/y",
    ] {
        let mut expected: Vec<(&str, u64)> = names
            .iter()
            .copied()
            .zip(0..)
            .filter(|(n, _)| n.starts_with(prefix))
            .collect();
        let listed = list_all(store, prefix).unwrap();
        let mut got: Vec<_> = listed
            .iter()
            .map(|object| (object.name.as_str(), object.size))
            .collect();
        assert!(
            got.is_sorted_by_key(|(name, _)| name.split('/').collect::<Vec<_>>())
                || got.is_sorted(),
            "prefix `{prefix}`: {got:?}"
        );
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "prefix `{prefix}`");
        assert!(listed.iter().all(|object| object.modified.is_some()));
    }
}

fn long_listings_come_in_pages(store: &dyn Store) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for index in (writer..MANY).step_by(WRITERS) {
                    store
                        .put(&format!("seg/many/{index:08}"), Bytes::from_static(b"x"))
                        .unwrap();
                }
            });
        }
    });
    let mut names = Vec::new();
    store
        .list("seg/", &mut |page| {
            assert!(
                !page.is_empty() && page.len() <= 1000,
                "a page of {}",
                page.len()
            );
            names.extend(page.into_iter().map(|object| object.name));
            Ok(())
        })
        .unwrap();
    let expected: Vec<_> = (0..MANY)
        .map(|index| format!("seg/many/{index:08}"))
        .collect();
    assert!(
        names == expected,
        "{} of {MANY} listed, or in another order",
        names.len()
    );
    let mut pages = 0;
    let stopped = store.list("seg/", &mut |_| {
        pages += 1;
        Err(Error::new(ErrorKind::Interrupted, "stop here"))
    });
    assert_eq!(
        (pages, stopped.unwrap_err().kind()),
        (1, ErrorKind::Interrupted)
    );
    std::thread::scope(|scope| {
        for part in names.chunks(MANY.div_ceil(WRITERS)) {
            scope.spawn(move || part.iter().for_each(|name| store.delete(name).unwrap()));
        }
    });
    assert!(list_all(store, "").unwrap().is_empty());
}

fn bad_names_are_refused(store: &dyn Store) {
    for name in [
        "",
        "..",
        "../x",
        "/etc/x",
        "a//b",
        "a/",
        ".incoming/x",
        "a/../../x",
    ] {
        let error = store.put(name, Bytes::from_static(b"x")).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "put `{name}`");
        assert!(
            store.get(name).is_err() && store.head(name).is_err() && store.delete(name).is_err(),
            "`{name}`"
        );
    }
    assert!(list_all(store, "../").is_err());
}

fn requests_are_counted(store: &dyn Store) {
    let before = store.counts();
    store.put("seg/a", body(1, 100)).unwrap();
    store.get("seg/a").unwrap();
    store.get_range("seg/a", 10..30).unwrap();
    store.head("seg/a").unwrap();
    list_all(store, "seg/").unwrap();
    store.delete("seg/a").unwrap();
    let after = store.counts();
    assert_eq!(
        (after.put - before.put, after.put_bytes - before.put_bytes),
        (1, 100)
    );
    assert_eq!(
        (after.get - before.get, after.get_bytes - before.get_bytes),
        (2, 120)
    );
    assert_eq!(
        (
            after.head - before.head,
            after.list - before.list,
            after.delete - before.delete
        ),
        (1, 1, 1)
    );
}

fn token_body() -> Bytes {
    Bytes::from(format!("token {}", to_hex(&random::<16>())))
}

fn one_create_wins(store: &dyn Store) {
    let (first, second, third) = (token_body(), token_body(), token_body());
    assert_eq!(
        store.create("snap/v/s", first.clone()).unwrap(),
        Created::Won
    );
    assert_eq!(store.create("snap/v/s", second).unwrap(), Created::Exists);
    assert!(
        store.get("snap/v/s").unwrap() == first,
        "the loser's bytes replaced the winner's"
    );
    store.delete("snap/v/s").unwrap();
    assert_eq!(
        store.create("snap/v/s", third.clone()).unwrap(),
        Created::Won,
        "a delete frees the name"
    );
    assert!(store.get("snap/v/s").unwrap() == third);
    store.sync().unwrap();
}

fn creates_race_for_one_winner(store: &dyn Store) {
    for round in 0..10 {
        let name = format!("snap/v/race-{round}");
        let start = Barrier::new(WRITERS);
        let winners: Vec<Bytes> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..WRITERS)
                .map(|_| {
                    scope.spawn(|| {
                        let body = token_body();
                        start.wait();
                        (store.create(&name, body.clone()).unwrap() == Created::Won).then_some(body)
                    })
                })
                .collect();
            racers
                .into_iter()
                .filter_map(|racer| racer.join().unwrap())
                .collect()
        });
        assert_eq!(winners.len(), 1, "round {round}");
        assert!(
            store.get(&name).unwrap() == winners[0],
            "round {round}: not the winner's bytes"
        );
    }
}

fn a_probe_passes_and_leaves_nothing(store: &dyn Store) {
    let profile = probe(store, ProbeOptions::default()).unwrap_or_else(|e| panic!("probe: {e:?}"));
    assert!(profile.conditional_writes, "{profile:?}");
    assert!(
        ["directory", "s3", "memory"].contains(&profile.kind.as_str()),
        "{profile:?}"
    );
    assert!(
        list_all(store, "").unwrap().is_empty(),
        "the probe left objects"
    );
    // The recorded options are in use now.
    store.put("config", body(1, 100_000)).unwrap();
    assert!(store.get("config").unwrap() == body(1, 100_000));
    let without = probe(
        store,
        ProbeOptions {
            conditional_writes: false,
        },
    )
    .unwrap();
    assert!(!without.conditional_writes);
    assert_eq!(
        list_all(store, "").unwrap().len(),
        1,
        "the probe left objects"
    );
}
