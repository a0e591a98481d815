//! The clear header in front of every object, and the seal that finds damage without a key.
//!
//! ```text
//!   0  magic "SNAPHAUL"        12  sealed length u32         28  zero (4)
//!   8  version u16             16  object length u64         32  salt (32)
//!   10 class u8  11 cipher u8  24  bodies offset u32         64  sealed region, then its seal (32)
//! ```
//!
//! Owns: these 64 bytes and the seal. Must not: decrypt. Everything is little endian.

use super::class::Class;
use super::crypto::Cipher;
use super::{SALT_LEN, VERSION, fault};
use crate::error::Result;

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Bytes of the seal: an unkeyed BLAKE3 over header and sealed region.
pub const SEAL_LEN: usize = 32;
/// First bytes of every object.
pub const MAGIC: [u8; 8] = *b"SNAPHAUL";
/// Alignment of bodies in padded classes: the largest logical block size in use, for direct I/O.
pub const PAGE_LEN: u64 = 4096;
/// Longest sealed region: a directory of 4,096 bodies with every column is below 190 KiB.
pub const MAX_SEALED_LEN: u32 = 256 << 10;

/// A parsed header whose seal was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub class: Class,
    /// How its regions are sealed.
    pub cipher: Cipher,
    /// Bytes of the sealed region, tag included.
    pub sealed_len: u32,
    /// Bytes of the whole object.
    pub object_len: u64,
    /// Where the first body begins.
    pub bodies_offset: u32,
    /// Random bytes that the object's keys come from.
    pub salt: [u8; SALT_LEN],
}

impl Header {
    /// Lays an object out: `sealed_len` bytes of sealed region, then `bodies_len` bytes of bodies.
    #[must_use]
    pub fn plan(
        class: Class,
        cipher: Cipher,
        sealed_len: u32,
        bodies_len: u64,
        salt: [u8; SALT_LEN],
    ) -> Self {
        let bodies_offset = bodies_offset(class, sealed_len);
        let object_len = u64::from(bodies_offset) + bodies_len;
        Self {
            class,
            cipher,
            sealed_len,
            object_len,
            bodies_offset,
            salt,
        }
    }

    /// The 64 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = self.class.byte();
        bytes[11] = self.cipher.byte();
        bytes[12..16].copy_from_slice(&self.sealed_len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.object_len.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.bodies_offset.to_le_bytes());
        bytes[32..].copy_from_slice(&self.salt);
        bytes
    }

    /// Where the seal ends: the bytes that must be there before anything can be believed.
    #[must_use]
    pub fn sealed_end(&self) -> u64 {
        sealed_end(self.sealed_len)
    }
}

/// Where header, sealed region and seal end.
fn sealed_end(sealed_len: u32) -> u64 {
    HEADER_LEN as u64 + u64::from(sealed_len) + SEAL_LEN as u64
}

fn bodies_offset(class: Class, sealed_len: u32) -> u32 {
    let mut offset = sealed_end(sealed_len);
    if class.is_padded() {
        offset = offset.next_multiple_of(PAGE_LEN);
    }
    u32::try_from(offset).expect("sealed regions are at most 256 KiB")
}

/// The seal of a header and its sealed region.
#[must_use]
pub fn seal(header: &[u8; HEADER_LEN], sealed: &[u8]) -> [u8; SEAL_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    hasher.update(sealed);
    hasher.finalize().into()
}

/// A header, the bytes it was read from, and its sealed region.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// The parsed header.
    pub header: Header,
    /// The same, as stored.
    pub header_bytes: &'a [u8; HEADER_LEN],
    /// The sealed region.
    pub region: &'a [u8],
}

/// Outcome of parsing the front of an object.
#[derive(Clone, Copy, Debug)]
pub enum Front<'a> {
    /// Header and sealed region are there and undamaged.
    Ready(Sealed<'a>),
    /// The first so many bytes of the object are needed.
    NeedMore(u64),
}

/// Checks the front of an object that should be of class `expected`: magic, seal, version, class, layout.
///
/// # Errors
/// `Corrupt` for damage or another class, `NewerFormat` for an intact object that this version does not know.
pub fn parse<'a>(expected: Class, object: &str, bytes: &'a [u8]) -> Result<Front<'a>> {
    let Some(header_bytes) = bytes.first_chunk::<HEADER_LEN>() else {
        return Ok(Front::NeedMore(HEADER_LEN as u64));
    };
    if header_bytes[..8] != MAGIC {
        return Err(fault::damaged(
            object,
            "it does not begin as an object of a repository",
        ));
    }
    let sealed_len = u32::from_le_bytes(array(header_bytes, 12));
    if sealed_len > MAX_SEALED_LEN {
        return Err(fault::damaged(
            object,
            format!("its directory claims {sealed_len} bytes"),
        ));
    }
    let end = sealed_end(sealed_len);
    let Some(front) = usize::try_from(end).ok().and_then(|end| bytes.get(..end)) else {
        return Ok(Front::NeedMore(end));
    };
    let (region, stored_seal) = front[HEADER_LEN..].split_at(front.len() - HEADER_LEN - SEAL_LEN);
    if seal(header_bytes, region) != stored_seal {
        return Err(fault::damaged(
            object,
            "its seal does not fit header and directory",
        ));
    }
    let header = interpret(expected, object, header_bytes, sealed_len)?;
    Ok(Front::Ready(Sealed {
        header,
        header_bytes,
        region,
    }))
}

/// Whether an object of any class and version has the front and the length that it was stored with. Says nothing of bodies, nor of who stored
/// it: the seal has no key.
#[must_use]
pub fn is_whole(object: &[u8]) -> bool {
    let Some(header) = object.first_chunk::<HEADER_LEN>() else {
        return false;
    };
    let sealed_len = u32::from_le_bytes(array(header, 12));
    if header[..8] != MAGIC || sealed_len > MAX_SEALED_LEN {
        return false;
    }
    let end = usize::try_from(sealed_end(sealed_len)).ok();
    let Some(front) = end.and_then(|end| object.get(..end)) else {
        return false;
    };
    let (region, stored_seal) = front[HEADER_LEN..].split_at(front.len() - HEADER_LEN - SEAL_LEN);
    seal(header, region) == stored_seal
        && u64::from_le_bytes(array(header, 16)) == object.len() as u64
}

/// Reads the fields of a header whose seal was right: what is unknown now was written by a newer version.
fn interpret(
    expected: Class,
    object: &str,
    bytes: &[u8; HEADER_LEN],
    sealed_len: u32,
) -> Result<Header> {
    let version = u16::from_le_bytes(array(bytes, 8));
    if version != VERSION {
        return Err(fault::newer(
            object,
            format!("version {version} of the object layout"),
        ));
    }
    let class = Class::from_byte(bytes[10])
        .ok_or_else(|| fault::newer(object, format!("object class {}", bytes[10])))?;
    let cipher = Cipher::from_byte(bytes[11])
        .ok_or_else(|| fault::newer(object, format!("cipher {}", bytes[11])))?;
    if class != expected {
        return Err(fault::swapped(
            object,
            format!("found a {class} instead of a {expected}"),
        ));
    }
    let header = Header {
        class,
        cipher,
        sealed_len,
        object_len: u64::from_le_bytes(array(bytes, 16)),
        bodies_offset: u32::from_le_bytes(array(bytes, 24)),
        salt: array(bytes, 32),
    };
    let layout_is_ours = header.bodies_offset == bodies_offset(class, sealed_len)
        && header.object_len >= u64::from(header.bodies_offset)
        && bytes[28..32] == [0; 4];
    if !layout_is_ours {
        return Err(fault::damaged(object, "its header contradicts itself"));
    }
    Ok(header)
}

/// `N` bytes at `at` of a header.
fn array<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}
