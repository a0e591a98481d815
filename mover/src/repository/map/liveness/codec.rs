//! The bytes of a liveness record (`FORMAT.md`, "Liveness").
//!
//! ```text
//!   [ data sessions, map sessions ]
//!     data session = [ session id, [ gap, live set, shared set, … ] ]
//!     map session  = [ session id, [ gap, live set, … ] ]
//!     set = n: the first n | byte string: bitmap | array: list of (ordinal − previous − 1)
//! ```
//!
//! Owns: encoding and strict decoding; a set has one spelling. Must not: do I/O.

use minicbor::Encoder;

use super::table::{LiveSet, SegmentTable};
use super::{Liveness, SegmentId};
use crate::repository::ids::SessionId;
use crate::repository::map::cbor::{Item, Malformed, Reader};

/// Ordinals are 16 bits.
const MAX_ORDINALS: u64 = 1 << 16;

type VecEncoder = Encoder<Vec<u8>>;

pub(super) fn encode(liveness: &Liveness) -> Vec<u8> {
    let mut cbor = Encoder::new(Vec::new());
    put(cbor.array(2));
    encode_table(&mut cbor, &liveness.data, Some(&liveness.shared));
    encode_table(&mut cbor, &liveness.pages, None);
    cbor.into_writer()
}

pub(super) fn decode(record: &[u8]) -> Result<Liveness, Malformed> {
    let mut reader = Reader::new(record);
    if reader.array()? != 2 {
        return Err(Malformed("liveness has two parts"));
    }
    let mut liveness = Liveness::default();
    decode_table(&mut reader, &mut liveness.data, Some(&mut liveness.shared))?;
    decode_table(&mut reader, &mut liveness.pages, None)?;
    reader.finish()?;
    liveness.data.compact();
    liveness.shared.compact();
    liveness.pages.compact();
    Ok(liveness)
}

fn put<T>(written: Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    // The writer is a Vec.
    written.expect("writing to a Vec never fails");
}

fn encode_table(cbor: &mut VecEncoder, table: &SegmentTable, shared: Option<&SegmentTable>) {
    let mut sessions = Vec::<(SessionId, u64)>::new();
    for (segment, _) in table.iter() {
        match sessions.last_mut() {
            Some((same, count)) if *same == segment.session => *count += 1,
            _ => sessions.push((segment.session, 1)),
        }
    }
    put(cbor.array(sessions.len() as u64));
    let per_segment = if shared.is_some() { 3 } else { 2 };
    let mut sessions = sessions.into_iter();
    let mut current = None;
    for (segment, live) in table.iter() {
        let gap = match current {
            Some(SegmentId { session, number }) if session == segment.session => {
                segment.number - number - 1
            }
            _ => {
                let (session, count) = sessions.next().expect("counted from the same table");
                put(cbor.array(2).and_then(|cbor| cbor.bytes(&session.0)));
                put(cbor.array(count * per_segment));
                segment.number
            }
        };
        current = Some(segment);
        put(cbor.u32(gap));
        encode_set(cbor, live);
        if let Some(shared) = shared {
            encode_set(cbor, shared.get(segment));
        }
    }
}

fn encode_set(cbor: &mut VecEncoder, set: LiveSet<'_>) {
    let (count, end) = (set.count(), set.end());
    if count == end {
        put(cbor.u32(count));
        return;
    }
    let list = steps(set.iter());
    if list_len(&list) < bitmap_len(end) {
        put(cbor.array(list.len() as u64));
        list.into_iter().for_each(|step| put(cbor.u16(step)));
    } else {
        let mut bitmap = vec![0; end.div_ceil(8) as usize];
        for ordinal in set.iter() {
            bitmap[usize::from(ordinal) / 8] |= 1 << (ordinal % 8);
        }
        put(cbor.bytes(&bitmap));
    }
}

/// Bytes of a CBOR head with this argument.
fn head_len(argument: usize) -> usize {
    match argument {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    }
}

fn list_len(steps: &[u16]) -> usize {
    head_len(steps.len())
        + steps
            .iter()
            .map(|step| head_len(usize::from(*step)))
            .sum::<usize>()
}

fn bitmap_len(end: u32) -> usize {
    let bytes = end.div_ceil(8) as usize;
    head_len(bytes) + bytes
}

fn decode_table(
    reader: &mut Reader<'_>,
    table: &mut SegmentTable,
    mut shared: Option<&mut SegmentTable>,
) -> Result<(), Malformed> {
    let per_segment = if shared.is_some() { 3 } else { 2 };
    let mut previous = None;
    for _ in 0..reader.array()? {
        if reader.array()? != 2 {
            return Err(Malformed("a session has two parts"));
        }
        let id = reader
            .bytes()?
            .try_into()
            .map_err(|_| Malformed("a session id has 16 bytes"))?;
        let session = SessionId(id);
        if previous.is_some_and(|previous| previous >= session) {
            return Err(Malformed("sessions are not ascending"));
        }
        previous = Some(session);
        let items = reader.array()?;
        if items == 0 || !items.is_multiple_of(per_segment) {
            return Err(Malformed("the segments of a session are cut off"));
        }
        let mut next = 0u64;
        for _ in 0..items / per_segment {
            let number = reader
                .unsigned()?
                .checked_add(next)
                .and_then(|number| u32::try_from(number).ok());
            let number = number.ok_or(Malformed("a segment number is out of range"))?;
            next = u64::from(number) + 1;
            decode_segment(
                reader,
                SegmentId { session, number },
                table,
                shared.as_deref_mut(),
            )?;
        }
    }
    Ok(())
}

fn decode_segment(
    reader: &mut Reader<'_>,
    segment: SegmentId,
    table: &mut SegmentTable,
    shared: Option<&mut SegmentTable>,
) -> Result<(), Malformed> {
    match decode_set(reader)? {
        Set::Bitmap(bitmap) => table.fill(segment, bitmap),
        Set::First(count) => table.fill_first(segment, count),
        set => set.ordinals().for_each(|ordinal| {
            table.insert(segment, ordinal);
        }),
    }
    let live = table.get(segment);
    if live.end() == 0 {
        return Err(Malformed("a segment has no live body"));
    }
    let Some(shared) = shared else { return Ok(()) };
    for ordinal in decode_set(reader)?.ordinals() {
        shared.insert(segment, ordinal);
        if !live.contains(ordinal) {
            return Err(Malformed("a shared chunk is not live"));
        }
    }
    Ok(())
}

/// A set as it is spelled.
enum Set<'a> {
    First(u32),
    Bitmap(&'a [u8]),
    List(Vec<u16>),
}

impl Set<'_> {
    fn ordinals(&self) -> impl Iterator<Item = u16> + '_ {
        let (first, bitmap, list): (u32, &[u8], &[u16]) = match self {
            Self::First(count) => (*count, &[], &[]),
            Self::Bitmap(bitmap) => (0, bitmap, &[]),
            Self::List(list) => (0, &[], list),
        };
        let first = (0..=u16::MAX).take_while(move |ordinal| u32::from(*ordinal) < first);
        first.chain(bits(bitmap)).chain(list.iter().copied())
    }
}

fn bits(bitmap: &[u8]) -> impl DoubleEndedIterator<Item = u16> + Clone + '_ {
    let bits = (0..=u16::MAX).take(bitmap.len() * 8);
    bits.filter(|bit| bitmap[usize::from(*bit) / 8] >> (bit % 8) & 1 == 1)
}

/// Reads a set in its one spelling: the shortest, a list only where it is shorter than a bitmap.
fn decode_set<'a>(reader: &mut Reader<'a>) -> Result<Set<'a>, Malformed> {
    match reader.item()? {
        Item::Unsigned(count) if count <= MAX_ORDINALS => {
            Ok(Set::First(u32::try_from(count).unwrap_or(0)))
        }
        Item::Unsigned(_) => Err(Malformed("an ordinal is out of range")),
        Item::Bytes(bitmap) => decode_bitmap(bitmap),
        Item::Array(count) => decode_list(reader, count),
    }
}

fn decode_bitmap(bitmap: &[u8]) -> Result<Set<'_>, Malformed> {
    let last = bitmap.last().copied().unwrap_or(0);
    if bitmap.len() as u64 * 8 > MAX_ORDINALS || last == 0 {
        return Err(Malformed("a bitmap is out of range"));
    }
    let end = bitmap.len() * 8 - last.leading_zeros() as usize;
    let count: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
    let end_bits = u32::try_from(end).unwrap_or(u32::MAX);
    // A list takes at least a byte for each ordinal and one for its head.
    let may_be_list = count < bitmap_len(end_bits);
    let not_shortest =
        count == end || (may_be_list && list_len(&steps(bits(bitmap))) < bitmap_len(end_bits));
    if not_shortest {
        return Err(Malformed("a set is not in its shortest form"));
    }
    Ok(Set::Bitmap(bitmap))
}

fn decode_list<'a>(reader: &mut Reader<'a>, count: u64) -> Result<Set<'a>, Malformed> {
    let (mut steps, mut list) = (Vec::new(), Vec::new());
    let mut next = 0u64;
    for _ in 0..count {
        let step = reader.unsigned()?;
        let ordinal = step
            .checked_add(next)
            .and_then(|ordinal| u16::try_from(ordinal).ok());
        let ordinal = ordinal.ok_or(Malformed("an ordinal is out of range"))?;
        steps.push(ordinal - u16::try_from(next).unwrap_or(u16::MAX));
        next = u64::from(ordinal) + 1;
        list.push(ordinal);
    }
    let end = u32::try_from(next).unwrap_or(u32::MAX);
    if steps.iter().all(|step| *step == 0) || list_len(&steps) >= bitmap_len(end) {
        return Err(Malformed("a set is not in its shortest form"));
    }
    Ok(Set::List(list))
}

/// Distance of each ordinal from the one before, minus one.
fn steps(ordinals: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut next = 0;
    ordinals
        .map(|ordinal| {
            let step = ordinal - next;
            next = ordinal.saturating_add(1);
            step
        })
        .collect()
}
