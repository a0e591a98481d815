//! The bytes of a map page (`FORMAT.md`, "Map").
//!
//! ```text
//!   [ level, runs, rows, hashes, row column, ordinal column ]        deterministic CBOR
//!             │     └ the segments used, 20 bytes each, in order of first use
//!             └ kind of the first run, then each run's length minus one; kinds alternate
//! ```
//!
//! Owns: encoding and strict decoding. Must not: do I/O or hash. One page has exactly one encoding, so that pages with
//! the same content have the same hash, and a decoder can refuse everything else.

use std::collections::HashMap;

use super::FANOUT;
use super::cbor::{Malformed, Reader};
use super::entry::{Location, PagePointer};
use super::leaf::{Leaf, Stored};
use super::node::Node;
use super::slots::Slots;
use crate::repository::ids::{Digest, SegmentId, SessionId};

/// No page is longer: 256 pointers of 35 bytes, 256 rows of 20, 257 bytes of runs and the heads come to 14,361 bytes.
pub const MAX_PAGE_LEN: u32 = 16 * 1024;

/// Bytes of one row: session id, number.
const ROW_LEN: usize = 20;

/// A decoded page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Leaf(Leaf),
    Node(Node),
}

/// What a page's columns are made of: a hash and a location.
trait Column: Copy {
    /// Bytes of its hash.
    const HASH_LEN: usize;
    fn hash(&self) -> &[u8];
    /// 16 bytes that depend on what the item holds, not on where it is stored.
    fn content(&self) -> &[u8];
    fn location(&self) -> Location;
    fn from_parts(hash: &[u8], location: Location) -> Option<Self>;
}

impl Column for Stored {
    const HASH_LEN: usize = 16;

    fn hash(&self) -> &[u8] {
        &self.digest.0
    }

    fn content(&self) -> &[u8] {
        &self.digest.0
    }

    fn location(&self) -> Location {
        self.location
    }

    fn from_parts(hash: &[u8], location: Location) -> Option<Self> {
        Some(Self {
            digest: Digest(hash.try_into().ok()?),
            location,
        })
    }
}

impl Column for PagePointer {
    const HASH_LEN: usize = 32;

    fn hash(&self) -> &[u8] {
        &self.hash
    }

    fn content(&self) -> &[u8] {
        &self.hash[..16]
    }

    fn location(&self) -> Location {
        self.location
    }

    fn from_parts(hash: &[u8], location: Location) -> Option<Self> {
        Some(Self {
            hash: hash.try_into().ok()?,
            location,
        })
    }
}

/// The bytes of a leaf.
pub(super) fn encode_leaf(leaf: &Leaf) -> Vec<u8> {
    encode(0, &leaf.slots)
}

/// The bytes of an inner node `level` steps above the leaves.
pub(super) fn encode_node(level: u8, node: &Node) -> Vec<u8> {
    encode(level, &node.slots)
}

/// What a leaf's chunks hold, wherever they are stored: level, runs, digests.
pub(super) fn leaf_content(leaf: &Leaf) -> Vec<u8> {
    content(0, &leaf.slots)
}

/// What the chunks below an inner node hold: level, runs, first halves of the children's hashes.
pub(super) fn node_content(level: u8, node: &Node) -> Vec<u8> {
    content(level, &node.slots)
}

fn content<T: Column>(level: u8, slots: &Slots<T>) -> Vec<u8> {
    let runs = encode_runs(slots);
    let mut content = Vec::with_capacity(1 + runs.len() + slots.len() * 16);
    content.push(level);
    content.extend_from_slice(&runs);
    for item in slots.items() {
        content.extend_from_slice(item.content());
    }
    content
}

impl Page {
    /// What the chunks below the page hold.
    pub(super) fn content(&self, level: u8) -> Vec<u8> {
        match self {
            Self::Leaf(leaf) => leaf_content(leaf),
            Self::Node(node) => node_content(level, node),
        }
    }
}

/// Reads a page that must be of `level`.
pub(super) fn decode(bytes: &[u8], level: u8) -> Result<Page, Malformed> {
    match level {
        0 => Ok(Page::Leaf(Leaf {
            slots: decode_slots(bytes, level)?,
        })),
        _ => Ok(Page::Node(Node {
            slots: decode_slots(bytes, level)?,
        })),
    }
}

fn encode<T: Column>(level: u8, slots: &Slots<T>) -> Vec<u8> {
    let mut rows = Vec::new();
    let mut row_of = HashMap::new();
    let (mut hashes, mut row_column, mut ordinals) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    for item in slots.items() {
        let Location { segment, ordinal } = item.location();
        let row = match last {
            // Neighbours nearly always share a segment.
            Some((same, row)) if same == segment => row,
            _ => *row_of.entry(segment).or_insert_with(|| {
                rows.extend_from_slice(&segment.session.0);
                rows.extend_from_slice(&segment.number.to_le_bytes());
                u8::try_from(rows.len() / ROW_LEN - 1).expect("256 items use at most 256 rows")
            }),
        };
        last = Some((segment, row));
        hashes.extend_from_slice(item.hash());
        row_column.push(row);
        ordinals.extend_from_slice(&ordinal.to_le_bytes());
    }
    let runs = encode_runs(slots);
    let columns = [&runs, &rows, &hashes, &row_column, &ordinals];
    let len = columns.iter().map(|column| column.len() + 3).sum::<usize>() + 2;
    let mut cbor = minicbor::Encoder::new(Vec::with_capacity(len));
    let written = cbor
        .array(6)
        .and_then(|cbor| cbor.u8(level))
        .and_then(|cbor| {
            columns
                .iter()
                .try_fold(cbor, |cbor, column| cbor.bytes(column))
        });
    written.expect("writing to a Vec never fails");
    cbor.into_writer()
}

pub(super) fn encode_runs<T: Copy>(slots: &Slots<T>) -> Vec<u8> {
    let mut runs = vec![u8::from(slots.is_taken(0))];
    let mut start = 0;
    for place in 1..=FANOUT {
        if place == FANOUT || slots.is_taken(place) != slots.is_taken(start) {
            runs.push(u8::try_from(place - start - 1).expect("a run is at most 256 long"));
            start = place;
        }
    }
    runs
}

fn decode_slots<T: Column>(bytes: &[u8], level: u8) -> Result<Slots<T>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.array()? != 6 {
        return Err(Malformed("a page has six parts"));
    }
    if reader.unsigned()? != u64::from(level) {
        return Err(Malformed("the page is of another level"));
    }
    let places = decode_runs(reader.bytes()?)?;
    let rows = decode_rows(reader.bytes()?)?;
    let (hashes, row_column, ordinals) = (reader.bytes()?, reader.bytes()?, reader.bytes()?);
    reader.finish()?;
    let count = places.len();
    if count == 0 {
        return Err(Malformed("the page is empty"));
    }
    if hashes.len() != count * T::HASH_LEN
        || row_column.len() != count
        || ordinals.len() != count * 2
    {
        return Err(Malformed("the columns differ in length"));
    }
    let mut slots = Slots::new();
    let mut rows_used = 0;
    let columns = hashes
        .chunks_exact(T::HASH_LEN)
        .zip(row_column)
        .zip(ordinals.chunks_exact(2));
    for (place, ((hash, row), ordinal)) in places.into_iter().zip(columns) {
        let row = usize::from(*row);
        if row > rows_used {
            return Err(Malformed("rows are not in order of first use"));
        }
        rows_used = rows_used.max(row + 1);
        let segment = *rows.get(row).ok_or(Malformed("a row is out of range"))?;
        let ordinal = u16::from_le_bytes([ordinal[0], ordinal[1]]);
        let item = T::from_parts(hash, Location { segment, ordinal });
        slots.append(
            place,
            item.ok_or(Malformed("the columns differ in length"))?,
        );
    }
    if rows_used != rows.len() {
        return Err(Malformed("a row is never used"));
    }
    Ok(slots)
}

/// The taken places, ascending.
fn decode_runs(runs: &[u8]) -> Result<Vec<usize>, Malformed> {
    let (&first, lengths) = runs
        .split_first()
        .ok_or(Malformed("the runs are missing"))?;
    if first > 1 || lengths.len() > FANOUT {
        return Err(Malformed("the runs are out of range"));
    }
    let mut places = Vec::new();
    let mut start = 0;
    let mut taken = first == 1;
    for len in lengths {
        let end = start + usize::from(*len) + 1;
        if end > FANOUT {
            return Err(Malformed("the runs are longer than the page"));
        }
        if taken {
            places.extend(start..end);
        }
        start = end;
        taken = !taken;
    }
    if start == FANOUT {
        Ok(places)
    } else {
        Err(Malformed("the runs are shorter than the page"))
    }
}

fn decode_rows(bytes: &[u8]) -> Result<Vec<SegmentId>, Malformed> {
    if !bytes.len().is_multiple_of(ROW_LEN) || bytes.len() > FANOUT * ROW_LEN {
        return Err(Malformed("the rows are cut off"));
    }
    let rows = bytes.chunks_exact(ROW_LEN).map(|row| {
        let (session, number) = row.split_at(16);
        let mut id = SegmentId {
            session: SessionId([0; 16]),
            number: 0,
        };
        id.session.0.copy_from_slice(session);
        id.number = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
        id
    });
    let rows = rows.collect::<Vec<_>>();
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Malformed("a row stands twice"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
