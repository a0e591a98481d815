//! The source `csi` against services that answer as they are told to, over a socket and over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in its rig as well"
)]

use std::time::Duration;

use changed_blocks::csi::{
    BlockType, CsiOptions, CsiSnapshot, CsiSource, MetadataService, Notices,
};
use changed_blocks::{Base, ChangedBlocks, Extent, ExtentSet, SourceError, Summary};
use tokio::runtime::{Builder, Runtime};

mod csi_source {
    pub(crate) mod answers;
    pub(crate) mod cluster;
    pub(crate) mod driver;
    pub(crate) mod server;
    pub(crate) mod volume;
}

const DRIVER: &str = "test.csi.snaphaul.dev";

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// As patient as a test can be.
fn options() -> CsiOptions {
    CsiOptions {
        max_results: 7,
        no_progress: Duration::from_secs(30),
        attempts: 5,
        back_off: Duration::from_millis(1),
    }
}

fn target() -> CsiSnapshot {
    CsiSnapshot::new(DRIVER, "volume 1", "snapshot/2")
}

/// Binds to the snapshot that a parent was made from.
fn bind<S: MetadataService>(source: &mut CsiSource<S>) {
    let record = CsiSnapshot::new(DRIVER, "volume 1", "snapshot/1").identity();
    source
        .bind(&Base {
            record: &record,
            point: "parent",
            named: None,
        })
        .unwrap();
}

fn source_of<S: MetadataService>(
    service: S,
    size: u64,
    runtime: &Runtime,
) -> (CsiSource<S>, Notices) {
    let notices = Notices::default();
    let mut source = CsiSource::new(service, target(), size, runtime.handle().clone())
        .with_options(options())
        .with_notices(notices.clone());
    bind(&mut source);
    (source, notices)
}

/// An answer in whole, or why there is none.
fn told(
    ask: impl FnOnce(&mut dyn FnMut(Extent) -> bool) -> Result<Summary, SourceError>,
) -> Result<Vec<Extent>, SourceError> {
    let mut extents = Vec::new();
    let summary = ask(&mut |extent| {
        extents.push(extent);
        true
    })?;
    assert_eq!(summary.extents, u64::try_from(extents.len()).unwrap());
    Ok(extents)
}

fn delta<S: MetadataService>(source: &mut CsiSource<S>) -> Result<Vec<Extent>, SourceError> {
    told(|sink| source.delta(sink))
}

fn allocated<S: MetadataService>(source: &mut CsiSource<S>) -> Vec<Extent> {
    told(|sink| source.allocated(sink)).unwrap()
}

fn set(extents: &[Extent]) -> ExtentSet {
    extents.iter().copied().collect()
}

/// Both ways of counting.
const TYPES: [BlockType; 2] = [BlockType::Fixed, BlockType::Variable];
