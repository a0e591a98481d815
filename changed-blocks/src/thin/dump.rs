//! The answer of `thin_dump`: what the pool's metadata say of its thin devices.
//!
//! ```text
//!   <superblock time= data_block_size= …>
//!     <device dev_id= mapped_blocks= transaction= creation_time= snap_time=>
//!       <single_mapping origin_block= data_block= time=/>  <range_mapping origin_begin= data_begin= length= time=/>
//! ```
//!
//! Owns: the elements of that answer, in the form of thin-provisioning-tools 0.9.0 (man thin_dump) and 1.x, which leaves out
//! `flags`. Must not: judge what they say of a base. Shared mappings (`def`, `ref`) are written only for several devices at
//! once, which nobody asks for here.

use std::io::BufRead;

use super::tag::{Form, Tag, Tags, fault};
use crate::source::SourceError;

/// What holds for the whole pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Counter of the pool, one more with each snapshot; each mapping carries its value at the time of the write.
    pub(super) time: u64,
    /// Size of a data block in sectors of 512 bytes.
    pub(super) block_sectors: u64,
}

impl Superblock {
    pub(super) fn parse(tag: &Tag<'_>) -> Result<Self, SourceError> {
        if tag.form != Form::Open || tag.name != "superblock" {
            return Err(tag.fault());
        }
        let names = [
            "time",
            "data_block_size",
            "flags",
            "uuid",
            "transaction",
            "version",
            "nr_data_blocks",
            "metadata_snap",
        ];
        let [time, block_sectors, flags, ..] = tag.values(names)?;
        // Bit 0: the kernel met broken metadata and asks for a check (drivers/md/dm-thin-metadata.c).
        if !matches!(flags, None | Some("0")) {
            return Err(SourceError::full(
                "the metadata of the pool need a check: run thin_check, or lvconvert --repair",
            ));
        }
        Ok(Self {
            time: tag.number(time)?,
            block_sectors: tag.number(block_sectors)?,
        })
    }
}

/// What the metadata say of one thin device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) thin_id: u64,
    /// Number of data blocks that it maps.
    pub(super) mapped_blocks: u64,
    /// The pool's transaction when it was made.
    pub(super) transaction: u64,
    /// The pool's time when it was made.
    pub(super) creation_time: u64,
}

/// Blocks of a thin device that lie one after the other in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) begin: u64,
    pub(super) length: u64,
    /// The pool's time when they were written.
    pub(super) time: u64,
}

/// One thing that the answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Superblock(Superblock),
    Device(Details),
    /// Of the device told last.
    Mapping(Mapping),
}

/// Reads a whole answer, and tells `take` what it says in its order.
///
/// Mappings are ascending and disjoint; whether they are as many as their device says is for `take`.
pub(super) fn read(
    input: impl BufRead,
    take: &mut dyn FnMut(Told) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let mut tags = Tags::new(input);
    take(Told::Superblock(Superblock::parse(&tags.next()?)?))?;
    loop {
        let tag = tags.next()?;
        match (tag.form, tag.name) {
            (Form::Open, "device") => take(Told::Device(details(&tag)?))?,
            (Form::Close, "superblock") => return tags.end(),
            _ => return Err(tag.fault()),
        }
        read_mappings(&mut tags, take)?;
    }
}

fn details(tag: &Tag<'_>) -> Result<Details, SourceError> {
    let names = [
        "dev_id",
        "mapped_blocks",
        "transaction",
        "creation_time",
        "snap_time",
    ];
    let [thin_id, mapped_blocks, transaction, creation_time, _] = tag.numbers(names)?;
    Ok(Details {
        thin_id,
        mapped_blocks,
        transaction,
        creation_time,
    })
}

fn read_mappings<R: BufRead>(
    tags: &mut Tags<R>,
    take: &mut dyn FnMut(Told) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let mut ascending = Ascending::default();
    loop {
        let tag = tags.next()?;
        let mapping = match (tag.form, tag.name) {
            (Form::Empty, "single_mapping") => {
                let [begin, _, time] = tag.numbers(["origin_block", "data_block", "time"])?;
                Mapping {
                    begin,
                    length: 1,
                    time,
                }
            }
            (Form::Empty, "range_mapping") => {
                let names = ["origin_begin", "data_begin", "length", "time"];
                let [begin, _, length, time] = tag.numbers(names)?;
                Mapping {
                    begin,
                    length,
                    time,
                }
            }
            (Form::Close, "device") => return Ok(()),
            _ => return Err(tag.fault()),
        };
        ascending.accept(mapping.begin, mapping.length)?;
        take(Told::Mapping(mapping))?;
    }
}

/// Checks that ranges of blocks are not empty, ascending, disjoint, and inside the address space.
#[derive(Debug, Default)]
pub(super) struct Ascending {
    end: u64,
}

impl Ascending {
    pub(super) fn accept(&mut self, begin: u64, length: u64) -> Result<(), SourceError> {
        let end = begin.checked_add(length).filter(|end| *end > begin);
        match end {
            Some(end) if begin >= self.end => self.end = end,
            _ => {
                let last = self.end;
                return Err(fault(&format!(
                    "{length} blocks at {begin} after block {last}"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
