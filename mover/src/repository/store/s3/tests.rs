#![cfg(feature = "testing-s3")]

use super::in_process::{ConnectionFault, FaultProxy, InProcessServer, Quirks};
use super::*;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::repository::store::probe::{ProbeOptions, probe};
use crate::repository::store::{contract, list_all};

const BUSY: ConnectionFault = ConnectionFault::Answer(503, "SlowDown");

fn guarded() -> StoreProfile {
    StoreProfile {
        conditional_writes: true,
        payload_signing: PayloadSigning::Unsigned,
        checksum: BodyChecksum::Crc64Nvme,
        single_host: None,
        kind: "s3".to_owned(),
        lock: None,
    }
}

fn connect(options: &S3Options) -> S3Store {
    S3Store::connect(options, &guarded()).unwrap()
}

/// A server, a proxy in front of it, and a store that has reached it.
fn through_proxy() -> (InProcessServer, FaultProxy, S3Store) {
    let server = InProcessServer::start(Quirks::default()).unwrap();
    let proxy = FaultProxy::start(server.address()).unwrap();
    let store = connect(&server.options_at(proxy.address(), "repo/"));
    assert_eq!(store.head("config").unwrap(), None);
    (server, proxy, store)
}

fn body(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&len.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    Bytes::from(bytes)
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn run_contract(quirks: Quirks) {
    let server = InProcessServer::start(quirks).unwrap();
    let made = Cell::new(0);
    contract::run(&|| {
        made.set(made.get() + 1);
        Arc::new(connect(&server.options(&format!("repo-{}/", made.get()))))
    });
}

#[test]
fn the_contract_holds_over_plain_http() {
    run_contract(Quirks::default());
}

#[test]
fn the_contract_holds_over_tls_with_a_private_authority() {
    run_contract(Quirks {
        tls: true,
        ..Quirks::default()
    });
}

#[test]
fn the_contract_holds_without_conditional_writes() {
    let server = InProcessServer::start(Quirks {
        ignores_conditions: true,
        ..Quirks::default()
    })
    .unwrap();
    let made = Cell::new(0);
    contract::run_without_conditional_writes(&|| {
        made.set(made.get() + 1);
        let options = server.options(&format!("repo-{}/", made.get()));
        Arc::new(S3Store::connect(&options, &StoreProfile::default()).unwrap())
    });
}

#[test]
fn bodies_go_as_the_recipe_says() {
    let server = InProcessServer::start(Quirks::default()).unwrap();
    let store = connect(&server.options("repo/"));
    store.put("seg/a", body(3_000_000)).unwrap();
    store.create("snap/a", body(100)).unwrap();
    let puts: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|request| request.method == "PUT")
        .collect();
    assert_eq!(puts.len(), 2);
    for put in &puts {
        assert_eq!(put.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
        assert!(put.header("x-amz-checksum-crc64nvme").is_some(), "{put:?}");
        for absent in [
            "x-amz-trailer",
            "content-encoding",
            "transfer-encoding",
            "x-amz-decoded-content-length",
        ] {
            assert_eq!(put.header(absent), None);
        }
    }
    assert_eq!(puts[0].header("content-length"), Some("3000000"));
    assert_eq!(
        (
            puts[0].header("if-none-match"),
            puts[1].header("if-none-match")
        ),
        (None, Some("*"))
    );
    assert!(
        puts[0].target.starts_with("/test/repo/seg/a"),
        "{}",
        puts[0].target
    );
}

#[test]
fn before_a_profile_is_known_bodies_go_as_any_server_takes_them() {
    let server = InProcessServer::start(Quirks::default()).unwrap();
    let store = S3Store::connect(&server.options("repo/"), &StoreProfile::default()).unwrap();
    store.put("seg/a", body(1000)).unwrap();
    let put = server.seen().pop().unwrap();
    assert!(
        put.header("content-md5").is_some() && put.header("x-amz-checksum-crc64nvme").is_none()
    );
    assert_eq!(put.header("x-amz-content-sha256").unwrap().len(), 64);
}

#[test]
fn the_probe_takes_the_best_way_that_the_server_accepts() {
    let refuse = |list: &[(&str, &str)]| Quirks {
        refuses: list
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Quirks::default()
    };
    let crc64 = ("x-amz-checksum-crc64nvme", "");
    let crc32c = ("x-amz-checksum-crc32c", "");
    let unsigned = ("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    for (quirks, signing, checksum) in [
        (
            refuse(&[]),
            PayloadSigning::Unsigned,
            BodyChecksum::Crc64Nvme,
        ),
        (
            refuse(&[crc64]),
            PayloadSigning::Unsigned,
            BodyChecksum::Crc32c,
        ),
        (
            refuse(&[crc64, crc32c]),
            PayloadSigning::Unsigned,
            BodyChecksum::ContentMd5,
        ),
        (
            refuse(&[crc64, crc32c, ("content-md5", "")]),
            PayloadSigning::Unsigned,
            BodyChecksum::None,
        ),
        (
            refuse(&[unsigned]),
            PayloadSigning::Signed,
            BodyChecksum::Crc64Nvme,
        ),
    ] {
        let server = InProcessServer::start(quirks).unwrap();
        let store = S3Store::connect(&server.options("repo/"), &StoreProfile::default()).unwrap();
        let profile = probe(&store, ProbeOptions::default()).unwrap();
        assert_eq!(
            (profile.payload_signing, profile.checksum),
            (signing, checksum)
        );
        assert!(profile.conditional_writes);
        assert!(list_all(&store, "").unwrap().is_empty());
    }
}

#[test]
fn the_probe_sees_through_a_server_that_ignores_or_refuses_conditions() {
    let refused = vec![("if-none-match".to_owned(), String::new())];
    for quirks in [
        Quirks {
            ignores_conditions: true,
            ..Quirks::default()
        },
        Quirks {
            refuses: refused,
            ..Quirks::default()
        },
    ] {
        let server = InProcessServer::start(quirks).unwrap();
        let store = S3Store::connect(&server.options("repo/"), &StoreProfile::default()).unwrap();
        let profile = probe(&store, ProbeOptions::default()).unwrap();
        assert!(!profile.conditional_writes);
        assert!(list_all(&store, "").unwrap().is_empty());
        // The fallback for names with a single writer.
        assert_eq!(store.create("snap/a", body(30)).unwrap(), Created::Won);
        assert_eq!(store.create("snap/a", body(31)).unwrap(), Created::Exists);
    }
}

#[test]
fn a_storm_of_503_is_ridden_out() {
    let (_server, proxy, store) = through_proxy();
    proxy.add(vec![BUSY; 4]);
    store.put("seg/a", body(100_000)).unwrap();
    assert_eq!(proxy.pending(), 0);
    // One try more where the first meets the connection that the proxy has just closed.
    let retries = store.counts().retries;
    assert!((4..=5).contains(&retries), "{retries}");
    assert_eq!(store.get("seg/a").unwrap(), body(100_000));
}

#[test]
fn an_endless_storm_ends_with_an_error_that_says_everything() {
    let (_server, proxy, store) = through_proxy();
    proxy.set_always(Some(BUSY));
    let error = store.put("seg/a", body(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = chain(&error);
    for part in ["s3://test/repo/seg/a", "6 attempts", "503 SlowDown"] {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    assert!(error.hint_text().is_some());
    proxy.set_always(None);
    store.put("seg/a", body(10)).unwrap();
}

#[test]
fn a_put_cut_in_the_middle_leaves_nothing_and_is_sent_again() {
    let (_server, proxy, store) = through_proxy();
    proxy.add([ConnectionFault::CutRequest(500_000)]);
    store.put("seg/a", body(2_000_000)).unwrap();
    assert_eq!(store.get("seg/a").unwrap(), body(2_000_000));
    proxy.set_always(Some(ConnectionFault::CutRequest(500_000)));
    assert_eq!(
        store.put("seg/b", body(2_000_000)).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    proxy.set_always(None);
    assert_eq!(store.head("seg/b").unwrap(), None);
}

#[test]
fn an_answer_cut_in_the_middle_is_never_taken_for_the_whole() {
    let (_server, proxy, store) = through_proxy();
    store.put("seg/a", body(2_000_000)).unwrap();
    proxy.add([
        ConnectionFault::CutAnswer(700_000),
        ConnectionFault::CutAnswer(20),
    ]);
    assert_eq!(store.get("seg/a").unwrap(), body(2_000_000));
    proxy.add([ConnectionFault::CutAnswer(100_000)]);
    assert_eq!(
        store.get_range("seg/a", 100..1_500_000).unwrap(),
        body(2_000_000).slice(100..1_500_000)
    );
    assert_eq!(proxy.pending(), 0);
    proxy.set_always(Some(ConnectionFault::CutAnswer(700_000)));
    assert_eq!(
        store.get("seg/a").unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[test]
fn a_server_that_hangs_is_given_up_in_time() {
    let server = InProcessServer::start(Quirks::default()).unwrap();
    let proxy = FaultProxy::start(server.address()).unwrap();
    let mut options = server.options_at(proxy.address(), "repo/");
    options.timing.first_byte = Duration::from_secs(1);
    options.timing.slowest = u64::MAX;
    let store = connect(&options);
    assert_eq!(store.head("config").unwrap(), None);
    proxy.add([ConnectionFault::Hang]);
    assert!(list_all(&store, "").unwrap().is_empty());
    assert!(store.counts().retries >= 1);
    proxy.set_always(Some(ConnectionFault::Hang));
    let started = Instant::now();
    let error = store.get("seg/a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(chain(&error).contains("1 s"), "{}", chain(&error));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_lost_answer_of_a_create_is_settled_by_reading_back() {
    let (_server, proxy, store) = through_proxy();
    proxy.add([ConnectionFault::LoseAnswer]);
    assert_eq!(store.create("snap/a", body(40)).unwrap(), Created::Won);
    assert_eq!(proxy.pending(), 0);
    assert_eq!(store.get("snap/a").unwrap(), body(40));
    proxy.add([ConnectionFault::LoseAnswer]);
    assert_eq!(store.create("snap/a", body(41)).unwrap(), Created::Exists);
    assert_eq!(store.get("snap/a").unwrap(), body(40));
    for answer in [409, 412, 500, 503] {
        let name = format!("snap/{answer}");
        proxy.add([ConnectionFault::Answer(answer, "MadeUp")]);
        let created = store.create(&name, body(42)).unwrap();
        // 412 without an object: somebody's was there and is gone; ours never was.
        assert_eq!(
            created,
            if answer == 412 {
                Created::Exists
            } else {
                Created::Won
            },
            "{answer}"
        );
    }
    proxy.set_always(Some(BUSY));
    assert_eq!(
        store.create("snap/b", body(43)).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[test]
fn an_object_sent_once_is_never_sent_again() {
    let (server, proxy, store) = through_proxy();
    let sent = |name: &str| {
        server
            .seen()
            .iter()
            .filter(|r| r.method == "PUT" && r.target.contains(name))
            .count()
    };
    proxy.add([BUSY]);
    assert_eq!(
        store.put_once("open/a", body(10)).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!((sent("open/a"), store.head("open/a").unwrap()), (0, None));
    proxy.add([ConnectionFault::LoseAnswer]);
    assert_eq!(
        store.put_once("open/b", body(10)).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(sent("open/b"), 1);
    proxy.add([ConnectionFault::CutRequest(20)]);
    store.put_once("open/c", body(10)).unwrap_err();
    assert_eq!((sent("open/c"), store.counts().retries), (0, 0));
}

#[test]
fn a_dead_endpoint_is_reported_quickly() {
    let server = InProcessServer::start(Quirks::default()).unwrap();
    let proxy = FaultProxy::start(server.address()).unwrap();
    let address = proxy.address();
    drop(proxy);
    let store = connect(&server.options_at(address, "repo/"));
    let error = store.get("config").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(chain(&error).contains("3 attempts"), "{}", chain(&error));
    assert!(error.hint_text().unwrap().contains("--s3-endpoint"));
}

/// The error of one GET with changed options, and how many requests it took.
fn refused(quirks: Quirks, change: impl Fn(&mut S3Options)) -> (Error, usize) {
    let server = InProcessServer::start(quirks).unwrap();
    let mut options = server.options("repo/");
    change(&mut options);
    let error = connect(&options).get("config").unwrap_err();
    assert!(!format!("{error:?}").contains("wrong-secret"));
    (error, server.seen().len())
}

#[test]
fn wrong_credentials_are_final() {
    for (key, secret) in [
        ("AKIATESTONLY", "wrong-secret"),
        ("AKIAUNKNOWN", "wrong-secret"),
    ] {
        let (error, requests) = refused(Quirks::default(), |options| {
            options.credentials = Some(S3Credentials::new(key, secret));
        });
        assert_eq!(
            (error.kind(), requests),
            (ErrorKind::AccessDenied, 1),
            "{}",
            chain(&error)
        );
        assert!(error.hint_text().is_some());
    }
}

#[test]
fn a_missing_bucket_is_final() {
    let (error, requests) = refused(Quirks::default(), |options| {
        options.bucket = "nobucket".to_owned();
    });
    let outcome = (error.kind(), requests);
    assert_eq!(outcome, (ErrorKind::NotFound, 1), "{}", chain(&error));
    assert!(error.hint_text().unwrap().contains("create the bucket"));
    let server = InProcessServer::start(Quirks::default()).unwrap();
    let store = connect(&S3Options {
        bucket: "nobucket".to_owned(),
        ..server.options("")
    });
    let probed = probe(&store, ProbeOptions::default());
    for error in [
        store.put("a", body(1)).unwrap_err(),
        store.create("a", body(1)).unwrap_err(),
        store.delete("a").unwrap_err(),
        list_all(&store, "").unwrap_err(),
        probed.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", chain(&error));
    }
    assert_eq!(store.counts().retries, 0);
}

#[test]
fn an_unknown_authority_is_final_and_the_ca_file_is_named() {
    let other = InProcessServer::start(Quirks {
        tls: true,
        ..Quirks::default()
    })
    .unwrap();
    let (error, requests) = refused(
        Quirks {
            tls: true,
            ..Quirks::default()
        },
        |options| {
            options.ca_file = Some(other.ca_file());
        },
    );
    assert_eq!(
        (error.kind(), requests),
        (ErrorKind::AccessDenied, 0),
        "{}",
        chain(&error)
    );
    assert!(
        error.hint_text().unwrap().contains("--s3-ca-file"),
        "{}",
        chain(&error)
    );
    assert!(chain(&error).contains("1 attempt"), "{}", chain(&error));
}

#[test]
fn tls_to_a_plain_server_says_so() {
    let tls = InProcessServer::start(Quirks {
        tls: true,
        ..Quirks::default()
    })
    .unwrap();
    let (error, _) = refused(Quirks::default(), |options| {
        options.endpoint = options
            .endpoint
            .as_ref()
            .map(|url| url.replace("http://", "https://"));
        options.ca_file = Some(tls.ca_file());
    });
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{}", chain(&error));
    assert!(error.hint_text().unwrap().contains("http://"));
}

#[test]
fn objects_of_others_in_the_bucket_are_not_seen() {
    let server = InProcessServer::start(Quirks::default()).unwrap();
    let (ours, theirs) = (
        connect(&server.options("repo/")),
        connect(&server.options("repo-2/")),
    );
    let whole = connect(&server.options(""));
    theirs.put("config", body(5)).unwrap();
    whole.put("repox", body(6)).unwrap();
    ours.put("config", body(7)).unwrap();
    let names = |store: &S3Store| {
        list_all(store, "")
            .unwrap()
            .into_iter()
            .map(|o| o.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&ours), ["config"]);
    assert_eq!(names(&whole), ["repo-2/config", "repo/config", "repox"]);
}
