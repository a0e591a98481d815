//! A snapshot of a driver that is asked what it holds, and not attached.
//!
//! Owns: what names it and how large it is. Must not: make, attach or delete anything, or read data: there is no device.
//!
//! The volume is held meanwhile: a backup of it would delete the snapshot that stayed for it under the eyes of whoever compares
//! with that one, and a driver is asked one thing about a volume at a time.

use changed_blocks::ChangedBlocks;
use changed_blocks::csi::{self, CsiSnapshot, CsiSource, DriverMetadata, Notices, StopCheck};

use super::base::{Bases, VolumeLock};
use super::driver::Driver;
use super::options::CsiOptions;
use super::secrets::Group;
use super::session::LOCK_PATIENCE;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::source::{DeltaSources, SourceDevice, SourceIdentity, Unusable};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;

/// A snapshot that exists.
#[derive(Debug)]
pub struct SnapshotView {
    driver: Driver,
    snapshot: CsiSnapshot,
    size: u64,
    notices: Notices,
    stop: StopFlag,
}

/// The volumes that are looked at: each is held once, however many of its snapshots are compared.
#[derive(Debug, Default)]
pub struct HeldVolumes(Vec<(String, VolumeLock)>);

impl HeldVolumes {
    fn hold(&mut self, driver: &Driver, options: &CsiOptions, volume: &str) -> Result<()> {
        if self.0.iter().any(|(held, _)| held == volume) {
            return Ok(());
        }
        let bases = Bases::at(options.bases(), options.locks());
        let wanted = (&*driver.name, &*driver.socket, volume);
        let lock = bases.lock_within(wanted, LOCK_PATIENCE)?;
        self.0.push((volume.to_owned(), lock));
        Ok(())
    }
}

impl SnapshotView {
    /// Takes hold of its volume, as long as `held` lives, and looks it up.
    ///
    /// # Errors
    /// `InvalidRequest` where the driver does not list snapshots, or not how large they are; `NotFound`; `Unavailable` while
    /// another run works on the volume; what the driver answers.
    pub fn open(
        options: &CsiOptions,
        (volume, snapshot): (&str, &str),
        held: &mut HeldVolumes,
        stop: &StopFlag,
    ) -> Result<Self> {
        let driver = Driver::connect(options)?;
        held.hold(&driver, options, volume)?;
        let refused =
            |message: &str| Error::new(ErrorKind::InvalidRequest, message).object(snapshot);
        if !driver.abilities.list_snapshots {
            return Err(refused("look up a snapshot: the driver does not list them")
                .hint("`snaphaul csi info` tells what the driver can do"));
        }
        let found = driver.find_snapshot(snapshot, volume)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("find this snapshot of {volume}"),
            )
            .object(snapshot)
            .hint("write csi:VOLUME_ID@SNAPSHOT_ID with the handles of volume and snapshot")
        })?;
        let size = u64::try_from(found.bytes).unwrap_or(0);
        if size == 0 {
            return Err(refused(
                "look at a snapshot whose size the driver does not tell",
            ));
        }
        let snapshot =
            CsiSnapshot::new(&driver.name, volume, snapshot).with_driver_version(&driver.version);
        Ok(Self {
            driver,
            snapshot,
            size,
            notices: Notices::default(),
            stop: stop.clone(),
        })
    }

    fn metadata(&self) -> Box<dyn ChangedBlocks + Send> {
        let secrets = self.driver.caller().secrets.of(Group::Snapshotter);
        let service = DriverMetadata::new(self.driver.channel(), &self.snapshot.snapshot, secrets);
        let (stop, runtime) = (self.stop.clone(), self.driver.caller().runtime.handle());
        let source = CsiSource::new(service, self.snapshot.clone(), self.size, runtime)
            .with_notices(self.notices.clone())
            .with_stop(StopCheck::new(move || stop.is_stopped()));
        Box::new(source)
    }

    fn no_device(&self) -> Error {
        Error::new(
            ErrorKind::InvalidRequest,
            "read a snapshot that is not attached",
        )
        .object(self.name())
        .hint("only the driver is asked what a snapshot holds; a backup attaches it")
    }
}

impl SourceDevice for SnapshotView {
    fn name(&self) -> String {
        let snapshot = &self.snapshot;
        format!("{}{}@{}", super::PREFIX, snapshot.volume, snapshot.snapshot)
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        512
    }

    fn hole_map(&self) -> Result<Box<dyn ChangedBlocks + Send>> {
        Err(self.no_device())
    }

    fn delta_sources(&self) -> DeltaSources {
        if self.driver.abilities.snapshot_metadata {
            return DeltaSources::one(self.metadata());
        }
        DeltaSources::none(Unusable {
            name: csi::NAME,
            reason: format!("{} does not serve SnapshotMetadata", self.driver.name),
            is_fault: false,
        })
    }

    fn queue(&self, _: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        Err(self.no_device())
    }

    fn check_unchanged(&self) -> Result<bool> {
        Ok(true)
    }

    fn warnings(&self) -> Vec<String> {
        self.notices.all()
    }

    fn identity(&self) -> SourceIdentity {
        let snapshot = &self.snapshot;
        SourceIdentity {
            kind: "csi".to_owned(),
            immutable: Some(format!("csi:{}/{}", snapshot.driver, snapshot.snapshot)),
        }
    }
}
