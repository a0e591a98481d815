//! Drivers that die, stand still, or serve no metadata.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use changed_blocks::csi::CsiOptions;
use changed_blocks::{ChangedBlocks, Extent, ExtentSet};
use tests::csi::Plugin;
use tests::csi_driver::faults::{Fault, Order, When};
use tests::hostpath::HostPath;
use tests::image::MIB;
use tests::test_driver::TestDriver;

use crate::bed::{Bed, allocated, delta};
use crate::differences::differing;
use crate::faults::Pair;

const LIMIT: Duration = Duration::from_secs(20);

/// Patient enough for a driver that starts again.
fn patient() -> CsiOptions {
    CsiOptions {
        max_results: 4,
        attempts: 12,
        back_off: Duration::from_millis(20),
        ..CsiOptions::default()
    }
}

pub(crate) fn death_at_a_call() -> Result<()> {
    let mut driver = TestDriver::start(|_| {})?;
    // Made while it lives; asked when it is about to die.
    let (mut source, changed) = {
        let mut pair = Pair::new(&driver)?;
        pair.bed.options = patient();
        let source = pair.source()?;
        let changed = pair.changed();
        driver.order(&[Order::next(
            "GetMetadataDelta",
            Fault::Die { when: When::Before },
        )])?;
        let Pair { bed, .. } = pair;
        // Its volume is swept with the driver.
        std::mem::forget(bed);
        (source, changed)
    };
    let told = std::thread::scope(|scope| {
        let asking = scope.spawn(move || delta(&mut source));
        driver.restart_when_dead(LIMIT)?;
        let told = asking
            .join()
            .map_err(|_| anyhow::anyhow!("the source panicked"))?;
        Ok::<_, anyhow::Error>(told?)
    })?;
    let told: ExtentSet = told.into_iter().collect();
    ensure!(told == changed, "{told:?}");
    Ok(())
}

pub(crate) fn no_service() -> Result<()> {
    let driver = TestDriver::start(|options| options.metadata = false)?;
    without_service(&driver)
}

pub(crate) fn switched_off() -> Result<()> {
    without_service(&HostPath::start(&["--enable-snapshot-metadata=false"])?)
}

fn without_service(plugin: &dyn Plugin) -> Result<()> {
    let mut bed = Bed::new(plugin, MIB)?;
    let base = bed.freeze()?;
    let target = bed.freeze()?;
    let (mut source, notices) = bed.bound(&base.id, &target)?;
    let error = delta(&mut source).err().context("a delta of no service")?;
    ensure!(error.to_string().contains("Unimplemented"), "{error}");
    ensure!(allocated(&mut source)? == [Extent::data(0, MIB)]);
    ensure!(notices.all().len() == 2, "{:?}", notices.all());
    bed.end()
}

/// A process that is killed amid a stream and starts again on the same state.
pub(crate) fn killed_in_the_stream() -> Result<()> {
    let mut plugin = HostPath::start(&[])?;
    let (mut source, changed) = {
        let mut bed = Bed::new(&plugin, 64 * MIB)?;
        bed.options = patient();
        let base = bed.freeze()?;
        let device = bed.device()?;
        for number in 0..2048 {
            device.write_all_at(&[1; 512], number * 8192)?;
        }
        let target = bed.freeze()?;
        let source = bed.bound(&base.id, &target)?.0;
        // Its volume is swept with the driver.
        std::mem::forget(bed);
        (source, differing(&base.bytes, &target.bytes))
    };
    let mut told = Vec::new();
    let mut restarted = None;
    let summary = source.delta(&mut |extent| {
        told.push(extent);
        if told.len() == 50 {
            restarted = Some(plugin.restart());
        }
        true
    })?;
    restarted.context("the driver was killed amid the stream")??;
    ensure!(usize::try_from(summary.extents)? == told.len());
    let told: ExtentSet = told.into_iter().collect();
    let blocks = changed.round_out(changed_blocks::ByteLen(4096), summary.size);
    ensure!(told == blocks, "{told:?}");
    Ok(())
}

/// A process that stands still: connections stay open, and nothing comes.
pub(crate) fn frozen() -> Result<()> {
    let plugin = HostPath::start(&[])?;
    let mut bed = Bed::new(&plugin, MIB)?;
    let base = bed.freeze()?;
    let target = bed.freeze()?;
    bed.options.no_progress = Duration::from_secs(1);
    let (mut source, notices) = bed.bound(&base.id, &target)?;
    let process = plugin.process().context("the driver runs")?;
    process.freeze()?;
    let refused = delta(&mut source);
    let everything = allocated(&mut source);
    process.thaw()?;
    let error = refused.err().context("a delta of a frozen driver")?;
    ensure!(error.to_string().contains("nothing new for 1s"), "{error}");
    ensure!(everything? == [Extent::data(0, MIB)]);
    ensure!(notices.all().len() == 2, "{:?}", notices.all());
    // It goes on as if nothing had been.
    ensure!(delta(&mut source)?.is_empty());
    bed.end()
}
