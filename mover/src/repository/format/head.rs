//! From the first bytes of an object to its directory.
//!
//! Owns: the order of checks on the way in: seal, class, cipher, tag, columns, padding. Must not: do I/O.

use super::binding::{DIRECTORY_NONCE, directory_aad};
use super::class::Class;
use super::crypto::Keys;
use super::directory::{self, Directory};
use super::header::{self, Front, Header, Sealed};
use super::{TAG_LEN, fault};
use crate::error::Result;
use crate::repository::ids::SegmentId;

/// First read of a segment: holds the directory of 750 bodies, more than a segment of half-compressible chunks has.
pub const HEAD_LEN: u64 = 32 * 1024;

/// Outcome of parsing the first bytes of an object.
#[derive(Debug)]
pub enum Head {
    /// The directory is whole and authentic.
    Ready(Directory),
    /// The first so many bytes of the object are needed. An object that has fewer is truncated: [`fault::truncated`].
    NeedMore(u64),
}

/// Opens the directory of object `name`, given at least its first bytes.
///
/// `id` is the segment that the bodies are bound to; for what is no segment, the session and 0.
///
/// # Errors
/// `Corrupt` for damage, another class, another name, another key or forgery; `NewerFormat` for what this version does not know.
pub fn parse_head(
    keys: &Keys,
    class: Class,
    id: SegmentId,
    name: &str,
    bytes: &[u8],
) -> Result<Head> {
    let sealed = match header::parse(class, name, bytes)? {
        Front::NeedMore(len) => return Ok(Head::NeedMore(len)),
        Front::Ready(sealed) => sealed,
    };
    let header = sealed.header;
    let bodies_offset = u64::from(header.bodies_offset);
    let front_end = usize::try_from(header.sealed_end()).unwrap_or(usize::MAX);
    let Some(padding) = usize::try_from(bodies_offset)
        .ok()
        .and_then(|end| bytes.get(front_end..end))
    else {
        return Ok(Head::NeedMore(bodies_offset));
    };
    if padding.iter().any(|byte| *byte != 0) {
        return Err(fault::damaged(
            name,
            "bytes between directory and bodies are not zero",
        ));
    }
    open_directory(keys, id, name, &sealed).map(Head::Ready)
}

/// Opens the directory of a whole object, whose length must be what its header says.
///
/// # Errors
/// As [`parse_head`], and `Corrupt` for a truncated or lengthened object.
pub fn parse_object(
    keys: &Keys,
    class: Class,
    id: SegmentId,
    name: &str,
    object: &[u8],
) -> Result<Directory> {
    let directory = match parse_head(keys, class, id, name, object)? {
        Head::NeedMore(need) => return Err(fault::truncated(name, object.len() as u64, need)),
        Head::Ready(directory) => directory,
    };
    check_object_len(name, object.len() as u64, directory.object_len)?;
    Ok(directory)
}

/// Compares the length of an object with what its header says.
pub(super) fn check_object_len(name: &str, have: u64, want: u64) -> Result<()> {
    if have < want {
        return Err(fault::truncated(name, have, want));
    }
    if have > want {
        return Err(fault::damaged(
            name,
            format!("{} bytes follow its end", have - want),
        ));
    }
    Ok(())
}

fn open_directory(
    keys: &Keys,
    id: SegmentId,
    name: &str,
    sealed: &Sealed<'_>,
) -> Result<Directory> {
    let header = sealed.header;
    if header.cipher != keys.cipher() {
        return Err(fault::swapped(name, "its cipher is not the repository's"));
    }
    let cbor = decrypt(keys, name, sealed)?;
    let limit = keys.raw_limit(header.class);
    let contents = directory::decode(name, &header, limit, &cbor)?;
    let body_salt = contents.body_salt.unwrap_or(header.salt);
    Ok(Directory {
        object: name.to_owned(),
        class: header.class,
        id,
        object_len: header.object_len,
        entries: contents.entries,
        body_salt,
        body_key: keys.body_key(header.class, &body_salt),
    })
}

fn decrypt(keys: &Keys, name: &str, sealed: &Sealed<'_>) -> Result<Vec<u8>> {
    let Header { class, salt, .. } = sealed.header;
    let Some((region, tag)) = sealed.region.split_last_chunk::<TAG_LEN>() else {
        return Err(fault::damaged(name, "its directory is shorter than a tag"));
    };
    let aad = directory_aad(keys.repository(), name, sealed.header_bytes);
    let mut cbor = vec![0; region.len()];
    keys.directory_key(class, &salt)
        .open(DIRECTORY_NONCE, &aad, tag, region, &mut cbor)
        .map_err(|_| fault::swapped(name, "intact, but not written under this name and key"))?;
    Ok(cbor)
}
