//! Which ranges of a segment to fetch for a set of bodies. Pure.
//!
//! Owns: the joining of neighbours. Must not: do I/O.

use std::ops::Range;

/// Gaps up to this are read and thrown away: a request costs more than so many bytes.
pub(super) const MAX_GAP: u64 = 256 << 10;
/// Longest single request; what sixteen of them may hold is bounded by [`IN_FLIGHT_BYTES`](super::pages::IN_FLIGHT_BYTES).
pub(super) const MAX_GET: u64 = 4 << 20;

/// A body that is wanted: its bytes in the object, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) bytes: Range<u64>,
    pub(super) request: usize,
}

/// One request to the store, and the bodies that come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) bytes: Range<u64>,
    pub(super) wanted: Vec<Wanted>,
}

/// Joins bodies of one object into as few requests as is sensible: over gaps of at most [`MAX_GAP`], over any gap where more
/// than half of the object is wanted, up to [`MAX_GET`] each.
pub(super) fn join(mut wanted: Vec<Wanted>, object_len: u64) -> Vec<Fetch> {
    wanted.sort_unstable_by_key(|body| body.bytes.start);
    let needed = wanted
        .iter()
        .map(|body| body.bytes.end - body.bytes.start)
        .sum::<u64>();
    let max_gap = if needed > object_len / 2 {
        u64::MAX
    } else {
        MAX_GAP
    };
    let mut fetches = Vec::<Fetch>::new();
    for body in wanted {
        match fetches.last_mut() {
            Some(last)
                if body.bytes.start.saturating_sub(last.bytes.end) <= max_gap
                    && body.bytes.end.max(last.bytes.end) - last.bytes.start <= MAX_GET =>
            {
                last.bytes.end = last.bytes.end.max(body.bytes.end);
                last.wanted.push(body);
            }
            _ => fetches.push(Fetch {
                bytes: body.bytes.clone(),
                wanted: vec![body],
            }),
        }
    }
    fetches
}

/// Lengthens the last request of a reader that goes on from there, so that the next pages come with it.
pub(super) fn read_ahead(fetches: &mut [Fetch], least: u64, object_len: u64) {
    if let Some(Fetch { bytes, .. }) = fetches.last_mut() {
        bytes.end = bytes
            .end
            .max(bytes.start.saturating_add(least).min(object_len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ranges: &[Range<u64>]) -> Vec<Wanted> {
        let bodies = ranges.iter().cloned().enumerate();
        bodies
            .map(|(request, bytes)| Wanted { bytes, request })
            .collect()
    }

    fn ranges(fetches: &[Fetch]) -> Vec<Range<u64>> {
        fetches.iter().map(|fetch| fetch.bytes.clone()).collect()
    }

    #[test]
    fn joins_over_small_gaps_only() {
        let bodies = wanted(&[1 << 20..(1 << 20) + 10, 0..10, 5000..5010]);
        assert_eq!(
            ranges(&join(bodies, 32 << 20)),
            [0..5010, 1 << 20..(1 << 20) + 10]
        );
    }

    #[test]
    fn joins_over_any_gap_when_more_than_half_is_wanted() {
        let bodies = wanted(&[0..600_000, 1_000_000..1_600_000]);
        assert_eq!(
            ranges(&join(bodies.clone(), 2_000_000)),
            vec![0..1_600_000u64]
        );
        assert_eq!(join(bodies, 3_000_000).len(), 2);
    }

    #[test]
    fn never_asks_for_more_than_the_longest_request() {
        let bodies = (0..4000u64)
            .map(|i| i * 5000..i * 5000 + 5000)
            .collect::<Vec<_>>();
        let fetches = join(wanted(&bodies), 20_000_000);
        assert!(
            fetches
                .iter()
                .all(|fetch| fetch.bytes.end - fetch.bytes.start <= MAX_GET)
        );
        assert_eq!(fetches.len(), 5);
        assert_eq!(
            fetches
                .iter()
                .map(|fetch| fetch.wanted.len())
                .sum::<usize>(),
            4000
        );
    }

    #[test]
    fn read_ahead_stops_at_the_end() {
        let mut fetches = join(wanted(&[0..10, 900..1000]), 1_000_000);
        read_ahead(&mut fetches, 4096, 2000);
        assert_eq!(ranges(&fetches), vec![0..2000u64]);
        read_ahead(&mut fetches, 100, 2000);
        assert_eq!(ranges(&fetches), vec![0..2000u64]);
    }
}
