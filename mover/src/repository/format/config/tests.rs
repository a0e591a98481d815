//! The config: authentic or refused, and never misread by an older version.

use super::super::Cipher;
use super::*;

fn config() -> Config {
    Config {
        repository: RepositoryId([0xa1; 16]),
        cipher: Cipher::Aes256Gcm,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        read_features: 0,
        write_features: 0,
        other_features: 0,
        profile: StoreProfile::default(),
        created_unix_secs: 1_700_000_000,
        public_salt: None,
    }
}

fn unencrypted() -> Config {
    Config {
        cipher: Cipher::None,
        public_salt: Some([5; 32]),
        ..config()
    }
}

fn keys(config: &Config) -> Keys {
    config.keys(
        &config
            .public_master()
            .unwrap_or(MasterKey::from_bytes([7; 32])),
    )
}

fn seal(config: &Config) -> Bytes {
    config.seal(&keys(config), [0xd4; 32]).unwrap()
}

#[test]
fn a_config_comes_back_and_is_authentic() {
    for config in [config(), unencrypted()] {
        let record = ConfigRecord::parse("config", &seal(&config)).unwrap();
        assert_eq!(record.config(), &config);
        assert_eq!(
            record.authenticate("config", &keys(&config)).unwrap(),
            config
        );
        let wrong = config.keys(&MasterKey::from_bytes([8; 32]));
        let error = record.authenticate("config", &wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn every_flipped_bit_and_truncation_is_damage() {
    let object = seal(&config());
    for bit in 0..object.len() * 8 {
        let mut flipped = object.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = ConfigRecord::parse("config", &flipped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error}");
    }
    for len in 0..object.len() {
        let error = ConfigRecord::parse("config", &object[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn unknown_features_are_named() {
    let error = ConfigRecord::parse(
        "config",
        &seal(&Config {
            read_features: 6,
            ..config()
        }),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("0x6"), "{error}");
    let readable = Config {
        write_features: 8,
        other_features: u64::MAX,
        ..config()
    };
    let record = ConfigRecord::parse("config", &seal(&readable)).unwrap();
    let error = record.config().check_writable().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("0x8"), "{error}");
    config().check_writable().unwrap();
}

/// A config with a cipher of the future, which also has a field of the future.
#[test]
fn an_unknown_cipher_is_newer_and_no_damage() {
    #[derive(Encode)]
    #[cbor(map)]
    struct Future {
        #[n(1)]
        cipher: u8,
        #[n(4)]
        read_features: u64,
        #[n(40)]
        unheard_of: &'static str,
    }
    let parse = |read_features| {
        let payload = encode_payload(&Future {
            cipher: 9,
            read_features,
            unheard_of: "x",
        });
        let object = seal_clear(Class::Config, [0; 32], &payload.unwrap(), MAC_LEN, |_| {
            vec![0; MAC_LEN]
        });
        ConfigRecord::parse("config", &object.unwrap()).unwrap_err()
    };
    assert_eq!(parse(0).kind(), ErrorKind::NewerFormat);
    assert!(parse(0).to_string().contains("cipher 9"));
    assert!(parse(1).to_string().contains("features 0x1"));
}

#[test]
fn sizes_have_limits() {
    for (chunk_size, segment_size, fine) in [
        (64 << 10, 1 << 20, true),
        (1 << 20, 64 << 20, true),
        (32 << 10, 32 << 20, false),
        (2 << 20, 32 << 20, false),
        (100_000, 32 << 20, false),
        (0, 32 << 20, false),
        (128 << 10, 0, false),
        (128 << 10, (64 << 20) + 1, false),
    ] {
        let config = Config {
            chunk_size,
            segment_size,
            ..config()
        };
        assert_eq!(
            config.check_request().is_ok(),
            fine,
            "{chunk_size} {segment_size}"
        );
        assert_eq!(ConfigRecord::parse("config", &seal(&config)).is_ok(), fine);
    }
}

#[test]
fn encryption_and_public_salt_exclude_each_other() {
    for (cipher, public_salt) in [(Cipher::None, None), (Cipher::Aes256Gcm, Some([1; 32]))] {
        let object = seal(&Config {
            cipher,
            public_salt,
            ..config()
        });
        let error = ConfigRecord::parse("config", &object).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
