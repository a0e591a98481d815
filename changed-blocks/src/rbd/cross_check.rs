//! What Ceph's own programs say changed: `rbd diff --format json` and the heads of `rbd export-diff`.
//!
//! Owns: parsing both. Must not: run a program, or be an answer that anything is stored by: it is held against the source's.
//!
//! Sources: `src/tools/rbd/action/Diff.cc` and `doc/dev/rbd-diff.rst` of Ceph.

use std::io::{self, Read};

use crate::extent::{ByteLen, ByteOffset, Extent, ExtentKind};

/// Longer metadata than any of Ceph: a snapshot's name has at most a few hundred bytes.
const MAX_METADATA: u64 = 64 << 10;
/// More records before the first byte of data than any version writes.
const MAX_RECORDS: usize = 64;

/// An output that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum CrossCheckError {
    /// Not the JSON of `rbd diff`.
    #[error("understand the output of rbd diff: {0}")]
    Diff(String),
    /// Not an exported diff.
    #[error("understand the exported diff: {0}")]
    Export(&'static str),
    /// It cannot be read, or ends too soon.
    #[error("read the exported diff")]
    Read(#[source] io::Error),
}

/// The extents of `rbd diff --format json`, in its order. What it says does not exist is a zero extent.
///
/// # Errors
/// For anything else than a list of `offset`, `length` and `exists`, which is a text.
pub fn parse_diff(json: &[u8]) -> Result<Vec<Extent>, CrossCheckError> {
    let fault = |what: String| CrossCheckError::Diff(what);
    let list: Vec<serde_json::Value> =
        serde_json::from_slice(json).map_err(|error| fault(error.to_string()))?;
    list.iter()
        .map(|record| {
            let number = |key: &str| {
                let value = record.get(key).and_then(serde_json::Value::as_u64);
                value.ok_or_else(|| fault(format!("{key} is missing in {record}")))
            };
            let kind = match record.get("exists").and_then(serde_json::Value::as_str) {
                Some("true") => ExtentKind::Data,
                Some("false") => ExtentKind::Zero,
                _ => {
                    return Err(fault(format!(
                        "exists is neither true nor false in {record}"
                    )));
                }
            };
            Ok(Extent {
                offset: ByteOffset(number("offset")?),
                len: ByteLen(number("length")?),
                kind,
            })
        })
        .collect()
}

/// What an exported diff says of itself before its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportHead {
    /// Version of the format, 1 or 2.
    pub version: u8,
    /// Name of the snapshot it starts at; `None` for the beginning.
    pub from: Option<String>,
    /// Name of the snapshot it leads to; `None` for the head of the image.
    pub to: Option<String>,
    /// Size of the image at its end in bytes.
    pub size: Option<u64>,
}

/// Reads the head of an exported diff and stops at the tag of its first data, or at its end.
///
/// # Errors
/// For anything else, and for one that ends too soon.
pub fn read_export_head(reader: &mut impl Read) -> Result<ExportHead, CrossCheckError> {
    let version = match &bytes::<12>(reader)? {
        b"rbd diff v1\n" => 1,
        b"rbd diff v2\n" => 2,
        _ => {
            return Err(CrossCheckError::Export(
                "it does not start with rbd diff v1 or v2",
            ));
        }
    };
    let mut head = ExportHead {
        version,
        ..ExportHead::default()
    };
    for _ in 0..MAX_RECORDS {
        let [tag] = bytes(reader)?;
        if matches!(tag, b'w' | b'z' | b'e') {
            return Ok(head);
        }
        // The second version puts the length of each record before it, so that unknown ones can be passed over.
        let mut record = match version {
            1 => reader.take(u64::MAX),
            _ => {
                let len = u64::from_le_bytes(bytes(reader)?);
                if len > MAX_METADATA {
                    return Err(CrossCheckError::Export("a record is too long"));
                }
                reader.take(len)
            }
        };
        match tag {
            b'f' => head.from = Some(name(&mut record)?),
            b't' => head.to = Some(name(&mut record)?),
            b's' => head.size = Some(u64::from_le_bytes(bytes(&mut record)?)),
            _ if version == 1 => return Err(CrossCheckError::Export("a record is unknown")),
            _ => {}
        }
        if version == 2 {
            io::copy(&mut record, &mut io::sink()).map_err(CrossCheckError::Read)?;
        }
    }
    Err(CrossCheckError::Export(
        "it has too many records before its data",
    ))
}

fn bytes<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], CrossCheckError> {
    let mut bytes = [0; N];
    reader
        .read_exact(&mut bytes)
        .map_err(CrossCheckError::Read)?;
    Ok(bytes)
}

fn name(reader: &mut impl Read) -> Result<String, CrossCheckError> {
    let len = u64::from(u32::from_le_bytes(bytes(reader)?));
    if len > MAX_METADATA {
        return Err(CrossCheckError::Export("a name is too long"));
    }
    let mut name = Vec::new();
    let got = reader.take(len).read_to_end(&mut name);
    if got.map_err(CrossCheckError::Read)? as u64 != len {
        return Err(CrossCheckError::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    String::from_utf8(name).map_err(|_| CrossCheckError::Export("a name is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exists_is_a_text() {
        let json = br#"[{"offset":0,"length":4096,"exists":"true"},{"offset":8192,"length":1,"exists":"false"}]"#;
        assert_eq!(
            parse_diff(json).unwrap(),
            [Extent::data(0, 4096), Extent::zero(8192, 1)]
        );
        assert_eq!(parse_diff(b"[]").unwrap(), []);
        for bad in [
            &br#"[{"offset":0,"length":4096,"exists":true}]"#[..],
            br#"[{"offset":-1,"length":4096,"exists":"true"}]"#,
            br#"[{"offset":0,"exists":"true"}]"#,
            br#"[{"offset":0,"length":4096,"exists":"true"}"#,
            b"{}",
            b"",
        ] {
            assert!(parse_diff(bad).is_err());
        }
    }

    fn record(version: u8, tag: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        if version == 2 {
            bytes.extend(u64::try_from(payload.len()).unwrap().to_le_bytes());
        }
        bytes.extend(payload);
        bytes
    }

    fn text(text: &str) -> Vec<u8> {
        let mut bytes = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    }

    fn export(version: u8) -> Vec<u8> {
        let mut bytes = format!("rbd diff v{version}\n").into_bytes();
        bytes.extend(record(version, b'f', &text("older")));
        bytes.extend(record(version, b't', &text("younger")));
        if version == 2 {
            bytes.extend(record(version, b'?', b"what nobody knows"));
        }
        bytes.extend(record(version, b's', &77_u64.to_le_bytes()));
        bytes.extend(record(version, b'w', &[0; 16]));
        bytes
    }

    #[test]
    fn heads_of_both_versions_are_read() {
        for version in [1, 2] {
            let bytes = export(version);
            let head = read_export_head(&mut &bytes[..]).unwrap();
            assert_eq!(head.version, version);
            assert_eq!(head.from.as_deref(), Some("older"));
            assert_eq!(head.to.as_deref(), Some("younger"));
            assert_eq!(head.size, Some(77));
            let data = bytes.len() - record(version, b'w', &[0; 16]).len();
            for end in 0..data {
                assert!(read_export_head(&mut &bytes[..end]).is_err(), "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn damaged_heads_never_panic(version in 1..3_u8, at in 0..40_usize, byte: u8) {
            let mut bytes = export(version);
            bytes[at] = byte;
            let _ = read_export_head(&mut &bytes[..]);
        }

        #[test]
        fn noise_never_panics(bytes: Vec<u8>) {
            let _ = parse_diff(&bytes);
            let _ = read_export_head(&mut &bytes[..]);
        }
    }
}
