//! The directory of an object: where each body is and what its bytes must be.
//!
//! Owns: entries and their column form in CBOR. Must not: encrypt or do I/O. Columns instead of records, because they are read
//! without a parser per entry and cost no names.

use minicbor::decode::Decoder as Cbor;
use minicbor::encode::{Encoder as CborWriter, Error as CborError};

use super::class::Class;
use super::codec::Codec;
use super::crypto::ObjectKey;
use super::header::Header;
use super::{MAX_BODIES, SALT_LEN, TAG_LEN, fault};
use crate::error::{Error, Result};
use crate::repository::ids::{Digest, SegmentId};

/// Bytes of a key column's cell: 2⁴⁰ chunks of 64 KiB are 64 PiB.
const KEY_LEN: usize = 5;
/// Bytes of a length column's cell: above the largest body.
const LENGTH_LEN: usize = 3;

/// Column numbers, the keys of the CBOR map.
mod column {
    pub(super) const COUNT: u8 = 0;
    pub(super) const KEYS: u8 = 1;
    pub(super) const STORED: u8 = 2;
    pub(super) const CODECS: u8 = 3;
    pub(super) const DIGESTS: u8 = 4;
    pub(super) const TAGS: u8 = 5;
    pub(super) const RAW: u8 = 6;
    pub(super) const RAWS: u8 = 7;
    pub(super) const ORDINALS: u8 = 8;
    pub(super) const BODY_SALT: u8 = 9;
    pub(super) const PADDING: u8 = 10;
}

/// One body of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyEntry {
    /// Number of the body; kept by compaction.
    pub ordinal: u16,
    /// Chunk number, first chunk of a map page, or piece number of a record; below 2⁴⁰.
    pub key: u64,
    /// Where the stored bytes begin in the object.
    pub offset: u64,
    /// Stored length in bytes, without the tag.
    pub stored_len: u32,
    /// Length in bytes before compression.
    pub raw_len: u32,
    /// How it is compressed.
    pub codec: Codec,
    /// Digest of the raw bytes.
    pub digest: Digest,
    /// Tag of the stored bytes.
    pub tag: [u8; TAG_LEN],
}

/// All bodies of one object, and the key that opens them.
#[derive(Debug)]
pub struct Directory {
    pub(super) object: String,
    pub(super) class: Class,
    pub(super) id: SegmentId,
    pub(super) object_len: u64,
    pub(super) entries: Vec<BodyEntry>,
    pub(super) body_salt: [u8; SALT_LEN],
    pub(super) body_key: ObjectKey,
}

impl Directory {
    /// All entries; ordinals and offsets ascend.
    #[must_use]
    pub fn entries(&self) -> &[BodyEntry] {
        &self.entries
    }

    /// The body with this ordinal, `None` where it never was or compaction dropped it.
    #[must_use]
    pub fn entry(&self, ordinal: u16) -> Option<&BodyEntry> {
        let dense = self
            .entries
            .get(usize::from(ordinal))
            .filter(|e| e.ordinal == ordinal);
        dense.or_else(|| {
            let found = self
                .entries
                .binary_search_by_key(&ordinal, |entry| entry.ordinal);
            found.ok().map(|index| &self.entries[index])
        })
    }

    /// Length of the whole object in bytes.
    #[must_use]
    pub fn object_len(&self) -> u64 {
        self.object_len
    }

    /// Name of the object, as it was read.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The class of the object.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// The segment, or the session and 0 for what is no segment.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Bytes of memory it takes, for caches.
    #[must_use]
    pub fn memory(&self) -> usize {
        // The expanded cipher key lives on the C side; aws-lc keeps about half a KiB for it.
        const CIPHER_CONTEXT: usize = 1024;
        size_of::<Self>()
            + self.object.capacity()
            + self.entries.capacity() * size_of::<BodyEntry>()
            + CIPHER_CONTEXT
    }
}

/// What a directory says beside its entries.
pub(super) struct Contents {
    pub(super) entries: Vec<BodyEntry>,
    /// Salt of the bodies where it is not the header's: they were copied by compaction.
    pub(super) body_salt: Option<[u8; SALT_LEN]>,
}

/// Most bytes that `encode` gives for `bodies` bodies without padding.
pub(super) fn max_encoded_len(bodies: usize) -> usize {
    const ROW: usize = KEY_LEN + LENGTH_LEN * 2 + 1 + 16 + TAG_LEN + 2;
    // Eleven columns with at most 6 bytes of CBOR each, and the salt.
    bodies * ROW + 11 * 6 + SALT_LEN
}

/// Writes the columns; `padding` zero bytes make a small object longer.
pub(super) fn encode(
    entries: &[BodyEntry],
    body_salt: Option<&[u8; SALT_LEN]>,
    padding: usize,
) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(max_encoded_len(entries.len()) + padding);
    encode_into(&mut out, entries, body_salt, padding).map_err(|cause| {
        Error::new(crate::ErrorKind::Internal, "encode a directory").source(cause)
    })?;
    Ok(out)
}

fn encode_into(
    out: &mut Vec<u8>,
    entries: &[BodyEntry],
    body_salt: Option<&[u8; SALT_LEN]>,
    padding: usize,
) -> Result<(), CborError<std::convert::Infallible>> {
    let raw = common_raw_len(entries);
    let dense = is_dense(entries);
    let optional = [!dense, body_salt.is_some(), padding > 0];
    let fields = 7 + optional.into_iter().map(u64::from).sum::<u64>();
    let column = |cell: &dyn Fn(&BodyEntry, &mut Vec<u8>)| {
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| cell(entry, &mut bytes));
        bytes
    };
    let mut cbor = CborWriter::new(out);
    cbor.map(fields)?;
    cbor.u8(column::COUNT)?.u64(entries.len() as u64)?;
    cbor.u8(column::KEYS)?.bytes(&column(&|e, out| {
        out.extend_from_slice(&e.key.to_le_bytes()[..KEY_LEN]);
    }))?;
    cbor.u8(column::STORED)?
        .bytes(&column(&|e, out| length_cell(e.stored_len, out)))?;
    cbor.u8(column::CODECS)?
        .bytes(&column(&|e, out| out.push(e.codec.byte())))?;
    cbor.u8(column::DIGESTS)?
        .bytes(&column(&|e, out| out.extend_from_slice(&e.digest.0)))?;
    cbor.u8(column::TAGS)?
        .bytes(&column(&|e, out| out.extend_from_slice(&e.tag)))?;
    match raw {
        Some(raw) => cbor.u8(column::RAW)?.u32(raw)?,
        None => cbor
            .u8(column::RAWS)?
            .bytes(&column(&|e, out| length_cell(e.raw_len, out)))?,
    };
    if !dense {
        let ordinals = column(&|e, out| out.extend_from_slice(&e.ordinal.to_le_bytes()));
        cbor.u8(column::ORDINALS)?.bytes(&ordinals)?;
    }
    if let Some(salt) = body_salt {
        cbor.u8(column::BODY_SALT)?.bytes(salt)?;
    }
    if padding > 0 {
        cbor.u8(column::PADDING)?.bytes(&vec![0; padding])?;
    }
    Ok(())
}

fn length_cell(len: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&len.to_le_bytes()[..LENGTH_LEN]);
}

/// The raw length of every body, where they agree; 0 for none at all.
fn common_raw_len(entries: &[BodyEntry]) -> Option<u32> {
    let first = entries.first().map_or(0, |entry| entry.raw_len);
    entries
        .iter()
        .all(|entry| entry.raw_len == first)
        .then_some(first)
}

fn is_dense(entries: &[BodyEntry]) -> bool {
    entries
        .iter()
        .enumerate()
        .all(|(index, entry)| usize::from(entry.ordinal) == index)
}

/// Reads and checks the columns of the object under `header`. `raw_limit` is the largest raw body in bytes.
pub(super) fn decode(
    object: &str,
    header: &Header,
    raw_limit: u32,
    cbor: &[u8],
) -> Result<Contents> {
    let damaged = |what: &str| fault::damaged(object, format!("its directory {what}"));
    let columns = Columns::read(cbor).map_err(|_| damaged("is not what the format allows"))?;
    let entries = columns.entries(header, raw_limit).map_err(damaged)?;
    let body_salt = match columns.body_salt {
        Some(salt) => Some(
            salt.try_into()
                .map_err(|_| damaged("has a salt of a wrong length"))?,
        ),
        None => None,
    };
    Ok(Contents { entries, body_salt })
}

#[derive(Default)]
struct Columns<'a> {
    count: usize,
    keys: &'a [u8],
    stored: &'a [u8],
    codecs: &'a [u8],
    digests: &'a [u8],
    tags: &'a [u8],
    raw: Option<u32>,
    raws: Option<&'a [u8]>,
    ordinals: Option<&'a [u8]>,
    body_salt: Option<&'a [u8]>,
}

impl<'a> Columns<'a> {
    /// Collects the columns; unknown ones are skipped, since whatever must be understood comes with a feature bit.
    fn read(cbor: &'a [u8]) -> Result<Self, minicbor::decode::Error> {
        let malformed = minicbor::decode::Error::message;
        let mut reader = Cbor::new(cbor);
        let fields = reader
            .map()?
            .ok_or_else(|| malformed("indefinite length"))?;
        let mut columns = Self::default();
        let mut previous = None;
        for _ in 0..fields {
            let key = reader.u64()?;
            if previous.is_some_and(|previous| previous >= key) {
                return Err(malformed("columns out of order"));
            }
            previous = Some(key);
            match u8::try_from(key) {
                Ok(column::COUNT) => {
                    columns.count = usize::try_from(reader.u64()?)
                        .ok()
                        .filter(|count| *count <= MAX_BODIES)
                        .ok_or_else(|| malformed("too many bodies"))?;
                }
                Ok(column::KEYS) => columns.keys = reader.bytes()?,
                Ok(column::STORED) => columns.stored = reader.bytes()?,
                Ok(column::CODECS) => columns.codecs = reader.bytes()?,
                Ok(column::DIGESTS) => columns.digests = reader.bytes()?,
                Ok(column::TAGS) => columns.tags = reader.bytes()?,
                Ok(column::RAW) => columns.raw = Some(reader.u32()?),
                Ok(column::RAWS) => columns.raws = Some(reader.bytes()?),
                Ok(column::ORDINALS) => columns.ordinals = Some(reader.bytes()?),
                Ok(column::BODY_SALT) => columns.body_salt = Some(reader.bytes()?),
                _ => reader.skip()?,
            }
        }
        if reader.position() == cbor.len() {
            Ok(columns)
        } else {
            Err(malformed("bytes behind it"))
        }
    }

    fn entries(&self, header: &Header, raw_limit: u32) -> Result<Vec<BodyEntry>, &'static str> {
        let keys = cells::<KEY_LEN>(self.keys, self.count)?;
        let stored = cells::<LENGTH_LEN>(self.stored, self.count)?;
        let codecs = cells::<1>(self.codecs, self.count)?;
        let digests = cells::<16>(self.digests, self.count)?;
        let tags = cells::<TAG_LEN>(self.tags, self.count)?;
        let raws = self
            .raws
            .map(|raws| cells::<LENGTH_LEN>(raws, self.count))
            .transpose()?;
        let ordinals = self
            .ordinals
            .map(|column| cells::<2>(column, self.count))
            .transpose()?;
        if self.raw.is_some() == raws.is_some() {
            return Err("does not say the raw length exactly once");
        }
        let mut entries = Vec::with_capacity(self.count);
        let mut offset = u64::from(header.bodies_offset);
        let mut next_ordinal = 0_usize;
        for row in 0..self.count {
            let ordinal = ordinals.map_or(row, |column| u16::from_le_bytes(column[row]).into());
            if ordinal < next_ordinal {
                return Err("has ordinals out of order");
            }
            next_ordinal = ordinal + 1;
            let entry = BodyEntry {
                ordinal: u16::try_from(ordinal).map_err(|_| "has an ordinal above 16 bits")?,
                key: little_endian(&keys[row]),
                offset,
                stored_len: length(&stored[row]),
                raw_len: raws.map_or(self.raw.unwrap_or(0), |raws| length(&raws[row])),
                codec: Codec::from_byte(codecs[row][0]).ok_or("names an unknown codec")?,
                digest: Digest(digests[row]),
                tag: tags[row],
            };
            check_lengths(&entry, raw_limit)?;
            offset += u64::from(entry.stored_len);
            entries.push(entry);
        }
        if offset == header.object_len {
            Ok(entries)
        } else {
            Err("does not fill the object")
        }
    }
}

/// Raw bodies are stored at their own length and compressed ones below it: that is when they are compressed at all.
fn check_lengths(entry: &BodyEntry, raw_limit: u32) -> Result<(), &'static str> {
    let stored_fits = match entry.codec {
        Codec::Raw => entry.stored_len == entry.raw_len,
        Codec::Lz4 | Codec::Zstd => entry.stored_len < entry.raw_len,
    };
    if entry.raw_len == 0 || entry.raw_len > raw_limit {
        return Err("has a raw length that is not allowed");
    }
    if stored_fits {
        Ok(())
    } else {
        Err("has a stored length that its codec does not give")
    }
}

fn cells<const N: usize>(column: &[u8], count: usize) -> Result<&[[u8; N]], &'static str> {
    match column.as_chunks::<N>() {
        (cells, []) if cells.len() == count => Ok(cells),
        _ => Err("has a column of a wrong length"),
    }
}

fn little_endian(cell: &[u8]) -> u64 {
    cell.iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn length(cell: &[u8; LENGTH_LEN]) -> u32 {
    u32::from_le_bytes([cell[0], cell[1], cell[2], 0])
}

#[cfg(test)]
mod tests;
