//! Properties of whole objects: what goes in comes out, and nothing else is ever taken for it.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::repository::ids::{RepositoryId, SegmentId, SessionId, name};

/// Keys that never change, for tests and golden files.
pub(super) fn fixed_keys(cipher: Cipher) -> Arc<Keys> {
    let master = MasterKey::from_bytes(std::array::from_fn(|i| i as u8));
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

/// A segment with one body for each chunk; keys are `first_key`, `first_key + 1`, …
fn build(keys: &Arc<Keys>, class: Class, chunks: &[Vec<u8>], compression: Compression) -> Bytes {
    let total = chunks.iter().map(Vec::len).sum();
    let mut builder = ContainerBuilder::new(Arc::clone(keys), class, SEGMENT, total, chunks.len());
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
    builder.finish(&segment_name()).unwrap()
}

fn read_all(keys: &Keys, class: Class, name: &str, object: &[u8]) -> crate::Result<Vec<Vec<u8>>> {
    let directory = parse_object(keys, class, SEGMENT, name, object)?;
    let mut decoder = Decoder::new();
    let decode = |entry: &BodyEntry| {
        let at = usize::try_from(entry.offset).unwrap();
        let mut out = vec![0xee; entry.raw_len as usize];
        let stored = &object[at..at + entry.stored_len as usize];
        decoder.decode(keys, &directory, entry, stored, &mut out)?;
        Ok(out)
    };
    directory.entries().iter().map(decode).collect()
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
        // Later generations hold the same bytes.
        prop_assert_eq!(
            &read_all(&keys, class, &name::segment(SEGMENT, 3), &object).unwrap(),
            &chunks
        );
    }
}
