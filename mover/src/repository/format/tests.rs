//! Properties of whole objects: what goes in comes out, and nothing else is ever taken for it.

mod golden;
mod mutated;

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::repository::ids::{RepositoryId, SegmentId, SessionId, name};

/// The bytes 0, 1, 2, …
pub(super) fn rising() -> [u8; 32] {
    std::array::from_fn(|index| index.to_le_bytes()[0])
}

/// Keys that never change, for tests and golden files.
pub(super) fn fixed_keys(cipher: Cipher) -> Arc<Keys> {
    let master = MasterKey::from_bytes(rising());
    Arc::new(Keys::new(RepositoryId([0xa1; 16]), cipher, &master).with_chunk_limit(128 << 10))
}

pub(super) const SEGMENT: SegmentId = SegmentId {
    session: SessionId([0xb2; 16]),
    number: 7,
};

const CIPHERS: [Cipher; 2] = [Cipher::None, Cipher::Aes256Gcm];

fn segment_name() -> String {
    name::segment(SEGMENT, 0)
}

/// A segment with one body for each chunk; keys are 0, 1, …
fn build(keys: &Arc<Keys>, class: Class, chunks: &[Vec<u8>], compression: Compression) -> Bytes {
    let total = chunks.iter().map(Vec::len).sum();
    let mut builder = ContainerBuilder::new(Arc::clone(keys), class, SEGMENT, total, chunks.len());
    fill(&mut builder, keys, chunks, compression);
    builder.finish(&segment_name()).unwrap()
}

fn fill(builder: &mut ContainerBuilder, keys: &Keys, chunks: &[Vec<u8>], compression: Compression) {
    let mut encoder = Encoder::new(compression).unwrap();
    let mut decoder = Decoder::new();
    for (key, chunk) in chunks.iter().enumerate() {
        let (codec, stored) = encoder.encode(chunk);
        assert!(builder.fits(stored.len()));
        let raw_len = u32::try_from(chunk.len()).unwrap();
        let ordinal = builder
            .append(key as u64, raw_len, keys.digest(chunk), codec, stored)
            .unwrap();
        assert_eq!(usize::from(ordinal), key);
        builder.verify_body(&mut decoder, ordinal).unwrap();
    }
}

/// All bodies with their keys.
fn read_all(keys: &Keys, class: Class, name: &str, object: &[u8]) -> crate::Result<Vec<Vec<u8>>> {
    read_as(keys, (class, SEGMENT), name, object)
}

fn read_as(
    keys: &Keys,
    (class, id): (Class, SegmentId),
    name: &str,
    object: &[u8],
) -> crate::Result<Vec<Vec<u8>>> {
    let directory = parse_object(keys, class, id, name, object)?;
    let mut decoder = Decoder::new();
    let decode = |entry: &BodyEntry| {
        let mut out = vec![0xee; entry.raw_len as usize];
        decoder.decode(keys, &directory, entry, stored(object, entry), &mut out)?;
        Ok(out)
    };
    directory.entries().iter().map(decode).collect()
}

fn stored<'a>(object: &'a [u8], entry: &BodyEntry) -> &'a [u8] {
    let at = usize::try_from(entry.offset).unwrap();
    &object[at..at + entry.stored_len as usize]
}

/// Corrupt, and it names the object.
fn assert_corrupt(error: &Error, object: &str) {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(error.object_name(), Some(object), "{error}");
}

fn small_chunks() -> Vec<Vec<u8>> {
    let noise: Vec<u8> = (0..40)
        .map(|i: u32| (i * i * 31 % 251).to_le_bytes()[0])
        .collect();
    let rising: Vec<u8> = (0..40).map(|i: u32| (i * 7).to_le_bytes()[0]).collect();
    vec![noise, vec![b'z'; 200], rising]
}

fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let run = (any::<u8>(), 1..3000_usize).prop_map(|(byte, len)| vec![byte; len]);
    let noise = prop::collection::vec(any::<u8>(), 1..3000);
    prop::collection::vec(prop_oneof![run, noise], 0..12)
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        Just(Compression::Lz4),
        Just(Compression::Zstd(3))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_goes_in_comes_out(
        chunks in chunks(),
        compression in compressions(),
        cipher in prop::sample::select(&CIPHERS[..]),
        class in prop::sample::select(&[Class::Data, Class::Map, Class::Liveness][..]),
    ) {
        let keys = fixed_keys(cipher);
        let object = build(&keys, class, &chunks, compression);
        prop_assert_eq!(object.as_ptr().addr() % 4096, 0);
        prop_assert_eq!(&read_all(&keys, class, &segment_name(), &object).unwrap(), &chunks);
        // Later generations answer to the same name.
        let later = name::segment(SEGMENT, 3);
        prop_assert_eq!(&read_all(&keys, class, &later, &object).unwrap(), &chunks);
    }

    #[test]
    fn compaction_keeps_ordinals_and_bytes(
        chunks in chunks(),
        kept in prop::collection::vec(any::<bool>(), 12),
        cipher in prop::sample::select(&CIPHERS[..]),
    ) {
        let keys = fixed_keys(cipher);
        let mut object = build(&keys, Class::Data, &chunks, Compression::Lz4);
        let mut name = segment_name();
        // Twice, so that a body salt that is no longer the header's is carried on.
        for generation in 1..=2 {
            let original = parse_object(&keys, Class::Data, SEGMENT, &name, &object).unwrap();
            let mut next = ContainerBuilder::compaction(Arc::clone(&keys), &original, object.len());
            for entry in original.entries().iter().filter(|e| kept[usize::from(e.ordinal)]) {
                next.copy_body(entry, stored(&object, entry)).unwrap();
                next.verify_body(&mut Decoder::new(), entry.ordinal).unwrap();
            }
            name = name::segment(SEGMENT, generation);
            object = next.finish(&name).unwrap();
        }
        let live: Vec<_> = chunks.iter().zip(&kept).filter(|(_, kept)| **kept).collect();
        let read = read_all(&keys, Class::Data, &name, &object).unwrap();
        prop_assert_eq!(read.len(), live.len());
        prop_assert!(read.iter().zip(&live).all(|(read, (chunk, _))| read == *chunk));
        let directory = parse_object(&keys, Class::Data, SEGMENT, &name, &object).unwrap();
        for (ordinal, kept) in kept.iter().enumerate().take(chunks.len()) {
            let entry = directory.entry(u16::try_from(ordinal).unwrap());
            prop_assert_eq!(entry.is_some(), *kept);
            prop_assert!(entry.is_none_or(|entry| entry.key == ordinal as u64));
        }
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    for cipher in CIPHERS {
        let keys = fixed_keys(cipher);
        for class in [Class::Data, Class::Manifest] {
            let object = build(&keys, class, &small_chunks(), Compression::Lz4);
            for bit in 0..object.len() * 8 {
                let mut flipped = object.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = read_all(&keys, class, &segment_name(), &flipped).unwrap_err();
                assert_corrupt(&error, &segment_name());
            }
        }
    }
}

#[test]
fn every_truncation_and_every_tail_is_detected() {
    for cipher in CIPHERS {
        let keys = fixed_keys(cipher);
        for class in [Class::Map, Class::Open] {
            let object = build(&keys, class, &small_chunks(), Compression::Lz4);
            for len in 0..object.len() {
                let error = read_all(&keys, class, &segment_name(), &object[..len]).unwrap_err();
                assert_corrupt(&error, &segment_name());
                assert!(error.to_string().contains("truncated"), "{error} at {len}");
            }
            let longer = [&object[..], &[0]].concat();
            let error = read_all(&keys, class, &segment_name(), &longer).unwrap_err();
            assert_corrupt(&error, &segment_name());
        }
    }
}

#[test]
fn a_head_asks_for_what_it_needs_and_no_more() {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let object = build(&keys, Class::Data, &small_chunks(), Compression::Lz4);
    let mut have = 0;
    let mut reads = 0;
    let directory = loop {
        match parse_head(
            &keys,
            Class::Data,
            SEGMENT,
            &segment_name(),
            &object[..have],
        )
        .unwrap()
        {
            Head::NeedMore(need) => have = usize::try_from(need).unwrap(),
            Head::Ready(directory) => break directory,
        }
        reads += 1;
        assert!(reads <= 3);
    };
    assert_eq!(have, 4096, "bodies begin on the second page");
    assert_eq!(directory.object_len(), object.len() as u64);
    assert_eq!(directory.entries().len(), 3);
}

#[test]
fn swapped_bodies_are_detected() {
    for cipher in CIPHERS {
        let keys = fixed_keys(cipher);
        // Raw bodies of one length.
        let chunks = vec![vec![1; 64], vec![2; 64]];
        let object = build(&keys, Class::Data, &chunks, Compression::None);
        let directory =
            parse_object(&keys, Class::Data, SEGMENT, &segment_name(), &object).unwrap();
        let [first, second] = directory.entries() else {
            panic!("two bodies")
        };
        let mut out = [0; 64];
        let error = Decoder::new()
            .decode(&keys, &directory, first, stored(&object, second), &mut out)
            .unwrap_err();
        assert_corrupt(&error, &segment_name());
    }
}

#[test]
fn swapped_objects_are_detected() {
    for cipher in CIPHERS {
        let keys = fixed_keys(cipher);
        let object = build(&keys, Class::Data, &small_chunks(), Compression::Lz4);
        let other = SegmentId {
            number: 8,
            ..SEGMENT
        };
        let elsewhere = name::segment(other, 0);
        let error = read_as(&keys, (Class::Data, other), &elsewhere, &object).unwrap_err();
        assert_corrupt(&error, &elsewhere);
        assert!(error.to_string().contains("swapped"), "{error}");
        // The name alone is not what bodies are bound to.
        let error = read_as(&keys, (Class::Data, other), &segment_name(), &object).unwrap_err();
        assert_corrupt(&error, &segment_name());
        let error = read_all(&keys, Class::Map, &segment_name(), &object).unwrap_err();
        assert_corrupt(&error, &segment_name());
        assert!(
            error
                .to_string()
                .contains("data segment instead of a map segment"),
            "{error}"
        );
    }
}

#[test]
fn objects_of_another_key_repository_or_cipher_are_refused() {
    let master = MasterKey::from_bytes(rising());
    let repository = RepositoryId([0xa1; 16]);
    for cipher in CIPHERS {
        let object = build(
            &fixed_keys(cipher),
            Class::Data,
            &small_chunks(),
            Compression::Lz4,
        );
        let other_cipher = CIPHERS[usize::from(cipher == CIPHERS[0])];
        for keys in [
            Keys::new(repository, cipher, &MasterKey::from_bytes([9; 32])),
            Keys::new(RepositoryId([0xa2; 16]), cipher, &master),
            Keys::new(repository, other_cipher, &master),
        ] {
            let error = read_all(&keys, Class::Data, &segment_name(), &object).unwrap_err();
            assert_corrupt(&error, &segment_name());
        }
    }
}

#[test]
fn a_copy_answers_to_the_name_of_its_original() {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let id = SegmentId {
        number: 0,
        ..SEGMENT
    };
    let sealed = seal_record(
        &keys,
        Class::Manifest,
        id,
        "snap/v/0000000001-s",
        b"point",
        513,
    )
    .unwrap();
    let read = |name: &str| open_record(&keys, Class::Manifest, id, name, &sealed);
    assert_eq!(read("copy/v/0000000001-s").unwrap(), b"point");
    assert_corrupt(
        &read("copy/v/0000000002-s").unwrap_err(),
        "copy/v/0000000002-s",
    );
    assert_corrupt(
        &read("tomb/v/0000000001-s").unwrap_err(),
        "tomb/v/0000000001-s",
    );
}

#[test]
fn chunks_above_the_chunk_size_are_refused() {
    let keys = fixed_keys(Cipher::None);
    let loose = Arc::new(
        Keys::new(
            keys.repository(),
            Cipher::None,
            &MasterKey::from_bytes(rising()),
        )
        .with_chunk_limit(1 << 20),
    );
    let object = build(
        &loose,
        Class::Data,
        &[vec![3; (128 << 10) + 1]],
        Compression::Lz4,
    );
    assert!(read_all(&loose, Class::Data, &segment_name(), &object).is_ok());
    let error = read_all(&keys, Class::Data, &segment_name(), &object).unwrap_err();
    assert_corrupt(&error, &segment_name());
}

/// Changes a header field and puts the seal right again.
fn with_header(object: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    object[at..at + value.len()].copy_from_slice(value);
    let sealed_len = u32::from_le_bytes(object[12..16].try_into().unwrap()) as usize;
    let seal = header::seal(object.first_chunk().unwrap(), &object[64..64 + sealed_len]);
    object[64 + sealed_len..64 + sealed_len + 32].copy_from_slice(&seal);
    object
}

#[test]
fn newer_versions_classes_and_ciphers_are_named() {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let object = build(&keys, Class::Data, &small_chunks(), Compression::Lz4);
    for (at, value, what) in [
        (8, &[2_u8, 0][..], "version 2"),
        (10, &[99], "class 99"),
        (11, &[7], "cipher 7"),
    ] {
        let newer = with_header(&object, at, value);
        let error = read_all(&keys, Class::Data, &segment_name(), &newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat);
        assert_eq!(error.object_name(), Some(&segment_name()[..]));
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.hint_text().unwrap().contains("newer version"));
    }
}

#[test]
fn headers_that_lie_are_refused_even_with_a_right_seal() {
    let keys = fixed_keys(Cipher::None);
    let object = build(&keys, Class::Data, &small_chunks(), Compression::Lz4);
    for (at, value) in [
        (16, &u64::MAX.to_le_bytes()[..]),
        (16, &0_u64.to_le_bytes()),
        (24, &u32::MAX.to_le_bytes()),
        (24, &0_u32.to_le_bytes()),
        (28, &[1]),
        (32, &[0xff]),
    ] {
        let lying = with_header(&object, at, value);
        let error = read_all(&keys, Class::Data, &segment_name(), &lying).unwrap_err();
        assert_corrupt(&error, &segment_name());
    }
}

#[test]
fn a_pool_gives_its_buffers_again() {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let pool = BufferPool::new(ContainerBuilder::buffer_len(4096, 8), 1);
    for chunks in [vec![vec![7; 4000]], small_chunks(), vec![]] {
        let mut builder =
            ContainerBuilder::pooled(Arc::clone(&keys), Class::Data, SEGMENT, 8, &pool);
        assert_eq!(pool.idle(), 0);
        fill(&mut builder, &keys, &chunks, Compression::None);
        let object = builder.finish(&segment_name()).unwrap();
        let read = read_all(&keys, Class::Data, &segment_name(), &object).unwrap();
        assert_eq!(read, chunks, "whatever the buffer held before");
        let clone = object.clone();
        drop(object);
        assert_eq!(pool.idle(), 0, "a retry may still send it");
        drop(clone);
        assert_eq!(pool.idle(), 1);
    }
}

#[test]
fn secrets_are_not_printed() {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let master = MasterKey::from_bytes([0x42; 32]);
    let secret = Secret::Passphrase("hunter2".to_owned().into());
    let text = format!("{keys:?} {master:?} {secret:?}");
    assert!(
        !text.contains("hunter2") && !text.contains("66") && !text.contains("42"),
        "{text}"
    );
}
