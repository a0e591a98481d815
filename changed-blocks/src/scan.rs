//! The source that knows nothing: everything must be read.
//!
//! Owns: that answer. Must not: read data.

use crate::extent::{ByteLen, Extent};
use crate::source::{Capabilities, ChangedBlocks, ExtentSink, SourceError, Summary};

/// One data extent over the whole target.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    size: u64,
}

impl Scan {
    /// A scan of a target of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size }
    }
}

impl ChangedBlocks for Scan {
    fn capabilities(&self) -> Capabilities {
        Capabilities::without_base("scan", ByteLen(self.size))
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let extents = u64::from(self.size > 0);
        if extents == 1 && !sink(Extent::data(0, self.size)) {
            return Err(stopped());
        }
        Ok(Summary {
            size: ByteLen(self.size),
            extents,
        })
    }

    fn delta(&mut self, _sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        Err(SourceError::full("a scan compares with nothing"))
    }
}

/// What a source answers after its consumer asked it to stop: never a summary, so that nobody takes the part for the whole.
pub(crate) fn stopped() -> SourceError {
    SourceError::full("stop before the end of the answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[test]
    fn passes_the_contract() {
        for size in [1, 4096, 1 << 44] {
            let needed = [Extent::data(0, size)].into_iter().collect();
            contract::check_allocated(&mut Scan::new(size), size, &needed);
            contract::check_without_base(&mut Scan::new(size));
        }
    }

    #[test]
    fn an_empty_target_has_no_extents() {
        let summary = Scan::new(0)
            .allocated(&mut |extent| panic!("{extent:?}"))
            .unwrap();
        assert_eq!(
            summary,
            Summary {
                size: ByteLen(0),
                extents: 0
            }
        );
    }
}
