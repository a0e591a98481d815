//! Golden records: the same map must give the same bytes for as long as version 1 is written, and old bytes must stay readable.
//!
//! `SNAPHAUL_BLESS=1 cargo test golden` writes the files anew; a changed file is a changed format.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::super::node::Node;
use super::super::page::{self, Page};
use super::super::*;
use crate::repository::format::{Cipher, Keys, Manifest, MasterKey, PointState, PointStats};
use crate::repository::ids::{
    Digest, RepositoryId, SegmentId, Sequence, SessionId, SessionKey, VolumeId, to_hex,
};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/map")
        .join(name)
}

/// Session ids are sixteen times one byte.
fn location(session: u8, number: u32, ordinal: u16) -> Location {
    Location {
        segment: SegmentId {
            session: SessionId([session; 16]),
            number,
        },
        ordinal,
    }
}

/// Chunks 0 and 1 in one segment, chunk 3 in another, 255 in the first again.
fn leaf() -> Leaf {
    let mut leaf = Leaf::zero();
    let entries = [
        (0, 0xd0, 0xb2, 7, 0),
        (1, 0xd1, 0xb2, 7, 1),
        (3, 0xd2, 0xb3, 300, 4095),
        (255, 0xd3, 0xb2, 7, 2),
    ];
    for (place, digest, session, number, ordinal) in entries {
        let location = location(session, number, ordinal);
        leaf.set(
            place,
            Entry::Data {
                digest: Digest([digest; 16]),
                location,
            },
        );
    }
    leaf
}

/// A node of level 1 with children 2 and 3.
fn node() -> Node {
    let mut node = Node::new();
    for (place, hash) in [(2usize, 0xe0), (3, 0xe1)] {
        let ordinal = u16::try_from(place).unwrap();
        node.slots.append(
            place,
            PagePointer {
                hash: [hash; 32],
                location: location(0xb2, 0, ordinal),
            },
        );
    }
    node
}

/// Every spelling of a set: the first n, a list, a bitmap; something shared; map segments.
fn liveness() -> Liveness {
    let mut builder = LivenessBuilder::fresh();
    let chunk = |session, number, ordinal| Entry::Data {
        digest: Digest([1; 16]),
        location: location(session, number, ordinal),
    };
    let first = (0..200).map(|ordinal| chunk(0xb2, 0, ordinal));
    let listed = [3, 900].map(|ordinal| chunk(0xb2, 2, ordinal));
    let mapped = (0..40).map(|n| chunk(0xb3, 9, n * 2 + 1));
    let twice = [5, 3].map(|ordinal| chunk(0xb2, 0, ordinal));
    for entry in first.chain(listed).chain(mapped).chain(twice) {
        let mut leaf = Leaf::zero();
        leaf.set(0, entry);
        builder.replace_leaf(None, Some(&leaf));
    }
    let mut pages = LivePages::default();
    [(0xb2, 0, 0), (0xb2, 0, 1), (0xb2, 4, 2)]
        .iter()
        .for_each(|page| pages.insert(location(page.0, page.1, page.2)));
    builder.set_pages(pages);
    builder.finish()
}

fn manifest() -> Manifest {
    let volume = VolumeId([0xc1; 16]);
    let key = |session, sequence| SessionKey {
        volume,
        sequence: Sequence(sequence),
        session: SessionId([session; 16]),
    };
    Manifest {
        session: key(0xb2, 42),
        volume: "db/data".to_owned(),
        parent: Some(key(0xb1, 41)),
        size: (1 << 30) + 512,
        chunk_size: 128 << 10,
        root: MapRoot {
            pointer: Some(PagePointer {
                hash: [0xe2; 32],
                location: location(0xb2, 0, 4),
            }),
            depth: 2,
        },
        liveness: LivenessRef {
            len: 456,
            hash: [0xe3; 32],
        },
        exact_liveness_age: 0,
        tags: BTreeMap::from([
            ("app".to_owned(), "db".to_owned()),
            ("tier".to_owned(), "1".to_owned()),
        ]),
        group: Some("nightly".to_owned()),
        state: PointState::Fuzzy,
        content_hash: [0xe4; 32],
        created_unix_millis: 1_767_225_600_000,
        tool: "snaphaul 0.1.0".to_owned(),
        stats: PointStats {
            zero: 1,
            unchanged: 24,
            deduplicated: 256,
            new: 65_536,
            stored: 1 << 32,
        },
        changed_blocks: "hole-map".to_owned(),
        changed_blocks_reason: "the source is a sparse file".to_owned(),
        identity: vec![("kind".to_owned(), "file".to_owned())],
        pins: vec![key(0xb0, 40)],
        features_read: 0,
    }
}

fn records() -> [(&'static str, Vec<u8>); 4] {
    [
        ("leaf.cbor", page::encode_leaf(&leaf())),
        ("node.cbor", page::encode_node(1, &node())),
        ("liveness.cbor", liveness().encode()),
        ("manifest.cbor", manifest().encode().unwrap()),
    ]
}

#[test]
fn golden_records_are_written_byte_for_byte() {
    for (name, bytes) in records() {
        let path = file(name);
        if std::env::var_os("SNAPHAUL_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(
            fs::read(&path).unwrap() == bytes,
            "{} changed: {}",
            path.display(),
            to_hex(&bytes)
        );
    }
}

#[test]
fn golden_records_are_read() {
    let read = |name| fs::read(file(name)).unwrap();
    assert_eq!(page::decode(&read("leaf.cbor"), 0), Ok(Page::Leaf(leaf())));
    assert_eq!(page::decode(&read("node.cbor"), 1), Ok(Page::Node(node())));
    assert!(Liveness::decode(&read("liveness.cbor")).unwrap() == liveness());
    assert_eq!(
        Manifest::decode(&read("manifest.cbor")).unwrap(),
        manifest()
    );
}

/// The hashes that `FORMAT.md` gives for the golden pages.
#[test]
fn golden_pages_have_their_hashes() {
    let master = MasterKey::from_bytes(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    let keys = Keys::new(RepositoryId([0xa1; 16]), Cipher::Aes256Gcm, &master);
    let text =
        fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md")).unwrap();
    for (name, level) in [("leaf.cbor", 0), ("node.cbor", 1)] {
        let raw = fs::read(file(name)).unwrap();
        let content = page::decode(&raw, level).unwrap().content(level);
        let hash = to_hex(&keys.page_hash(&content, &raw));
        assert!(
            text.contains(&hash),
            "FORMAT.md must give {hash} for {name}"
        );
    }
}

/// What the fuzzer would start from, with seeded damage.
#[test]
fn damaged_records_are_refused_or_have_one_spelling() {
    for (name, bytes) in records() {
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                match name {
                    "leaf.cbor" => hostile::page(&[&[0], &bytes[..]].concat()),
                    "node.cbor" => hostile::page(&[&[1], &bytes[..]].concat()),
                    "liveness.cbor" => hostile::liveness(&bytes),
                    _ => drop(Manifest::decode(&bytes)),
                }
            }
        }
    }
}
