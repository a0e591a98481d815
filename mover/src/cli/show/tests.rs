//! Every field of a manifest is shown.

use super::*;
use crate::repository::format::manifest::{Manifest, PointState, PointStats};
use crate::repository::ids::{Sequence, SessionId, VolumeId};
use crate::repository::map::{LivenessRef, MapRoot};
use crate::repository::session::points::PointStatus;

fn key(session: u8) -> SessionKey {
    SessionKey {
        volume: VolumeId([1; 16]),
        sequence: Sequence(7),
        session: SessionId([session; 16]),
    }
}

fn point(status: PointStatus) -> Point {
    let manifest = Manifest {
        session: key(2),
        volume: "ns/db".to_owned(),
        parent: Some(key(3)),
        size: 10 << 30,
        chunk_size: 128 << 10,
        root: MapRoot {
            pointer: None,
            depth: 2,
        },
        liveness: LivenessRef {
            len: 0,
            hash: [0; 32],
        },
        exact_liveness_age: 4,
        tags: BTreeMap::from([("host".to_owned(), "a b".to_owned())]),
        group: Some("set1".to_owned()),
        state: PointState::Fuzzy,
        content_hash: [0xab; 32],
        created_unix_millis: 1_795_000_000_123,
        tool: "snaphaul 0.1.0".to_owned(),
        stats: PointStats {
            zero: 1,
            unchanged: 2,
            deduplicated: 3,
            new: 4 << 20,
            stored: 5,
        },
        changed_blocks: "hole-map".to_owned(),
        changed_blocks_reason: "sparse file".to_owned(),
        identity: vec![("kind".to_owned(), "file".to_owned())],
        pins: vec![key(9)],
        features_read: 0,
    };
    Point {
        key: key(2),
        manifest,
        status,
    }
}

#[test]
fn people_see_what_is_recorded() {
    let text = to_text(&report(&point(PointStatus::Complete)));
    for part in [
        "0202020202020202-01010101",
        "0303030303030303-01010101",
        "0909090909090909-01010101",
        "ns/db",
        "2026-11-18T11:06:40.123Z",
        "10 GiB (10737418240 bytes)",
        "4 MiB",
        "host=a b",
        "set1",
        "fuzzy",
        "hole-map (sparse file)",
        "kind=file",
        "abababab",
        "snaphaul 0.1.0",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(!text.contains("damage"), "{text}");
}

#[test]
fn damage_is_shown() {
    let report = report(&point(PointStatus::Damaged(
        "its manifest is missing".to_owned(),
    )));
    assert_eq!(report.status, "damaged");
    assert!(to_text(&report).contains("its manifest is missing"));
}

#[test]
fn scripts_see_the_same() {
    let value = serde_json::to_value(report(&point(PointStatus::Forgotten))).unwrap();
    assert_eq!(value["status"], "forgotten");
    assert_eq!(value["identity"]["kind"], "file");
    assert_eq!(value["size_bytes"], 10_u64 << 30);
    assert_eq!(value["parent"], "0303030303030303-01010101");
}
