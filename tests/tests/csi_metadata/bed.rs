//! A volume of a driver that is written to and snapshotted, and sources that are asked about its snapshots.
//!
//! Owns: the volume, its device, and what it leaves. Must not: know what an answer should be (`differences` does).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use changed_blocks::csi::{CsiOptions, CsiSnapshot, CsiSource, DriverMetadata, Notices};
use changed_blocks::{Base, ChangedBlocks, Extent, Identity, SourceError};
use csi_proto::csi::Volume;
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::Client;
use tests::csi::leaks::Leaks;
use tokio::runtime::Runtime;

/// A source of a driver's snapshot.
pub(crate) type Source = CsiSource<DriverMetadata>;

pub(crate) const DRIVER: &str = "driver under test";

/// A frozen state: its handle and its bytes.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
}

impl Frozen {
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).expect("a length fits 64 bits")
    }
}

/// A written volume.
pub(crate) struct Bed<'a> {
    plugin: &'a dyn Plugin,
    pub(crate) client: Client,
    runtime: Runtime,
    pub(crate) volume: Volume,
    writer: Option<Attached>,
    snapshots: Vec<String>,
    before: Leaks,
    /// What a driver is asked with.
    pub(crate) options: CsiOptions,
    pub(crate) secrets: BTreeMap<String, String>,
}

impl<'a> Bed<'a> {
    /// A volume of `size` bytes, attached.
    pub(crate) fn new(plugin: &'a dyn Plugin, size: u64) -> Result<Self> {
        let before = plugin.leaks()?;
        let client = plugin.client()?;
        let volume = client.create_volume("source", size, None)?;
        let writer = Attached::block(plugin, "writer", &volume)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            plugin,
            client,
            runtime,
            volume,
            writer: Some(writer),
            snapshots: Vec::new(),
            before,
            options: CsiOptions {
                max_results: 64,
                back_off: std::time::Duration::from_millis(1),
                ..CsiOptions::default()
            },
            secrets: BTreeMap::new(),
        })
    }

    /// The volume's device, for many writes. Whoever holds it keeps the volume from being detached.
    pub(crate) fn device(&self) -> Result<File> {
        let writer = self.writer.as_ref().context("the volume is attached")?;
        Ok(File::options().read(true).write(true).open(writer.path())?)
    }

    /// Writes to the volume.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        Ok(self.device()?.write_all_at(bytes, offset)?)
    }

    /// Detaches and attaches again, as after a change of the size.
    pub(crate) fn attach_again(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            writer.detach()?;
        }
        self.writer = Some(Attached::block(self.plugin, "writer", &self.volume)?);
        Ok(())
    }

    /// A snapshot of what is on the disk.
    pub(crate) fn snapshot(&mut self) -> Result<String> {
        let name = format!("snapshot {}", self.snapshots.len());
        let snapshot = self.client.create_snapshot(&name, &self.volume.volume_id)?;
        ensure!(snapshot.ready_to_use);
        self.snapshots.push(snapshot.snapshot_id.clone());
        Ok(snapshot.snapshot_id)
    }

    /// A snapshot and what a clone of it holds.
    pub(crate) fn freeze(&mut self) -> Result<Frozen> {
        self.device()?.sync_all()?;
        let id = self.snapshot()?;
        let size = u64::try_from(self.volume.capacity_bytes)?;
        let clone = self.client.create_volume("clone", size, Some(&id))?;
        let reader = Attached::block(self.plugin, "reader", &clone)?;
        let mut bytes = Vec::new();
        File::open(reader.path())?.read_to_end(&mut bytes)?;
        reader.detach()?;
        self.client.delete_volume(&clone.volume_id)?;
        Ok(Frozen { id, bytes })
    }

    fn named(&self, id: &str) -> CsiSnapshot {
        CsiSnapshot::new(DRIVER, &self.volume.volume_id, id)
    }

    /// The record that a point made from `id` keeps.
    pub(crate) fn record(&self, id: &str) -> Identity {
        self.named(id).identity()
    }

    /// A source of `target`, with its notices.
    pub(crate) fn source(&self, target: &Frozen) -> (Source, Notices) {
        let channel = self.runtime.block_on(async { self.client.channel() });
        let service = DriverMetadata::new(channel, &target.id, self.secrets.clone());
        let notices = Notices::default();
        let handle = self.runtime.handle().clone();
        let source = CsiSource::new(service, self.named(&target.id), target.size(), handle)
            .with_options(self.options)
            .with_notices(notices.clone());
        (source, notices)
    }

    /// The same, bound to `base`.
    pub(crate) fn bound(&self, base: &str, target: &Frozen) -> Result<(Source, Notices)> {
        let (mut source, notices) = self.source(target);
        let record = self.record(base);
        source.bind(&Base {
            record: &record,
            point: "parent",
            named: None,
        })?;
        Ok((source, notices))
    }

    /// Forgets a snapshot that the case deleted itself.
    pub(crate) fn delete_snapshot(&mut self, id: &str) -> Result<()> {
        self.client.delete_snapshot(id)?;
        self.snapshots.retain(|snapshot| snapshot != id);
        Ok(())
    }

    /// Takes everything away; nothing may be left.
    pub(crate) fn end(mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            writer.detach()?;
        }
        for snapshot in &self.snapshots {
            self.client.delete_snapshot(snapshot)?;
        }
        self.client.delete_volume(&self.volume.volume_id)?;
        let left = self.plugin.left_since(&self.before)?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

/// An answer in whole.
pub(crate) fn delta(source: &mut Source) -> Result<Vec<Extent>, SourceError> {
    let mut told = Vec::new();
    source.delta(&mut |extent| {
        told.push(extent);
        true
    })?;
    Ok(told)
}

/// An answer in whole.
pub(crate) fn allocated(source: &mut Source) -> Result<Vec<Extent>, SourceError> {
    let mut told = Vec::new();
    source.allocated(&mut |extent| {
        told.push(extent);
        true
    })?;
    Ok(told)
}
