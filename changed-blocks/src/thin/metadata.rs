//! Questions to a pool's metadata snapshot, which is reserved while they are asked.
//!
//! Owns: which tool answers what, and that an answer is whole: as many blocks as the metadata count, of the pool's block size.
//! Must not: reserve the snapshot, or decide what an answer means for a backup.

use super::delta::{self, Range, Relation};
use super::dump::{self, Details, Mapping, Superblock, Told};
use super::mapper::{Pool, SECTOR_BYTES};
use super::tool::{THIN_DELTA, THIN_DUMP};
use crate::source::SourceError;

/// What the metadata say of the pool and of the thin devices `ids`; `None` for one that does not exist.
pub(super) fn details<const N: usize>(
    pool: &Pool,
    ids: [u64; N],
) -> Result<(Superblock, [Option<Details>; N]), SourceError> {
    // Version 0.9.0 could tell of one device alone; 1.x tells of all whatever is asked.
    let arguments = ["-m", "--skip-mappings"];
    let (mut superblock, mut found) = (None, [None; N]);
    THIN_DUMP.stream(&arguments, &pool.metadata, |answer| {
        dump::read(answer, &mut |told| {
            match told {
                Told::Superblock(told) => superblock = Some(checked(pool, told)?),
                Told::Device(device) => {
                    for (slot, _) in found
                        .iter_mut()
                        .zip(ids)
                        .filter(|(_, id)| *id == device.thin_id)
                    {
                        *slot = Some(device);
                    }
                }
                Told::Mapping(_) => {}
            }
            Ok(())
        })
    })?;
    let superblock = superblock.ok_or_else(|| incomplete("thin_dump told nothing of the pool"))?;
    Ok((superblock, found))
}

/// Gives every mapping of the thin device `device` to `take`.
pub(super) fn mappings(
    pool: &Pool,
    device: Details,
    take: &mut dyn FnMut(Mapping) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let id = device.thin_id.to_string();
    let (mut blocks, mut devices) = (0_u64, 0);
    THIN_DUMP.stream(&["-m", "--dev-id", &id], &pool.metadata, |answer| {
        dump::read(answer, &mut |told| match told {
            Told::Superblock(superblock) => checked(pool, superblock).map(|_| ()),
            Told::Device(told) if told == device => {
                devices += 1;
                Ok(())
            }
            Told::Device(told) => Err(incomplete(&format!(
                "thin_dump told of {told:?}, not of {device:?}"
            ))),
            Told::Mapping(mapping) => {
                blocks = blocks.saturating_add(mapping.length);
                take(mapping)
            }
        })
    })?;
    if devices != 1 {
        return Err(incomplete(&format!("thin_dump told of {devices} devices")));
    }
    count(device, blocks)
}

/// Gives every range in which the thin devices `left` and `right` map anything to `take`.
pub(super) fn ranges(
    pool: &Pool,
    [left, right]: [Details; 2],
    take: &mut dyn FnMut(Range) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let [one, two] = [left, right].map(|device| device.thin_id.to_string());
    let arguments = ["-m", "--thin1", &one, "--thin2", &two];
    let (mut of_left, mut of_right) = (0_u64, 0_u64);
    THIN_DELTA.stream(&arguments, &pool.metadata, |answer| {
        let superblock = delta::read(answer, [left.thin_id, right.thin_id], &mut |range| {
            if range.relation != Relation::RightOnly {
                of_left = of_left.saturating_add(range.length);
            }
            if range.relation != Relation::LeftOnly {
                of_right = of_right.saturating_add(range.length);
            }
            take(range)
        })?;
        checked(pool, superblock)
    })?;
    count(left, of_left)?;
    count(right, of_right)
}

fn checked(pool: &Pool, superblock: Superblock) -> Result<Superblock, SourceError> {
    if superblock.block_sectors.checked_mul(SECTOR_BYTES) == Some(pool.block_bytes) {
        return Ok(superblock);
    }
    let (told, bytes) = (superblock.block_sectors, pool.block_bytes);
    Err(incomplete(&format!(
        "blocks of {told} sectors in the metadata, of {bytes} bytes in the pool"
    )))
}

fn count(device: Details, blocks: u64) -> Result<(), SourceError> {
    if device.mapped_blocks == blocks {
        return Ok(());
    }
    let Details {
        thin_id,
        mapped_blocks,
        ..
    } = device;
    Err(incomplete(&format!(
        "{blocks} blocks told of the thin device {thin_id}, which maps {mapped_blocks}"
    )))
}

fn incomplete(what: &str) -> SourceError {
    SourceError::full(format!("trust the thin-provisioning tools: {what}"))
}
