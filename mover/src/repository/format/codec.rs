//! Compression of bodies: raw, LZ4 blocks, zstd frames.
//!
//! Owns: the codec bytes, `--compression`, and the buffers that make encoding free of allocation. Must not: hash or encrypt.
//! Every decoder writes into a slice of exactly the promised length, so hostile input cannot make it allocate.

use std::fmt;
use std::str::FromStr;

use lz4_flex::block::CompressTable;

use super::fault;
use crate::error::{Error, ErrorKind, Result};

/// How one body is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One LZ4 block without a length prefix.
    Lz4 = 1,
    /// One zstd frame.
    Zstd = 2,
}

impl Codec {
    /// The byte in the directory and in the additional data of the seal.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The codec of a directory byte, `None` where this version does not know it.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raw, Self::Lz4, Self::Zstd]
            .into_iter()
            .find(|codec| codec.byte() == byte)
    }
}

/// What the writer tries on every body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Store everything raw.
    None,
    /// LZ4, the default.
    #[default]
    Lz4,
    /// zstd with a level from 1 to 22.
    Zstd(i32),
}

/// zstd's own default: clearly smaller than LZ4 at a speed that still keeps up with slow stores.
const DEFAULT_ZSTD_LEVEL: i32 = 3;

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let level = |level: &str| level.parse().ok().filter(|level| (1..=22).contains(level));
        match text.split_once(':') {
            None if text == "none" => Some(Self::None),
            None if text == "lz4" => Some(Self::Lz4),
            None if text == "zstd" => Some(Self::Zstd(DEFAULT_ZSTD_LEVEL)),
            Some(("zstd", text)) => level(text).map(Self::Zstd),
            _ => None,
        }
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("parse `{text}` as a compression"),
            )
            .hint("use `lz4`, `zstd`, `zstd:LEVEL` with a level from 1 to 22, or `none`")
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// Compresses bodies one after the other with buffers of its own; one for each thread.
pub struct Encoder {
    method: Method,
    output: Vec<u8>,
}

enum Method {
    None,
    Lz4(CompressTable),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    /// Makes an encoder.
    ///
    /// # Errors
    /// `InvalidRequest` for a level that zstd does not have.
    pub fn new(compression: Compression) -> Result<Self> {
        let method = match compression {
            Compression::None => Method::None,
            Compression::Lz4 => Method::Lz4(CompressTable::large()),
            Compression::Zstd(level) => {
                let compressor = zstd::bulk::Compressor::new(level).map_err(|cause| {
                    Error::new(ErrorKind::InvalidRequest, format!("set up {compression}"))
                        .source(cause)
                })?;
                Method::Zstd(compressor)
            }
        };
        Ok(Self {
            method,
            output: Vec::new(),
        })
    }

    /// Compresses `raw`; gives it back unchanged where that does not make it smaller.
    pub fn encode<'a>(&'a mut self, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        let (codec, stored) = match &mut self.method {
            Method::None => return (Codec::Raw, raw),
            Method::Lz4(table) => {
                let room = lz4_flex::block::get_maximum_output_size(raw.len());
                grow(&mut self.output, room);
                let done =
                    lz4_flex::block::compress_into_with_table(raw, &mut self.output[..], table);
                (Codec::Lz4, done.ok())
            }
            Method::Zstd(compressor) => {
                grow(&mut self.output, zstd::zstd_safe::compress_bound(raw.len()));
                let done = compressor.compress_to_buffer(raw, &mut self.output[..]);
                (Codec::Zstd, done.ok())
            }
        };
        // A codec that gives up costs space, never the backup.
        match stored.filter(|len| *len < raw.len()) {
            Some(len) => (codec, &self.output[..len]),
            None => (Codec::Raw, raw),
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::None => "none",
            Method::Lz4(_) => "lz4",
            Method::Zstd(_) => "zstd",
        };
        f.debug_struct("Encoder")
            .field("method", &method)
            .finish_non_exhaustive()
    }
}

/// Grows only, so that a buffer reaches its size once and is never zeroed again.
pub(super) fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

/// Decompresses bodies; the zstd context is made on first use.
#[derive(Default)]
pub(super) struct Expander {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Expander {
    /// Expands `stored` into exactly `out`.
    pub(super) fn expand(
        &mut self,
        codec: Codec,
        stored: &[u8],
        out: &mut [u8],
        object: &str,
    ) -> Result<()> {
        let expanded = match codec {
            Codec::Raw if stored.len() == out.len() => {
                out.copy_from_slice(stored);
                Ok(out.len())
            }
            Codec::Raw => Err("stored and raw lengths differ".to_owned()),
            Codec::Lz4 => {
                lz4_flex::block::decompress_into(stored, out).map_err(|cause| cause.to_string())
            }
            Codec::Zstd => self.zstd(stored, out),
        };
        match expanded {
            Ok(len) if len == out.len() => Ok(()),
            Ok(len) => {
                let want = out.len();
                Err(fault::damaged(
                    object,
                    format!("a body expands to {len} of {want} bytes"),
                ))
            }
            Err(cause) => Err(fault::damaged(
                object,
                format!("a body does not decompress: {cause}"),
            )),
        }
    }

    fn zstd(&mut self, stored: &[u8], out: &mut [u8]) -> Result<usize, String> {
        if self.zstd.is_none() {
            let made = zstd::bulk::Decompressor::new().map_err(|cause| cause.to_string())?;
            self.zstd = Some(made);
        }
        let decompressor = self.zstd.as_mut().expect("made just above");
        decompressor
            .decompress_to_buffer(stored, out)
            .map_err(|cause| cause.to_string())
    }
}

impl fmt::Debug for Expander {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expander").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
