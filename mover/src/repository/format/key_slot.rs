//! Key slots: the master key, wrapped by a passphrase or a key file.
//!
//! ```text
//!   passphrase ── Argon2id ─┐
//!                           ├── AES-256-GCM ── wrapped master key
//!   key file ──── BLAKE3 ───┘
//! ```
//!
//! Owns: the objects `keys/…` and the secrets that open them. Must not: read stores. Damage shows in the seal, a wrong secret in the
//! tag: the two are told apart.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::class::Class;
use super::clear::{ClearRecord, decode_payload, encode_payload, parse_clear, seal_clear};
use super::crypto::{Cipher, MasterKey, ObjectKey};
use super::{SALT_LEN, TAG_LEN, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::{RepositoryId, name};

const CONTEXT_KEY_FILE: &str = "snaphaul.dev repository v1: key file";
/// A key file is used as it is, so it must hold as much randomness as the key it opens.
const MIN_KEY_FILE_LEN: usize = 32;
const WRAPPED_LEN: usize = 32 + TAG_LEN;
/// A slot key seals once: its salt is in the slot's own header.
const NONCE: [u8; 12] = [0; 12];
/// Limits on what a stored slot may ask of this machine: 1 GiB, and minutes of time at the worst.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 16;

/// What a person gives to open a repository.
#[derive(Clone)]
pub enum Secret {
    /// A passphrase, without a line end.
    Passphrase(Zeroizing<String>),
    /// The bytes of a key file, at least 32 random ones.
    KeyFile(Zeroizing<Vec<u8>>),
}

impl Secret {
    /// What it is called in messages.
    #[must_use]
    pub fn kind(&self) -> SecretKind {
        match self {
            Self::Passphrase(_) => SecretKind::Passphrase,
            Self::KeyFile(_) => SecretKind::KeyFile,
        }
    }

    /// Refuses what cannot protect anything.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty passphrase or a key file below 32 bytes.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Passphrase(text) if text.is_empty() => Err(Error::new(
                ErrorKind::InvalidRequest,
                "refuse an empty passphrase",
            )),
            Self::KeyFile(bytes) if bytes.len() < MIN_KEY_FILE_LEN => {
                let len = bytes.len();
                let message = format!("refuse a key file of {len} bytes: 32 are the least");
                Err(Error::new(ErrorKind::InvalidRequest, message)
                    .hint("`head -c 32 /dev/urandom > FILE` makes one"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, redacted)", self.kind())
    }
}

/// The two kinds of secrets, and of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// Opened through Argon2id.
    Passphrase = 0,
    /// Opened without a KDF.
    KeyFile = 1,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
        })
    }
}

/// What Argon2id costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// RFC 9106's second recommendation with one lane: 64 MiB fit into every container that runs this.
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 1,
        }
    }
}

#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct Payload {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[n(1)]
    repository: RepositoryId,
    #[n(2)]
    kind: u8,
    #[n(3)]
    created_unix_secs: i64,
    #[n(4)]
    memory_kib: Option<u32>,
    #[n(5)]
    passes: Option<u32>,
    #[n(6)]
    lanes: Option<u32>,
    #[cbor(n(7), with = "minicbor::bytes")]
    kdf_salt: Option<[u8; SALT_LEN]>,
}

/// What makes one slot unlike any other; every field random, except in tests and for the time.
#[derive(Clone, Copy, Debug)]
pub struct SlotSeed {
    /// Id of the slot, part of its name.
    pub id: [u8; 16],
    /// Salt in the header, for the wrapping key.
    pub salt: [u8; SALT_LEN],
    /// Salt of Argon2id.
    pub kdf_salt: [u8; SALT_LEN],
    /// Cost of Argon2id.
    pub cost: KdfCost,
    /// When it was made, in seconds since 1970.
    pub created_unix_secs: i64,
}

/// A slot that was not damaged.
#[derive(Clone, Debug)]
pub struct KeySlot {
    payload: Payload,
    kdf: Option<(KdfCost, [u8; SALT_LEN])>,
    record: ClearRecord,
}

impl KeySlot {
    /// Name of the slot with this id.
    #[must_use]
    pub fn object_name(id: &[u8; 16]) -> String {
        format!("{}{}", name::KEYS, crate::repository::ids::to_hex(id))
    }

    /// Wraps `master` and gives the object.
    ///
    /// # Errors
    /// `InvalidRequest` for a secret that cannot protect anything, `Internal` where the KDF fails.
    pub fn seal(
        repository: RepositoryId,
        secret: &Secret,
        master: &MasterKey,
        seed: &SlotSeed,
    ) -> Result<Bytes> {
        secret.check()?;
        let cost = match secret {
            Secret::Passphrase(_) => Some(seed.cost),
            Secret::KeyFile(_) => None,
        };
        let payload = encode_payload(&Payload {
            id: seed.id,
            repository,
            kind: secret.kind() as u8,
            created_unix_secs: seed.created_unix_secs,
            memory_kib: cost.map(|cost| cost.memory_kib),
            passes: cost.map(|cost| cost.passes),
            lanes: cost.map(|cost| cost.lanes),
            kdf_salt: cost.map(|_| seed.kdf_salt),
        })?;
        let key = wrapping_key(secret, cost.map(|cost| (cost, seed.kdf_salt)), &seed.salt)?;
        seal_clear(Class::KeySlot, seed.salt, &payload, WRAPPED_LEN, |header| {
            let mut wrapped = master.bytes().to_vec();
            let tag = key.seal(NONCE, &[&header[..], &payload].concat(), &mut wrapped);
            wrapped.extend_from_slice(&tag);
            wrapped
        })
    }

    /// Reads the object `name`.
    ///
    /// # Errors
    /// `Corrupt` for damage, a wrong place, or a KDF cost above the limits; `NewerFormat` for a kind that this version does not know.
    pub fn parse(name: &str, object: &[u8]) -> Result<Self> {
        let record = parse_clear(Class::KeySlot, name, object, WRAPPED_LEN)?;
        let payload: Payload = decode_payload(name, &record.payload)?;
        if name.strip_suffix(".b").unwrap_or(name) != Self::object_name(&payload.id) {
            return Err(fault::swapped(name, "it is another key slot"));
        }
        let kdf = match payload.kind {
            0 => Some(checked_kdf(name, &payload)?),
            1 => None,
            kind => return Err(fault::newer(name, format!("key slot kind {kind}"))),
        };
        Ok(Self {
            payload,
            kdf,
            record,
        })
    }

    /// Id, the part of the name after `keys/`.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.payload.id
    }

    /// The repository whose master key is in it.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.payload.repository
    }

    /// What opens it.
    #[must_use]
    pub fn kind(&self) -> SecretKind {
        if self.kdf.is_some() {
            SecretKind::Passphrase
        } else {
            SecretKind::KeyFile
        }
    }

    /// What deriving its key costs; `None` for a key file.
    #[must_use]
    pub fn kdf_cost(&self) -> Option<KdfCost> {
        self.kdf.map(|(cost, _)| cost)
    }

    /// When it was made, in seconds since 1970.
    #[must_use]
    pub fn created_unix_secs(&self) -> i64 {
        self.payload.created_unix_secs
    }

    /// Gives the master key.
    ///
    /// # Errors
    /// `WrongKey` where `secret` is not this slot's, `InvalidRequest` for one that never could be.
    pub fn unwrap_master(&self, secret: &Secret) -> Result<MasterKey> {
        secret.check()?;
        if secret.kind() != self.kind() {
            return Err(self.wrong_key());
        }
        let key = wrapping_key(secret, self.kdf, &self.record.salt)?;
        let aad = [&self.record.header[..], &self.record.payload].concat();
        let (wrapped, tag) = self
            .record
            .proof
            .split_last_chunk::<TAG_LEN>()
            .ok_or_else(|| self.wrong_key())?;
        let mut master = Zeroizing::new([0; 32]);
        key.open(NONCE, &aad, tag, wrapped, &mut master[..])
            .map_err(|_| self.wrong_key())?;
        Ok(MasterKey::from_bytes(*master))
    }

    fn wrong_key(&self) -> Error {
        Error::new(ErrorKind::WrongKey, "open the key slot with what was given")
            .object(Self::object_name(&self.payload.id))
    }
}

fn checked_kdf(name: &str, payload: &Payload) -> Result<(KdfCost, [u8; SALT_LEN])> {
    let (Some(memory_kib), Some(passes), Some(lanes), Some(salt)) = (
        payload.memory_kib,
        payload.passes,
        payload.lanes,
        payload.kdf_salt,
    ) else {
        return Err(fault::damaged(
            name,
            "it does not say how its passphrase is stretched",
        ));
    };
    let allowed = memory_kib <= MAX_MEMORY_KIB && passes <= MAX_PASSES && lanes <= MAX_LANES;
    if !allowed || Params::new(memory_kib, passes, lanes, Some(32)).is_err() {
        let what =
            format!("it asks for {memory_kib} KiB, {passes} passes and {lanes} lanes of Argon2id");
        return Err(fault::swapped(name, what));
    }
    Ok((
        KdfCost {
            memory_kib,
            passes,
            lanes,
        },
        salt,
    ))
}

fn wrapping_key(
    secret: &Secret,
    kdf: Option<(KdfCost, [u8; SALT_LEN])>,
    salt: &[u8; SALT_LEN],
) -> Result<ObjectKey> {
    let mut stretched = Zeroizing::new([0; 32]);
    match (secret, kdf) {
        (Secret::Passphrase(passphrase), Some((cost, kdf_salt))) => {
            let failed = |cause: argon2::Error| {
                Error::new(
                    ErrorKind::Internal,
                    format!("stretch the passphrase: {cause}"),
                )
            };
            let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32));
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(failed)?)
                .hash_password_into(passphrase.as_bytes(), &kdf_salt, &mut stretched[..])
                .map_err(failed)?;
        }
        (Secret::KeyFile(bytes), None) => {
            *stretched = blake3::derive_key(CONTEXT_KEY_FILE, bytes);
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Internal,
                "open a key slot of another kind",
            ));
        }
    }
    Ok(ObjectKey::derive(
        &stretched,
        Class::KeySlot,
        Cipher::Aes256Gcm,
        salt,
    ))
}

#[cfg(test)]
pub(crate) mod tests;
