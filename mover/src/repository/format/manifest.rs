//! The small object whose creation commits a point (`FORMAT.md`, "Manifest").
//!
//! ```text
//!   manifest ─► map root (hash, location)   ─► everything the point holds
//!            ─► liveness (length, hash)     ─► everything a collector must keep
//! ```
//!
//! Owns: its fields, their limits and their bytes. Must not: decide whether a point exists (`session`), or do I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::crypto::Keys;
use super::record::{open_record, seal_record};
use super::{Class, MAX_CHUNK_LEN, MIN_CHUNK_LEN, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::{SegmentId, SessionKey, name};
use crate::repository::map::{LivenessRef, Location, MapRoot, PagePointer, depth_of};

/// A slot with a manifest is longer than this, one with an abort marker is not longer than half of it: a listing tells
/// them apart.
pub const MAX_NOT_MANIFEST_LEN: usize = 512;

/// What this version needs to understand to read a point: nothing beyond format version 1.
pub const KNOWN_READ_FEATURES: u64 = 0;

/// No manifest's record is longer, in bytes.
const MAX_RECORD_LEN: usize = 256 << 10;
/// Most tags, identity records and pins.
const MAX_ITEMS: usize = 256;
/// Longest name, tag key or other short text in bytes.
const MAX_SHORT_LEN: usize = 200;
/// Longest tag value, identity value or reason in bytes.
const MAX_TEXT_LEN: usize = 2048;

/// What is known about the source at the moment of the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum PointState {
    /// As after a power cut.
    #[n(0)]
    #[default]
    Crash,
    /// Applications had been told to write everything.
    #[n(1)]
    Application,
    /// The source changed while it was read. Never the base of a changed-block delta.
    #[n(2)]
    Fuzzy,
}

impl PointState {
    /// Stable name in JSON output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Application => "application",
            Self::Fuzzy => "fuzzy",
        }
    }
}

/// Sizes in bytes of what a backup met. `size = zero + unchanged + deduplicated + new`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PointStats {
    /// Zeros and holes.
    #[n(0)]
    pub zero: u64,
    /// The same as in the parent.
    #[n(1)]
    pub unchanged: u64,
    /// Stored already, by this session or one it adopted.
    #[n(2)]
    pub deduplicated: u64,
    /// Stored by this session, before compression.
    #[n(3)]
    pub new: u64,
    /// Every byte PUT by this session before the manifest.
    #[n(4)]
    pub stored: u64,
}

/// A point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The session that commits it.
    pub session: SessionKey,
    /// Name of the volume.
    pub volume: String,
    /// The point it builds on.
    pub parent: Option<SessionKey>,
    /// Size of the volume in bytes.
    pub size: u64,
    /// Bytes of a chunk: the repository's constant.
    pub chunk_size: u32,
    /// The map.
    pub root: MapRoot,
    /// The liveness object.
    pub liveness: LivenessRef,
    /// Points between this one and the last whose liveness is exact; 0 where this one's is.
    pub exact_liveness_age: u32,
    /// What people attached to it.
    pub tags: BTreeMap<String, String>,
    /// Points of one consistency set share it.
    pub group: Option<String>,
    /// What is known about the source.
    pub state: PointState,
    /// Keyed BLAKE3 over all chunk digests in order.
    pub content_hash: [u8; 32],
    /// When the session committed, by its own clock: milliseconds since 1970. Locks are reckoned from it.
    pub created_unix_millis: i64,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// What the backup met.
    pub stats: PointStats,
    /// Name of the changed-block source.
    pub changed_blocks: String,
    /// Why that one.
    pub changed_blocks_reason: String,
    /// Identity records of the source, by name.
    pub identity: Vec<(String, String)>,
    /// Points whose data it references beside its own and its parent's.
    pub pins: Vec<SessionKey>,
    /// Feature bits that a reader must know.
    pub features_read: u64,
}

/// Name of the identity record that says when the image of a copied point was taken, in milliseconds since 1970.
pub const TAKEN: &str = "taken-unix-millis";

impl Manifest {
    /// When the image was taken, in milliseconds since 1970: for a copy, when its original was.
    #[must_use]
    pub fn taken_unix_millis(&self) -> i64 {
        let recorded = self.identity.iter().find(|(name, _)| name == TAKEN);
        recorded
            .and_then(|(_, millis)| millis.parse().ok())
            .unwrap_or(self.created_unix_millis)
    }

    /// Number of chunks of the volume.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.size.div_ceil(u64::from(self.chunk_size))
    }

    /// The record's bytes; the same manifest always gives the same bytes.
    ///
    /// # Errors
    /// `InvalidRequest` if a field is longer than the format allows.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check().map_err(|what| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("write a manifest: {what}"),
            )
        })?;
        let record = minicbor::to_vec(Record::from(self))
            .map_err(|cause| Error::new(ErrorKind::Internal, "encode a manifest").source(cause))?;
        if record.len() > MAX_RECORD_LEN {
            let message = format!(
                "write a manifest of {} bytes: tags and identity are too long",
                record.len()
            );
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(record)
    }

    /// Reads a record. Fields that a later version added and that may be ignored are skipped.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are no manifest; `NewerFormat` if it needs features that are not known.
    pub fn decode(record: &[u8]) -> Result<Self> {
        Self::decode_named(record, "manifest")
    }

    fn decode_named(record: &[u8], object: &str) -> Result<Self> {
        let damaged = |what: &str| fault::damaged(object, what);
        if record.len() > MAX_RECORD_LEN {
            return Err(damaged("it is longer than a manifest"));
        }
        let features = scan_keys(record)
            .map_err(|cause| damaged("it is no deterministic CBOR map").source(cause))?;
        let unknown = features & !KNOWN_READ_FEATURES;
        if unknown != 0 {
            return Err(fault::newer(
                object,
                format!("the point needs feature bits {unknown:#x}"),
            ));
        }
        let record = minicbor::decode::<Record>(record)
            .map_err(|cause| damaged("its fields are not those of a manifest").source(cause))?;
        let manifest = Self::from(record);
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// The object to store in the session's slot, and again as its copy.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn seal(&self, keys: &Arc<Keys>) -> Result<Bytes> {
        let id = SegmentId {
            session: self.session.session,
            number: 0,
        };
        let slot = name::slot(&self.session);
        seal_record(
            keys,
            Class::Manifest,
            id,
            &slot,
            &self.encode()?,
            MAX_NOT_MANIFEST_LEN + 1,
        )
    }

    /// Opens the object read from the slot of `session`, or from its copy.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged or another session's; `NewerFormat` if it needs features that are not known.
    pub fn open(
        keys: &Keys,
        session: &SessionKey,
        object_name: &str,
        object: &[u8],
    ) -> Result<Self> {
        let id = SegmentId {
            session: session.session,
            number: 0,
        };
        let record = open_record(keys, Class::Manifest, id, object_name, object)?;
        let manifest = Self::decode_named(&record, object_name)?;
        if manifest.session != *session {
            let what = format!("it is the manifest of {}", manifest.session);
            return Err(fault::swapped(object_name, what));
        }
        if keys.volume_id(&manifest.volume) != session.volume {
            return Err(fault::swapped(object_name, "its volume has another id"));
        }
        Ok(manifest)
    }

    /// The limits that hold for every manifest.
    fn check(&self) -> Result<(), &'static str> {
        if !self.chunk_size.is_power_of_two()
            || !(MIN_CHUNK_LEN..=MAX_CHUNK_LEN).contains(&self.chunk_size)
        {
            return Err("its chunk size is out of range");
        }
        if self.root.depth != depth_of(self.chunks()) {
            return Err("the depth of its map does not follow its size");
        }
        if self.volume.is_empty() || self.volume.len() > MAX_SHORT_LEN {
            return Err("its volume name is out of range");
        }
        if self.tags.len() > MAX_ITEMS
            || self.identity.len() > MAX_ITEMS
            || self.pins.len() > MAX_ITEMS
        {
            return Err("it has too many tags, identity records or pins");
        }
        let pairs = self
            .tags
            .iter()
            .chain(self.identity.iter().map(|(key, value)| (key, value)));
        if pairs
            .into_iter()
            .any(|(key, value)| key.len() > MAX_SHORT_LEN || value.len() > MAX_TEXT_LEN)
        {
            return Err("a tag or identity record is too long");
        }
        let short = [
            Some(&self.tool),
            Some(&self.changed_blocks),
            self.group.as_ref(),
        ];
        if short
            .into_iter()
            .flatten()
            .any(|text| text.len() > MAX_SHORT_LEN)
            || self.changed_blocks_reason.len() > MAX_TEXT_LEN
        {
            return Err("a text is too long");
        }
        Ok(())
    }
}

/// Checks that the record is one map with ascending numbers as keys and nothing behind it, and gives the feature bits, so
/// that "newer" is told before a changed field is taken for damage.
fn scan_keys(record: &[u8]) -> Result<u64, minicbor::decode::Error> {
    let malformed = minicbor::decode::Error::message;
    let mut reader = minicbor::Decoder::new(record);
    let fields = reader
        .map()?
        .ok_or_else(|| malformed("indefinite length"))?;
    let mut features = 0;
    let mut previous = None;
    for _ in 0..fields {
        let key = reader.u64()?;
        if previous.is_some_and(|previous| previous >= key) {
            return Err(malformed("keys are not ascending"));
        }
        previous = Some(key);
        match key {
            FEATURES_KEY => features = reader.u64()?,
            _ => reader.skip()?,
        }
    }
    if reader.position() == record.len() {
        Ok(features)
    } else {
        Err(malformed("bytes behind it"))
    }
}

/// Key of the feature bits: the first, so that they are read before anything they could change.
const FEATURES_KEY: u64 = 0;

/// The fields as they are stored.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Record {
    #[n(0)]
    features_read: u64,
    #[n(1)]
    session: SessionKey,
    #[n(2)]
    volume: String,
    #[n(3)]
    parent: Option<SessionKey>,
    #[n(4)]
    size: u64,
    #[n(5)]
    chunk_size: u32,
    #[n(6)]
    depth: u8,
    #[n(7)]
    root: Option<RootRecord>,
    #[n(8)]
    liveness_len: u64,
    #[n(9)]
    liveness_hash: ByteArray<32>,
    #[n(10)]
    exact_liveness_age: u32,
    #[n(11)]
    state: PointState,
    #[n(12)]
    content_hash: ByteArray<32>,
    #[n(13)]
    created_unix_millis: i64,
    #[n(14)]
    tool: String,
    #[n(15)]
    stats: PointStats,
    #[n(16)]
    changed_blocks: String,
    #[n(17)]
    changed_blocks_reason: String,
    #[cbor(n(18), with = "tag_map")]
    tags: BTreeMap<String, String>,
    #[n(19)]
    group: Option<String>,
    #[n(20)]
    identity: Vec<(String, String)>,
    #[n(21)]
    pins: Vec<SessionKey>,
}

#[derive(Debug, Encode, Decode)]
struct RootRecord {
    #[n(0)]
    hash: ByteArray<32>,
    #[n(1)]
    segment: SegmentId,
    #[n(2)]
    ordinal: u16,
}

impl From<&Manifest> for Record {
    fn from(manifest: &Manifest) -> Self {
        let manifest = manifest.clone();
        let root = |PagePointer {
                        hash,
                        location: Location { segment, ordinal },
                    }| RootRecord {
            hash: hash.into(),
            segment,
            ordinal,
        };
        Self {
            features_read: manifest.features_read,
            session: manifest.session,
            volume: manifest.volume,
            parent: manifest.parent,
            size: manifest.size,
            chunk_size: manifest.chunk_size,
            depth: manifest.root.depth,
            root: manifest.root.pointer.map(root),
            liveness_len: manifest.liveness.len,
            liveness_hash: manifest.liveness.hash.into(),
            exact_liveness_age: manifest.exact_liveness_age,
            state: manifest.state,
            content_hash: manifest.content_hash.into(),
            created_unix_millis: manifest.created_unix_millis,
            tool: manifest.tool,
            stats: manifest.stats,
            changed_blocks: manifest.changed_blocks,
            changed_blocks_reason: manifest.changed_blocks_reason,
            tags: manifest.tags,
            group: manifest.group,
            identity: manifest.identity,
            pins: manifest.pins,
        }
    }
}

impl From<Record> for Manifest {
    fn from(record: Record) -> Self {
        let pointer = record.root.map(
            |RootRecord {
                 hash,
                 segment,
                 ordinal,
             }| PagePointer {
                hash: hash.into(),
                location: Location { segment, ordinal },
            },
        );
        Self {
            features_read: record.features_read,
            session: record.session,
            volume: record.volume,
            parent: record.parent,
            size: record.size,
            chunk_size: record.chunk_size,
            root: MapRoot {
                pointer,
                depth: record.depth,
            },
            liveness: LivenessRef {
                len: record.liveness_len,
                hash: record.liveness_hash.into(),
            },
            exact_liveness_age: record.exact_liveness_age,
            state: record.state,
            content_hash: record.content_hash.into(),
            created_unix_millis: record.created_unix_millis,
            tool: record.tool,
            stats: record.stats,
            changed_blocks: record.changed_blocks,
            changed_blocks_reason: record.changed_blocks_reason,
            tags: record.tags,
            group: record.group,
            identity: record.identity,
            pins: record.pins,
        }
    }
}

/// Tags in the order of deterministic CBOR: shorter keys first, then by their bytes.
mod tag_map {
    use std::collections::BTreeMap;

    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    type Tags = BTreeMap<String, String>;

    pub(super) fn encode<C, W: Write>(
        tags: &Tags,
        cbor: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let mut tags = tags.iter().collect::<Vec<_>>();
        tags.sort_by_key(|(key, _)| (key.len(), *key));
        cbor.map(tags.len() as u64)?;
        for (key, value) in tags {
            cbor.str(key)?.str(value)?;
        }
        Ok(())
    }

    pub(super) fn decode<C>(cbor: &mut Decoder<'_>, _: &mut C) -> Result<Tags, DecodeError> {
        let malformed = DecodeError::message;
        let len = cbor.map()?.ok_or_else(|| malformed("indefinite length"))?;
        let mut tags = Tags::new();
        let mut previous = None;
        for _ in 0..len {
            let key = cbor.str()?;
            if previous.is_some_and(|previous| previous >= (key.len(), key)) {
                return Err(malformed("tags are not ascending"));
            }
            previous = Some((key.len(), key));
            tags.insert(key.to_owned(), cbor.str()?.to_owned());
        }
        Ok(tags)
    }
}

#[cfg(test)]
mod tests;
