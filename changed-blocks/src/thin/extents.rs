//! From ranges of data blocks to extents of bytes.
//!
//! Owns: scaling, clipping to where an answer ends, and joining neighbours of one kind, of which the tools tell many. Must not:
//! decide the kind.

use super::tag::fault;
use crate::extent::{Extent, ExtentKind};
use crate::scan::stopped;
use crate::source::{ExtentSink, SourceError};

/// Passes on ranges as extents.
pub(super) struct Extents<'a, 'b> {
    block_bytes: u64,
    /// Where the answer ends: a device that was made smaller keeps its mappings behind its end.
    end: u64,
    sink: &'a mut ExtentSink<'b>,
    pending: Option<Extent>,
    passed: u64,
}

impl<'a, 'b> Extents<'a, 'b> {
    pub(super) fn new(block_bytes: u64, end: u64, sink: &'a mut ExtentSink<'b>) -> Self {
        Self {
            block_bytes,
            end,
            sink,
            pending: None,
            passed: 0,
        }
    }

    /// Takes the next range, which lies behind those before it.
    pub(super) fn take(
        &mut self,
        begin: u64,
        length: u64,
        kind: ExtentKind,
    ) -> Result<(), SourceError> {
        let bytes = |blocks: u64| {
            let bytes = blocks.checked_mul(self.block_bytes);
            bytes.ok_or_else(|| {
                fault(&format!(
                    "block {blocks} is behind the end of the address space"
                ))
            })
        };
        let (start, end) = (
            bytes(begin)?,
            bytes(begin.saturating_add(length))?.min(self.end),
        );
        if start >= end {
            return Ok(());
        }
        if let Some(pending) = &mut self.pending
            && pending.kind == kind
            && pending.end() == Some(start)
        {
            pending.len.0 += end - start;
            return Ok(());
        }
        self.pass()?;
        let extent = Extent::data(start, end - start);
        self.pending = Some(Extent { kind, ..extent });
        Ok(())
    }

    /// Passes on the last extent; how many there were in all.
    pub(super) fn finish(mut self) -> Result<u64, SourceError> {
        self.pass()?;
        Ok(self.passed)
    }

    fn pass(&mut self) -> Result<(), SourceError> {
        if let Some(extent) = self.pending.take() {
            if !(self.sink)(extent) {
                return Err(stopped());
            }
            self.passed += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extents(end: u64, ranges: &[(u64, u64, ExtentKind)]) -> Result<Vec<Extent>, SourceError> {
        let mut seen = Vec::new();
        let mut sink = |extent| {
            seen.push(extent);
            true
        };
        let mut extents = Extents::new(8, end, &mut sink);
        for (begin, length, kind) in ranges {
            extents.take(*begin, *length, *kind)?;
        }
        let passed = extents.finish()?;
        assert_eq!(passed, seen.len() as u64);
        Ok(seen)
    }

    #[test]
    fn neighbours_of_one_kind_are_joined_and_the_end_is_cut() {
        use ExtentKind::{Data, Zero};
        let ranges = [
            (0, 1, Data),
            (1, 2, Data),
            (3, 1, Zero),
            (5, 1, Zero),
            (6, 9, Data),
            (20, 1, Data),
        ];
        let expected = [
            Extent::data(0, 24),
            Extent::zero(24, 8),
            Extent::zero(40, 8),
            Extent::data(48, 7),
        ];
        assert_eq!(extents(55, &ranges).unwrap(), expected);
        assert!(extents(55, &[(u64::MAX / 8 + 1, 1, Data)]).is_err());
        assert!(extents(55, &[(1, u64::MAX, Data)]).is_err());
    }

    #[test]
    fn a_consumer_that_stops_sees_no_more() {
        let mut seen = 0;
        let mut sink = |_| {
            seen += 1;
            false
        };
        let mut extents = Extents::new(8, 1000, &mut sink);
        let answers = [0, 2].map(|begin| extents.take(begin, 1, ExtentKind::Data).is_ok());
        assert_eq!(answers, [true, false]);
        assert_eq!(seen, 1);
    }

    proptest! {
        #[test]
        fn every_block_keeps_its_kind(kinds in proptest::collection::vec(0u8..3, 0..60), cut in 0u64..500) {
            let kind = |kind: u8| if kind == 1 { ExtentKind::Data } else { ExtentKind::Zero };
            let ranges: Vec<_> = (0u64..).zip(&kinds).filter(|(_, one)| **one > 0).map(|(at, one)| (at, 1, kind(*one))).collect();
            let seen = extents(cut, &ranges).unwrap();
            for byte in 0..kinds.len() as u64 * 8 {
                let of = kinds[usize::try_from(byte / 8).unwrap()];
                let expected = (byte < cut && of > 0).then(|| kind(of));
                let inside: Vec<_> = seen.iter().filter(|one| one.offset.0 <= byte && byte < one.end().unwrap()).collect();
                prop_assert_eq!(inside.first().map(|one| one.kind), expected);
                prop_assert!(inside.len() <= 1);
            }
            prop_assert!(seen.windows(2).all(|pair| pair[0].kind != pair[1].kind || pair[0].end().unwrap() < pair[1].offset.0));
        }
    }
}
