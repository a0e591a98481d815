//! Thin devices of the device mapper, by hand or by LVM: the pool's metadata tell which blocks two of them share.
//!
//! ```text
//!   target ─► pool ─► reserve the metadata snapshot ─┬─ thin_dump: is the base unwritten? ─┬─► release
//!                                                    └─ thin_delta: base against target ───┘
//! ```
//!
//! Owns: when a base may be compared with, and what becomes of each range. Must not: read data, or link the tools (GPL: each is
//! a process). The parts: `mapper` asks the kernel, `reservation` holds the metadata snapshot, `tool` runs programs, `tag`, `dump`
//! and `delta` understand their answers, `extents` makes bytes of blocks.
//!
//! Why a delta is sound. The pool keeps a counter, its time, which each new snapshot raises; each mapping carries the time of its
//! write. A snapshot made at time T starts with mappings older than T, and the kernel writes in place only through a mapping that
//! is not older than the last snapshot of its device (`__snapshotted_since` in drivers/md/dm-thin-metadata.c): so a block that
//! was written through a snapshot has a new mapping, of time T or later, and a block that was discarded has none. A base all of
//! whose mappings are older than itself, and as many as its record says, has been neither written nor discarded since it was
//! made. Then equal blocks of the pool are equal content. A base that was written before its backup cannot be checked that way,
//! because a second write to the same block leaves no trace: it is refused too. An id that was given away again is refused by its
//! creation time, or found to be written.
//!
//! What cannot be seen: metadata that were restored or repaired by hand after a backup, and a pool whose maker gave a new pool
//! the uuid of an old one (LVM never does). The samples outside every delta are for those.

mod delta;
mod dump;
mod extents;
mod mapper;
mod metadata;
mod record;
mod reservation;
mod tag;
mod tool;

use std::path::{Path, PathBuf};

use self::delta::Relation;
use self::dump::Details;
use self::extents::Extents;
use self::mapper::{Device, Pool};
use self::record::Record;
use self::reservation::Reservation;
use self::tool::THIN_DUMP;
use crate::extent::{ByteLen, Extent, ExtentKind};
use crate::identity::Identity;
use crate::scan::stopped;
use crate::source::{
    Base, Capabilities, ChangedBlocks, ExtentSink, Precision, SourceError, Summary, Trust,
};

/// Name of the source, in records as well.
pub const NAME: &str = "thin";

/// Where runs note which metadata snapshots they hold. Survives a boot, as the snapshots do.
pub const DEFAULT_FOLDER: &str = "/var/lib/snaphaul";

/// Mappings carry the lower 24 bits of the pool's time (`unpack_block_time` in drivers/md/dm-thin-metadata.c): times can be
/// compared as long as it fits.
const MAX_TIME: u64 = 1 << 24;

/// The changed blocks of a thin device.
#[derive(Debug)]
pub struct Thin {
    device: Device,
    pool: Pool,
    folder: PathBuf,
    record: Record,
    /// The version of the tools, for people and for rule R10; bases are bound whatever it is.
    tools: String,
    base: Option<Record>,
}

impl Thin {
    /// Finds the thin device at `target`, a path such as `/dev/vg/snapshot`, its pool, and what the pool's metadata say of it.
    ///
    /// `folder` is for notes on metadata snapshots: one for all runs on a machine, on a disk ([`DEFAULT_FOLDER`]). The target must
    /// be frozen: a snapshot that nobody writes.
    ///
    /// # Errors
    /// `FullBackup` where it is no thin device or the pool's metadata cannot be asked, `Retry` while another program holds the
    /// pool's metadata snapshot, `GiveUp` where the target cannot be looked at.
    pub fn open(target: &Path, folder: &Path) -> Result<Self, SourceError> {
        let device = Device::at(target)?;
        let pool = device.pool()?;
        let told = reserved(&pool, folder, || metadata::details(&pool, [device.thin_id]));
        let (superblock, [details]) = told?;
        let details = details.ok_or_else(|| not_in_metadata(device.thin_id))?;
        Ok(Self {
            record: Record::new(&device, &pool, &superblock, details),
            tools: THIN_DUMP.version()?,
            device,
            pool,
            folder: folder.to_owned(),
            base: None,
        })
    }

    /// Whether the block device at `target` is a thin device or nobody can say, so that [`open`](Self::open) should not fail.
    #[must_use]
    pub fn may_be(target: &Path) -> bool {
        mapper::may_be_thin(target)
    }

    /// Asks the pool's metadata while they are reserved.
    fn ask<T>(&self, ask: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
        reserved(&self.pool, &self.folder, ask)
    }

    /// What the metadata say of `base`, which must be what was recorded, and of the target.
    fn base_and_target(&self, base: &Record) -> Result<[Details; 2], SourceError> {
        let ids = [base.thin_id, self.device.thin_id];
        let (superblock, [base_now, target]) = metadata::details(&self.pool, ids)?;
        if superblock.time >= MAX_TIME {
            return Err(SourceError::full(
                "the pool's time passed 24 bits: mappings do not tell any more when they were written",
            ));
        }
        let base_now = base.check_device(superblock, base_now)?;
        Ok([
            base_now,
            target.ok_or_else(|| not_in_metadata(self.device.thin_id))?,
        ])
    }

    fn stream_delta(&self, base: &Record, sink: &mut ExtentSink<'_>) -> Result<u64, SourceError> {
        let pair = self.base_and_target(base)?;
        check_unwritten(&self.pool, pair[0])?;
        let unmapped = match self.device.origin {
            None => ExtentKind::Zero,
            // The origin shows through, and nobody looked at what it holds there.
            Some(_) => ExtentKind::Data,
        };
        let end = self.device.size.min(base.size);
        let mut extents = Extents::new(self.pool.block_bytes, end, sink);
        metadata::ranges(&self.pool, pair, &mut |range| match range.relation {
            Relation::Same => Ok(()),
            Relation::LeftOnly => extents.take(range.begin, range.length, unmapped),
            Relation::Different | Relation::RightOnly => {
                extents.take(range.begin, range.length, ExtentKind::Data)
            }
        })?;
        extents.finish()
    }

    fn stream_allocated(&self, sink: &mut ExtentSink<'_>) -> Result<u64, SourceError> {
        let (_, [details]) = metadata::details(&self.pool, [self.device.thin_id])?;
        let details = details.ok_or_else(|| not_in_metadata(self.device.thin_id))?;
        let mut extents = Extents::new(self.pool.block_bytes, self.device.size, sink);
        metadata::mappings(&self.pool, details, &mut |mapping| {
            extents.take(mapping.begin, mapping.length, ExtentKind::Data)
        })?;
        extents.finish()
    }

    fn summary(&self, extents: u64) -> Summary {
        Summary {
            size: ByteLen(self.device.size),
            extents,
        }
    }
}

impl ChangedBlocks for Thin {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: NAME,
            granularity: ByteLen(self.pool.block_bytes),
            // A block that was written anew with what it held, or of which one sector was, counts as changed.
            precision: Precision::Superset,
            needs_base: true,
            zero_extents: true,
            discard_unstable: false,
            trust: Trust::Verified,
        }
    }

    /// `None` where the pool has no uuid: then nothing names the device for ever.
    fn identity(&self) -> Option<Identity> {
        let record = || self.record.identity().with("tools", &self.tools);
        (!self.pool.uuid.is_empty()).then(record)
    }

    /// Finds the base by its thin id in the pool's metadata: it need not be active. Whether it was written to is found by the
    /// delta, which reads all its mappings in the same metadata snapshot.
    fn bind(&mut self, base: &Base<'_>) -> Result<(), SourceError> {
        self.base = None;
        let record = Record::from_identity(base.record)?;
        if let Some(named) = base.named {
            let named = Device::at(Path::new(named)).map_err(as_full)?;
            record.check_named(&named, &named.pool()?)?;
        }
        record.check_pair(&self.pool, self.device.origin.as_ref())?;
        self.ask(|| self.base_and_target(&record))?;
        self.base = Some(record);
        Ok(())
    }

    /// Snapshots of a pool are in the order of its time.
    fn goes_back(&self, base: &Identity) -> Option<String> {
        let base = Record::from_identity(base).ok()?;
        self.record.goes_back(&base)
    }

    /// All data of a delta is mapped in the target, and mappings are read with one pass of a tool.
    fn tells_both(&self) -> bool {
        true
    }

    fn allocated(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        if self.device.origin.is_some() {
            // Where nothing is mapped the origin shows through: everything may be data.
            let extents = u64::from(self.device.size > 0);
            if extents == 1 && !sink(Extent::data(0, self.device.size)) {
                return Err(stopped());
            }
            return Ok(self.summary(extents));
        }
        let extents = self.ask(|| self.stream_allocated(sink))?;
        Ok(self.summary(extents))
    }

    fn delta(&mut self, sink: &mut ExtentSink<'_>) -> Result<Summary, SourceError> {
        let base = self.base.as_ref();
        let base = base.ok_or_else(|| SourceError::full("a thin device without a base"))?;
        let extents = self.ask(|| self.stream_delta(base, sink))?;
        Ok(self.summary(extents))
    }
}

/// Asks while the metadata snapshot is reserved, and releases it whatever comes of it.
fn reserved<T>(
    pool: &Pool,
    folder: &Path,
    ask: impl FnOnce() -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    let reservation = Reservation::take(pool, folder)?;
    let answer = ask()?;
    reservation.release()?;
    Ok(answer)
}

/// Reads all mappings of `base`: each must be older than the base is.
fn check_unwritten(pool: &Pool, base: Details) -> Result<(), SourceError> {
    metadata::mappings(pool, base, &mut |mapping| {
        if mapping.time < base.creation_time {
            return Ok(());
        }
        let (id, block) = (base.thin_id, mapping.begin);
        Err(SourceError::full(format!(
            "the base (thin id {id}) is no snapshot, or was written to since it was made (block {block}): later writes to \
             the same block leave no trace"
        )))
    })
}

fn not_in_metadata(thin_id: u64) -> SourceError {
    SourceError::full(format!(
        "the pool's metadata do not have the thin device {thin_id}"
    ))
}

/// A base that cannot be looked at is no reason to give the target up.
fn as_full(error: SourceError) -> SourceError {
    SourceError {
        kind: crate::source::SourceErrorKind::FullBackup,
        ..error
    }
}

/// Reads `bytes` as an answer of each tool, for the fuzzer: a fault is as good as an answer, a panic is not.
#[cfg(any(test, feature = "testing"))]
pub fn hostile(bytes: &[u8]) {
    let dump = dump::read(bytes, &mut |_| Ok(()));
    let delta = delta::read(bytes, [1, 2], &mut |_| Ok(()));
    drop((dump, delta));
}
