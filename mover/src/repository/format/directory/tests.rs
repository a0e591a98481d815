//! Columns: what they say is what the entries say, and columns that contradict are refused.

use super::super::Cipher;
use super::super::header::Header;
use super::*;

fn entry(ordinal: u16, key: u64, stored_len: u32, raw_len: u32) -> BodyEntry {
    let codec = if stored_len == raw_len {
        Codec::Raw
    } else {
        Codec::Zstd
    };
    let digest = Digest([ordinal.to_le_bytes()[0]; 16]);
    BodyEntry {
        ordinal,
        key,
        offset: 0,
        stored_len,
        raw_len,
        codec,
        digest,
        tag: [9; 16],
    }
}

fn header_for(entries: &[BodyEntry]) -> Header {
    let bodies = entries
        .iter()
        .map(|entry| u64::from(entry.stored_len))
        .sum();
    Header::plan(Class::Manifest, Cipher::None, 100, bodies, [0; 32])
}

fn round_trip(entries: &[BodyEntry], salt: Option<&[u8; 32]>, padding: usize) -> usize {
    let cbor = encode(entries, salt, padding).unwrap();
    let contents = decode("o", &header_for(entries), 1 << 20, &cbor).unwrap();
    let mut offset = header_for(entries).bodies_offset.into();
    assert_eq!(contents.entries.len(), entries.len());
    for (read, written) in contents.entries.iter().zip(entries) {
        assert_eq!(*read, BodyEntry { offset, ..*written });
        offset += u64::from(written.stored_len);
    }
    assert_eq!(contents.body_salt.as_ref(), salt);
    cbor.len()
}

#[test]
fn optional_columns_are_there_when_needed() {
    let plain = [entry(0, 1, 10, 10), entry(1, (1 << 40) - 1, 9, 10)];
    let dense = round_trip(&plain, None, 0);
    let lengths = [entry(0, 1, 10, 10), entry(1, 5, 9, 11)];
    assert_eq!(
        round_trip(&lengths, None, 0),
        dense + 6,
        "two cells, less the common length"
    );
    let sparse = [entry(4, 1, 10, 10), entry(65535, 5, 9, 10)];
    assert_eq!(
        round_trip(&sparse, None, 0),
        dense + 6,
        "two cells and their column"
    );
    assert_eq!(round_trip(&plain, Some(&[3; 32]), 0), dense + 35);
    assert_eq!(round_trip(&plain, None, 10), dense + 12);
    round_trip(&[], None, 0);
}

fn refused(entries: &[BodyEntry], header: &Header) -> String {
    let cbor = encode(entries, None, 0).unwrap();
    let error = decode("o", header, 1 << 20, &cbor).err().expect("refused");
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some("o"));
    error.to_string()
}

#[test]
fn contradictions_are_refused() {
    let refuse = |entries: &[BodyEntry]| refused(entries, &header_for(entries));
    let raw = "raw length that is not allowed";
    assert!(refuse(&[entry(0, 1, 0, 0)]).contains(raw));
    assert!(refuse(&[entry(0, 1, 10, (1 << 20) + 1)]).contains(raw));
    assert!(refuse(&[entry(0, 1, 11, 10)]).contains("stored length"));
    let unlike = BodyEntry {
        codec: Codec::Raw,
        ..entry(0, 1, 9, 10)
    };
    assert!(refuse(&[unlike]).contains("stored length"));
    assert!(refuse(&[entry(3, 1, 9, 10), entry(3, 2, 9, 10)]).contains("out of order"));
    assert!(refuse(&[entry(3, 1, 9, 10), entry(2, 2, 9, 10)]).contains("out of order"));
    let one = [entry(0, 1, 10, 10)];
    let too_long = Header {
        object_len: header_for(&one).object_len + 1,
        ..header_for(&one)
    };
    assert!(refused(&one, &too_long).contains("fill"));
    let too_short = Header {
        object_len: header_for(&one).object_len - 1,
        ..header_for(&one)
    };
    assert!(refused(&one, &too_short).contains("fill"));
}

/// A map of hand-made fields, with a count of `count` and columns for one body unless overridden.
fn by_hand(fields: &[(u64, &[u8])], count: u64) -> Vec<u8> {
    let mut cbor = CborWriter::new(Vec::new());
    cbor.map(fields.len() as u64 + 1)
        .unwrap()
        .u8(0)
        .unwrap()
        .u64(count)
        .unwrap();
    for (key, value) in fields {
        cbor.u64(*key).unwrap().bytes(value).unwrap();
    }
    cbor.into_writer()
}

#[test]
fn malformed_columns_are_refused_before_anything_is_allocated() {
    let header = header_for(&[entry(0, 1, 10, 10)]);
    let columns: [(u64, &[u8]); 6] = [
        (1, &[0; 5]),
        (2, &[10, 0, 0]),
        (3, &[0]),
        (4, &[0; 16]),
        (5, &[0; 16]),
        (7, &[10, 0, 0]),
    ];
    let check = |cbor: &[u8]| decode("o", &header, 1 << 20, cbor).map(drop);
    assert!(check(&by_hand(&columns, 1)).is_ok());
    assert!(check(&by_hand(&columns, 2)).is_err(), "columns too short");
    assert!(check(&by_hand(&columns, 0)).is_err(), "columns too long");
    assert!(check(&by_hand(&columns, u64::MAX)).is_err(), "far too many");
    assert!(check(&by_hand(&columns[..5], 1)).is_err(), "no raw length");
    assert!(
        check(&by_hand(&columns[1..], 1)).is_err(),
        "a column missing"
    );
    let mut reversed = columns;
    reversed.reverse();
    assert!(check(&by_hand(&reversed, 1)).is_err(), "not deterministic");
    let unknown = [&columns[..], &[(200, &[1, 2, 3][..])]].concat();
    assert!(
        check(&by_hand(&unknown, 1)).is_ok(),
        "later columns are skipped"
    );
    let trailing = [&by_hand(&columns, 1)[..], &[0]].concat();
    assert!(check(&trailing).is_err(), "bytes behind it");
    for codec in 3..=u8::MAX {
        let mut unknown = columns;
        let codec = [codec];
        unknown[2] = (3, &codec);
        assert!(check(&by_hand(&unknown, 1)).is_err());
    }
}

#[test]
fn entries_are_found_by_ordinal() {
    let keys = super::super::tests::fixed_keys(Cipher::None);
    let mut directory = Directory {
        object: "o".to_owned(),
        class: Class::Data,
        id: super::super::tests::SEGMENT,
        object_len: 0,
        entries: [0, 1, 4, 9]
            .map(|ordinal| entry(ordinal, 1, 9, 10))
            .to_vec(),
        body_salt: [0; 32],
        body_key: keys.body_key(Class::Data, &[0; 32]),
    };
    for ordinal in 0..12 {
        let expected = [0, 1, 4, 9].contains(&ordinal).then_some(ordinal);
        assert_eq!(
            directory.entry(ordinal).map(|entry| entry.ordinal),
            expected
        );
    }
    let small = directory.memory();
    directory.entries.reserve_exact(1000);
    assert!(directory.memory() >= small + 900 * size_of::<BodyEntry>());
}
