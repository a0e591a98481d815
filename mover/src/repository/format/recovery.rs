//! The master key on paper.
//!
//! ```text
//!   version ‖ repository id ‖ master key ‖ check ── base 32 ──► 4 lines of 22 characters, each with 2 that check it
//! ```
//!
//! Owns: that encoding (`FORMAT.md`, "Recovery sheet"). Must not: say the key in errors or Debug, or know what else is on a
//! sheet. A slip of the pen is found in its line.

use std::fmt;

use zeroize::Zeroizing;

use super::crypto::MasterKey;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ids::RepositoryId;

const CONTEXT_CHECK: &str = "snaphaul.dev repository v1: recovery sheet";
const CONTEXT_LINE: &str = "snaphaul.dev repository v1: line of a recovery sheet";
const VERSION: u8 = 1;
/// Digits and letters without I, L, O and U, which are misread (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LINES: usize = 4;
/// Characters of key and of check in a line.
const LINE_LEN: usize = 22;
const LINE_CHECK_LEN: usize = 2;
const GROUP_LEN: usize = 4;
const CHECK_LEN: usize = 6;
const BODY_LEN: usize = 1 + 16 + 32;
/// 440 bits, which are exactly 4 lines.
const PAYLOAD_LEN: usize = BODY_LEN + CHECK_LEN;

type Payload = Zeroizing<[u8; PAYLOAD_LEN]>;

/// The master key of a repository, as a recovery sheet holds it.
#[derive(Clone)]
pub struct RecoveryKey {
    repository: RepositoryId,
    master: MasterKey,
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryKey({}, redacted)", self.repository)
    }
}

impl RecoveryKey {
    /// The key of `repository`.
    #[must_use]
    pub fn new(repository: RepositoryId, master: MasterKey) -> Self {
        Self { repository, master }
    }

    /// The repository it opens.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The key.
    #[must_use]
    pub fn master(&self) -> &MasterKey {
        &self.master
    }

    /// The lines for the paper, each ended by a newline: `key 1: ABCD EFGH …`.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let symbols = to_symbols(&self.payload());
        // As large as it becomes, so that growing leaves no copies behind in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(256));
        for (index, line) in symbols.chunks(LINE_LEN).enumerate() {
            text.push_str(&format!("key {}:", index + 1));
            let whole = line.iter().copied().chain(line_check(index, line));
            for (at, symbol) in whole.enumerate() {
                if at % GROUP_LEN == 0 {
                    text.push(' ');
                }
                text.push(char::from(symbol));
            }
            text.push('\n');
        }
        text
    }

    /// Reads the lines back from a text that may hold anything else around them.
    ///
    /// # Errors
    /// `InvalidRequest` where a line is missing or mistyped, with its number; `NewerFormat` for a later kind of sheet.
    pub fn parse(text: &str) -> Result<Self> {
        let mut symbols = Zeroizing::new(Vec::with_capacity(LINES * LINE_LEN));
        for index in 0..LINES {
            symbols.extend_from_slice(&find_line(text, index)?);
        }
        let payload = from_symbols(&symbols);
        let (body, check) = payload.split_at(BODY_LEN);
        if blake3::derive_key(CONTEXT_CHECK, body)[..CHECK_LEN] != *check {
            return Err(slip(
                "check the key of the recovery sheet: its lines do not belong together",
            )
            .hint("the four lines must come from one sheet"));
        }
        let (Some((version, body)), true) = (body.split_first(), body.len() == BODY_LEN) else {
            return Err(Error::new(ErrorKind::Internal, "take a recovery key apart"));
        };
        if *version != VERSION {
            return Err(Error::new(
                ErrorKind::NewerFormat,
                "read the recovery sheet: it was made by a newer version",
            )
            .hint("use the version of snaphaul that is named on the sheet"));
        }
        let (mut repository, mut master) = ([0; 16], Zeroizing::new([0; 32]));
        repository.copy_from_slice(&body[..16]);
        master.copy_from_slice(&body[16..]);
        Ok(Self::new(
            RepositoryId(repository),
            MasterKey::from_bytes(*master),
        ))
    }

    fn payload(&self) -> Payload {
        let mut payload = Zeroizing::new([0; PAYLOAD_LEN]);
        payload[0] = VERSION;
        payload[1..17].copy_from_slice(&self.repository.0);
        payload[17..BODY_LEN].copy_from_slice(self.master.bytes());
        let check = blake3::derive_key(CONTEXT_CHECK, &payload[..BODY_LEN]);
        payload[BODY_LEN..].copy_from_slice(&check[..CHECK_LEN]);
        payload
    }
}

fn slip(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

/// The key part of line `index`, after its check.
fn find_line(text: &str, index: usize) -> Result<Zeroizing<Vec<u8>>> {
    let number = index + 1;
    let label = format!("key{number}:");
    let mut found: Option<Zeroizing<Vec<u8>>> = None;
    for line in text.lines() {
        let Some(symbols) = labelled(line, &label) else {
            continue;
        };
        let len = symbols.len();
        if len != LINE_LEN + LINE_CHECK_LEN {
            return Err(slip(format!(
                "read the recovery sheet: line `key {number}` has {len} characters, not {}",
                LINE_LEN + LINE_CHECK_LEN
            ))
            .hint("compare the line with the paper"));
        }
        let (key, check) = symbols.split_at(LINE_LEN);
        if line_check(index, key) != check || found.as_ref().is_some_and(|f| f[..] != *key) {
            return Err(slip(format!(
                "read the recovery sheet: line `key {number}` is not right"
            ))
            .hint("compare the line with the paper, character by character"));
        }
        found = Some(Zeroizing::new(key.to_vec()));
    }
    found.ok_or_else(|| {
        slip(format!(
            "read the recovery sheet: line `key {number}` is missing"
        ))
        .hint("a sheet has the lines `key 1:` to `key 4:`, as `snaphaul key export` prints them")
    })
}

/// The characters of a line behind its label, as they were meant; `None` for any other line.
fn labelled(line: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(line.len()));
    plain.extend(
        line.bytes()
            .filter(|c| !c.is_ascii_whitespace() && *c != b'-')
            .map(|c| c.to_ascii_lowercase()),
    );
    let symbols = plain.strip_prefix(label.as_bytes())?;
    let meant = symbols.iter().map(|c| match c {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other.to_ascii_uppercase(),
    });
    Some(Zeroizing::new(meant.collect()))
}

fn line_check(index: usize, line: &[u8]) -> [u8; LINE_CHECK_LEN] {
    let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
    let hash = blake3::derive_key(CONTEXT_LINE, &[&[number], line].concat());
    [hash[0], hash[1]].map(|byte| ALPHABET[usize::from(byte % 32)])
}

/// Five bits a symbol, the highest first.
fn to_symbols(payload: &Payload) -> Zeroizing<Vec<u8>> {
    let bit = |at: usize| payload[at / 8] >> (7 - at % 8) & 1;
    let value = |symbol: usize| (0..5).fold(0, |value, at| value << 1 | bit(symbol * 5 + at));
    let symbols = (0..LINES * LINE_LEN).map(|symbol| ALPHABET[usize::from(value(symbol))]);
    Zeroizing::new(symbols.collect())
}

/// Symbols outside the alphabet have failed the check of their line.
fn from_symbols(symbols: &[u8]) -> Payload {
    let mut payload = Zeroizing::new([0; PAYLOAD_LEN]);
    for (index, symbol) in symbols.iter().enumerate() {
        let value = ALPHABET.iter().position(|c| c == symbol).unwrap_or(0);
        for at in (0..5).filter(|at| value >> (4 - at) & 1 == 1) {
            let bit = index * 5 + at;
            if let Some(byte) = payload.get_mut(bit / 8) {
                *byte |= 1 << (7 - bit % 8);
            }
        }
    }
    payload
}

#[cfg(test)]
mod tests;
