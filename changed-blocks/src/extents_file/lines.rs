//! The format of a list of extents: one JSON object a line, and a last one that says that the list is whole.
//!
//! Owns: the grammar, and refusing everything else by the number of its line. Must not: hold more than a line.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Deserializer};

use crate::extent::{ByteLen, ByteOffset, Extent, ExtentKind};
use crate::scan::stopped;
use crate::source::{ExtentSink, SourceError};

/// Bytes of a line. The longest useful one is the last, whose point id is far shorter.
const MAX_LINE_BYTES: u64 = 4096;

/// What the last line of a whole list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Size of the target in bytes.
    pub size: ByteLen,
    /// Number of extents.
    pub extents: u64,
    /// The point since which the extents changed; `None` where the list is of everything allocated.
    pub base_point: Option<String>,
}

/// Every field of both kinds of lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    offset: Option<u64>,
    length: Option<u64>,
    kind: Option<Kind>,
    complete: Option<bool>,
    size: Option<u64>,
    /// Whether it is there matters: a list of changes that forgot its base must not pass for one of all data.
    #[serde(default, deserialize_with = "present")]
    base_point: Option<Option<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Data,
    Zero,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

enum Meaning {
    Extent(Extent),
    End {
        size: u64,
        base_point: Option<String>,
    },
}

impl Line {
    fn parse(text: &[u8]) -> Result<Meaning, String> {
        // The fields in order as an array would parse as well.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err("no JSON object".to_owned());
        }
        let line: Self = serde_json::from_slice(text).map_err(|error| {
            let text = error.to_string();
            // The position that follows counts from the start of this line.
            text.split(" at line ").next().unwrap_or(&text).to_owned()
        })?;
        match line {
            Self {
                offset: Some(offset),
                length: Some(length),
                kind: Some(kind),
                complete: None,
                size: None,
                base_point: None,
            } => Ok(Meaning::Extent(Extent {
                offset: ByteOffset(offset),
                len: ByteLen(length),
                kind: match kind {
                    Kind::Data => ExtentKind::Data,
                    Kind::Zero => ExtentKind::Zero,
                },
            })),
            Self {
                offset: None,
                length: None,
                kind: None,
                complete: Some(true),
                size: Some(size),
                base_point: Some(base_point),
            } => Ok(Meaning::End { size, base_point }),
            Self {
                complete: Some(false),
                ..
            } => Err("the list says itself that it is not complete".to_owned()),
            Self {
                complete: Some(true),
                ..
            } => Err("the last line has exactly complete, size and base_point".to_owned()),
            _ => Err("an extent has exactly offset, length and kind".to_owned()),
        }
    }
}

/// Reads a list about a target of `size` bytes to its end and passes its extents on as they come.
///
/// # Errors
/// `FullBackup` with the number of the line for whatever is not a whole list about such a target, or cannot be read.
pub fn read(
    list: impl BufRead,
    size: ByteLen,
    sink: &mut ExtentSink<'_>,
) -> Result<End, SourceError> {
    let mut list = Numbered {
        list,
        text: Vec::new(),
        number: 0,
    };
    let (mut extents, mut last_end) = (0, 0);
    while list.advance()? {
        match Line::parse(&list.text).map_err(|fault| list.refuse(&fault))? {
            Meaning::Extent(extent) => {
                last_end = sound_end(extent, last_end, size.0).map_err(|f| list.refuse(&f))?;
                extents += 1;
                if !sink(extent) {
                    return Err(stopped());
                }
            }
            Meaning::End {
                size: listed,
                base_point,
            } => {
                if listed != size.0 {
                    let fault = format!("the list is of {listed} bytes, the target has {size}");
                    return Err(list.refuse(&fault));
                }
                if list.advance()? {
                    return Err(list.refuse("something follows the last line"));
                }
                return Ok(End {
                    size,
                    extents,
                    base_point,
                });
            }
        }
    }
    list.number += 1;
    Err(list.refuse("the list ends without a line that says complete"))
}

/// Where an extent ends that follows one which ended at `last_end`.
fn sound_end(extent: Extent, last_end: u64, size: u64) -> Result<u64, String> {
    let start = extent.offset.0;
    if extent.len.0 == 0 {
        return Err("the extent is empty".to_owned());
    }
    if start < last_end {
        return Err(format!(
            "the extent starts at {start}, before the last one ends at {last_end}"
        ));
    }
    let end = extent.end().filter(|end| *end <= size);
    end.ok_or_else(|| format!("the extent passes the end of the target at {size}"))
}

/// Lines of bounded length, counted from 1.
struct Numbered<R> {
    list: R,
    text: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Numbered<R> {
    /// Goes on to the next line; `false` at the end.
    fn advance(&mut self) -> Result<bool, SourceError> {
        self.text.clear();
        self.number += 1;
        let mut bounded = self.list.by_ref().take(MAX_LINE_BYTES);
        bounded
            .read_until(b'\n', &mut self.text)
            .map_err(|error| self.failed(error))?;
        let cut = self.text.len() as u64 == MAX_LINE_BYTES && self.text.last() != Some(&b'\n');
        if cut {
            return Err(self.refuse(&format!("longer than {MAX_LINE_BYTES} bytes")));
        }
        if self.text.is_empty() {
            self.number -= 1;
        }
        Ok(!self.text.is_empty())
    }

    fn refuse(&self, fault: &str) -> SourceError {
        SourceError::full(format!("line {}: {fault}", self.number))
    }

    fn failed(&self, error: io::Error) -> SourceError {
        SourceError::full(format!("read line {}", self.number)).because(error)
    }
}
