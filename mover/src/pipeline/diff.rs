//! Diff: which byte ranges of two points differ.
//!
//! Owns: chunks to extents, clipped and joined. Must not: read data: equal digests are equal bytes, and subtrees that the two
//! maps share are skipped, so the cost is what differs.
//!
//! Where the sizes differ, bytes behind the end of the smaller point count as zeros, and extents end with the larger one.

use std::time::Instant;

use changed_blocks::Extent;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Context;
use crate::pipeline::report::DiffReport;
use crate::repository::map;
use crate::repository::session::points::Point;
use crate::repository::session::reader::ReaderLease;
use crate::repository::session::records::Kind;
use crate::repository::session::resolve::resolve;

/// Hands every extent in which `from` and `to` differ to `sink`, ascending, disjoint and not touching.
///
/// # Errors
/// `NotFound` for an unknown point, `Corrupt` where a page that differs is damaged, `Interrupted` on request, and what the
/// store answers.
pub fn run(
    context: &Context,
    from: &str,
    to: &str,
    sink: &mut dyn FnMut(Extent),
) -> Result<DiffReport> {
    let started = Instant::now();
    let repository = &context.repository;
    let (a, b) = (resolve(repository, from)?, resolve(repository, to)?);
    let _lease = ReaderLease::take(repository, Kind::Verify, &[&a, &b])?;
    let clip = Clip::of(&a, &b)?;
    let mut report = DiffReport {
        from: a.id().to_string(),
        to: b.id().to_string(),
        ..DiffReport::default()
    };
    map::diff(
        repository,
        &a.manifest.root,
        &b.manifest.root,
        |first, count| {
            context.stop.check()?;
            if let Some(extent) = clip.extent(first, count) {
                report.extents += 1;
                report.changed_bytes += extent.len.0;
                sink(extent);
            }
            Ok(())
        },
    )?;
    report.duration_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// From chunks of two points to bytes.
#[derive(Clone, Copy, Debug)]
struct Clip {
    chunk_size: u64,
    size: u64,
}

impl Clip {
    fn of(a: &Point, b: &Point) -> Result<Self> {
        let (left, right) = (&a.manifest, &b.manifest);
        if left.chunk_size != right.chunk_size {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "compare points of {} and {} byte chunks",
                    left.chunk_size, right.chunk_size
                ),
            )
            .object(b.id())
            .hint("only points with chunks of one size can be compared by their maps"));
        }
        Ok(Self {
            chunk_size: u64::from(left.chunk_size),
            size: left.size.max(right.size),
        })
    }

    fn extent(&self, first: u64, count: u64) -> Option<Extent> {
        let start = first.saturating_mul(self.chunk_size).min(self.size);
        let end = first
            .saturating_add(count)
            .saturating_mul(self.chunk_size)
            .min(self.size);
        (start < end).then(|| Extent::data(start, end - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_end_with_the_volume() {
        let clip = Clip {
            chunk_size: 65536,
            size: 3 * 65536 + 7,
        };
        assert_eq!(clip.extent(0, 1), Some(Extent::data(0, 65536)));
        assert_eq!(clip.extent(2, 2), Some(Extent::data(2 * 65536, 65536 + 7)));
        assert_eq!(clip.extent(3, u64::MAX), Some(Extent::data(3 * 65536, 7)));
        assert_eq!(clip.extent(4, 1), None);
    }

    #[test]
    fn the_extents_are_those_that_differ() {
        use crate::pipeline::testing::{Bed, CHUNK, Layout, image};
        let bed = Bed::new();
        let first = image(600, 100, 1);
        let mut second = first.clone();
        for chunk in [0, 1, 2, 300, 599] {
            second[chunk * CHUNK + 9] ^= 1;
        }
        second.resize(602 * CHUNK + 50, 7);
        let a = bed
            .point("disk", &first, Layout::default())
            .point()
            .to_string();
        let b = bed
            .point(
                "disk",
                &second,
                Layout {
                    spread: 3,
                    ..Layout::default()
                },
            )
            .point()
            .to_string();
        let mut extents = Vec::new();
        let report = run(&bed.context(), &a, &b, &mut |extent| extents.push(extent)).unwrap();
        let chunk = CHUNK as u64;
        let expected = [
            Extent::data(0, 3 * chunk),
            Extent::data(300 * chunk, chunk),
            Extent::data(599 * chunk, 3 * chunk + 50),
        ];
        assert_eq!(extents, expected);
        assert_eq!((report.extents, report.changed_bytes), (3, 7 * chunk + 50));
        assert_eq!((report.from, report.to), (a.clone(), b));
        assert_eq!(
            run(&bed.context(), &a, &a, &mut |_| unreachable!())
                .unwrap()
                .extents,
            0
        );
        assert_eq!(
            run(&bed.context(), &a, "ffff", &mut |_| {})
                .unwrap_err()
                .kind(),
            ErrorKind::NotFound
        );
    }
}
