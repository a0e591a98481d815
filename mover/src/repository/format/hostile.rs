//! Ways into each parser past the seals that would stop random bytes: for the fuzzer and for seeded mutations.
//!
//! Owns: making hostile bytes look sealed. Must not: judge them; a parser passes as long as it neither panics nor allocates without
//! limit. Compiled for tests only.

use super::binding::{DIRECTORY_NONCE, body_aad, body_nonce, directory_aad};
use super::class::Class;
use super::clear::seal_clear;
use super::codec::Codec;
use super::config::ConfigRecord;
use super::crypto::{Cipher, Keys, MasterKey};
use super::directory::BodyEntry;
use super::head::{parse_head, parse_object};
use super::header::{self, HEADER_LEN, Header, SEAL_LEN};
use super::key_slot::KeySlot;
use super::record::open_record;
use super::{Decoder, Directory, RecoveryKey};
use crate::repository::ids::{
    Digest, PointId, RepositoryId, SegmentId, SessionId, SessionKey, name,
};

const SALT: [u8; 32] = [0x5a; 32];
const SEGMENT: SegmentId = SegmentId {
    session: SessionId([0xb2; 16]),
    number: 7,
};
const NAME: &str = "snap/object";

fn keys() -> Keys {
    let master = MasterKey::from_bytes([0x11; 32]);
    Keys::new(RepositoryId([0xa1; 16]), Cipher::None, &master)
}

/// Object bytes: header, seal, directory. Then the same with its seal put right, and read as every class.
pub fn object(bytes: &[u8]) {
    let keys = keys();
    for byte in 0..=u8::MAX {
        let Some(class) = Class::from_byte(byte) else {
            continue;
        };
        let _ = header::parse(class, NAME, bytes);
        let _ = parse_head(&keys, class, SEGMENT, NAME, bytes);
        let _ = parse_object(&keys, class, SEGMENT, NAME, &resealed(bytes));
    }
}

/// A copy of `bytes` whose seal fits.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut object = bytes.to_vec();
    let Some(header_bytes) = object.first_chunk::<HEADER_LEN>().copied() else {
        return object;
    };
    let mut len = [0; 4];
    len.copy_from_slice(&header_bytes[12..16]);
    let region_end = HEADER_LEN.saturating_add(u32::from_le_bytes(len) as usize);
    if let Some(region) = object.get(HEADER_LEN..region_end) {
        let seal = header::seal(&header_bytes, region);
        if let Some(stored) = object.get_mut(region_end..region_end + SEAL_LEN) {
            stored.copy_from_slice(&seal);
        }
    }
    object
}

/// The CBOR of a directory, with bodies of exactly the length it asks for. Decodes every body.
pub fn directory(cbor: &[u8]) {
    for class in [Class::Data, Class::Map, Class::Manifest] {
        // The sum of all stored lengths is at most 4 GiB: found by trying, so that most inputs get past the length check.
        let len = stored_len(cbor);
        let object = forge(class, cbor, &vec![0; len.min(1 << 20)]);
        if let Ok(directory) = parse_object(&keys(), class, SEGMENT, NAME, &object) {
            decode_all(&directory, &object);
        }
        let _ = open_record(&keys(), class, SEGMENT, NAME, &object);
    }
}

/// A record: two bytes of directory length, the directory, the bodies.
pub fn record(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (cbor, bodies) = rest.split_at(rest.len().min(u16::from_le_bytes(*len).into()));
    let object = forge(Class::Liveness, cbor, bodies);
    let _ = open_record(&keys(), Class::Liveness, SEGMENT, NAME, &object);
    let _ = open_record(&keys(), Class::Liveness, SEGMENT, NAME, bytes);
}

/// A body: codec, three bytes of raw length, stored bytes. Its tag is right, so that the decompressors see it.
pub fn body(bytes: &[u8]) {
    let Some(([codec, a, b, c], stored)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let Some(codec) = Codec::from_byte(codec % 4) else {
        return;
    };
    let raw_len = u32::from_le_bytes([*a, *b, *c, 0]) & 0x1f_ffff;
    let Ok(stored_len) = u32::try_from(stored.len()) else {
        return;
    };
    let keys = keys();
    let mut sealed = stored.to_vec();
    let aad = body_aad(keys.repository(), SEGMENT, 0, codec, raw_len);
    let tag = keys
        .body_key(Class::Data, &SALT)
        .seal(body_nonce(0), &aad, &mut sealed);
    let directory = Directory {
        object: NAME.to_owned(),
        class: Class::Data,
        id: SEGMENT,
        object_len: 0,
        entries: Vec::new(),
        body_salt: SALT,
        body_key: keys.body_key(Class::Data, &SALT),
    };
    let digest = Digest([0; 16]);
    let entry = BodyEntry {
        ordinal: 0,
        key: 0,
        offset: 0,
        stored_len,
        raw_len,
        codec,
        digest,
        tag,
    };
    let mut out = vec![0; raw_len as usize];
    let _ = Decoder::new().decode(&keys, &directory, &entry, &sealed, &mut out);
}

/// The config: as a whole object, and as the payload of an intact one.
pub fn config(bytes: &[u8]) {
    let _ = ConfigRecord::parse(name::CONFIG, bytes);
    let _ = ConfigRecord::parse(name::CONFIG, &resealed(bytes));
    let framed = seal_clear(Class::Config, SALT, bytes, 32, |_| vec![0; 32]);
    if let Ok(record) = framed.and_then(|object| ConfigRecord::parse(name::CONFIG, &object)) {
        let _ = record.config().check_writable();
        let _ = record.authenticate(name::CONFIG, &keys());
    }
}

/// A key slot: as a whole object, and as the payload of an intact one.
pub fn key_slot(bytes: &[u8]) {
    let name = KeySlot::object_name(&[0xc3; 16]);
    let _ = KeySlot::parse(&name, bytes);
    let _ = KeySlot::parse(&name, &resealed(bytes));
    let framed = seal_clear(Class::KeySlot, SALT, bytes, 48, |_| vec![0; 48]);
    if let Ok(object) = framed {
        let _ = KeySlot::parse(&name, &object);
    }
}

/// Names and ids as they come from listings and from people.
///
/// # Panics
/// If a name that parses is not the name that it prints.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(key) = SessionKey::parse(text) {
        assert_eq!(key.to_string(), text, "a session key has one spelling");
    }
    if let Ok(point) = text.parse::<PointId>() {
        assert_eq!(point.to_string(), text, "a point id has one spelling");
    }
    if let Some((segment, generation)) = name::parse_segment(text) {
        assert_eq!(name::segment(segment, generation), text);
    }
    if let Some(segment) = name::parse_map_segment(text) {
        assert_eq!(name::map_segment(segment), text);
    }
    if let Some(session) = name::parse_beat(text) {
        assert_eq!(name::beat(session), text);
    }
}

/// A recovery sheet that somebody typed.
///
/// # Panics
/// If a key that was read is not the key that its own lines say.
pub fn recovery_sheet(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(key) = RecoveryKey::parse(text) {
        let again = RecoveryKey::parse(&key.to_text()).expect("its own lines are read");
        assert_eq!(again.master().bytes(), key.master().bytes());
        assert_eq!(again.repository(), key.repository());
    }
}

/// An object of `class` around any directory and any bodies, with the right seal and tag.
fn forge(class: Class, cbor: &[u8], bodies: &[u8]) -> Vec<u8> {
    let keys = keys();
    let cbor = &cbor[..cbor.len().min(header::MAX_SEALED_LEN as usize - 16)];
    let mut region = cbor.to_vec();
    let sealed_len = u32::try_from(region.len() + 16).expect("cut to the limit above");
    let header = Header::plan(class, Cipher::None, sealed_len, bodies.len() as u64, SALT);
    let header_bytes = header.encode();
    let aad = directory_aad(keys.repository(), NAME, &header_bytes);
    let tag = keys
        .directory_key(class, &SALT)
        .seal(DIRECTORY_NONCE, &aad, &mut region);
    region.extend_from_slice(&tag);
    let mut object = [
        &header_bytes[..],
        &region,
        &header::seal(&header_bytes, &region),
    ]
    .concat();
    object.resize(header.bodies_offset as usize, 0);
    object.extend_from_slice(bodies);
    object
}

/// What the second column of the directory sums up to, if it is one.
fn stored_len(cbor: &[u8]) -> usize {
    let mut reader = minicbor::decode::Decoder::new(cbor);
    let mut sum = || -> Result<usize, minicbor::decode::Error> {
        for _ in 0..reader.map()?.unwrap_or(0) {
            if reader.u64()? == 2 {
                let cells = reader.bytes()?.as_chunks::<3>().0;
                return Ok(cells
                    .iter()
                    .map(|c| u32::from_le_bytes([c[0], c[1], c[2], 0]) as usize)
                    .sum());
            }
            reader.skip()?;
        }
        Ok(0)
    };
    sum().unwrap_or(0)
}

fn decode_all(directory: &Directory, object: &[u8]) {
    let mut decoder = Decoder::new();
    for entry in directory.entries() {
        assert_eq!(
            directory.entry(entry.ordinal),
            Some(entry),
            "found by its ordinal"
        );
        let at = usize::try_from(entry.offset).expect("inside an object in memory");
        let stored = &object[at..at + entry.stored_len as usize];
        let mut out = vec![0; entry.raw_len as usize];
        let _ = decoder.decode(&keys(), directory, entry, stored, &mut out);
    }
}
