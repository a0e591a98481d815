//! Leaves whose place in the tree is lost, found by the liveness of their point.
//!
//! Owns: reading them without a pointer. Must not: believe that they belong together: whoever uses them compares the hash of what
//! they make with one that is still known.

use std::ops::Range;

use super::leaf::Leaf;
use super::page::{self, MAX_PAGE_LEN, Page};
use super::{FANOUT, Liveness};
use crate::error::{ErrorKind, Result};
use crate::repository::access::Repository;
use crate::repository::format::{Class, Decoder, Head, fault, parse_head};
use crate::repository::ids::name;

/// The live leaves of a point that cover chunks in `chunks`, with their numbers, as far as their segments can be read.
///
/// # Errors
/// What the store answers; damage is none.
pub fn live_leaves(
    repository: &Repository,
    liveness: &Liveness,
    chunks: &Range<u64>,
) -> Result<Vec<(u64, Leaf)>> {
    let mut leaves = Vec::new();
    let mut decoder = Decoder::new();
    for (id, live) in liveness.map_segments() {
        let object = name::map_segment(id);
        let read = repository.store.get(&object).and_then(|bytes| {
            // Of a segment that is cut off, what is there counts.
            match parse_head(&repository.keys, Class::Map, id, &object, &bytes)? {
                Head::Ready(directory) => Ok((bytes, directory)),
                Head::NeedMore(need) => Err(fault::truncated(&object, bytes.len() as u64, need)),
            }
        });
        let (bytes, directory) = match read {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                tracing::debug!(%error, "pass over a map segment");
                continue;
            }
            Err(error) => return Err(error),
        };
        let wanted = directory.entries().iter().filter(|entry| {
            live.contains(entry.ordinal)
                && chunks.contains(&entry.key)
                && entry.raw_len <= MAX_PAGE_LEN
        });
        for entry in wanted {
            let start = usize::try_from(entry.offset).unwrap_or(usize::MAX);
            let stored = bytes
                .get(start..start.saturating_add(entry.stored_len as usize))
                .unwrap_or_default();
            let mut raw = vec![0; entry.raw_len as usize];
            let decoded = decoder.decode(&repository.keys, &directory, entry, stored, &mut raw);
            if decoded.is_ok()
                && let Ok(Page::Leaf(leaf)) = page::decode(&raw, 0)
            {
                leaves.push((entry.key / FANOUT as u64, leaf));
            }
        }
    }
    leaves.sort_by_key(|(index, _)| *index);
    Ok(leaves)
}
