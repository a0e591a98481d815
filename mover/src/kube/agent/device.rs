//! The device of a snapshot that a holder passed on, as the source of a backup.
//!
//! Owns: what names it, so that later deltas bind to the right snapshot, and the check of its size. Must not: open anything.

use std::path::Path;

use changed_blocks::ChangedBlocks;

use super::changed::Asker;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::received::ReceivedDevice;
use crate::device::source::{DeltaSources, Source, SourceDevice, SourceIdentity};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::api::transfer::TransferOrder;

/// Some drivers make volumes of whole MiB and tell the size that they were asked for.
const ROUNDED: u64 = 1 << 20;
/// What LUKS1 and LUKS2 take of a volume for their headers (cryptsetup(8)); drivers that encrypt show the rest as the device.
const CIPHER_HEADERS: [u64; 2] = [2 << 20, 16 << 20];

/// A snapshot's working copy.
#[derive(Debug)]
pub(super) struct SnapshotDevice {
    source: Source,
    order: TransferOrder,
    asker: Asker,
    warnings: Vec<String>,
}

impl SnapshotDevice {
    /// Takes the device of an order.
    ///
    /// # Errors
    /// `Io` where it is smaller than the volume; what the device answers.
    pub(super) fn new(
        device: &ReceivedDevice,
        order: &TransferOrder,
        asker: Asker,
    ) -> Result<Self> {
        let source = Source::received(device, Path::new(&name(order)))?;
        let warning = check_size(order, source.size())?;
        Ok(Self {
            source,
            order: order.clone(),
            asker,
            warnings: Vec::from_iter(warning),
        })
    }
}

/// What the volume of an order is called in messages.
pub(super) fn name(order: &TransferOrder) -> String {
    format!("csi:{}", order.volume_handle)
}

/// That the device holds the whole volume: a disk with a GPT has a part of it in its last sectors. What a person should know.
fn check_size(order: &TransferOrder, device: u64) -> Result<Option<String>> {
    let promised = order
        .size_bytes
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(0);
    if device >= promised {
        return Ok(None);
    }
    let text = format!("the volume has {promised} bytes, its device {device}");
    if !promised.is_multiple_of(ROUNDED) && device == promised / ROUNDED * ROUNDED {
        return Ok(Some(format!("{text}: what the device has is backed up")));
    }
    if CIPHER_HEADERS.contains(&(promised - device)) {
        return Ok(Some(format!(
            "{text}: what the device has is backed up; the rest is what encryption keeps for itself, if the driver encrypts"
        )));
    }
    Err(Error::new(ErrorKind::InvalidRequest, text)
        .object(name(order))
        .hint("the end of the volume would be lost: look at the log of the driver"))
}

impl SourceDevice for SnapshotDevice {
    fn name(&self) -> String {
        name(&self.order)
    }

    fn size(&self) -> u64 {
        self.source.size()
    }

    fn block_size(&self) -> u32 {
        self.source.block_size()
    }

    fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>> {
        self.source.hole_map()
    }

    fn delta_sources(&self) -> DeltaSources {
        self.asker.sources(&self.order, self.source.size())
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        self.source.queue(options)
    }

    fn check_unchanged(&self) -> Result<bool> {
        self.source.check_unchanged()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.source.warnings());
        warnings.extend(self.asker.notices.all());
        warnings
    }

    fn identity(&self) -> SourceIdentity {
        let snapshot = self.order.snapshot_handle.as_ref();
        SourceIdentity {
            kind: "csi".to_owned(),
            immutable: snapshot.map(|snapshot| format!("csi:{}/{snapshot}", self.order.driver)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_holds_all_of_the_volume() {
        const MIB: u64 = 1 << 20;
        let order = |size: u64| TransferOrder {
            size_bytes: i64::try_from(size).ok(),
            ..TransferOrder::default()
        };
        for (promised, device) in [(MIB, MIB), (MIB, 2 * MIB), (0, MIB)] {
            assert_eq!(check_size(&order(promised), device).unwrap(), None);
        }
        assert_eq!(check_size(&TransferOrder::default(), MIB).unwrap(), None);
        assert!(
            check_size(&order(4 * MIB + 512), 4 * MIB)
                .unwrap()
                .is_some()
        );
        for header in CIPHER_HEADERS {
            let told = check_size(&order(64 * MIB), 64 * MIB - header).unwrap();
            assert!(told.unwrap().contains("encrypt"));
        }
        for (promised, device) in [(4 * MIB, 4 * MIB - 512), (4 * MIB + 512, 3 * MIB)] {
            assert!(check_size(&order(promised), device).is_err());
        }
    }
}
