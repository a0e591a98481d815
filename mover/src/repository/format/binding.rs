//! What every sealed region is bound to, so that intact bytes in the wrong place are refused.
//!
//! Owns: additional data and nonces. Must not: encrypt. The generation of a segment and the choice of a copy are left out on purpose:
//! compaction copies bodies unread, and a second copy is the same bytes under another name.

use std::borrow::Cow;

use super::codec::Codec;
use super::header::HEADER_LEN;
use crate::repository::ids::{RepositoryId, SegmentId, name};

/// Nonce of a directory: no body's, because ordinals leave the last ten bytes zero.
pub(super) const DIRECTORY_NONCE: [u8; 12] = [0xff; 12];

const BODY_AAD_LEN: usize = 16 + 16 + 4 + 2 + 1 + 4;

/// Nonce of a body: its ordinal, little endian, then zeros.
pub(super) fn body_nonce(ordinal: u16) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..2].copy_from_slice(&ordinal.to_le_bytes());
    nonce
}

/// repository id ‖ session ‖ segment number ‖ ordinal ‖ codec ‖ raw length.
pub(super) fn body_aad(
    repository: RepositoryId,
    id: SegmentId,
    ordinal: u16,
    codec: Codec,
    raw_len: u32,
) -> [u8; BODY_AAD_LEN] {
    let mut aad = [0; BODY_AAD_LEN];
    aad[..16].copy_from_slice(&repository.0);
    aad[16..32].copy_from_slice(&id.session.0);
    aad[32..36].copy_from_slice(&id.number.to_le_bytes());
    aad[36..38].copy_from_slice(&ordinal.to_le_bytes());
    aad[38] = codec.byte();
    aad[39..].copy_from_slice(&raw_len.to_le_bytes());
    aad
}

/// repository id ‖ bound name ‖ header. Both ends have a fixed length, so no two triples give the same bytes.
pub(super) fn directory_aad(
    repository: RepositoryId,
    object: &str,
    header: &[u8; HEADER_LEN],
) -> Vec<u8> {
    let bound = bound_name(object);
    let mut aad = Vec::with_capacity(16 + bound.len() + HEADER_LEN);
    aad.extend_from_slice(&repository.0);
    aad.extend_from_slice(bound.as_bytes());
    aad.extend_from_slice(header);
    aad
}

/// The name that an object answers to: a copy to its original's, a segment to its name without the generation.
pub(super) fn bound_name(object: &str) -> Cow<'_, str> {
    if let Some(rest) = object.strip_prefix(name::COPY) {
        return Cow::Owned(format!("{}{rest}", name::SNAP));
    }
    if let Some(rest) = object.strip_suffix(".b") {
        return Cow::Borrowed(rest);
    }
    match object.rsplit_once(".g") {
        Some((segment, generation))
            if generation.len() == 2 && generation.bytes().all(|c| c.is_ascii_digit()) =>
        {
            Cow::Borrowed(segment)
        }
        _ => Cow::Borrowed(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_generations_answer_to_one_name() {
        for (object, bound) in [
            ("copy/v/1-s", "snap/v/1-s"),
            ("snap/v/1-s", "snap/v/1-s"),
            ("config.b", "config"),
            ("keys/00.b", "keys/00"),
            ("seg/s/00000001.g00", "seg/s/00000001"),
            ("seg/s/00000001.g17", "seg/s/00000001"),
            ("seg/s/00000001.g1", "seg/s/00000001.g1"),
            ("seg/s/00000001.gxx", "seg/s/00000001.gxx"),
            ("map/s/00000001", "map/s/00000001"),
        ] {
            assert_eq!(bound_name(object), bound);
        }
    }

    #[test]
    fn no_body_has_the_nonce_of_the_directory() {
        assert_ne!(body_nonce(u16::MAX), DIRECTORY_NONCE);
    }
}
