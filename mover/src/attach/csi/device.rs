//! The device of a snapshot, as the source of a backup.
//!
//! Owns: what names it, and who says what changed. Must not: make it or take it away (`session` does).

use changed_blocks::ChangedBlocks;
use changed_blocks::csi::{self, CsiSnapshot, CsiSource, DriverMetadata, Notices, StopCheck};

use super::driver::Driver;
use super::secrets::Group;
use crate::device::queue::{IoQueue, QueueOptions};
use crate::device::source::{DeltaSources, Source, SourceDevice, SourceIdentity, Unusable};
use crate::error::Result;
use crate::pipeline::progress::StopFlag;

/// A volume made from a snapshot, attached here and opened for reading.
#[derive(Debug)]
pub struct CsiDevice {
    source: Source,
    driver: Driver,
    snapshot: CsiSnapshot,
    notices: Notices,
    stop: StopFlag,
    warnings: Vec<String>,
    refused: Option<(String, String)>,
}

impl CsiDevice {
    pub(super) fn new(
        source: Source,
        driver: &Driver,
        snapshot: CsiSnapshot,
        stop: &StopFlag,
        warnings: Vec<String>,
    ) -> Self {
        Self {
            source,
            driver: driver.clone(),
            snapshot,
            notices: Notices::default(),
            stop: stop.clone(),
            warnings,
            refused: None,
        }
    }

    /// The same, which asks for no delta from this snapshot, and why: its id is another one's by now.
    pub(super) fn refusing(mut self, refused: Option<(String, String)>) -> Self {
        self.refused = refused;
        self
    }

    /// What the driver calls the snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &str {
        &self.snapshot.snapshot
    }

    fn metadata(&self) -> Box<dyn ChangedBlocks + Send> {
        let secrets = self.driver.caller().secrets.of(Group::Snapshotter);
        let service = DriverMetadata::new(self.driver.channel(), &self.snapshot.snapshot, secrets);
        let stop = self.stop.clone();
        let runtime = self.driver.caller().runtime.handle();
        let mut source =
            CsiSource::new(service, self.snapshot.clone(), self.source.size(), runtime)
                .with_notices(self.notices.clone())
                .with_stop(StopCheck::new(move || stop.is_stopped()));
        if let Some((snapshot, why)) = &self.refused {
            source = source.refusing(snapshot, why);
        }
        self.driver.timing().ask(Box::new(source))
    }
}

impl SourceDevice for CsiDevice {
    fn name(&self) -> String {
        format!("{}{}", super::PREFIX, self.snapshot.volume)
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
        if self.driver.abilities.snapshot_metadata {
            return DeltaSources::one(self.metadata());
        }
        DeltaSources::none(Unusable {
            name: csi::NAME,
            reason: format!("{} does not serve SnapshotMetadata", self.driver.name),
            is_fault: false,
        })
    }

    fn queue(&self, options: &QueueOptions) -> Result<Box<dyn IoQueue>> {
        let queue = self.source.queue(options)?;
        Ok(self.driver.timing().watch(queue))
    }

    fn check_unchanged(&self) -> Result<bool> {
        self.source.check_unchanged()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.source.warnings());
        warnings.extend(self.notices.all());
        warnings
    }

    fn identity(&self) -> SourceIdentity {
        SourceIdentity {
            kind: "csi".to_owned(),
            immutable: Some(format!(
                "csi:{}/{}",
                self.snapshot.driver, self.snapshot.snapshot
            )),
        }
    }
}
