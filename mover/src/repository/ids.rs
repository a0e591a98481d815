//! Identifiers and the names of objects.
//!
//! Owns: every id type, its text form, and every object name of the repository (`FORMAT.md`, "Names"). Must not: do I/O.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Formats bytes as lower-case hex.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String never fails");
            text
        })
}

/// Parses exactly `N` bytes of lower-case hex.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Random bytes from the operating system.
///
/// # Panics
/// If the kernel has no randomness to give: nothing can be kept secret then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel provides randomness");
    bytes
}

impl SessionId {
    /// The id of a new session: random, so that none is ever used again.
    ///
    /// # Panics
    /// As [`random`].
    #[must_use]
    pub fn fresh() -> Self {
        let id = random();
        #[cfg(test)]
        let id = ordered::arranged(id);
        Self(id)
    }
}

/// Lets a test say in which order the ids of its sessions sort.
#[cfg(test)]
pub(crate) mod ordered {
    use std::cell::Cell;

    thread_local! {
        static FIRST: Cell<Option<u8>> = const { Cell::new(None) };
    }

    /// From now on the ids of sessions that begin on this thread begin with this byte.
    pub(crate) fn begin_with(byte: Option<u8>) {
        FIRST.set(byte);
    }

    pub(super) fn arranged(mut id: [u8; 16]) -> [u8; 16] {
        id[0] = FIRST.get().unwrap_or(id[0]);
        id
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                from_hex(text).map(Self).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidRequest, format!("parse `{text}` as 32 hex digits"))
                })
            }
        }
    };
}

id_type!(
    /// A repository: 128 random bits made by `init`.
    RepositoryId
);
id_type!(
    /// One run that writes or reads points: 128 random bits, never reused.
    SessionId
);
id_type!(
    /// A volume: the first 16 bytes of the keyed BLAKE3 of its name.
    VolumeId
);
id_type!(
    /// Keyed BLAKE3 of a chunk's bytes, first 16 bytes.
    Digest
);

/// Position of a session in its volume's history, for people and for "latest"; two sessions may share one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Sequence(#[n(0)] pub u32);

/// The public name of a point: 16 hex digits of its session, `-`, 8 hex digits of its volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointId {
    /// First 8 bytes of the session id.
    pub session_prefix: [u8; 8],
    /// First 4 bytes of the volume id.
    pub volume_prefix: [u8; 4],
}

impl PointId {
    /// The id of the point that `session` commits on `volume`.
    #[must_use]
    pub fn new(volume: VolumeId, session: SessionId) -> Self {
        let mut session_prefix = [0; 8];
        session_prefix.copy_from_slice(&session.0[..8]);
        let mut volume_prefix = [0; 4];
        volume_prefix.copy_from_slice(&volume.0[..4]);
        Self {
            session_prefix,
            volume_prefix,
        }
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}",
            to_hex(&self.session_prefix),
            to_hex(&self.volume_prefix)
        )
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PointId({self})")
    }
}

impl FromStr for PointId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split_once('-')
            .and_then(|(session, volume)| {
                Some(Self {
                    session_prefix: from_hex(session)?,
                    volume_prefix: from_hex(volume)?,
                })
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidRequest,
                    format!("parse `{text}` as a point id"),
                )
                .hint("`snaphaul points` lists the ids")
            })
    }
}

/// `<vol>/<seq>-<sid>`: what the control objects of one writing session are named by.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
pub struct SessionKey {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Position in the volume's history.
    #[n(1)]
    pub sequence: Sequence,
    /// The session.
    #[n(2)]
    pub session: SessionId,
}

impl SessionKey {
    /// The point this session commits.
    #[must_use]
    pub fn point(&self) -> PointId {
        PointId::new(self.volume, self.session)
    }

    /// Parses `<vol>/<seq>-<sid>`, the part after a control prefix such as `snap/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (volume, rest) = text.split_once('/')?;
        let (sequence, session) = rest.split_once('-')?;
        if sequence.len() != 10 || !sequence.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            volume: VolumeId(from_hex(volume)?),
            sequence: Sequence(sequence.parse().ok()?),
            session: SessionId(from_hex(session)?),
        })
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{:010}-{}",
            self.volume, self.sequence.0, self.session
        )
    }
}

/// `<vol>/r-<sid>`: what the control objects of one reading session are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderKey {
    /// The volume of the first point it reads.
    pub volume: VolumeId,
    /// The session.
    pub session: SessionId,
}

impl ReaderKey {
    /// Parses `<vol>/r-<sid>`, the part after a control prefix such as `open/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (volume, session) = text.split_once("/r-")?;
        Some(Self {
            volume: VolumeId(from_hex(volume)?),
            session: SessionId(from_hex(session)?),
        })
    }
}

impl fmt::Display for ReaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/r-{}", self.volume, self.session)
    }
}

/// One data or map segment: the session that wrote it and its number there.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
pub struct SegmentId {
    /// The session that wrote it.
    #[n(0)]
    pub session: SessionId,
    /// Number inside the session, from 0.
    #[n(1)]
    pub number: u32,
}

/// Names of objects. Every name of the repository is made here and nowhere else.
pub mod name {
    use super::{ReaderKey, SegmentId, SessionId, SessionKey, VolumeId, from_hex};

    /// The repository's configuration; stored twice, the second as `config.b`.
    pub const CONFIG: &str = "config";
    /// Key slots.
    pub const KEYS: &str = "keys/";
    /// Start records.
    pub const OPEN: &str = "open/";
    /// Slots: manifest or abort marker.
    pub const SNAP: &str = "snap/";
    /// Forget orders.
    pub const TOMB: &str = "tomb/";
    /// Second copies of manifests.
    pub const COPY: &str = "copy/";
    /// Liveness of points.
    pub const LIVE: &str = "live/";
    /// Data segments.
    pub const SEG: &str = "seg/";
    /// Map segments.
    pub const MAP: &str = "map/";
    /// Heartbeats.
    pub const BEAT: &str = "beat/";
    /// Marks on bodies that were found bad.
    pub const QUARANTINE: &str = "quarantine/";
    /// There as soon as any mark was made, so that whoever asks for marks need not list them where there never was one.
    pub const QUARANTINE_USED: &str = "quarantine.used";
    /// When segments were last verified.
    pub const CHECKED: &str = "checked/";

    /// The second copy of a root object.
    #[must_use]
    pub fn second_copy(name: &str) -> String {
        format!("{name}.b")
    }

    /// The start record of a writing session.
    #[must_use]
    pub fn open(key: &SessionKey) -> String {
        format!("{OPEN}{key}")
    }

    /// The start record of a reading session.
    #[must_use]
    pub fn reader(volume: VolumeId, session: SessionId) -> String {
        format!("{OPEN}{volume}/r-{session}")
    }

    /// The slot of a reading session: only ever an abort marker, which revokes its lease.
    #[must_use]
    pub fn reader_slot(key: &ReaderKey) -> String {
        format!("{SNAP}{key}")
    }

    /// The slot of a session.
    #[must_use]
    pub fn slot(key: &SessionKey) -> String {
        format!("{SNAP}{key}")
    }

    /// The forget order of a point.
    #[must_use]
    pub fn tomb(key: &SessionKey) -> String {
        format!("{TOMB}{key}")
    }

    /// The second copy of a point's manifest.
    #[must_use]
    pub fn copy(key: &SessionKey) -> String {
        format!("{COPY}{key}")
    }

    /// The liveness of a point.
    #[must_use]
    pub fn live(key: &SessionKey) -> String {
        format!("{LIVE}{key}")
    }

    /// A data segment in one compaction generation (0 as written by its session).
    #[must_use]
    pub fn segment(id: SegmentId, generation: u8) -> String {
        format!("{SEG}{}/{:08}.g{generation:02}", id.session, id.number)
    }

    /// All segments of a session.
    #[must_use]
    pub fn segments_of(session: SessionId) -> String {
        format!("{SEG}{session}/")
    }

    /// A map segment.
    #[must_use]
    pub fn map_segment(id: SegmentId) -> String {
        format!("{MAP}{}/{:08}", id.session, id.number)
    }

    /// The heartbeat of a session.
    #[must_use]
    pub fn beat(session: SessionId) -> String {
        format!("{BEAT}{session}")
    }

    /// The mark on the bodies `first` to `last` of a data segment.
    #[must_use]
    pub fn quarantine(id: SegmentId, first: u16, last: u16) -> String {
        format!(
            "{QUARANTINE}{}/{:08}/{first:05}-{last:05}",
            id.session, id.number
        )
    }

    /// Prefix of all marks on bodies of a data segment.
    #[must_use]
    pub fn marks_of(id: SegmentId) -> String {
        format!("{QUARANTINE}{}/{:08}/", id.session, id.number)
    }

    /// What the verification `run` remembers.
    #[must_use]
    pub fn checked(run: SessionId) -> String {
        format!("{CHECKED}{run}")
    }

    /// Parses `seg/<sid>/<n>.g<gg>` into the segment and its generation.
    #[must_use]
    pub fn parse_segment(name: &str) -> Option<(SegmentId, u8)> {
        let (session, rest) = name.strip_prefix(SEG)?.split_once('/')?;
        let (number, generation) = rest.split_once(".g")?;
        let id = SegmentId {
            session: SessionId(from_hex(session)?),
            number: parse_digits(number, 8)?,
        };
        Some((id, u8::try_from(parse_digits(generation, 2)?).ok()?))
    }

    /// Parses `map/<sid>/<n>`.
    #[must_use]
    pub fn parse_map_segment(name: &str) -> Option<SegmentId> {
        let (session, number) = name.strip_prefix(MAP)?.split_once('/')?;
        Some(SegmentId {
            session: SessionId(from_hex(session)?),
            number: parse_digits(number, 8)?,
        })
    }

    /// Parses `beat/<sid>`.
    #[must_use]
    pub fn parse_beat(name: &str) -> Option<SessionId> {
        from_hex(name.strip_prefix(BEAT)?).map(SessionId)
    }

    /// Exactly `len` decimal digits.
    fn parse_digits(text: &str, len: usize) -> Option<u32> {
        let digits = text.len() == len && text.bytes().all(|c| c.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    }
}
