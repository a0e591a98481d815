//! Which byte ranges of an object to GET for a set of bodies.
//!
//! ```text
//!   bodies   [a][b]....[c].................[d]
//!   ranges   [-----------]                 [-]      near neighbours share a request, far ones do not
//! ```
//!
//! Owns: coalescing. Must not: do I/O or know what a body holds.

use std::ops::Range;

/// Unwanted bytes that are fetched rather than asked for in a second request. 256 KiB is two chunks: 0.2 ms of a local
/// disk, which is what a request costs there, and 2–3 ms of an S3 stream, a tenth of a round trip. (Same as for map pages.)
pub(crate) const MAX_GAP_BYTES: u64 = 256 << 10;

/// Longest range of one request: long enough that a round trip is small beside the transfer, short enough that seven of
/// them fit into the fetch budget. A little over half a full segment, whose directory and last body would else cost a third
/// request: 66 k per TiB.
pub(crate) const MAX_GET_BYTES: u64 = 17 << 20;

/// A body to fetch, with whatever the caller keeps beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body<T> {
    /// Bytes in the object.
    pub bytes: Range<u64>,
    /// What it is for.
    pub tag: T,
}

/// One request and the bodies it serves, ascending by offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchRange<T> {
    /// Bytes in the object.
    pub bytes: Range<u64>,
    /// Bodies inside.
    pub bodies: Vec<Body<T>>,
}

/// Joins bodies with gaps of at most [`MAX_GAP_BYTES`] into ranges of at most [`MAX_GET_BYTES`] (a single longer body is
/// a range of its own). The same body may appear several times.
pub(crate) fn coalesce<T>(mut bodies: Vec<Body<T>>) -> Vec<FetchRange<T>> {
    bodies.sort_by_key(|body| (body.bytes.start, body.bytes.end));
    let mut ranges: Vec<FetchRange<T>> = Vec::new();
    for body in bodies {
        if let Some(last) = ranges.last_mut() {
            let end = last.bytes.end.max(body.bytes.end);
            let gap = body.bytes.start.saturating_sub(last.bytes.end);
            if gap <= MAX_GAP_BYTES && end - last.bytes.start <= MAX_GET_BYTES {
                last.bytes.end = end;
                last.bodies.push(body);
                continue;
            }
        }
        ranges.push(FetchRange {
            bytes: body.bytes.clone(),
            bodies: vec![body],
        });
    }
    ranges
}

#[cfg(test)]
mod tests;
