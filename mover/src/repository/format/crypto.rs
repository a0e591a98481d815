//! Keys and ciphers: from the master key to the key of one object.
//!
//! ```text
//!   master ─┬─ data ── object key ── bodies of data segments
//!           ├─ meta ─┬ object key ── directories, bodies of everything else
//!           │        ├ page hashes
//!           │        └ MAC of the config
//!           └─ id ───┬ digests, volume ids
//!                    └ content hashes
//! ```
//!
//! Owns: derivation, the two ciphers, digests. Must not: know layouts or names. No key is derived from a name, a session or a
//! counter: every object has 32 random bytes of salt, and nonces are counters inside one object.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::class::Class;
use super::{MAX_CHUNK_LEN, SALT_LEN, TAG_LEN};
use crate::repository::ids::{Digest, RepositoryId, VolumeId, random};

const CONTEXT_DATA: &str = "snaphaul.dev repository v1: bodies of data segments";
const CONTEXT_META: &str = "snaphaul.dev repository v1: metadata";
const CONTEXT_ID: &str = "snaphaul.dev repository v1: digests";
const CONTEXT_PAGE: &str = "snaphaul.dev repository v1: map page hashes";
const CONTEXT_CONFIG: &str = "snaphaul.dev repository v1: config authentication";
const CONTEXT_CONTENT: &str = "snaphaul.dev repository v1: content hashes";

/// How objects are sealed, the byte at offset 11 of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// No encryption: 16-byte keyed BLAKE3 tags find damage, not forgery.
    None = 0,
    /// AES-256-GCM.
    Aes256Gcm = 1,
}

impl Cipher {
    /// The byte in headers and in the config.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The cipher of a byte, `None` where this version does not know it.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::None, Self::Aes256Gcm]
            .into_iter()
            .find(|cipher| cipher.byte() == byte)
    }
}

/// The 32 random bytes that every other key comes from.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A new random key.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    /// A known key: unwrapped from a slot, or the public salt of a repository without encryption.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to be wrapped in a key slot.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same key; takes as long whatever they are.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        blake3::hash(self.bytes()) == blake3::hash(other.bytes())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(redacted)")
    }
}

type Subkey = Zeroizing<[u8; 32]>;

/// All keys of one repository; shared by every thread.
pub struct Keys {
    repository: RepositoryId,
    cipher: Cipher,
    chunk_limit: u32,
    data: Subkey,
    meta: Subkey,
    id: Subkey,
    page: Subkey,
    config: Subkey,
    content: Subkey,
}

impl Keys {
    /// Derives the keys of `repository`.
    #[must_use]
    pub fn new(repository: RepositoryId, cipher: Cipher, master: &MasterKey) -> Self {
        let mut material = Zeroizing::new([0; 48]);
        material[..32].copy_from_slice(master.bytes());
        material[32..].copy_from_slice(&repository.0);
        let derive = |context, from: &[u8]| Zeroizing::new(blake3::derive_key(context, from));
        let meta = derive(CONTEXT_META, &material[..]);
        let id = derive(CONTEXT_ID, &material[..]);
        Self {
            repository,
            cipher,
            chunk_limit: MAX_CHUNK_LEN,
            data: derive(CONTEXT_DATA, &material[..]),
            page: derive(CONTEXT_PAGE, &meta[..]),
            config: derive(CONTEXT_CONFIG, &meta[..]),
            content: derive(CONTEXT_CONTENT, &id[..]),
            meta,
            id,
        }
    }

    /// Refuses data bodies whose raw length is above `chunk_size` bytes, the repository's constant.
    #[must_use]
    pub fn with_chunk_limit(mut self, chunk_size: u32) -> Self {
        self.chunk_limit = chunk_size.min(MAX_CHUNK_LEN);
        self
    }

    /// The repository these keys belong to.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The cipher of every object but config and key slots.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The largest raw body of `class` in bytes.
    pub(super) fn raw_limit(&self, class: Class) -> u32 {
        if class == Class::Data {
            self.chunk_limit
        } else {
            MAX_CHUNK_LEN
        }
    }

    /// The digest of a body's raw bytes, of a chunk above all.
    #[must_use]
    pub fn digest(&self, chunk: &[u8]) -> Digest {
        Digest(first_half(&blake3::keyed_hash(&self.id, chunk)))
    }

    /// The hash by which a map page is pointed at: first half over `content`, what its chunks hold wherever they are stored,
    /// second half over the raw bytes of the page.
    #[must_use]
    pub fn page_hash(&self, content: &[u8], page: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&first_half(&blake3::keyed_hash(&self.content, content)));
        hash[16..].copy_from_slice(&first_half(&blake3::keyed_hash(&self.page, page)));
        hash
    }

    /// The id of the volume called `name`.
    #[must_use]
    pub fn volume_id(&self, name: &str) -> VolumeId {
        VolumeId(first_half(&blake3::keyed_hash(&self.id, name.as_bytes())))
    }

    /// The hash over everything a point holds, given its size and the first half of its root page's hash.
    #[must_use]
    pub fn content_hash(&self, size: u64, chunk_size: u32, root: [u8; 16]) -> [u8; 32] {
        // Content forms of pages begin with their level, which is never 255.
        keyed_hash(
            &self.content,
            &[
                &[255],
                &size.to_le_bytes(),
                &chunk_size.to_le_bytes(),
                &root,
            ],
        )
        .into()
    }

    /// All subkeys in hex, for the test vectors of the specification.
    #[cfg(test)]
    pub(super) fn subkeys(&self) -> Vec<(&'static str, String)> {
        let hex = |key: &Subkey| crate::repository::ids::to_hex(&key[..]);
        vec![
            ("K_data", hex(&self.data)),
            ("K_meta", hex(&self.meta)),
            ("K_id", hex(&self.id)),
            ("K_page", hex(&self.page)),
            ("K_config", hex(&self.config)),
            ("K_content", hex(&self.content)),
        ]
    }

    /// Authenticates the config.
    pub(super) fn config_mac(&self, parts: &[&[u8]]) -> blake3::Hash {
        keyed_hash(&self.config, parts)
    }

    /// The key of the bodies of one object.
    pub(super) fn body_key(&self, class: Class, salt: &[u8; SALT_LEN]) -> ObjectKey {
        let subkey = if class == Class::Data {
            &self.data
        } else {
            &self.meta
        };
        ObjectKey::derive(subkey, class, self.cipher, salt)
    }

    /// The key of the directory of one object.
    pub(super) fn directory_key(&self, class: Class, salt: &[u8; SALT_LEN]) -> ObjectKey {
        ObjectKey::derive(&self.meta, class, self.cipher, salt)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("repository", &self.repository)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// The tag of a sealed region does not fit its bytes, key, nonce or additional data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagMismatch;

/// The key of one object's bodies or directory, expanded once.
pub(super) enum ObjectKey {
    Aes(Box<LessSafeKey>),
    Checksum(Subkey),
}

impl ObjectKey {
    /// `BLAKE3-keyed(subkey, class ‖ cipher ‖ salt)`.
    pub(super) fn derive(
        subkey: &[u8; 32],
        class: Class,
        cipher: Cipher,
        salt: &[u8; SALT_LEN],
    ) -> Self {
        let hash = keyed_hash(subkey, &[&[class.byte(), cipher.byte()], salt]);
        match cipher {
            Cipher::None => Self::Checksum(Zeroizing::new(*hash.as_bytes())),
            Cipher::Aes256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, hash.as_bytes())
                    .expect("a BLAKE3 hash has the length of an AES-256 key");
                Self::Aes(Box::new(LessSafeKey::new(key)))
            }
        }
    }

    /// Encrypts in place and gives the tag.
    pub(super) fn seal(&self, nonce: [u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        match self {
            Self::Aes(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), in_out)
                    .expect("bodies are far below the 64 GiB that GCM can seal");
                let mut tag = [0; TAG_LEN];
                tag.copy_from_slice(sealed.as_ref());
                tag
            }
            Self::Checksum(key) => first_half(&keyed_hash(key, &[aad, in_out])),
        }
    }

    /// Encrypts `plain` into `out` of the same length and gives the tag: one pass over memory, where copying first would be two.
    pub(super) fn seal_into(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> [u8; TAG_LEN] {
        match self {
            Self::Aes(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let mut tag = [0; TAG_LEN];
                key.seal_out_of_place_scatter(nonce, Aad::from(aad), plain, out, &[], &mut tag)
                    .expect("equal lengths far below the 64 GiB that GCM can seal");
                tag
            }
            Self::Checksum(_) => {
                out.copy_from_slice(plain);
                self.seal(nonce, aad, out)
            }
        }
    }

    /// Checks the tag and decrypts `sealed` into `out` of the same length.
    pub(super) fn open(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        tag: &[u8; TAG_LEN],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), TagMismatch> {
        match self {
            Self::Aes(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_separate_gather(nonce, Aad::from(aad), sealed, tag, out)
                    .map_err(|_| TagMismatch)
            }
            Self::Checksum(key) if sealed.len() == out.len() => {
                if first_half(&keyed_hash(key, &[aad, sealed])) != *tag {
                    return Err(TagMismatch);
                }
                out.copy_from_slice(sealed);
                Ok(())
            }
            Self::Checksum(_) => Err(TagMismatch),
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectKey(redacted)")
    }
}

/// Keyed BLAKE3 over the concatenation of `parts`; on this thread, whatever the length.
pub(super) fn keyed_hash(key: &[u8; 32], parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

fn first_half(hash: &blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}
