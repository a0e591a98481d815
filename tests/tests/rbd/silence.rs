//! Monitors and OSDs that stop answering: an error in time, never a wait for ever.
//!
//! Owns: a cluster of its own, which it freezes. Must not: share it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::{
    Access, AioQueue, Cluster, ClusterOptions, RbdName, RbdOptions, RbdSource,
};
use changed_blocks::{Base, ChangedBlocks, SourceErrorKind, Summary};

use crate::site::{POOL, Site, options};
use crate::writer::{LAYERING, Writer};

/// Long enough for a cluster that is only busy.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A few time-outs one after the other on a busy machine; for ever is longer.
const LIMIT: Duration = Duration::from_secs(180);
const SIZE: u64 = 64 << 20;

pub(crate) fn silence(shared: &Site) -> Result<()> {
    let site = Site::start()?;
    let image = site.name("silent");
    let mut writer = Writer::start(&site, 65_536)?;
    writer.create(&image, SIZE, LAYERING)?;
    for snapshot in ["a", "b"] {
        writer.change("write", &image, &[4096, 100_000, 1])?;
        writer.order(&["snapshot", &image, snapshot])?;
    }
    drop(writer);
    let options = ClusterOptions {
        timeout: TIMEOUT,
        ..options(&site.ceph)
    };
    let library = shared.cluster.library();
    let cluster = Cluster::connect(library, &options)?;
    let [older, younger]: [RbdName; 2] = [
        format!("rbd:{POOL}/{image}@a").parse()?,
        format!("rbd:{POOL}/{image}@b").parse()?,
    ];
    let record = RbdSource::open(&cluster, &older, RbdOptions::default())?.identity();
    let record = record.context("snapshots have an identity")?;
    let mut source = RbdSource::open(&cluster, &younger, RbdOptions::default())?;
    source.bind(&Base {
        record: &record,
        point: "p1",
        named: None,
    })?;

    site.ceph.osd().freeze()?;
    let answer = silent_osd(&cluster, &younger, &mut source);
    site.ceph.osd().thaw()?;
    answer?;
    let whole = first_answer(&mut source)?;
    ensure!(whole.extents > 0, "it answers again");

    site.ceph.monitor().freeze()?;
    let begin = Instant::now();
    // What is connected needs no monitor; where something does, it is asked again later.
    let alone = source.delta(&mut |_| true);
    in_time(begin, "delta without a monitor")?;
    match alone {
        Ok(summary) => ensure!(summary == whole, "{summary:?} is not {whole:?}"),
        Err(error) => ensure!(error.kind == SourceErrorKind::Retry, "{error}"),
    }
    let begin = Instant::now();
    let answer = Cluster::connect(library, &options);
    site.ceph.monitor().thaw()?;
    let error = answer.err().context("a silent monitor answered")?;
    in_time(begin, "connect")?;
    ensure!(error.is_passing(), "{error:?}");
    Ok(())
}

fn silent_osd(cluster: &Cluster, name: &RbdName, source: &mut RbdSource) -> Result<()> {
    let begin = Instant::now();
    let answer = source.delta(&mut |_| true);
    let error = answer.err().context("a silent OSD answered")?;
    in_time(begin, "delta")?;
    ensure!(
        error.kind == SourceErrorKind::Retry,
        "{:?}: {error}",
        error.kind
    );
    let begin = Instant::now();
    let mut queue: AioQueue<Vec<u8>> = AioQueue::new(Arc::clone(source.image()))?;
    for token in 0..40 {
        queue.read(token, token << 20, 1 << 20, vec![0; 1 << 20]);
    }
    let mut failed = 0;
    while let Some(done) = queue.wait() {
        ensure!(done.buffer.is_some_and(|buffer| buffer.len() == 1 << 20));
        failed += usize::from(done.result.is_err());
    }
    in_time(begin, "read")?;
    ensure!(failed == 40, "{failed} reads failed of 40");
    let begin = Instant::now();
    ensure!(
        name.open(cluster, Access::Read).is_err(),
        "a silent OSD let an image open"
    );
    in_time(begin, "open")
}

/// An OSD that was frozen has to be found again: until then what is asked is to be asked again.
fn first_answer(source: &mut RbdSource) -> Result<Summary> {
    let begin = Instant::now();
    loop {
        match source.delta(&mut |_| true) {
            Err(error) if error.kind == SourceErrorKind::Retry && begin.elapsed() < LIMIT => {
                eprintln!("silence: not yet: {error}");
            }
            answer => return Ok(answer?),
        }
    }
}

fn in_time(begin: Instant, what: &str) -> Result<()> {
    let took = begin.elapsed();
    eprintln!("silence: {what} gave up after {took:?}");
    ensure!(took < LIMIT, "{what} took {took:?}");
    Ok(())
}
