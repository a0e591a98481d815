//! Puts an object together in one buffer.
//!
//! ```text
//!   buffer:  … room for the head │ body 0 │ body 1 │ …           encrypted on the way in
//!                     ◄─── head ─┤ written by `finish` right in front, so that nothing is moved
//! ```
//!
//! Owns: the growing object. Must not: compress, hash chunks, or write anywhere. Cheap enough to be called under a lock: an append is
//! one pass of the cipher from the caller's buffer into this one, and allocates nothing.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::binding::{DIRECTORY_NONCE, body_aad, body_nonce, directory_aad};
use super::class::Class;
use super::codec::Codec;
use super::crypto::{Keys, ObjectKey};
use super::decoder::Decoder;
use super::directory::{self, BodyEntry, Directory};
use super::header::{self, HEADER_LEN, Header, PAGE_LEN, SEAL_LEN};
use super::pool::{BufferPool, PooledBuffer};
use super::{MAX_BODIES, SALT_LEN, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::{Digest, SegmentId, random};

/// Keys at or above this do not fit the five bytes of their column.
const KEY_END: u64 = 1 << 40;

/// One object being written.
pub struct ContainerBuilder {
    keys: Arc<Keys>,
    class: Class,
    id: SegmentId,
    salt: [u8; SALT_LEN],
    /// Salt and key of the bodies: the object's own, or the original's after compaction.
    body_salt: [u8; SALT_LEN],
    body_key: ObjectKey,
    buffer: PooledBuffer,
    bodies_at: usize,
    capacity: usize,
    stored: usize,
    max_bodies: usize,
    padding: usize,
    entries: Vec<BodyEntry>,
}

/// Room in front of the bodies for the largest head.
fn head_room(max_bodies: usize) -> usize {
    let page = usize::try_from(PAGE_LEN).expect("4096 fits");
    (HEADER_LEN + directory::max_encoded_len(max_bodies) + TAG_LEN + SEAL_LEN)
        .next_multiple_of(page)
}

impl ContainerBuilder {
    /// Starts an object with `capacity` bytes for bodies, of which at most `max_bodies` (never above 4,096) go in.
    #[must_use]
    pub fn new(
        keys: Arc<Keys>,
        class: Class,
        id: SegmentId,
        capacity: usize,
        max_bodies: usize,
    ) -> Self {
        let pool = BufferPool::new(Self::buffer_len(capacity, max_bodies), 0);
        Self::pooled(keys, class, id, max_bodies, &pool)
    }

    /// Length of a buffer for `capacity` bytes of bodies and their directory.
    #[must_use]
    pub fn buffer_len(capacity: usize, max_bodies: usize) -> usize {
        head_room(max_bodies.min(MAX_BODIES)) + capacity
    }

    /// Starts an object in a buffer of `pool`, to which it returns when the last clone of the finished object is dropped. The
    /// capacity is what [`Self::buffer_len`] was asked for.
    #[must_use]
    pub fn pooled(
        keys: Arc<Keys>,
        class: Class,
        id: SegmentId,
        max_bodies: usize,
        pool: &BufferPool,
    ) -> Self {
        Self::salted(keys, class, id, max_bodies, (pool, random()))
    }

    /// As [`Self::pooled`], with a salt that must never be used again. Golden files need it; everything else takes a random one.
    pub(super) fn salted(
        keys: Arc<Keys>,
        class: Class,
        id: SegmentId,
        max_bodies: usize,
        (pool, salt): (&BufferPool, [u8; SALT_LEN]),
    ) -> Self {
        let max_bodies = max_bodies.min(MAX_BODIES);
        let bodies_at = head_room(max_bodies);
        Self {
            body_key: keys.body_key(class, &salt),
            keys,
            class,
            id,
            salt,
            body_salt: salt,
            buffer: pool.take(),
            bodies_at,
            capacity: pool.buffer_len().saturating_sub(bodies_at),
            stored: 0,
            max_bodies,
            padding: 0,
            entries: Vec::with_capacity(max_bodies),
        }
    }

    /// Starts the next generation of the segment that `original` describes: bodies are copied as they are, under their old ordinals
    /// and their old salt, so that nothing but the directory needs a key.
    #[must_use]
    pub fn compaction(keys: Arc<Keys>, original: &Directory, capacity: usize) -> Self {
        let mut builder = Self::new(
            keys,
            original.class,
            original.id,
            capacity,
            original.entries.len(),
        );
        builder.body_salt = original.body_salt;
        builder.body_key = builder.keys.body_key(original.class, &original.body_salt);
        builder
    }

    /// Fixes the salt of the directory of a compacted segment, for golden files.
    #[cfg(test)]
    pub(super) fn set_salt(&mut self, salt: [u8; SALT_LEN]) {
        self.salt = salt;
    }

    /// Makes the finished object at least `len` bytes long.
    pub(super) fn pad_to(&mut self, len: usize) {
        self.padding = len;
    }

    /// Whether another body of `stored_len` bytes has room.
    #[must_use]
    pub fn fits(&self, stored_len: usize) -> bool {
        self.entries.len() < self.max_bodies && stored_len <= self.capacity - self.stored
    }

    /// Bodies so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no body yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of bodies so far.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stored
    }

    /// Adds a body and gives its ordinal.
    ///
    /// `key` is the chunk number, the first chunk of a map page, or the number of a piece; `digest` is [`Keys::digest`] of the raw
    /// bytes.
    ///
    /// # Errors
    /// `Internal` where it does not fit or its lengths contradict its codec: the caller asks [`Self::fits`] first.
    pub fn append(
        &mut self,
        key: u64,
        raw_len: u32,
        digest: Digest,
        codec: Codec,
        stored: &[u8],
    ) -> Result<u16> {
        let ordinal = self.next_ordinal()?;
        self.admit(key, raw_len, codec, stored.len())?;
        let aad = body_aad(self.keys.repository(), self.id, ordinal, codec, raw_len);
        let at = self.bodies_at + self.stored;
        let room = &mut self.buffer.bytes_mut()[at..at + stored.len()];
        let tag = self
            .body_key
            .seal_into(body_nonce(ordinal), &aad, stored, room);
        let stored_len =
            u32::try_from(stored.len()).expect("admitted, so not above its raw length");
        self.push(BodyEntry {
            ordinal,
            key,
            offset: 0,
            stored_len,
            raw_len,
            codec,
            digest,
            tag,
        });
        Ok(ordinal)
    }

    /// Copies a body of the segment that [`Self::compaction`] was given, still sealed. Ordinals must ascend.
    ///
    /// # Errors
    /// `Internal` where it does not fit or comes out of order.
    pub fn copy_body(&mut self, entry: &BodyEntry, sealed: &[u8]) -> Result<()> {
        let last = self.entries.last().map(|entry| entry.ordinal);
        if last.is_some_and(|last| last >= entry.ordinal) {
            return Err(self.misuse("copy a body out of order"));
        }
        if u32::try_from(sealed.len()) != Ok(entry.stored_len) {
            return Err(self.misuse("copy a body of another length"));
        }
        self.admit(entry.key, entry.raw_len, entry.codec, sealed.len())?;
        let at = self.bodies_at + self.stored;
        self.buffer.bytes_mut()[at..at + sealed.len()].copy_from_slice(sealed);
        self.push(*entry);
        Ok(())
    }

    /// Decodes a stored body again and compares its digest: what the reader will do, before anything is uploaded.
    ///
    /// # Errors
    /// `Internal` where it does not come back: memory or code went wrong, and the object must not be stored.
    pub fn verify_body(&self, decoder: &mut Decoder, ordinal: u16) -> Result<()> {
        let found = self
            .entries
            .binary_search_by_key(&ordinal, |entry| entry.ordinal);
        let index = found.map_err(|_| self.misuse("verify a body that is not there"))?;
        let before: usize = self.entries[..index].iter().map(stored_len).sum();
        let entry = &self.entries[index];
        let at = self.bodies_at + before;
        let sealed = &self.buffer.bytes()[at..at + stored_len(entry)];
        decoder
            .check(&self.keys, (self.id, &self.body_key), entry, sealed)
            .map_err(|cause| {
                self.misuse("verify a body before it is stored")
                    .source(cause)
            })
    }

    /// Seals the object under `name`. The first byte is page-aligned, and for segments nothing is copied.
    ///
    /// # Errors
    /// `Internal` where the directory cannot be encoded.
    pub fn finish(self, name: &str) -> Result<Bytes> {
        let body_salt = (self.body_salt != self.salt).then_some(&self.body_salt);
        let mut region = directory::encode(&self.entries, body_salt, 0)?;
        let bare = HEADER_LEN + region.len() + TAG_LEN + SEAL_LEN + self.stored;
        if bare < self.padding {
            region = directory::encode(&self.entries, body_salt, self.padding - bare)?;
        }
        let sealed_len = u32::try_from(region.len() + TAG_LEN)
            .map_err(|_| self.misuse("seal a directory of that length"))?;
        let header = Header::plan(
            self.class,
            self.keys.cipher(),
            sealed_len,
            self.stored as u64,
            self.salt,
        );
        let header_bytes = header.encode();
        let aad = directory_aad(self.keys.repository(), name, &header_bytes);
        let key = self.keys.directory_key(self.class, &self.salt);
        let tag = key.seal(DIRECTORY_NONCE, &aad, &mut region);
        region.extend_from_slice(&tag);
        let seal = header::seal(&header_bytes, &region);
        let head = [&header_bytes[..], &region, &seal].concat();
        self.place(&head, header.bodies_offset as usize)
    }

    /// Puts the head in front of the bodies: bodies of padded classes stay where they are, others move up to it.
    fn place(mut self, head: &[u8], bodies_offset: usize) -> Result<Bytes> {
        let (bodies_at, stored) = (self.bodies_at, self.stored);
        if bodies_offset > bodies_at {
            return Err(self.misuse("place a head of that length"));
        }
        let buffer = self.buffer.bytes_mut();
        let start = if self.class.is_padded() {
            bodies_at - bodies_offset
        } else {
            buffer.copy_within(bodies_at..bodies_at + stored, bodies_offset);
            0
        };
        buffer[start..start + head.len()].copy_from_slice(head);
        // The buffer may have held another object before.
        buffer[start + head.len()..start + bodies_offset].fill(0);
        Ok(self
            .buffer
            .into_bytes(start..start + bodies_offset + stored))
    }

    fn next_ordinal(&self) -> Result<u16> {
        let next = self
            .entries
            .last()
            .map_or(Some(0), |entry| entry.ordinal.checked_add(1));
        next.ok_or_else(|| self.misuse("number another body"))
    }

    fn admit(&self, key: u64, raw_len: u32, codec: Codec, stored_len: usize) -> Result<()> {
        let stored_fits_codec = u32::try_from(stored_len).is_ok_and(|stored| match codec {
            Codec::Raw => stored == raw_len,
            Codec::Lz4 | Codec::Zstd => stored < raw_len,
        });
        let raw_is_allowed = raw_len > 0 && raw_len <= self.keys.raw_limit(self.class);
        if self.fits(stored_len) && stored_fits_codec && raw_is_allowed && key < KEY_END {
            return Ok(());
        }
        Err(self.misuse("add a body that does not fit"))
    }

    fn push(&mut self, entry: BodyEntry) {
        self.stored += stored_len(&entry);
        self.entries.push(entry);
    }

    fn misuse(&self, what: &str) -> Error {
        let id = self.id;
        Error::new(ErrorKind::Internal, format!("{what} to a {}", self.class))
            .object(format!("{} {}/{}", self.class, id.session, id.number))
    }
}

fn stored_len(entry: &BodyEntry) -> usize {
    entry.stored_len as usize
}

impl fmt::Debug for ContainerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerBuilder")
            .field("class", &self.class)
            .field("id", &self.id)
            .field("bodies", &self.entries.len())
            .field("stored", &self.stored)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
