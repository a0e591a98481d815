//! From the stored bytes of one body to its raw bytes.
//!
//! Owns: scratch memory, grown once. Must not: fetch. Nothing is given out before tag, length and digest are right.

use super::binding::{body_aad, body_nonce};
use super::codec::{Codec, Expander, grow};
use super::crypto::{Keys, ObjectKey};
use super::directory::{BodyEntry, Directory};
use super::fault;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::SegmentId;

/// Decrypts, decompresses and checks bodies; one for each thread.
#[derive(Debug, Default)]
pub struct Decoder {
    decrypted: Vec<u8>,
    expanded: Vec<u8>,
    expander: Expander,
}

impl Decoder {
    /// A decoder without memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes one body of the object that `directory` describes. `out` has the raw length; after an error it is worthless.
    ///
    /// # Errors
    /// `Corrupt` where the body is short, its tag or digest is wrong, or it does not decompress; `Internal` for an `out` of
    /// another length.
    pub fn decode(
        &mut self,
        keys: &Keys,
        directory: &Directory,
        entry: &BodyEntry,
        stored: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let place = (directory.id, &directory.body_key);
        self.open(keys, place, &directory.object, (entry, stored), out)
    }

    /// Decodes into scratch memory, for the writer's own check.
    pub(super) fn check(
        &mut self,
        keys: &Keys,
        place: (SegmentId, &ObjectKey),
        entry: &BodyEntry,
        stored: &[u8],
    ) -> Result<()> {
        let mut expanded = std::mem::take(&mut self.expanded);
        grow(&mut expanded, entry.raw_len as usize);
        let out = &mut expanded[..entry.raw_len as usize];
        let outcome = self.open(keys, place, "open segment", (entry, stored), out);
        self.expanded = expanded;
        outcome
    }

    fn open(
        &mut self,
        keys: &Keys,
        (id, key): (SegmentId, &ObjectKey),
        object: &str,
        (entry, stored): (&BodyEntry, &[u8]),
        out: &mut [u8],
    ) -> Result<()> {
        let ordinal = entry.ordinal;
        if out.len() != entry.raw_len as usize {
            let message = format!("decode a body into {} bytes", out.len());
            return Err(Error::new(ErrorKind::Internal, message).object(object));
        }
        if stored.len() != entry.stored_len as usize {
            let short = fault::truncated(object, stored.len() as u64, entry.stored_len.into());
            return Err(short.context(format!("read body {ordinal}")));
        }
        let aad = body_aad(keys.repository(), id, ordinal, entry.codec, entry.raw_len);
        let nonce = body_nonce(ordinal);
        let wrong_tag = |_| {
            fault::damaged(
                object,
                format!("the tag of body {ordinal} does not fit its bytes"),
            )
        };
        if entry.codec == Codec::Raw {
            key.open(nonce, &aad, &entry.tag, stored, out)
                .map_err(wrong_tag)?;
        } else {
            grow(&mut self.decrypted, stored.len());
            let decrypted = &mut self.decrypted[..stored.len()];
            key.open(nonce, &aad, &entry.tag, stored, decrypted)
                .map_err(wrong_tag)?;
            self.expander.expand(entry.codec, decrypted, out, object)?;
        }
        if keys.digest(out) != entry.digest {
            let what = format!("the digest of body {ordinal} does not fit its bytes");
            return Err(fault::damaged(object, what));
        }
        Ok(())
    }
}
