//! Golden objects with seeded damage, fed to every parser: none may panic, and none may believe what a seal or a tag does not cover.

use super::super::hostile;
use super::golden::objects;
use super::*;

/// Mutations of each object; a minute of fuzzing does more, this is for every run of the tests.
const ROUNDS: u64 = 400;

/// xorshift64*: small, seeded, good enough to pick offsets.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }
}

fn mutate(original: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = original.to_vec();
    // The interesting part of a padded object is at its beginning.
    let reach = if dice.below(2) == 0 {
        bytes.len()
    } else {
        bytes.len().min(300)
    };
    for _ in 0..=dice.below(4) {
        let at = dice.below(reach);
        match dice.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), dice.next().to_le_bytes()[0]),
            2 => {
                let end = bytes.len().min(at + dice.below(16));
                bytes.get_mut(at..end).unwrap_or_default().fill(0xff);
            }
            3 => {
                let from = dice.below(reach);
                let piece = bytes
                    .get(from..bytes.len().min(from + 32))
                    .unwrap_or_default()
                    .to_vec();
                let at = at.min(bytes.len());
                bytes.splice(at..at, piece);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
    bytes
}

/// The plain parts of golden objects: what a fuzzer would start from.
fn plain_parts() -> Vec<Vec<u8>> {
    let entries: Vec<_> = (0..3)
        .map(|ordinal| BodyEntry {
            ordinal,
            key: u64::from(ordinal) * 7,
            offset: 0,
            stored_len: 10,
            raw_len: 10 + u32::from(ordinal),
            codec: if ordinal == 0 { Codec::Raw } else { Codec::Lz4 },
            digest: crate::repository::ids::Digest([1; 16]),
            tag: [2; 16],
        })
        .collect();
    let mut parts = vec![
        directory::encode(&entries, None, 0).unwrap(),
        directory::encode(&entries[1..], Some(&[7; 32]), 20).unwrap(),
    ];
    // Payloads of the clear records begin behind header, array and length.
    for (name, object) in objects() {
        if name.starts_with("config") || name.starts_with("key-slot") {
            parts.push(object[HEADER_AND_FRAME..object.len() - 32].to_vec());
        }
    }
    // Bodies: codec, raw length, stored bytes.
    let lz4 = [
        &[1, 0xe8, 3, 0][..],
        &[0x1f, 0x61, 1, 0, 255, 255, 255, 0xd2, 0x50],
    ]
    .concat();
    let zstd = [
        &[2, 0xe8, 3, 0][..],
        &[0x28, 0xb5, 0x2f, 0xfd, 0x60, 0xe8, 2, 0x43, 0x1f, 0, 0x62],
    ];
    parts.extend([lz4, zstd.concat()]);
    parts
}

const HEADER_AND_FRAME: usize = 64 + 1 + 2;

#[test]
fn no_parser_panics_on_mutated_objects() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut dice = Dice(seed);
    let objects: Vec<_> = objects()
        .into_iter()
        .map(|(_, object)| object.to_vec())
        .collect();
    for original in objects.iter().chain(&plain_parts()) {
        for _ in 0..ROUNDS {
            let bytes = mutate(original, &mut dice);
            hostile::object(&bytes);
            hostile::directory(&bytes);
            hostile::record(&bytes);
            hostile::body(&bytes);
            hostile::config(&bytes);
            hostile::key_slot(&bytes);
        }
    }
}

#[test]
fn no_mutated_segment_is_believed() {
    let seed = 0x5eed_0002;
    println!("seed {seed:#x}");
    let mut dice = Dice(seed);
    for cipher in CIPHERS {
        let keys = fixed_keys(cipher);
        let name = segment_name();
        let object = build(&keys, Class::Data, &small_chunks(), Compression::Lz4);
        for _ in 0..ROUNDS * 10 {
            let bytes = mutate(&object, &mut dice);
            if bytes != object[..] {
                let error = read_all(&keys, Class::Data, &name, &bytes).unwrap_err();
                assert_corrupt(&error, &name);
            }
        }
    }
}

#[test]
fn names_have_one_spelling() {
    let key = golden::SESSION_KEY;
    let mut dice = Dice(0x5eed_0003);
    let segment = golden_segment(key.session);
    for original in [
        key.to_string(),
        key.point().to_string(),
        name::segment(segment, 7),
        name::map_segment(segment),
        name::beat(key.session),
    ] {
        hostile::names(original.as_bytes());
        for _ in 0..ROUNDS * 10 {
            hostile::names(&mutate(original.as_bytes(), &mut dice));
        }
    }
}

fn golden_segment(session: SessionId) -> SegmentId {
    SegmentId {
        session,
        number: 12,
    }
}

#[test]
fn no_mistyped_recovery_sheet_is_believed() {
    let key = RecoveryKey::new(RepositoryId([7; 16]), MasterKey::from_bytes([9; 32]));
    let sheet = key.to_text();
    let seed = 0x5eed_0004;
    println!("seed {seed:#x}");
    let mut dice = Dice(seed);
    hostile::recovery_sheet(sheet.as_bytes());
    for _ in 0..ROUNDS * 10 {
        let bytes = mutate(sheet.as_bytes(), &mut dice);
        hostile::recovery_sheet(&bytes);
        // Spaces, case and text around the lines do not matter; another key must never come out.
        let read = std::str::from_utf8(&bytes).ok().map(RecoveryKey::parse);
        if let Some(Ok(read)) = read {
            assert_eq!(read.master().bytes(), key.master().bytes());
        }
    }
}
