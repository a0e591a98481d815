//! Slots: the right secret opens, a wrong one is not damage, damage is not a wrong one.

use super::*;

/// A few KiB instead of 64 MiB, so that tests take no time.
pub(crate) const CHEAP: KdfCost = KdfCost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

const REPOSITORY: RepositoryId = RepositoryId([0xa1; 16]);

fn seed() -> SlotSeed {
    SlotSeed {
        id: [0xc3; 16],
        salt: [0xd4; 32],
        kdf_salt: [0xe5; 32],
        cost: CHEAP,
        created_unix_secs: 1_700_000_000,
    }
}

fn passphrase(text: &str) -> Secret {
    Secret::Passphrase(text.to_owned().into())
}

fn key_file(byte: u8) -> Secret {
    Secret::KeyFile(vec![byte; 32].into())
}

fn name() -> String {
    KeySlot::object_name(&seed().id)
}

fn seal(secret: &Secret) -> Bytes {
    KeySlot::seal(REPOSITORY, secret, &MasterKey::from_bytes([7; 32]), &seed()).unwrap()
}

#[test]
fn only_the_right_secret_opens() {
    let secrets = [
        passphrase("correct"),
        passphrase("wrong"),
        key_file(1),
        key_file(2),
    ];
    for (made_with, secret) in secrets.iter().enumerate() {
        let slot = KeySlot::parse(&name(), &seal(secret)).unwrap();
        assert_eq!(slot.kind(), secret.kind());
        assert_eq!(slot.repository(), REPOSITORY);
        assert_eq!(slot.created_unix_secs(), 1_700_000_000);
        for (tried, secret) in secrets.iter().enumerate() {
            match slot.unwrap_master(secret) {
                Ok(master) => {
                    assert_eq!(tried, made_with);
                    assert_eq!(master.bytes(), &[7; 32]);
                }
                Err(error) => {
                    assert_ne!(tried, made_with);
                    assert_eq!(error.kind(), ErrorKind::WrongKey);
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_damage_and_no_wrong_secret() {
    let object = seal(&key_file(1));
    for bit in 0..object.len() * 8 {
        let mut flipped = object.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = KeySlot::parse(&name(), &flipped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error}");
        assert_eq!(error.object_name(), Some(&name()[..]));
    }
    for len in 0..object.len() {
        let error = KeySlot::parse(&name(), &object[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("truncated"), "{error}");
    }
}

#[test]
fn a_slot_answers_to_its_name_and_to_its_copy_only() {
    let object = seal(&key_file(1));
    assert!(KeySlot::parse(&format!("{}.b", name()), &object).is_ok());
    let other = KeySlot::object_name(&[0xc4; 16]);
    assert_eq!(
        KeySlot::parse(&other, &object).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn greedy_slots_are_refused_before_they_cost_anything() {
    let greedy = |memory_kib, passes, lanes| {
        let payload = Payload {
            id: seed().id,
            repository: REPOSITORY,
            kind: 0,
            created_unix_secs: 0,
            memory_kib: Some(memory_kib),
            passes: Some(passes),
            lanes: Some(lanes),
            kdf_salt: Some([0; 32]),
        };
        let payload = encode_payload(&payload).unwrap();
        let object = seal_clear(Class::KeySlot, [0; 32], &payload, WRAPPED_LEN, |_| {
            vec![0; WRAPPED_LEN]
        });
        KeySlot::parse(&name(), &object.unwrap()).map(drop)
    };
    assert!(greedy(1 << 20, 64, 16).is_ok());
    for (memory_kib, passes, lanes) in [
        ((1 << 20) + 1, 3, 1),
        (u32::MAX, 3, 1),
        (64, 65, 1),
        (1 << 16, 1, 17),
        (64, 0, 1),
        (64, 1, 0),
        (0, 1, 1),
    ] {
        let error = greedy(memory_kib, passes, lanes).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Corrupt,
            "{memory_kib} {passes} {lanes}"
        );
    }
}

#[test]
fn weak_secrets_are_refused() {
    let short = Secret::KeyFile(vec![1; 31].into());
    for secret in [short, passphrase("")] {
        let error = secret.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let slot = KeySlot::parse(&name(), &seal(&key_file(1))).unwrap();
        let error = slot.unwrap_master(&secret).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
}

#[test]
fn the_default_cost_is_the_specified_one() {
    let cost = KdfCost::default();
    assert_eq!((cost.memory_kib, cost.passes, cost.lanes), (65536, 3, 1));
}
