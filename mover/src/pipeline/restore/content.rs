//! From a point's map to what its target must hold.
//!
//! ```text
//!   map ──► zero runs and chunks, ascending ──► consumer
//!               │    (the root's hash must give the manifest's content hash; every page is checked against its pointer)
//!               └──► samples for the checked end
//! ```
//!
//! Owns: the walk and the proof that the map is the manifest's. Must not: fetch chunks. Lost pages come out as zeros and are
//! noted as lost.

use super::delta::Item;
use super::job::Job;
use super::plan::{Run, Wanted};
use super::sample::{Expected, Sampler};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::walk::{LEAF_CHUNKS, Step, Walk};
use crate::repository::access::Repository;
use crate::repository::format::Manifest;
use crate::repository::ids::name;
use crate::repository::map::{FANOUT, LeafRef};
use crate::repository::session::points::Point;

/// What the walk found besides the items.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Chunks to read back, ascending.
    pub samples: Vec<(u64, Expected)>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Walks the chunks of the job's range and hands them over, ascending.
///
/// # Errors
/// What the store answers; `Corrupt` where a page is damaged and losses are not salvaged, or where the map is not the one the
/// manifest was written with; what `sink` returns.
pub(crate) fn walk(
    job: &Job<'_>,
    point: &Point,
    seed: u64,
    sink: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<Walked> {
    let mut walked = Walked::default();
    if let Err(error) = check_root(&job.context.repository, point) {
        if !job.losses.is_salvage() {
            return Err(error);
        }
        walked.warnings.push(format!(
            "{error}: chunks may be missing or in the wrong place"
        ));
    }
    let root = &point.manifest.root;
    let mut contents = Contents {
        job,
        sink,
        sampler: Sampler::new(&job.geometry, seed),
    };
    let mut walk = Walk::new(&job.segments, root, job.geometry.chunks());
    while let Some(step) = walk.next()? {
        job.context.stop.check()?;
        match step {
            Step::Zeros(run) => contents.zeros(run)?,
            Step::Leaf(first, leaf) => contents.leaf(first, &leaf)?,
            Step::Lost(run, error) => contents.lost(run, error)?,
        }
    }
    walked.samples = contents.sampler.finish();
    Ok(walked)
}

/// Whether the map is the one that the manifest was written with.
///
/// # Errors
/// `Corrupt` where it is not.
pub(crate) fn check_root(repository: &Repository, point: &Point) -> Result<()> {
    let Manifest {
        root,
        size,
        chunk_size,
        content_hash,
        ..
    } = &point.manifest;
    if root.content_hash(&repository.keys, *size, *chunk_size) == *content_hash {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        "match the map with the content hash of its manifest",
    )
    .object(name::slot(&point.key))
    .hint("choose another point; `snaphaul verify` lists all that is damaged"))
}

struct Contents<'a, 'j> {
    job: &'a Job<'j>,
    sink: &'a mut dyn FnMut(Item) -> Result<()>,
    sampler: Sampler,
}

impl Contents<'_, '_> {
    fn zeros(&mut self, run: Run) -> Result<()> {
        self.sampler.zeros(run);
        (self.sink)(Item::Zeros(run))
    }

    fn leaf(&mut self, first: u64, leaf: &LeafRef) -> Result<()> {
        let range = self.job.geometry.chunks();
        let end = range.end.min(first + LEAF_CHUNKS);
        let mut next = first.max(range.start);
        for (place, digest, location) in leaf.leaf.data() {
            debug_assert!(place < FANOUT);
            let chunk = first + place as u64;
            if chunk < next {
                continue;
            }
            if chunk >= end {
                break;
            }
            if chunk > next {
                self.zeros(Run {
                    first: next,
                    count: chunk - next,
                })?;
            }
            self.sampler.data(chunk, digest);
            (self.sink)(Item::Data(
                location.segment,
                Wanted {
                    chunk,
                    digest,
                    ordinal: location.ordinal,
                },
            ))?;
            next = chunk + 1;
        }
        if next < end {
            self.zeros(Run {
                first: next,
                count: end - next,
            })
        } else {
            Ok(())
        }
    }

    fn lost(&mut self, run: Run, error: Error) -> Result<()> {
        self.job.losses.note(&[run], error)?;
        (self.sink)(Item::Zeros(run))
    }
}
