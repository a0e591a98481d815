//! Small objects that are read whole: one record, cut into pieces where it is long.
//!
//! Owns: the cutting. Must not: know what records mean.

use std::sync::Arc;

use bytes::Bytes;

use super::builder::ContainerBuilder;
use super::class::Class;
use super::codec::{Compression, Encoder};
use super::crypto::Keys;
use super::decoder::Decoder;
use super::head::parse_object;
use super::pool::BufferPool;
use super::{MAX_CHUNK_LEN, MAX_RECORD_LEN, SALT_LEN, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::{SegmentId, random};

/// Longest raw piece of a record.
const PIECE_LEN: usize = MAX_CHUNK_LEN as usize;
/// Longest minimum: lengths tell manifests and abort markers apart at a few hundred bytes.
const MAX_PADDING_LEN: usize = 2048;

/// Seals `record` as the object `name`, at least `min_object_len` bytes long.
///
/// `id` is the session that writes it, with number 0; `min_object_len` is at most 2,048. Pieces are compressed with LZ4 where that helps.
///
/// # Errors
/// `Internal` for a record above 64 MiB or a greater minimum.
pub fn seal_record(
    keys: &Arc<Keys>,
    class: Class,
    id: SegmentId,
    name: &str,
    record: &[u8],
    min_object_len: usize,
) -> Result<Bytes> {
    seal_salted(keys, (class, id, name), record, min_object_len, random())
}

/// As [`seal_record`], with a salt that must never be used again.
pub(super) fn seal_salted(
    keys: &Arc<Keys>,
    (class, id, name): (Class, SegmentId, &str),
    record: &[u8],
    min_object_len: usize,
    salt: [u8; SALT_LEN],
) -> Result<Bytes> {
    if record.len() > MAX_RECORD_LEN || min_object_len > MAX_PADDING_LEN {
        let message = format!("write a {class} of {} bytes", record.len());
        return Err(Error::new(ErrorKind::Internal, message).object(name));
    }
    let pieces = record.len().div_ceil(PIECE_LEN);
    let pool = BufferPool::new(ContainerBuilder::buffer_len(record.len(), pieces), 0);
    let mut builder = ContainerBuilder::salted(Arc::clone(keys), class, id, pieces, (&pool, salt));
    let mut encoder = Encoder::new(Compression::Lz4)?;
    for (number, piece) in record.chunks(PIECE_LEN).enumerate() {
        let raw_len = u32::try_from(piece.len()).expect("a piece is at most 1 MiB");
        let (codec, stored) = encoder.encode(piece);
        builder.append(number as u64, raw_len, keys.digest(piece), codec, stored)?;
    }
    builder.pad_to(min_object_len);
    builder.finish(name)
}

/// Opens the object `name` and gives its record.
///
/// # Errors
/// As [`parse_object`], and `Corrupt` for pieces that are damaged, out of order, or above 64 MiB together.
pub fn open_record(
    keys: &Keys,
    class: Class,
    id: SegmentId,
    name: &str,
    object: &[u8],
) -> Result<Vec<u8>> {
    let directory = parse_object(keys, class, id, name, object)?;
    let entries = directory.entries();
    let in_order = entries
        .iter()
        .enumerate()
        .all(|(index, entry)| usize::from(entry.ordinal) == index && entry.key == index as u64);
    if !in_order {
        return Err(fault::damaged(name, "its pieces are out of order"));
    }
    let total: usize = entries.iter().map(|entry| entry.raw_len as usize).sum();
    if total > MAX_RECORD_LEN {
        return Err(fault::damaged(
            name,
            format!("its record claims {total} bytes"),
        ));
    }
    let mut record = vec![0; total];
    let mut rest = &mut record[..];
    let mut decoder = Decoder::new();
    for entry in entries {
        let (piece, behind) = rest.split_at_mut(entry.raw_len as usize);
        rest = behind;
        let at = usize::try_from(entry.offset)
            .map_err(|_| fault::damaged(name, "a piece lies beyond memory"))?;
        let stored = &object[at..at + entry.stored_len as usize];
        decoder.decode(keys, &directory, entry, stored, piece)?;
    }
    Ok(record)
}

#[cfg(test)]
mod tests;
