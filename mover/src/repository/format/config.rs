//! The configuration: what is constant for a repository's life.
//!
//! Owns: the object `config` and the rules for feature bits. Must not: hold a key, or read stores. It is readable without a key, and
//! believed only after its MAC was checked with one.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::class::Class;
use super::clear::{ClearRecord, decode_payload, encode_payload, parse_clear, seal_clear};
use super::crypto::{Cipher, Keys, MasterKey};
use super::{MAX_CHUNK_LEN, MIN_CHUNK_LEN, SALT_LEN, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::RepositoryId;
use crate::repository::store::profile::StoreProfile;

/// Feature bits that a reader of this version understands.
pub const READ_FEATURES: u64 = 0;
/// Feature bits that a writer of this version understands, beside the readers'.
pub const WRITE_FEATURES: u64 = OBJECT_LOCK;
/// Write feature: objects are locked. A writer that does not lock would commit points that nothing protects.
pub const OBJECT_LOCK: u64 = 1;
/// Smallest and largest segment size in bytes.
pub const SEGMENT_SIZES: std::ops::RangeInclusive<u32> = 1 << 20..=64 << 20;

const MAC_LEN: usize = 32;

/// What `init` decided.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Config {
    /// The repository.
    #[n(0)]
    pub repository: RepositoryId,
    /// Cipher of every object.
    #[n(1)]
    pub cipher: Cipher,
    /// Bytes of a chunk: a power of two from 64 KiB to 1 MiB.
    #[n(2)]
    pub chunk_size: u32,
    /// Bytes of bodies after which a segment is full.
    #[n(3)]
    pub segment_size: u32,
    /// Whoever does not know one of these bits must not read.
    #[n(4)]
    pub read_features: u64,
    /// Whoever does not know one of these bits must not write.
    #[n(5)]
    pub write_features: u64,
    /// Bits that anybody may ignore.
    #[n(6)]
    pub other_features: u64,
    /// What the store was found to be able to do.
    #[n(7)]
    pub profile: StoreProfile,
    /// When `init` ran, in seconds since 1970; for people.
    #[n(8)]
    pub created_unix_secs: i64,
    /// Stands in for the master key where there is no encryption.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub public_salt: Option<[u8; 32]>,
}

/// The fields that say whether the others can be understood.
#[derive(Decode)]
#[cbor(map)]
struct Gate {
    #[n(1)]
    cipher: u8,
    #[n(4)]
    read_features: u64,
}

impl Config {
    /// The keys of the repository.
    #[must_use]
    pub fn keys(&self, master: &MasterKey) -> Keys {
        Keys::new(self.repository, self.cipher, master).with_chunk_limit(self.chunk_size)
    }

    /// The public stand-in for a master key; `None` for an encrypted repository.
    #[must_use]
    pub fn public_master(&self) -> Option<MasterKey> {
        self.public_salt.map(MasterKey::from_bytes)
    }

    /// Whether a passphrase or key file is needed.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.cipher != Cipher::None
    }

    /// Whether this version may write into the repository.
    ///
    /// # Errors
    /// `NewerFormat` where a needed bit is unknown.
    pub fn check_writable(&self) -> Result<()> {
        match self.write_features & !(WRITE_FEATURES | READ_FEATURES) {
            0 => Ok(()),
            bits => Err(fault::newer(
                "config",
                format!("features {bits:#x} are needed to write"),
            )),
        }
    }

    /// What is wrong with the sizes, if anything.
    #[must_use]
    pub fn size_fault(&self) -> Option<&'static str> {
        let chunks = MIN_CHUNK_LEN..=MAX_CHUNK_LEN;
        if !self.chunk_size.is_power_of_two() || !chunks.contains(&self.chunk_size) {
            return Some("the chunk size is not a power of two from 64 KiB to 1 MiB");
        }
        if !SEGMENT_SIZES.contains(&self.segment_size) || self.segment_size < self.chunk_size {
            return Some("the segment size is not from 1 MiB to 64 MiB");
        }
        None
    }

    /// Writes the object.
    ///
    /// # Errors
    /// `Internal` where it cannot be encoded.
    pub fn seal(&self, keys: &Keys, salt: [u8; SALT_LEN]) -> Result<Bytes> {
        let payload = encode_payload(self)?;
        seal_clear(Class::Config, salt, &payload, MAC_LEN, |header| {
            keys.config_mac(&[header, &payload]).as_bytes().to_vec()
        })
    }
}

/// A config that was not damaged, and what proves it.
#[derive(Clone, Debug)]
pub struct ConfigRecord {
    config: Config,
    record: ClearRecord,
}

impl ConfigRecord {
    /// Reads the object `name`.
    ///
    /// # Errors
    /// `Corrupt` for damage, `NewerFormat` for a cipher or a read feature that this version does not know.
    pub fn parse(name: &str, object: &[u8]) -> Result<Self> {
        let record = parse_clear(Class::Config, name, object, MAC_LEN)?;
        let gate: Gate = decode_payload(name, &record.payload)?;
        if let bits @ 1.. = gate.read_features & !READ_FEATURES {
            return Err(fault::newer(
                name,
                format!("features {bits:#x} are needed to read"),
            ));
        }
        if Cipher::from_byte(gate.cipher).is_none() {
            return Err(fault::newer(name, format!("cipher {}", gate.cipher)));
        }
        let config: Config = decode_payload(name, &record.payload)?;
        if let Some(what) = config.size_fault() {
            return Err(fault::damaged(name, what));
        }
        if config.is_encrypted() == config.public_salt.is_some() {
            return Err(fault::damaged(
                name,
                "its cipher and its public salt contradict",
            ));
        }
        Ok(Self { config, record })
    }

    /// What it says, authentic or not: enough to ask for the right secret.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The config, if it was written by somebody with the key.
    ///
    /// # Errors
    /// `Corrupt` for a forged config.
    pub fn authenticate(&self, name: &str, keys: &Keys) -> Result<Config> {
        let mac = keys.config_mac(&[&self.record.header, &self.record.payload]);
        // `blake3::Hash` compares in constant time.
        if mac == self.record.proof[..] {
            Ok(self.config.clone())
        } else {
            Err(fault::swapped(
                name,
                "its MAC was not made with the key of its repository",
            ))
        }
    }
}

impl<C> Encode<C> for Cipher {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(self.byte())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Cipher {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_byte(d.u8()?).ok_or_else(|| minicbor::decode::Error::message("unknown cipher"))
    }
}

impl Config {
    /// Refuses sizes that the format does not have.
    ///
    /// # Errors
    /// `InvalidRequest` with the allowed range.
    pub fn check_request(&self) -> Result<()> {
        match self.size_fault() {
            None => Ok(()),
            Some(what) => Err(
                Error::new(ErrorKind::InvalidRequest, format!("refuse: {what}"))
                    .hint("the defaults are 128KiB and 32MiB"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
