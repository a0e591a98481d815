//! What an object is: one byte in its header.
//!
//! Owns: the list of classes and the layout rules that differ by class. Must not: know names or keys.

use std::fmt;

/// The kind of an object, the byte at offset 10 of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The repository's configuration (clear record).
    Config = 1,
    /// A wrapped master key (clear record).
    KeySlot = 2,
    /// A session's start record.
    Open = 3,
    /// The manifest that commits a point.
    Manifest = 4,
    /// The marker that aborts a session.
    Abort = 5,
    /// The order to forget a point.
    Tomb = 6,
    /// What a point keeps alive.
    Liveness = 7,
    /// Chunks of a volume.
    Data = 8,
    /// Pages of maps.
    Map = 9,
    /// A heartbeat.
    Beat = 10,
    /// A note that a verification left: a mark on bad bodies, or what it checked.
    Note = 11,
}

impl Class {
    const ALL: [Self; 11] = [
        Self::Config,
        Self::KeySlot,
        Self::Open,
        Self::Manifest,
        Self::Abort,
        Self::Tomb,
        Self::Liveness,
        Self::Data,
        Self::Map,
        Self::Beat,
        Self::Note,
    ];

    /// The byte in the header.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The class of a header byte, `None` where this version does not know it.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.byte() == byte)
    }

    /// Whether bodies begin at a multiple of 4096: only where they are written and read in bulk.
    #[must_use]
    pub fn is_padded(self) -> bool {
        matches!(self, Self::Data | Self::Map)
    }

    /// Whether the object is a clear record, readable before any key is known.
    #[must_use]
    pub fn is_clear(self) -> bool {
        matches!(self, Self::Config | Self::KeySlot)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::KeySlot => "key slot",
            Self::Open => "start record",
            Self::Manifest => "manifest",
            Self::Abort => "abort marker",
            Self::Tomb => "forget order",
            Self::Liveness => "liveness",
            Self::Data => "data segment",
            Self::Map => "map segment",
            Self::Beat => "heartbeat",
            Self::Note => "note",
        })
    }
}
