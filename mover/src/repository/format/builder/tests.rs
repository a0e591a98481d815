//! What a builder refuses. Objects that it makes are tested in `format::tests`.

use super::super::tests::{SEGMENT, fixed_keys};
use super::super::{Compression, Encoder, MAX_RECORD_LEN};
use super::*;

fn builder(capacity: usize, max_bodies: usize) -> ContainerBuilder {
    let keys = fixed_keys(super::super::Cipher::Aes256Gcm);
    ContainerBuilder::new(keys, Class::Data, SEGMENT, capacity, max_bodies)
}

fn add(builder: &mut ContainerBuilder, key: u64, raw_len: u32, stored: &[u8]) -> Result<u16> {
    builder.append(key, raw_len, Digest([1; 16]), Codec::Raw, stored)
}

#[test]
fn capacity_and_count_are_limits() {
    let mut builder = builder(100, 2);
    assert!(builder.is_empty() && builder.fits(100) && !builder.fits(101));
    assert_eq!(add(&mut builder, 0, 60, &[0; 60]).unwrap(), 0);
    assert!(!builder.fits(41));
    assert_eq!(add(&mut builder, 1, 40, &[0; 40]).unwrap(), 1);
    assert_eq!((builder.len(), builder.stored()), (2, 100));
    assert!(!builder.fits(0), "two bodies are the most");
    assert_eq!(
        add(&mut builder, 2, 1, &[0]).unwrap_err().kind(),
        ErrorKind::Internal
    );
}

#[test]
fn bodies_that_no_reader_would_take_are_refused() {
    let mut builder = builder(1 << 20, 8);
    assert!(add(&mut builder, 0, 0, &[]).is_err(), "empty");
    assert!(
        add(&mut builder, 0, 5, &[0; 4]).is_err(),
        "raw of another length"
    );
    assert!(
        add(&mut builder, 1 << 40, 4, &[0; 4]).is_err(),
        "a key above five bytes"
    );
    let long = vec![0; (128 << 10) + 1];
    assert!(
        add(&mut builder, 0, (128 << 10) + 1, &long).is_err(),
        "above the chunk size"
    );
    let digest = Digest([1; 16]);
    assert!(
        builder.append(0, 4, digest, Codec::Lz4, &[0; 4]).is_err(),
        "not smaller"
    );
    assert!(builder.is_empty());
}

#[test]
fn a_digest_that_does_not_fit_is_noticed_before_the_upload() {
    let mut builder = builder(1000, 8);
    let mut encoder = Encoder::new(Compression::Lz4).unwrap();
    let (codec, stored) = encoder.encode(&[7; 500]);
    let ordinal = builder
        .append(0, 500, Digest([1; 16]), codec, stored)
        .unwrap();
    let error = builder
        .verify_body(&mut Decoder::new(), ordinal)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(builder.verify_body(&mut Decoder::new(), 1).is_err());
}

#[test]
fn full_segments_have_room_for_their_head() {
    let keys = fixed_keys(super::super::Cipher::Aes256Gcm);
    let mut builder = ContainerBuilder::new(keys, Class::Data, SEGMENT, MAX_BODIES * 2, usize::MAX);
    for key in 0..MAX_BODIES as u64 {
        // Two lengths, so that the column of raw lengths is there.
        let len = u32::from(key % 2 == 0) + 1;
        add(&mut builder, KEY_END - 1 - key, len, &vec![0; len as usize]).unwrap();
    }
    assert!(!builder.fits(1));
    let object = builder.finish("seg/x").unwrap();
    assert!(
        object.len() < (192 << 10) + MAX_BODIES * 2,
        "{}",
        object.len()
    );
    assert!(MAX_RECORD_LEN / super::super::MAX_CHUNK_LEN as usize <= MAX_BODIES);
}
