//! What agent and holder say to each other.
//!
//! Owns: names, lines and tokens. Must not: open sockets or devices.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Folder of the sockets, in holder and agent alike, unless flags say otherwise.
pub const DIRECTORY: &str = "/run/snaphaul";
/// The device in a holder pod, unless a flag says otherwise.
pub const DEVICE: &str = "/dev/snaphaul";
/// No line is longer.
pub const LINE_BYTES: usize = 4096;

/// What tokens are derived with.
const TOKEN_CONTEXT: &str = "snaphaul holder token v1";

/// What the device is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A backup reads it.
    Read,
    /// A restore writes it, and nobody else may use it meanwhile.
    Write,
}

impl Mode {
    /// The word of the flag.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// The agent's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`token`] of the order's object and attempt.
    pub token: String,
    /// The attempt that the token was made for.
    pub attempt: i64,
    /// What the device is wanted for; must be what the holder was started for.
    pub mode: Mode,
    /// Whether only the answer is wanted, no descriptor: how readiness is asked for.
    #[serde(default)]
    pub probe: bool,
}

/// The holder's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// The device is open.
    Device(DeviceLine),
    /// It is not.
    Refused {
        /// Why not.
        error: String,
    },
}

/// What is known of the device. Its descriptors come with this line, unless it was a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLine {
    /// Its size.
    pub size_bytes: u64,
    /// Its number, `MAJ:MIN`.
    pub device: String,
    /// Version of the holder.
    pub holder: String,
}

/// The token of an attempt for the object of this UID.
#[must_use]
pub fn token(uid: &str, attempt: i64) -> String {
    let hash = blake3::derive_key(TOKEN_CONTEXT, format!("{uid}/{attempt}").as_bytes());
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

/// Whether two tokens are the same, in a time that does not tell where they differ.
#[must_use]
pub fn is_same_token(one: &str, other: &str) -> bool {
    let hash = |text: &str| blake3::hash(text.as_bytes());
    hash(one) == hash(other)
}

/// The socket for the object of this UID.
#[must_use]
pub fn socket(directory: &Path, uid: &str) -> PathBuf {
    directory.join(format!("{uid}.sock"))
}

/// Whether a text can be the UID of an object: nothing else becomes part of a path.
#[must_use]
pub fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_by_object_and_attempt() {
        let all = [token("a", 1), token("a", 2), token("b", 1), token("a/1", 1)];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 64);
            for (other, two) in all.iter().enumerate() {
                assert_eq!(is_same_token(one, two), index == other);
            }
        }
    }

    #[test]
    fn a_uid_is_no_path() {
        assert!(is_uid("5e7c0d5e-0000-4000-8000-0123456789ab"));
        for text in ["", "..", "a/b", "A", "a.b", &"a".repeat(65)] {
            assert!(!is_uid(text), "{text}");
        }
    }

    #[test]
    fn lines_are_what_the_contract_says() {
        let refused = Answer::Refused {
            error: "busy".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"error":"busy"}"#
        );
        let text = r#"{"size_bytes":512,"device":"7:0","holder":"1"}"#;
        let device = Answer::Device(DeviceLine {
            size_bytes: 512,
            device: "7:0".to_owned(),
            holder: "1".to_owned(),
        });
        assert_eq!(serde_json::from_str::<Answer>(text).unwrap(), device);
        let request: Request =
            serde_json::from_str(r#"{"token":"t","attempt":1,"mode":"read"}"#).unwrap();
        assert_eq!((request.mode, request.probe), (Mode::Read, false));
    }
}
