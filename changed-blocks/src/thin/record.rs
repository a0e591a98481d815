//! The record of a thin device: what names one frozen state of it for ever (rule R1).
//!
//! Owns: its facts, and whether a device in the metadata is still what a record says. Must not: ask anything.

use super::NAME;
use super::dump::{Details, Superblock};
use super::mapper::{Device, Origin, Pool};
use crate::identity::Identity;
use crate::source::SourceError;

/// What is known of a thin device and of the pool it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Uuid of the pool's device: with LVM the uuids of volume group and pool.
    pool: String,
    /// Uuid of the device: with LVM the uuids of volume group and volume; empty where it has none.
    device: String,
    pub(super) thin_id: u64,
    creation_time: u64,
    transaction: u64,
    mapped_blocks: u64,
    /// The pool's time at the backup: it only grows, unless somebody put old metadata back.
    pool_time: u64,
    block_bytes: u64,
    pub(super) size: u64,
    /// Uuid of the external origin; empty without one.
    origin: String,
}

impl Record {
    pub(super) fn new(
        device: &Device,
        pool: &Pool,
        superblock: &Superblock,
        details: Details,
    ) -> Self {
        Self {
            pool: pool.uuid.clone(),
            device: device.uuid.clone(),
            thin_id: details.thin_id,
            creation_time: details.creation_time,
            transaction: details.transaction,
            mapped_blocks: details.mapped_blocks,
            pool_time: superblock.time,
            block_bytes: pool.block_bytes,
            size: device.size,
            origin: device
                .origin
                .as_ref()
                .map_or_else(String::new, |origin| origin.uuid.clone()),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::new(NAME)
            .with("pool", &self.pool)
            .with("device", &self.device)
            .with("thin_id", self.thin_id)
            .with("creation_time", self.creation_time)
            .with("transaction", self.transaction)
            .with("mapped_blocks", self.mapped_blocks)
            .with("pool_time", self.pool_time)
            .with("block_size", self.block_bytes)
            .with("size", self.size)
            .with("external_origin", &self.origin)
    }

    pub(super) fn from_identity(identity: &Identity) -> Result<Self, SourceError> {
        if identity.source() != NAME {
            let source = identity.source();
            return Err(SourceError::full(format!(
                "the parent was made by {source}, not from a thin device"
            )));
        }
        let text = |fact| {
            let value = identity.fact(fact).map(str::to_owned);
            value.ok_or_else(|| SourceError::full(format!("the parent's record has no {fact}")))
        };
        let number = |fact| {
            let number = super::tag::decimal(&text(fact)?);
            number.ok_or_else(|| {
                SourceError::full(format!("the parent's record has no number as {fact}"))
            })
        };
        Ok(Self {
            pool: text("pool")?,
            device: text("device")?,
            thin_id: number("thin_id")?,
            creation_time: number("creation_time")?,
            transaction: number("transaction")?,
            mapped_blocks: number("mapped_blocks")?,
            pool_time: number("pool_time")?,
            block_bytes: number("block_size")?,
            size: number("size")?,
            origin: text("external_origin")?,
        })
    }

    /// Whether a delta from this base to a target in `pool` that shows `origin` can be taken at all.
    pub(super) fn check_pair(
        &self,
        pool: &Pool,
        origin: Option<&Origin>,
    ) -> Result<(), SourceError> {
        if self.pool.is_empty() || pool.uuid.is_empty() {
            return refuse("its pool has no uuid: nothing names it");
        }
        if self.pool != pool.uuid {
            return refuse(format!(
                "it was in the pool {}, the target is in {}",
                self.pool, pool.uuid
            ));
        }
        if self.block_bytes != pool.block_bytes {
            return refuse(format!(
                "its pool had blocks of {} bytes, not {}",
                self.block_bytes, pool.block_bytes
            ));
        }
        let Some(origin) = origin else {
            return match self.origin.as_str() {
                "" => Ok(()),
                origin => refuse(format!(
                    "it had the external origin {origin}, the target has none"
                )),
            };
        };
        if origin.uuid.is_empty() {
            return refuse("the external origin of the target has no uuid: nothing names it");
        }
        if origin.uuid != self.origin {
            return refuse(format!(
                "the target has the external origin {}, the base had {:?}",
                origin.uuid, self.origin
            ));
        }
        if !origin.read_only {
            return refuse(format!(
                "their external origin {} can be written to",
                origin.uuid
            ));
        }
        Ok(())
    }

    /// Whether the metadata still have the device that was recorded, with as many mappings.
    pub(super) fn check_device(
        &self,
        superblock: Superblock,
        now: Option<Details>,
    ) -> Result<Details, SourceError> {
        let id = self.thin_id;
        if superblock.time < self.pool_time {
            let (then, now) = (self.pool_time, superblock.time);
            return refuse(format!(
                "the pool's time went back from {then} to {now}: older metadata were put back"
            ));
        }
        let Some(now) = now else {
            return refuse(format!("it was deleted: the pool has no thin device {id}"));
        };
        let [then_made, now_made] = [
            (self.creation_time, self.transaction),
            (now.creation_time, now.transaction),
        ];
        if then_made != now_made {
            return refuse(format!(
                "it was deleted, and its thin id {id} given to another (time and transaction {now_made:?}, not {then_made:?})"
            ));
        }
        if self.mapped_blocks != now.mapped_blocks {
            let (then, now) = (self.mapped_blocks, now.mapped_blocks);
            return refuse(format!(
                "it was written to after its backup: it maps {now} blocks, not {then}"
            ));
        }
        Ok(now)
    }

    /// Why this device is an older state than `base`: it was made before.
    pub(super) fn goes_back(&self, base: &Self) -> Option<String> {
        let is_older = self.pool == base.pool && self.creation_time < base.creation_time;
        is_older.then(|| {
            let (id, before) = (self.thin_id, base.thin_id);
            format!("the snapshot (thin id {id}) is older than the one before (thin id {before})")
        })
    }

    /// Whether `named`, which somebody says to be the base, is.
    pub(super) fn check_named(&self, named: &Device, pool: &Pool) -> Result<(), SourceError> {
        let expected = (self.pool.as_str(), self.thin_id, self.device.as_str());
        let found = (pool.uuid.as_str(), named.thin_id, named.uuid.as_str());
        if expected == found {
            return Ok(());
        }
        refuse(format!(
            "the device named is {found:?} (pool, thin id, uuid), the parent was made from {expected:?}"
        ))
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, SourceError> {
    let why = why.into();
    Err(SourceError::full(format!(
        "the base cannot be compared with: {why}"
    )))
}

#[cfg(test)]
mod tests;
