//! Records of every length, and the lengths of control objects.

use super::super::Cipher;
use super::super::tests::{SEGMENT, fixed_keys};
use super::*;

const NAME: &str = "live/x";

#[test]
fn records_of_every_length_come_back() {
    let mib = PIECE_LEN;
    for cipher in [Cipher::None, Cipher::Aes256Gcm] {
        let keys = fixed_keys(cipher);
        for len in [0, 1, 100, mib - 1, mib, mib + 1, 3 * mib] {
            let record: Vec<u8> = (0..len).map(|i| (i * i / 7).to_le_bytes()[0]).collect();
            let object = seal_record(&keys, Class::Liveness, SEGMENT, NAME, &record, 0).unwrap();
            let read = open_record(&keys, Class::Liveness, SEGMENT, NAME, &object).unwrap();
            assert!(read == record, "{len}");
        }
    }
}

#[test]
fn records_above_64_mib_are_refused() {
    let keys = fixed_keys(Cipher::None);
    let record = vec![0; MAX_RECORD_LEN + 1];
    let sealed = seal_record(&keys, Class::Liveness, SEGMENT, NAME, &record, 0);
    assert_eq!(sealed.unwrap_err().kind(), ErrorKind::Internal);
    let sealed = seal_record(&keys, Class::Liveness, SEGMENT, NAME, &record[1..], 0).unwrap();
    assert!(open_record(&keys, Class::Liveness, SEGMENT, NAME, &sealed).is_ok());
}

#[test]
fn padding_gives_the_least_length_and_little_more() {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    for min in 0..600 {
        let object = seal_record(&keys, Class::Manifest, SEGMENT, NAME, b"record", min).unwrap();
        assert!(object.len() >= min);
        assert!(
            object.len() <= min.max(200) + 8,
            "{} for {min}",
            object.len()
        );
        let read = open_record(&keys, Class::Manifest, SEGMENT, NAME, &object).unwrap();
        assert_eq!(read, b"record");
    }
}

#[test]
fn an_abort_marker_with_80_bytes_is_told_from_a_manifest_by_its_length() {
    let keys = fixed_keys(Cipher::Aes256Gcm);
    let record: Vec<u8> = (0..80).collect();
    let object = seal_record(&keys, Class::Abort, SEGMENT, NAME, &record, 0).unwrap();
    assert!(object.len() <= 256, "{}", object.len());
}
