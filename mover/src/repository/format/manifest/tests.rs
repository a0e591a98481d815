//! What a manifest refuses.

use proptest::prelude::*;

use super::*;
use crate::repository::format::{Cipher, MasterKey};
use crate::repository::ids::{RepositoryId, Sequence, SessionId, VolumeId};

fn keys() -> Arc<Keys> {
    Arc::new(Keys::new(
        RepositoryId([1; 16]),
        Cipher::Aes256Gcm,
        &MasterKey::from_bytes([2; 32]),
    ))
}

fn session(byte: u8) -> SessionKey {
    let volume = keys().volume_id("vol-1");
    SessionKey {
        volume,
        sequence: Sequence(3),
        session: SessionId([byte; 16]),
    }
}

fn manifest() -> Manifest {
    let segment = SegmentId {
        session: SessionId([8; 16]),
        number: 2,
    };
    let pointer = PagePointer {
        hash: [9; 32],
        location: Location {
            segment,
            ordinal: 5,
        },
    };
    Manifest {
        session: session(5),
        volume: "vol-1".to_owned(),
        parent: Some(session(4)),
        size: (300 * (128 << 10)) + 17,
        chunk_size: 128 << 10,
        root: MapRoot {
            pointer: Some(pointer),
            depth: 2,
        },
        liveness: LivenessRef {
            len: 300,
            hash: [3; 32],
        },
        exact_liveness_age: 4,
        tags: BTreeMap::from([("app".to_owned(), "db".to_owned())]),
        group: None,
        state: PointState::Application,
        content_hash: [6; 32],
        created_unix_millis: -1,
        tool: "snaphaul 0.1.0".to_owned(),
        stats: PointStats {
            zero: 1,
            unchanged: 2,
            deduplicated: 3,
            new: 4,
            stored: 5,
        },
        changed_blocks: "scan".to_owned(),
        changed_blocks_reason: "no other source".to_owned(),
        identity: vec![("kind".to_owned(), "file".to_owned())],
        pins: vec![session(4)],
        features_read: 0,
    }
}

#[test]
fn a_manifest_survives() {
    let manifest = manifest();
    let record = manifest.encode().unwrap();
    assert_eq!(Manifest::decode(&record).unwrap(), manifest);
    let object = manifest.seal(&keys()).unwrap();
    assert!(object.len() > MAX_NOT_MANIFEST_LEN);
    for name in [name::slot(&manifest.session), name::copy(&manifest.session)] {
        assert_eq!(
            Manifest::open(&keys(), &manifest.session, &name, &object).unwrap(),
            manifest
        );
    }
    let bare = Manifest {
        parent: None,
        root: MapRoot {
            pointer: None,
            depth: 2,
        },
        tags: BTreeMap::new(),
        identity: Vec::new(),
        pins: Vec::new(),
        ..manifest
    };
    assert!(
        bare.seal(&keys()).unwrap().len() > MAX_NOT_MANIFEST_LEN,
        "also a small one is no abort marker"
    );
    assert_eq!(Manifest::decode(&bare.encode().unwrap()).unwrap(), bare);
}

/// Changes the record as a list of (key, encoded value) pairs.
fn edited(edit: impl FnOnce(&mut Vec<(u64, Vec<u8>)>)) -> Vec<u8> {
    let record = manifest().encode().unwrap();
    let mut reader = minicbor::Decoder::new(&record);
    let mut fields = Vec::new();
    for _ in 0..reader.map().unwrap().unwrap() {
        let key = reader.u64().unwrap();
        let start = reader.position();
        reader.skip().unwrap();
        fields.push((key, record[start..reader.position()].to_vec()));
    }
    edit(&mut fields);
    let mut out = minicbor::Encoder::new(Vec::new());
    out.map(fields.len() as u64).unwrap();
    for (key, value) in fields {
        out.u64(key).unwrap();
        out.writer_mut().extend_from_slice(&value);
    }
    out.into_writer()
}

fn kind(record: &[u8]) -> ErrorKind {
    Manifest::decode(record).unwrap_err().kind()
}

#[test]
fn unknown_fields_are_skipped_and_unknown_features_refused() {
    assert_eq!(edited(|_| ()), manifest().encode().unwrap());
    let newer = edited(|fields| fields.push((99, vec![0x82, 1, 0x61, b'x'])));
    assert_eq!(Manifest::decode(&newer).unwrap(), manifest());
    let needed = edited(|fields| {
        fields[0].1 = vec![1];
        fields[2].1 = vec![0xf5];
    });
    assert_eq!(
        kind(&needed),
        ErrorKind::NewerFormat,
        "also where a field has changed its type"
    );
}

#[test]
fn damage_is_refused() {
    let record = manifest().encode().unwrap();
    for end in 0..record.len() {
        assert_eq!(kind(&record[..end]), ErrorKind::Corrupt);
    }
    let mut longer = record.clone();
    longer.push(0);
    assert_eq!(kind(&longer), ErrorKind::Corrupt);
    assert_eq!(
        kind(&edited(|fields| fields.swap(3, 4))),
        ErrorKind::Corrupt
    );
    assert_eq!(
        kind(&edited(|fields| fields[3] = fields[2].clone())),
        ErrorKind::Corrupt
    );
    assert_eq!(
        kind(&edited(|fields| drop(fields.remove(1)))),
        ErrorKind::Corrupt
    );
    let field = |key, value: &[u8]| {
        kind(&edited(|fields| {
            fields.iter_mut().find(|field| field.0 == key).unwrap().1 = value.to_vec();
        }))
    };
    assert_eq!(
        field(6, &[3]),
        ErrorKind::Corrupt,
        "a depth that does not follow the size"
    );
    assert_eq!(field(5, &[0]), ErrorKind::Corrupt, "no chunk size");
    assert_eq!(field(11, &[9]), ErrorKind::Corrupt, "no such state");
}

#[test]
fn tags_have_one_order() {
    let tags = ["b", "aa", "a", "é"].map(|key| (key.to_owned(), String::new()));
    let manifest = Manifest {
        tags: tags.into(),
        ..manifest()
    };
    let record = manifest.encode().unwrap();
    let sorted = [
        0xa4, 0x61, b'a', 0x60, 0x61, b'b', 0x60, 0x62, b'a', b'a', 0x60, 0x62, 0xc3, 0xa9, 0x60,
    ];
    let at = record
        .windows(sorted.len())
        .position(|window| window == sorted)
        .expect("shorter keys first");
    assert_eq!(Manifest::decode(&record).unwrap(), manifest);
    let mut swapped = record.clone();
    swapped.swap(at + 2, at + 5);
    assert_eq!(kind(&swapped), ErrorKind::Corrupt);
    swapped[at + 2] = b'b';
    assert_eq!(kind(&swapped), ErrorKind::Corrupt);
}

#[test]
fn another_points_manifest_is_refused() {
    let manifest = manifest();
    let object = manifest.seal(&keys()).unwrap();
    let other = session(6);
    let open =
        |key: &SessionKey, object: &[u8]| Manifest::open(&keys(), key, &name::slot(key), object);
    assert_eq!(
        open(&other, &object).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let renamed = Manifest {
        volume: "vol-2".to_owned(),
        ..manifest.clone()
    };
    let object = renamed.seal(&keys()).unwrap();
    assert_eq!(
        open(&manifest.session, &object).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let elsewhere = SessionKey {
        volume: VolumeId([1; 16]),
        ..manifest.session
    };
    assert_eq!(
        open(&elsewhere, &object).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn what_is_too_long_is_not_written() {
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        assert_eq!(
            manifest.encode().unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    };
    refused(&|manifest| drop(manifest.tags.insert("k".repeat(201), String::new())));
    refused(&|manifest| drop(manifest.tags.insert(String::new(), "v".repeat(2049))));
    refused(&|manifest| {
        manifest
            .tags
            .extend((0..256).map(|n| (n.to_string(), String::new())));
    });
    refused(&|manifest| manifest.volume = "v".repeat(201));
    refused(&|manifest| manifest.group = Some("g".repeat(201)));
    refused(&|manifest| manifest.pins = vec![session(1); 257]);
    refused(&|manifest| {
        manifest
            .tags
            .extend((0..250).map(|n| (n.to_string(), "v".repeat(2048))));
    });
    refused(&|manifest| manifest.chunk_size = 3 << 16);
    refused(&|manifest| manifest.root.depth = 0);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Manifest::decode(&bytes));
    }

    #[test]
    fn one_changed_byte_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut record = manifest().encode().unwrap();
        let at = at.index(record.len());
        record[at] = byte;
        drop(Manifest::decode(&record));
    }
}
