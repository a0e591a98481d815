//! Randomised histories of volumes in one pool, every answer compared with the bytes.
//!
//! Owns: what may happen to a volume, and the bound of what an answer may tell too much. Must not: know how the source works.

use std::path::PathBuf;

use changed_blocks::{ChangedBlocks, Extent, ExtentKind, ExtentSet, Identity, Thin};

use crate::bytes::{different, not_zero, part};
use crate::contract::{MIB, Origin, bind, delta, open};
use crate::inside::Site;
use crate::pool::{self, Pool, SMALL};

const STEPS: u64 = 50;
/// Ids that are given again and again.
const IDS: u64 = 12;

pub(crate) fn plain(site: &mut Site) {
    History::new(site, "").run();
}

pub(crate) fn with_origin(site: &mut Site) {
    let origin = Origin::new("history-origin", "history-origin-uuid", site);
    let path = origin.path.clone();
    History::new(site, &path).run();
}

/// A volume that is written to.
struct Live {
    id: u64,
    size: u64,
    path: PathBuf,
    /// All that happened to it, in its order.
    touched: Vec<Extent>,
    /// Which of all live volumes it is; ids are given again.
    number: usize,
}

/// A snapshot that was backed up, whether it still exists or not.
struct Point {
    id: u64,
    size: u64,
    content: Vec<u8>,
    record: Identity,
    of: usize,
    /// How much of the volume's history it has.
    touches: usize,
    exists: bool,
}

struct History<'a> {
    site: &'a mut Site,
    origin: &'a str,
    pool: Pool,
    lives: Vec<Live>,
    points: Vec<Point>,
    free: Vec<u64>,
    volumes: usize,
    compared: u64,
    refused: u64,
    told: u64,
    changed: u64,
}

impl<'a> History<'a> {
    fn new(site: &'a mut Site, origin: &'a str) -> Self {
        let mut history = Self {
            pool: Pool::new("history", "history-pool", 0, SMALL),
            site,
            origin,
            lives: Vec::new(),
            points: Vec::new(),
            free: (0..IDS).rev().collect(),
            volumes: 0,
            compared: 0,
            refused: 0,
            told: 0,
            changed: 0,
        };
        let id = history.free.pop().unwrap();
        history.pool.create_thin(id);
        history.goes_live(id, 12 * MIB);
        history
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.site.random.below(20) {
                0..=7 => self.write(),
                8..=10 => self.discard(),
                11..=15 => self.back_up(),
                16 => self.resize(),
                17 => self.new_volume(),
                _ => self.delete(),
            }
        }
        self.back_up();
        let Self {
            compared,
            refused,
            told,
            changed,
            ..
        } = self;
        let counts = format!(
            "{compared} deltas, {refused} bases refused, {told} bytes told, {changed} changed"
        );
        assert!(*compared > 0, "nothing was compared: {counts}");
        self.site.note = format!("; {counts}");
    }

    fn goes_live(&mut self, id: u64, size: u64) {
        let path = self.pool.activate_with(id, size, self.origin);
        self.lives.push(Live {
            id,
            size,
            path,
            touched: Vec::new(),
            number: self.volumes,
        });
        self.volumes += 1;
    }

    fn some_live(&mut self) -> usize {
        let count = self.lives.len() as u64;
        usize::try_from(self.site.random.below(count)).unwrap()
    }

    /// Something between one sector and four blocks, somewhere.
    fn range(&mut self, live: usize) -> (u64, u64) {
        let sectors = self.lives[live].size / 512;
        let length = 1 + self.site.random.below(512);
        let offset = self.site.random.below(sectors);
        (offset * 512, length.min(sectors - offset) * 512)
    }

    fn write(&mut self) {
        let live = self.some_live();
        for _ in 0..=self.site.random.below(4) {
            let (offset, length) = self.range(live);
            let bytes = match self.site.random.below(4) {
                0 => vec![0; usize::try_from(length).unwrap()],
                _ => self.site.random.bytes(usize::try_from(length).unwrap()),
            };
            pool::write(&self.lives[live].path, offset, &bytes);
            self.lives[live].touched.push(Extent::data(offset, length));
        }
    }

    fn discard(&mut self) {
        let live = self.some_live();
        let (offset, length) = self.range(live);
        // Mostly whole blocks: of others only the whole blocks inside are discarded.
        let block = self.pool.block_bytes;
        let (offset, length) = match self.site.random.below(3) {
            0 => (offset, length),
            _ => (
                offset - offset % block,
                block.min(self.lives[live].size - (offset - offset % block)),
            ),
        };
        pool::discard(&self.lives[live].path, offset, length);
        self.lives[live].touched.push(Extent::data(offset, length));
    }

    fn resize(&mut self) {
        let live = self.some_live();
        let size = 4 * MIB + self.site.random.below(16 * MIB / 512) * 512;
        let Live { id, .. } = self.lives[live];
        self.pool.deactivate(id);
        self.lives[live].path = self.pool.activate_with(id, size, self.origin);
        self.lives[live].size = size;
    }

    /// An empty volume, or a writable copy of a snapshot.
    fn new_volume(&mut self) {
        let Some(id) = self.free.pop() else { return };
        let existing: Vec<_> = self
            .points
            .iter()
            .filter(|point| point.exists)
            .map(|point| (point.id, point.size))
            .collect();
        let choice = usize::try_from(self.site.random.next() % 64).unwrap();
        match existing.get(choice % (existing.len() + 1)) {
            Some((origin, size)) => {
                self.pool.create_snap(id, *origin);
                self.goes_live(id, *size);
            }
            None => {
                self.pool.create_thin(id);
                self.goes_live(id, 8 * MIB);
            }
        }
    }

    /// Deletes a volume or a snapshot; its id is the next one that is given away.
    fn delete(&mut self) {
        let existing: Vec<_> = (0..self.points.len())
            .filter(|index| self.points[*index].exists)
            .collect();
        let choice = usize::try_from(self.site.random.next() % 64).unwrap();
        let id = if self.lives.len() > 1 && choice.is_multiple_of(3) {
            self.lives.remove(choice % self.lives.len()).id
        } else if let Some(index) = existing.get(choice % existing.len().max(1)) {
            self.points[*index].exists = false;
            self.points[*index].id
        } else {
            return;
        };
        self.pool.delete(id);
        self.free.push(id);
    }

    /// A snapshot, checked against its bytes, and against some points before it.
    fn back_up(&mut self) {
        let Some(id) = self.free.pop() else { return };
        let live = self.some_live();
        let Live {
            id: origin,
            size,
            ref touched,
            number,
            ..
        } = self.lives[live];
        let touches = touched.len();
        self.pool.create_snap(id, origin);
        let path = self.pool.activate_with(id, size, self.origin);
        let content = pool::read(&path);
        assert_eq!(
            content,
            pool::read(&self.lives[live].path),
            "a snapshot is not its volume"
        );
        let mut source = open(&path, self.site);
        self.check_allocated(&mut source, &content);
        let record = source.identity().unwrap();
        let point = Point {
            id,
            size,
            content,
            record,
            of: number,
            touches,
            exists: true,
        };
        self.points.push(point);
        let target = self.points.len() - 1;
        for _ in 0..2 {
            let base = usize::try_from(self.site.random.below(self.points.len() as u64)).unwrap();
            self.compare(&mut source, base, target);
        }
        drop(source);
        self.pool.deactivate(id);
    }

    fn check_allocated(&self, source: &mut Thin, content: &[u8]) {
        let mut told = Vec::new();
        let summary = source.allocated(&mut |extent| {
            told.push(extent);
            true
        });
        assert_eq!(summary.unwrap().size.0, content.len() as u64);
        let missed = not_zero(content).subtract(&told.into_iter().collect());
        assert!(missed.is_empty(), "data that is not allocated: {missed:?}");
    }

    fn compare(&mut self, source: &mut Thin, base: usize, target: usize) {
        let [old, new] = [base, target].map(|index| &self.points[index]);
        if let Err(reason) = bind(source, &old.record) {
            assert!(!old.exists, "an existing base is refused: {reason}");
            self.refused += 1;
            return;
        }
        let extents = match delta(source, new.size) {
            Ok(extents) => extents,
            Err(reason) => {
                assert!(!old.exists, "an existing base is refused: {reason}");
                self.refused += 1;
                return;
            }
        };
        // A deleted base whose answer comes all the same may only be one that has the content of the old.
        let changed = different(&old.content, &new.content);
        let told: ExtentSet = extents.iter().copied().collect();
        let missed = changed.subtract(&told);
        assert!(
            missed.is_empty(),
            "missed from {base} to {target}: {missed:?}"
        );
        for extent in extents
            .iter()
            .filter(|extent| extent.kind == ExtentKind::Zero)
        {
            assert!(
                part(&new.content, *extent).iter().all(|byte| *byte == 0),
                "{extent:?} is not zero"
            );
        }
        self.check_excess(&told, base, target);
        self.compared += 1;
        self.told += told.bytes().0;
        self.changed += changed.bytes().0;
    }

    /// Of two snapshots of one volume only blocks are told that something happened to between them.
    fn check_excess(&self, told: &ExtentSet, base: usize, target: usize) {
        let [old, new] = [base, target].map(|index| &self.points[index]);
        let Some(live) = self.lives.iter().find(|live| live.number == new.of) else {
            return;
        };
        if old.of != new.of {
            return;
        }
        let between = old.touches.min(new.touches)..old.touches.max(new.touches);
        let touched: ExtentSet = live.touched[between].iter().copied().collect();
        let bound = touched.round_out(
            changed_blocks::ByteLen(self.pool.block_bytes),
            changed_blocks::ByteLen(u64::MAX),
        );
        let excess = told.subtract(&bound);
        assert!(
            excess.is_empty(),
            "told from {base} to {target} without a reason: {excess:?}"
        );
    }
}
