//! Golden objects: the same inputs must give the same bytes for as long as version 1 is written, and old bytes must stay readable.
//!
//! `SNAPHAUL_BLESS=1 cargo test golden` writes the files anew; a changed file is a changed format.

use std::fs;
use std::path::PathBuf;

use super::super::config::ConfigRecord;
use super::super::key_slot::{KdfCost, SlotSeed};
use super::super::record::seal_salted;
use super::*;
use crate::repository::ids::{Sequence, SessionKey, VolumeId, from_hex, to_hex};
use crate::repository::store::profile::StoreProfile;

pub(super) const SESSION_KEY: SessionKey = SessionKey {
    volume: VolumeId([0xc1; 16]),
    sequence: Sequence(42),
    session: SessionId([0xb2; 16]),
};
const SESSION: SegmentId = SegmentId {
    session: SESSION_KEY.session,
    number: 0,
};
const SLOT_ID: [u8; 16] = [0xc3; 16];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/format")
        .join(name)
}

/// Salts are 32 times one byte, another for each object.
fn salt(byte: u8) -> [u8; 32] {
    [byte; 32]
}

fn raw_chunk() -> Vec<u8> {
    (0..64).collect()
}

/// 1,000 times `a`, compressed by hand, so that no compressor's whim changes the file.
fn lz4_body() -> Vec<u8> {
    from_hex::<14>("1f610100ffffffd2506161616161")
        .unwrap()
        .to_vec()
}

/// 1,000 times `b`.
fn zstd_body() -> Vec<u8> {
    from_hex::<11>("28b52ffd60e802431f0062").unwrap().to_vec()
}

fn contents() -> [(u64, Vec<u8>, Codec, Vec<u8>); 3] {
    [
        (0, raw_chunk(), Codec::Raw, raw_chunk()),
        (5, vec![b'a'; 1000], Codec::Lz4, lz4_body()),
        ((1 << 40) - 1, vec![b'b'; 1000], Codec::Zstd, zstd_body()),
    ]
}

fn container(cipher: Cipher, class: Class, name: &str, salt: [u8; 32]) -> Bytes {
    let keys = fixed_keys(cipher);
    let pool = BufferPool::new(ContainerBuilder::buffer_len(100, 3), 0);
    let mut builder = ContainerBuilder::salted(Arc::clone(&keys), class, SEGMENT, 3, (&pool, salt));
    for (key, raw, codec, stored) in contents() {
        let raw_len = u32::try_from(raw.len()).unwrap();
        builder
            .append(key, raw_len, keys.digest(&raw), codec, &stored)
            .unwrap();
    }
    builder.finish(name).unwrap()
}

/// Generation 1 of the encrypted data segment, without its second body.
fn compacted() -> Bytes {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let name = name::segment(SEGMENT, 0);
    let object = container(Cipher::Aes256Gcm, Class::Data, &name, salt(1));
    let original = parse_object(&keys, Class::Data, SEGMENT, &name, &object).unwrap();
    let mut next = ContainerBuilder::compaction(Arc::clone(&keys), &original, 100);
    next.set_salt(salt(4));
    for entry in original.entries().iter().filter(|entry| entry.ordinal != 1) {
        next.copy_body(entry, stored(&object, entry)).unwrap();
    }
    next.finish(&name::segment(SEGMENT, 1)).unwrap()
}

fn record(cipher: Cipher, class: Class, name: &str, min: usize, salt: [u8; 32]) -> Bytes {
    seal_salted(
        &fixed_keys(cipher),
        (class, SESSION, name),
        &raw_chunk(),
        min,
        salt,
    )
    .unwrap()
}

fn config(cipher: Cipher, salt: [u8; 32]) -> Bytes {
    let public_salt: [u8; 32] = rising();
    let config = Config {
        repository: RepositoryId([0xa1; 16]),
        cipher,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        read_features: 0,
        write_features: 0,
        other_features: 0,
        profile: StoreProfile::default(),
        created_unix_secs: 1_700_000_000,
        public_salt: (cipher == Cipher::None).then_some(public_salt),
    };
    config.seal(&fixed_keys(cipher), salt).unwrap()
}

pub(super) fn passphrase() -> Secret {
    Secret::Passphrase("correct horse".to_owned().into())
}

pub(super) fn key_file() -> Secret {
    Secret::KeyFile((0x40..0x60).collect::<Vec<u8>>().into())
}

fn key_slot(secret: &Secret, salt: [u8; 32]) -> Bytes {
    let seed = SlotSeed {
        id: SLOT_ID,
        salt,
        kdf_salt: [0xe5; 32],
        cost: KdfCost {
            memory_kib: 64,
            passes: 3,
            lanes: 1,
        },
        created_unix_secs: 1_700_000_000,
    };
    let master = MasterKey::from_bytes(rising());
    KeySlot::seal(RepositoryId([0xa1; 16]), secret, &master, &seed).unwrap()
}

/// Every golden file with the bytes that this code writes.
pub(super) fn objects() -> Vec<(&'static str, Bytes)> {
    let segment = name::segment(SEGMENT, 0);
    let map = name::map_segment(SEGMENT);
    let aes = Cipher::Aes256Gcm;
    let slot = name::slot(&SESSION_KEY);
    let open = name::open(&SESSION_KEY);
    vec![
        ("data-aes", container(aes, Class::Data, &segment, salt(1))),
        (
            "data-none",
            container(Cipher::None, Class::Data, &segment, salt(2)),
        ),
        ("map-aes", container(aes, Class::Map, &map, salt(3))),
        ("data-aes-compacted", compacted()),
        (
            "manifest-aes",
            record(aes, Class::Manifest, &slot, 513, salt(5)),
        ),
        (
            "abort-none",
            record(Cipher::None, Class::Abort, &slot, 0, salt(6)),
        ),
        ("open-aes", record(aes, Class::Open, &open, 0, salt(7))),
        ("config-aes", config(aes, salt(8))),
        ("config-none", config(Cipher::None, salt(9))),
        ("key-slot-passphrase", key_slot(&passphrase(), salt(10))),
        ("key-slot-key-file", key_slot(&key_file(), salt(11))),
    ]
}

#[test]
fn golden_objects_are_written_byte_for_byte() {
    for (name, bytes) in objects() {
        let path = file(&format!("{name}.bin"));
        if std::env::var_os("SNAPHAUL_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let golden = fs::read(&path).unwrap();
        assert!(golden == bytes, "{name} differs from {}", path.display());
    }
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(file(&format!("{name}.bin"))).unwrap()
}

#[test]
fn golden_segments_are_read() {
    let all: Vec<_> = contents().map(|(_, raw, _, _)| raw).to_vec();
    let aes = fixed_keys(Cipher::Aes256Gcm);
    let none = fixed_keys(Cipher::None);
    let segment = name::segment(SEGMENT, 0);
    let data = read_all(&aes, Class::Data, &segment, &golden("data-aes"));
    assert_eq!(data.unwrap(), all);
    let data = read_all(&none, Class::Data, &segment, &golden("data-none"));
    assert_eq!(data.unwrap(), all);
    let map = read_all(
        &aes,
        Class::Map,
        &name::map_segment(SEGMENT),
        &golden("map-aes"),
    );
    assert_eq!(map.unwrap(), all);
    let second = name::segment(SEGMENT, 1);
    let live = read_all(&aes, Class::Data, &second, &golden("data-aes-compacted"));
    assert_eq!(live.unwrap(), [all[0].clone(), all[2].clone()]);
    let object = golden("data-aes-compacted");
    let directory = parse_object(&aes, Class::Data, SEGMENT, &second, &object).unwrap();
    let ordinals: Vec<_> = directory
        .entries()
        .iter()
        .map(|e| (e.ordinal, e.key))
        .collect();
    assert_eq!(ordinals, [(0, 0), (2, (1 << 40) - 1)]);
}

#[test]
fn golden_records_are_read() {
    let slot = name::slot(&SESSION_KEY);
    for (file, cipher, class, object) in [
        (
            "manifest-aes",
            Cipher::Aes256Gcm,
            Class::Manifest,
            slot.clone(),
        ),
        (
            "manifest-aes",
            Cipher::Aes256Gcm,
            Class::Manifest,
            name::copy(&SESSION_KEY),
        ),
        ("abort-none", Cipher::None, Class::Abort, slot),
        (
            "open-aes",
            Cipher::Aes256Gcm,
            Class::Open,
            name::open(&SESSION_KEY),
        ),
    ] {
        let read = open_record(&fixed_keys(cipher), class, SESSION, &object, &golden(file));
        assert_eq!(read.unwrap(), raw_chunk());
    }
    assert_eq!(golden("manifest-aes").len(), 517);
    assert!(golden("abort-none").len() <= 256);
}

#[test]
fn golden_roots_are_read() {
    for (file, cipher) in [
        ("config-aes", Cipher::Aes256Gcm),
        ("config-none", Cipher::None),
    ] {
        let record = ConfigRecord::parse("config", &golden(file)).unwrap();
        let config = record
            .authenticate("config.b", &fixed_keys(cipher))
            .unwrap();
        assert_eq!((config.cipher, config.chunk_size), (cipher, 128 << 10));
    }
    for (file, secret) in [
        ("key-slot-passphrase", passphrase()),
        ("key-slot-key-file", key_file()),
    ] {
        let slot = KeySlot::parse(&KeySlot::object_name(&SLOT_ID), &golden(file)).unwrap();
        let master = slot.unwrap_master(&secret).unwrap();
        let expected: [u8; 32] = rising();
        assert_eq!(master.bytes(), &expected);
    }
}

/// The test vectors that FORMAT.md prints.
fn vectors() -> Vec<(&'static str, String)> {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let page = keys.page_hash(b"content", b"page");
    let content = keys.content_hash(1 << 20, 1 << 17, [7; 16]);
    let mut vectors = keys.subkeys();
    vectors.extend([
        ("digest of `chunk`", to_hex(&keys.digest(b"chunk").0)),
        ("page hash of content `content`, page `page`", to_hex(&page)),
        (
            "volume id of `db/data`",
            keys.volume_id("db/data").to_string(),
        ),
        ("content hash", to_hex(&content)),
        ("open-aes", to_hex(&golden("open-aes"))),
        ("abort-none", to_hex(&golden("abort-none"))),
        ("config-none", to_hex(&golden("config-none"))),
        (
            "key-slot-passphrase",
            to_hex(&golden("key-slot-passphrase")),
        ),
    ]);
    vectors
}

#[test]
fn the_specification_prints_these_vectors() {
    let text = fs::read_to_string(file("../../../FORMAT.md")).unwrap();
    let text: String = text.split_whitespace().collect();
    for (name, hex) in vectors() {
        assert!(text.contains(&hex), "FORMAT.md lacks {name}: {hex}");
    }
}
