//! Clear records: config and key slots, which are read before any key is known.
//!
//! ```text
//!   header (64) │ CBOR [ payload, proof ] │ seal (32)
//! ```
//!
//! Owns: the frame. Must not: know payloads. The seal finds damage without a key; the proof (a MAC, or a wrapped key) covers header and
//! payload and needs one.

use bytes::Bytes;
use minicbor::decode::Decoder as Cbor;
use minicbor::encode::Encoder as CborWriter;

use super::class::Class;
use super::crypto::Cipher;
use super::head::check_object_len;
use super::header::{self, Front, HEADER_LEN, Header};
use super::{SALT_LEN, fault};
use crate::error::{Error, ErrorKind, Result};

/// A clear record that was not damaged. Whether it is authentic is for its owner to say.
#[derive(Clone, Debug)]
pub(super) struct ClearRecord {
    pub(super) header: [u8; HEADER_LEN],
    pub(super) salt: [u8; SALT_LEN],
    pub(super) payload: Vec<u8>,
    pub(super) proof: Vec<u8>,
}

/// Frames `payload`. `prove` gets the header and gives `proof_len` bytes.
pub(super) fn seal_clear(
    class: Class,
    salt: [u8; SALT_LEN],
    payload: &[u8],
    proof_len: usize,
    prove: impl FnOnce(&[u8; HEADER_LEN]) -> Vec<u8>,
) -> Result<Bytes> {
    let unproven = region(payload, &vec![0; proof_len])?;
    let region_len = u32::try_from(unproven.len()).map_err(|_| too_long(class))?;
    if region_len > header::MAX_SEALED_LEN {
        return Err(too_long(class));
    }
    let header = Header::plan(class, Cipher::None, region_len, 0, salt).encode();
    let region = region(payload, &prove(&header))?;
    let seal = header::seal(&header, &region);
    Ok([&header[..], &region, &seal].concat().into())
}

fn region(payload: &[u8], proof: &[u8]) -> Result<Vec<u8>> {
    let mut region = Vec::with_capacity(payload.len() + proof.len() + 16);
    CborWriter::new(&mut region)
        .array(2)
        .and_then(|cbor| cbor.bytes(payload))
        .and_then(|cbor| cbor.bytes(proof))
        .map_err(|cause| Error::new(ErrorKind::Internal, "encode a clear record").source(cause))?;
    Ok(region)
}

fn too_long(class: Class) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("write a {class} of that length"),
    )
}

/// Opens the frame of the whole object `name`.
pub(super) fn parse_clear(
    class: Class,
    name: &str,
    object: &[u8],
    proof_len: usize,
) -> Result<ClearRecord> {
    let sealed = match header::parse(class, name, object)? {
        Front::NeedMore(need) => return Err(fault::truncated(name, object.len() as u64, need)),
        Front::Ready(sealed) => sealed,
    };
    check_object_len(name, object.len() as u64, sealed.header.object_len)?;
    let header_is_clear = sealed.header.cipher == Cipher::None
        && sealed.header.object_len == u64::from(sealed.header.bodies_offset);
    let (payload, proof) = frame(sealed.region)
        .ok()
        .filter(|(_, proof)| proof.len() == proof_len && header_is_clear)
        .ok_or_else(|| fault::damaged(name, format!("it is not framed as a {class}")))?;
    Ok(ClearRecord {
        header: *sealed.header_bytes,
        salt: sealed.header.salt,
        payload: payload.to_vec(),
        proof: proof.to_vec(),
    })
}

fn frame(region: &[u8]) -> Result<(&[u8], &[u8]), minicbor::decode::Error> {
    let mut cbor = Cbor::new(region);
    if cbor.array()? != Some(2) {
        return Err(minicbor::decode::Error::message("not a pair"));
    }
    let pair = (cbor.bytes()?, cbor.bytes()?);
    if cbor.position() == region.len() {
        Ok(pair)
    } else {
        Err(minicbor::decode::Error::message("bytes behind it"))
    }
}

/// Decodes a whole payload.
pub(super) fn decode_payload<'a, T: minicbor::Decode<'a, ()>>(
    name: &str,
    payload: &'a [u8],
) -> Result<T> {
    let mut cbor = Cbor::new(payload);
    let decoded = cbor.decode::<T>();
    let value = decoded.map_err(|cause| {
        fault::damaged(name, "its record is not what the format allows").source(cause)
    })?;
    if cbor.position() == payload.len() {
        Ok(value)
    } else {
        Err(fault::damaged(name, "bytes follow its record"))
    }
}

/// Encodes a payload.
pub(super) fn encode_payload<T: minicbor::Encode<()>>(value: &T) -> Result<Vec<u8>> {
    minicbor::to_vec(value)
        .map_err(|cause| Error::new(ErrorKind::Internal, "encode a clear record").source(cause))
}
