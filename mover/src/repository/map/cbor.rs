//! A strict reader for the deterministic CBOR of map pages and liveness.
//!
//! Owns: unsigned numbers, byte strings and array heads, each in its one shortest form. Must not: accept a second
//! spelling of the same value, read past the input, or allocate by what the input claims.

use std::fmt;

/// Why stored bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// One item's head: major type and argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A number from 0.
    Unsigned(u64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// An array of so many items that follow.
    Array(u64),
}

/// Reads items from front to back.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next item; of an array only its head.
    pub(crate) fn item(&mut self) -> Result<Item<'a>, Malformed> {
        let (&first, rest) = self
            .rest
            .split_first()
            .ok_or(Malformed("input ends early"))?;
        self.rest = rest;
        let argument = self.argument(first & 0x1f)?;
        match first >> 5 {
            0 => Ok(Item::Unsigned(argument)),
            2 => {
                let len = usize::try_from(argument).map_err(|_| Malformed("input ends early"))?;
                self.take(len).map(Item::Bytes)
            }
            4 => Ok(Item::Array(argument)),
            _ => Err(Malformed("a value has an unexpected type")),
        }
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, Malformed> {
        match self.item()? {
            Item::Unsigned(value) => Ok(value),
            _ => Err(Malformed("a number is expected")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        match self.item()? {
            Item::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a byte string is expected")),
        }
    }

    pub(crate) fn array(&mut self) -> Result<u64, Malformed> {
        match self.item()? {
            Item::Array(len) => Ok(len),
            _ => Err(Malformed("an array is expected")),
        }
    }

    /// The input must end here.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("bytes follow the end"))
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed("input ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The argument behind `short`, the low five bits of a head, if it could not have been written shorter.
    fn argument(&mut self, short: u8) -> Result<u64, Malformed> {
        let (width, least) = match short {
            0..24 => return Ok(u64::from(short)),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            _ => return Err(Malformed("a length is not definite")),
        };
        let value = self
            .take(width)?
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        if value < least {
            return Err(Malformed("a number is not in its shortest form"));
        }
        Ok(value)
    }
}
