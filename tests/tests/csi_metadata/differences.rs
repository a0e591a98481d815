//! Comparisons of bytes, and of what a source told with them.

use anyhow::{Result, ensure};
use changed_blocks::{ByteLen, Extent, ExtentSet, contract};

use crate::bed::{Bed, Frozen};

/// What both drivers compare in.
const UNIT: usize = 4096;

/// Bytes in which both differ, as far as both reach.
pub(crate) fn differing(base: &[u8], target: &[u8]) -> ExtentSet {
    let shared = base.len().min(target.len());
    runs(shared, |at| base[at] != target[at])
}

/// Bytes that are not zero.
pub(crate) fn not_zero(bytes: &[u8]) -> ExtentSet {
    runs(bytes.len(), |at| bytes[at] != 0)
}

fn runs(len: usize, is: impl Fn(usize) -> bool) -> ExtentSet {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < len {
        let start = at;
        while at < len && is(at) {
            at += 1;
        }
        if at > start {
            extents.push(extent(start, at - start));
        }
        at += 1;
    }
    extents.into_iter().collect()
}

fn extent(start: usize, len: usize) -> Extent {
    let number = |value| u64::try_from(value).expect("a length fits 64 bits");
    Extent::data(number(start), number(len))
}

/// Checks a delta and what is allocated against the bytes of both: nothing is missing, and nothing is told without a reason.
pub(crate) fn check_pair(bed: &Bed<'_>, base: &Frozen, target: &Frozen) -> Result<()> {
    let size = target.size();
    let (mut source, notices) = bed.bound(&base.id, target)?;
    let changed = differing(&base.bytes, &target.bytes);
    contract::check_delta(&mut source, size, &changed);
    let data = not_zero(&target.bytes);
    contract::check_allocated(&mut source, size, &data);
    let unit = ByteLen(u64::try_from(UNIT)?);
    let excess = |told: Vec<Extent>, needed: &ExtentSet, from: u64| {
        let told: ExtentSet = told.into_iter().collect();
        let shared = told.clip(Extent::data(0, from));
        shared.subtract(&needed.round_out(unit, ByteLen(size)))
    };
    let shared = base.size().min(size);
    let more = excess(crate::bed::delta(&mut source)?, &changed, shared);
    ensure!(more.is_empty(), "told without a change: {more:?}");
    let more = excess(crate::bed::allocated(&mut source)?, &data, size);
    ensure!(more.is_empty(), "told as allocated, and empty: {more:?}");
    ensure!(notices.all().is_empty(), "{:?}", notices.all());
    Ok(())
}
