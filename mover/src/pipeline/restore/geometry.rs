//! Arithmetic between chunks of a point, the restored range and the target.
//!
//! ```text
//!   point   |0    |1    |2    |3 |          chunks of the repository's size, the last one clipped
//!   range        [off .............off+len)
//!   target       [0 ............... len)
//! ```
//!
//! Owns: the conversions. Must not: do I/O. All ranges are half open.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::repository::format::{MAX_CHUNK_LEN, MIN_CHUNK_LEN};

/// Where the chunks of a point go in a target that holds `range` of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    size: u64,
    chunk_size: u64,
    range: Range<u64>,
}

impl Geometry {
    /// A whole point, or `(offset, length)` of it.
    ///
    /// # Errors
    /// `InvalidRequest` if the range is empty or passes the end; `Corrupt` if the chunk size is not one we write.
    pub(crate) fn new(size: u64, chunk_size: u32, range: Option<(u64, u64)>) -> Result<Self> {
        if !chunk_size.is_power_of_two() || !(MIN_CHUNK_LEN..=MAX_CHUNK_LEN).contains(&chunk_size) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("accept a chunk size of {chunk_size} bytes"),
            ));
        }
        let range = match range {
            None => 0..size,
            Some((offset, len)) => match offset.checked_add(len) {
                Some(end) if len > 0 && end <= size => offset..end,
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidRequest,
                        format!("restore {len} bytes at offset {offset} of a point of {size} bytes"),
                    )
                    .hint("give --range OFF:LEN with LEN above 0 inside the point; `snaphaul show` prints its size"));
                }
            },
        };
        Ok(Self {
            size,
            chunk_size: u64::from(chunk_size),
            range,
        })
    }

    /// Chunk size in bytes.
    pub(crate) fn chunk_size(&self) -> u64 {
        self.chunk_size
    }

    /// Bytes of the point that are restored.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Bytes of the target.
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Chunks that hold any byte of the range.
    pub(crate) fn chunks(&self) -> Range<u64> {
        self.range.start / self.chunk_size..self.range.end.div_ceil(self.chunk_size)
    }

    /// Whether every chunk lands on a multiple of the chunk size of the target.
    pub(crate) fn is_chunk_aligned(&self) -> bool {
        self.range.start.is_multiple_of(self.chunk_size)
    }

    /// True length of a chunk: as it was hashed and stored.
    pub(crate) fn chunk_len(&self, chunk: u64) -> u64 {
        let start = chunk * self.chunk_size;
        self.size.min(start + self.chunk_size) - start
    }

    /// Bytes of the point that a run of chunks covers inside the range.
    pub(crate) fn clip(&self, first: u64, count: u64) -> Range<u64> {
        let end = first
            .saturating_add(count)
            .saturating_mul(self.chunk_size)
            .min(self.range.end);
        let start = first
            .saturating_mul(self.chunk_size)
            .clamp(self.range.start, end.max(self.range.start));
        start..end.max(start)
    }

    /// The clipped run in bytes of the target: offset and length.
    pub(crate) fn place(&self, first: u64, count: u64) -> (u64, u64) {
        let bytes = self.clip(first, count);
        (bytes.start - self.range.start, bytes.end - bytes.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clips_the_last_chunk_to_the_size() {
        let geometry = Geometry::new(10 * 65536 + 5, 65536, None).unwrap();
        assert_eq!(geometry.chunks(), 0..11);
        assert_eq!(geometry.chunk_len(9), 65536);
        assert_eq!(geometry.chunk_len(10), 5);
        assert_eq!(geometry.place(10, 1), (655_360, 5));
        assert!(geometry.is_chunk_aligned());
    }

    #[test]
    fn refuses_ranges_outside_the_point() {
        for range in [(0, 0), (0, 101), (100, 1), (u64::MAX, 2)] {
            let error = Geometry::new(100, 65536, Some(range)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{range:?}");
        }
        assert!(Geometry::new(100, 65536, Some((99, 1))).is_ok());
        assert!(Geometry::new(100, 65535, None).is_err());
    }

    #[test]
    fn an_empty_point_has_no_chunks() {
        let geometry = Geometry::new(0, 65536, None).unwrap();
        assert!(geometry.chunks().is_empty());
        assert_eq!(geometry.len(), 0);
    }

    proptest! {
        #[test]
        fn chunks_of_a_range_tile_the_target(size in 1u64..3_000_000, a in 0u64..3_000_000, b in 0u64..3_000_000) {
            let (start, end) = (a.min(b).min(size - 1), a.max(b).min(size).max(a.min(b).min(size - 1) + 1));
            let geometry = Geometry::new(size, 65536, Some((start, end - start))).unwrap();
            let mut at = 0;
            for chunk in geometry.chunks() {
                let (offset, len) = geometry.place(chunk, 1);
                prop_assert_eq!(offset, at);
                prop_assert!(len > 0 && len <= geometry.chunk_len(chunk));
                at += len;
            }
            prop_assert_eq!(at, geometry.len());
            let all = geometry.chunks();
            prop_assert_eq!(geometry.place(all.start, all.end - all.start), (0, geometry.len()));
        }
    }
}
