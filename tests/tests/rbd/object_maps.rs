//! Object maps that are lost, invalid, or wrong.
//!
//! Owns: those cases. Must not: break the cluster.

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::{Access, RbdOptions, RbdSource};
use changed_blocks::{ChangedBlocks, ExtentSet, contract, source::Trust};

use crate::binding::{SIZE, bind, identity};
use crate::content;
use crate::site::{POOL, Site};
use crate::writer::{FAST_DIFF, Writer};

const MIB: u64 = 1 << 20;

/// Object maps that are lost or marked invalid are not believed, however fast an answer is wanted.
pub(crate) fn invalid(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let image = site.name("maps");
    writer.create(&image, SIZE, FAST_DIFF)?;
    for (number, snapshot) in (1..).zip(["a", "b"]) {
        writer.change("write", &image, &[number * MIB + 7, 5000, number])?;
        writer.order(&["snapshot", &image, snapshot])?;
    }
    writer.order(&["close", &image])?;
    let read = |snapshot| -> Result<Vec<u8>> {
        content::read(&site.open(&image, Some(snapshot), Access::Read)?)
    };
    let changed = content::changed(&read("a")?, &read("b")?);
    let record = identity(site, &format!("{image}@a"))?;
    let target = site.open(&image, Some("b"), Access::Read)?;
    let id = target.id()?;
    let check = || -> Result<()> {
        let name = format!("rbd:{POOL}/{image}@b").parse()?;
        let mut source = RbdSource::open(&site.cluster, &name, RbdOptions { whole_object: true })?;
        bind(&mut source, &record, None)?;
        contract::check_delta(&mut source, SIZE, &changed);
        Ok(())
    };
    check()?;
    let snapshot = target.snapshot().context("it is open at a snapshot")?;
    let map = format!("rbd_object_map.{id}.{snapshot:016x}");
    site.ceph.rados(&["-p", POOL, "truncate", &map, "0"])?;
    check()?;
    // Ceph's own check finds the damage and marks the map.
    let spec = format!("{POOL}/{image}@b");
    site.ceph
        .rbd(&["object-map", "check", &spec, "--no-progress"])?;
    let flags = site.open(&image, Some("b"), Access::Read)?.flags()?;
    ensure!(
        flags & 3 != 0,
        "the map is marked invalid, flags are {flags}"
    );
    check()
}

/// Why object maps are asked only when somebody insists: a rollback brings back the older snapshot's map, in which an object
/// is clean that changed in between. Seen in a randomised history on Ceph 16.2.15.
pub(crate) fn after_a_rollback(site: &Site) -> Result<()> {
    let mut writer = Writer::start(site, 65_536)?;
    let image = site.name("rollback");
    writer.create(&image, SIZE, FAST_DIFF)?;
    for (snapshot, seed) in [("a", Some(1)), ("b", None), ("c", Some(2))] {
        if let Some(seed) = seed {
            writer.change("write", &image, &[MIB + 7, 5000, seed])?;
        }
        writer.order(&["snapshot", &image, snapshot])?;
    }
    writer.order(&["rollback", &image, "b"])?;
    writer.order(&["snapshot", &image, "d"])?;
    writer.order(&["close", &image])?;
    let read = |snapshot| -> Result<Vec<u8>> {
        content::read(&site.open(&image, Some(snapshot), Access::Read)?)
    };
    let changed = content::changed(&read("c")?, &read("d")?);
    let record = identity(site, &format!("{image}@c"))?;
    for whole_object in [false, true] {
        let name = format!("rbd:{POOL}/{image}@d").parse()?;
        let mut source = RbdSource::open(&site.cluster, &name, RbdOptions { whole_object })?;
        bind(&mut source, &record, None)?;
        let mut told = Vec::new();
        source.delta(&mut |extent| {
            told.push(extent);
            true
        })?;
        let told: ExtentSet = told.into_iter().collect();
        let missed = changed.subtract(&told).bytes();
        eprintln!(
            "whole_object {whole_object}: missed {missed} of {} bytes",
            changed.bytes()
        );
        let trust = source.capabilities().trust;
        ensure!(
            missed.0 == 0 || trust == Trust::Unverified,
            "missed {missed}"
        );
    }
    Ok(())
}
