//! The answers about one window: what changed in it, and what it holds.
//!
//! Owns: the rules that turn what librbd tells into sound extents. Must not: know the order of windows.

use std::ops::Range;
use std::sync::Arc;

use super::doubt;
use super::pair::{Pair, refuse_layouts};
use crate::extent::{ByteLen, Extent};
use crate::extent_set::ExtentSet;
use crate::rbd::library::{
    Access, Cluster, DiffFrom, DiffRange, Image, ImageName, Objects, SnapshotName,
};
use crate::source::{SourceError, SourceErrorKind};

/// More ranges of one window are rounded, so that no image can fill the memory.
const MAX_RANGES: usize = 1 << 17;
/// What they are rounded to: a window of 4 GiB has at most 65,536 such blocks.
const ROUNDED: ByteLen = ByteLen(64 << 10);
/// ceph-csi flattens at 8 clones of clones and librbd's own limits end long before this one: a chain in a circle must end.
const MAX_DEPTH: usize = 64;
/// `RBD_FLAG_OBJECT_MAP_INVALID` and `RBD_FLAG_FAST_DIFF_INVALID`.
const MAP_INVALID: u64 = 1 << 0 | 1 << 1;

/// What changed between the snapshots of a pair.
#[derive(Debug)]
pub(super) struct Delta<'a> {
    pair: &'a Pair,
    whole_object: bool,
    /// How far the parent reaches at the older and at the younger snapshot.
    overlap: [u64; 2],
    /// The objects at both, where there is a parent that they may hide.
    objects: Option<[Objects; 2]>,
}

impl<'a> Delta<'a> {
    pub(super) fn of(pair: &'a Pair, whole_object: bool) -> Result<Self, SourceError> {
        let overlap = [&pair.facts.older, &pair.facts.younger]
            .map(|record| record.origin.as_ref().map_or(0, |origin| origin.overlap));
        let objects = if overlap[0] > 0 {
            Some([
                Objects::of(&pair.older).map_err(doubt)?,
                Objects::of(&pair.younger).map_err(doubt)?,
            ])
        } else {
            None
        };
        let valid = maps_are_valid(&pair.older)? && maps_are_valid(&pair.younger)?;
        Ok(Self {
            pair,
            whole_object: whole_object && valid,
            overlap,
            objects,
        })
    }

    pub(super) fn window(&self, window: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let mut told = Told::new(&window);
        let facts = &self.pair.facts;
        if facts.from.id != facts.to.id {
            let from = DiffFrom::Snapshot {
                id: facts.from.id,
                name: &self.pair.from_name,
            };
            let shown = self.overlap[1];
            let end = window.end.min(facts.younger.size);
            told.ask(&self.pair.younger, from, end, self.whole_object, |range| {
                // Where an object went away, a parent shows through.
                range.exists || range.offset < shown
            })?;
        }
        // Shrunk and grown again: what showed the parent is zeros now. librbd copies the parent up before it cuts; where a
        // client does not, no object was touched.
        let [before, after] = self.overlap;
        told.data(after..before);
        if let Some(objects) = &self.objects {
            hidden_parent(objects, before, &window, &mut told)?;
        }
        for objects in &self.pair.clones {
            let numbers = object_numbers(objects, &window);
            for (number, exists) in numbers.iter().zip(objects.exist(&numbers).map_err(doubt)?) {
                if exists {
                    told.object(objects, *number);
                }
            }
        }
        told.extents()
    }
}

/// Objects that came or went over a parent changed as a whole, however little of them librbd tells: one of no length hides
/// the parent, and librbd tells nothing of it.
fn hidden_parent(
    [before, after]: &[Objects; 2],
    overlap: u64,
    window: &Range<u64>,
    told: &mut Told,
) -> Result<(), SourceError> {
    let inside = window.start..window.end.min(overlap);
    let numbers = object_numbers(before, &inside);
    let existed = before.exist(&numbers).map_err(doubt)?;
    let exist = after.exist(&numbers).map_err(doubt)?;
    for (number, was_and_is) in numbers.into_iter().zip(existed.into_iter().zip(exist)) {
        if was_and_is.0 != was_and_is.1 {
            told.object(after, number);
        }
    }
    Ok(())
}

fn object_numbers(objects: &Objects, range: &Range<u64>) -> Vec<u64> {
    if range.is_empty() {
        return Vec::new();
    }
    let size = objects.object_size().max(1);
    (range.start / size..range.end.div_ceil(size)).collect()
}

/// What a snapshot holds, with all that shows through from its parents.
#[derive(Debug)]
pub(super) struct Allocation {
    levels: Vec<Level>,
}

/// A snapshot in a chain of clones.
#[derive(Debug)]
struct Level {
    image: Arc<Image>,
    /// How many of its first bytes can be seen.
    end: u64,
    /// Whether it cannot be asked, so that all of it counts.
    opaque: bool,
    whole_object: bool,
}

impl Allocation {
    pub(super) fn of(
        cluster: &Cluster,
        image: &Arc<Image>,
        whole_object: bool,
    ) -> Result<Self, SourceError> {
        let mut levels = Vec::new();
        let mut next = Some((Arc::clone(image), image.size().map_err(doubt)?));
        while let Some((image, end)) = next {
            let overlap = image.overlap().map_err(doubt)?.min(end);
            next = match image.parent().map_err(doubt)? {
                Some(parent) if overlap > 0 => {
                    let pool = cluster.pool_by_id(parent.pool_id, &parent.namespace);
                    let name = ImageName::Id(&parent.image_id);
                    let snapshot = Some(SnapshotName::Id(parent.snapshot_id));
                    let parent = Image::open(&pool.map_err(doubt)?, name, snapshot, Access::Read);
                    Some((Arc::new(parent.map_err(doubt)?), overlap))
                }
                _ => None,
            };
            levels.push(Level {
                end,
                opaque: is_opaque(&image)?,
                whole_object: whole_object && maps_are_valid(&image)?,
                image,
            });
            if levels.len() > MAX_DEPTH {
                return Err(SourceError::full(format!(
                    "the image is the last of more than {MAX_DEPTH} clones"
                )));
            }
        }
        Ok(Self { levels })
    }

    pub(super) fn window(&self, window: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let mut told = Told::new(&window);
        for level in &self.levels {
            if level.opaque {
                told.data(0..level.end);
            } else {
                let end = window.end.min(level.end);
                let (from, whole) = (DiffFrom::Beginning, level.whole_object);
                // What exists no more shows the parent, whose level tells of it.
                told.ask(&level.image, from, end, whole, |range| range.exists)?;
            }
        }
        told.zero.clear();
        told.extents()
    }
}

fn is_opaque(image: &Image) -> Result<bool, SourceError> {
    match refuse_layouts(image) {
        Ok(()) => Ok(false),
        Err(error) if error.kind == SourceErrorKind::FullBackup => Ok(true),
        Err(error) => Err(error),
    }
}

fn maps_are_valid(image: &Image) -> Result<bool, SourceError> {
    Ok(image.flags().map_err(doubt)? & MAP_INVALID == 0)
}

/// The ranges of one window as they come in.
struct Told {
    window: Range<u64>,
    data: Vec<Extent>,
    zero: Vec<Extent>,
    outside: Option<DiffRange>,
}

impl Told {
    fn new(window: &Range<u64>) -> Self {
        Self {
            window: window.clone(),
            data: Vec::new(),
            zero: Vec::new(),
            outside: None,
        }
    }

    /// Asks `image` about the window up to `end`; `is_data` says which ranges must be read.
    fn ask(
        &mut self,
        image: &Image,
        from: DiffFrom<'_>,
        end: u64,
        whole_object: bool,
        is_data: impl Fn(&DiffRange) -> bool + Sync,
    ) -> Result<(), SourceError> {
        let window = self.window.start..end;
        if window.is_empty() {
            return Ok(());
        }
        let each = &mut |range: DiffRange| {
            let ends = range.offset.checked_add(range.len);
            if range.offset < window.start || ends.is_none_or(|ends| ends > window.end) {
                self.outside = Some(range);
            } else if is_data(&range) {
                self.add_data(Extent::data(range.offset, range.len));
            } else {
                self.add_zero(Extent::zero(range.offset, range.len));
            }
        };
        image
            .diff(from, window.clone(), whole_object, each)
            .map_err(doubt)
    }

    /// Adds a range as far as it is inside the window.
    fn data(&mut self, range: Range<u64>) {
        let (start, end) = (
            range.start.max(self.window.start),
            range.end.min(self.window.end),
        );
        if start < end {
            self.add_data(Extent::data(start, end - start));
        }
    }

    /// Too many small ranges are rounded out to blocks.
    fn add_data(&mut self, extent: Extent) {
        self.data.push(extent);
        if self.data.len() < 2 * MAX_RANGES {
            return;
        }
        let mut set: ExtentSet = self.data.drain(..).collect();
        if set.len() > MAX_RANGES {
            set = set.round_out(ROUNDED, ByteLen(u64::MAX));
        }
        self.data.extend(set.iter());
    }

    /// Zeros must not be rounded, they would promise too much: too many small ones are read.
    fn add_zero(&mut self, extent: Extent) {
        self.zero.push(extent);
        if self.zero.len() < 2 * MAX_RANGES {
            return;
        }
        let set: ExtentSet = self.zero.drain(..).collect();
        if set.len() > MAX_RANGES {
            for extent in set.round_out(ROUNDED, ByteLen(u64::MAX)).iter() {
                self.add_data(extent);
            }
        } else {
            let zero = |extent: Extent| Extent::zero(extent.offset.0, extent.len.0);
            self.zero.extend(set.iter().map(zero));
        }
    }

    fn object(&mut self, objects: &Objects, number: u64) {
        let start = number.saturating_mul(objects.object_size());
        self.data(start..start.saturating_add(objects.object_size()));
    }

    /// Ascending and disjoint; where both kinds were told, data counts.
    fn extents(self) -> Result<Vec<Extent>, SourceError> {
        if let Some(range) = self.outside {
            let DiffRange { offset, len, .. } = range;
            let Range { start, end } = self.window;
            return Err(SourceError::full(format!(
                "librbd told of {len} bytes at {offset:#x} when asked about {start:#x} to {end:#x}"
            )));
        }
        let (start, len) = (self.window.start, self.window.end - self.window.start);
        // Rounding may have passed the end of the target.
        let data = ExtentSet::normalise(self.data).clip(Extent::data(start, len));
        let zero = ExtentSet::normalise(self.zero).subtract(&data);
        let zero = zero
            .iter()
            .map(|extent| Extent::zero(extent.offset.0, extent.len.0));
        let mut extents: Vec<Extent> = data.iter().chain(zero).collect();
        extents.sort_unstable_by_key(|extent| extent.offset);
        Ok(extents)
    }
}
