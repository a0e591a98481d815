//! What could not be read: the error that ends a restore, or, with `--salvage`, the list of lost ranges.
//!
//! Owns: that decision and the list. Must not: write to the target.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::geometry::Geometry;
use super::plan::Run;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::report::LostRange;

#[derive(Clone, Debug)]
struct Lost {
    count: u64,
    why: Arc<str>,
}

/// Collects the chunks that are lost.
#[derive(Debug)]
pub(crate) struct Losses {
    salvage: bool,
    point: String,
    geometry: Geometry,
    lost: Mutex<BTreeMap<u64, Lost>>,
}

impl Losses {
    /// For a restore of `point`; without `salvage` the first loss is an error.
    pub(crate) fn new(salvage: bool, point: String, geometry: Geometry) -> Self {
        Self {
            salvage,
            point,
            geometry,
            lost: Mutex::default(),
        }
    }

    /// Whether lost chunks are only noted.
    pub(crate) fn is_salvage(&self) -> bool {
        self.salvage
    }

    /// Whether an error means that stored bytes are lost, rather than that the store does not answer.
    pub(crate) fn is_loss(error: &Error) -> bool {
        matches!(
            error.kind(),
            ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Io
        )
    }

    /// Notes runs of chunks as lost because of `error`.
    ///
    /// # Errors
    /// The error, with point and byte range, unless it is a loss and losses are salvaged.
    pub(crate) fn note(&self, runs: &[Run], error: Error) -> Result<()> {
        if self.salvage && Self::is_loss(&error) {
            let why: Arc<str> = describe(&error).into();
            for run in runs {
                self.insert(*run, &why);
            }
            return Ok(());
        }
        let Some(run) = runs.first() else {
            return Err(error);
        };
        let bytes = self.geometry.clip(run.first, run.count);
        let is_loss = Self::is_loss(&error);
        let error = error.context(format!(
            "restore bytes {} to {} of point {}",
            bytes.start, bytes.end, self.point
        ));
        Err(if is_loss {
            error.hint(
                "choose another point, or restore everything but what is damaged with --salvage; \
                        `snaphaul verify` lists all that is damaged",
            )
        } else {
            error
        })
    }

    fn insert(&self, run: Run, why: &Arc<str>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, before)) = lost.range_mut(..run.first).next_back()
            && first + before.count == run.first
            && before.why == *why
        {
            before.count += run.count;
            return;
        }
        lost.insert(
            run.first,
            Lost {
                count: run.count,
                why: Arc::clone(why),
            },
        );
    }

    /// Whether any byte of a chunk is lost.
    pub(crate) fn contains(&self, chunk: u64) -> bool {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.range(..=chunk)
            .next_back()
            .is_some_and(|(first, run)| chunk < first + run.count)
    }

    /// The lost ranges in bytes of the point, ascending; neighbours lost for the same reason are one range.
    pub(crate) fn ranges(&self) -> Vec<LostRange> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ranges: Vec<LostRange> = Vec::new();
        for (first, run) in lost.iter() {
            let bytes = self.geometry.clip(*first, run.count);
            let (offset, length) = (bytes.start, bytes.end - bytes.start);
            match ranges.last_mut() {
                Some(last) if last.offset + last.length == offset && *last.why == *run.why => {
                    last.length += length;
                }
                _ => ranges.push(LostRange {
                    offset,
                    length,
                    why: run.why.to_string(),
                }),
            }
        }
        ranges
    }
}

/// The error and its causes in one line, the object named once.
pub(crate) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(salvage: bool) -> Losses {
        let geometry = Geometry::new(10 * 65536 - 1, 65536, None).unwrap();
        Losses::new(salvage, "0123456789abcdef-01234567".to_owned(), geometry)
    }

    fn damaged() -> Error {
        Error::new(ErrorKind::Corrupt, "read a damaged object").object("seg/x/1.g00")
    }

    #[test]
    fn without_salvage_the_error_names_object_point_and_range() {
        let error = losses(false)
            .note(&[Run { first: 9, count: 1 }], damaged())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.object_name(), Some("seg/x/1.g00"));
        let text = error.to_string();
        assert!(
            text.contains("589824 to 655359") && text.contains("0123456789abcdef-01234567"),
            "{text}"
        );
        assert!(error.hint_text().unwrap().contains("--salvage"));
    }

    #[test]
    fn salvage_merges_what_is_lost_for_one_reason() {
        let losses = losses(true);
        for first in [4, 2, 3, 9] {
            losses.note(&[Run { first, count: 1 }], damaged()).unwrap();
        }
        let ranges = losses.ranges();
        assert_eq!(ranges.len(), 2);
        assert_eq!((ranges[0].offset, ranges[0].length), (2 * 65536, 3 * 65536));
        assert_eq!((ranges[1].offset, ranges[1].length), (9 * 65536, 65535));
        assert!(ranges[0].why.contains("seg/x/1.g00"));
        assert!(losses.contains(3) && !losses.contains(5) && !losses.contains(1));
    }

    #[test]
    fn salvage_does_not_hide_a_store_that_is_down() {
        let down = Error::new(ErrorKind::Unavailable, "read an object");
        let error = losses(true)
            .note(&[Run { first: 0, count: 1 }], down)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
