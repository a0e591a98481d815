//! Writes between snapshots, against comparisons of bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use changed_blocks::{Base, ChangedBlocks, ExtentSet, SourceErrorKind, contract};
use csi_proto::csi::controller_client::ControllerClient;
use csi_proto::csi::{CapacityRange, ControllerExpandVolumeRequest};
use tests::csi::Plugin;
use tests::hostpath::HostPath;
use tests::image::MIB;
use tests::random::Random;
use tests::test_driver::TestDriver;

use crate::bed::{Bed, Frozen, allocated, delta};
use crate::differences::{check_pair, differing};

const SIZE: u64 = 8 * MIB;
const SNAPSHOTS: usize = 4;

pub(crate) fn random(plugin: &dyn Plugin) -> Result<()> {
    let mut random = Random::from_environment("random histories");
    let mut bed = Bed::new(plugin, SIZE)?;
    // Of an empty volume drivers say nothing at all, and all of it is read.
    bed.write(&[1], random.below(SIZE))?;
    let mut states: Vec<Frozen> = Vec::new();
    for _ in 0..SNAPSHOTS {
        let edits = random.below(20);
        for _ in 0..edits {
            edit(&bed.device()?, SIZE, &mut random)?;
        }
        states.push(bed.freeze()?);
    }
    for (number, target) in states.iter().enumerate() {
        for base in &states[..=number] {
            check_pair(&bed, base, target)
                .with_context(|| format!("{} against {}", target.id, base.id))?;
        }
    }
    bed.end()
}

/// Small ranges mostly, at odd places: noise, zeros, or what is there already.
fn edit(device: &File, size: u64, random: &mut Random) -> Result<()> {
    let start = random.below(size);
    let most = [100, 4096, 65536, 1 << 20][random.index(4)];
    let len = (random.below(most) + 1).min(size - start);
    let mut bytes = vec![0; usize::try_from(len)?];
    match random.below(5) {
        0 => {}
        1 => device.read_exact_at(&mut bytes, start)?,
        _ => random.fill(&mut bytes),
    }
    device.write_all_at(&bytes, start)?;
    Ok(())
}

/// More ranges than fit a message, each of them alone.
pub(crate) fn alternating(plugin: &dyn Plugin) -> Result<()> {
    let size = 64 * MIB;
    let mut bed = Bed::new(plugin, size)?;
    bed.options.max_results = 4096;
    bed.write(&vec![1; usize::try_from(size)?], 0)?;
    let base = bed.freeze()?;
    let device = bed.device()?;
    for block in (0..size / 4096).step_by(2) {
        device.write_all_at(&[2; 512], block * 4096)?;
    }
    drop(device);
    let target = bed.freeze()?;
    check_pair(&bed, &base, &target)?;
    let (mut source, _) = bed.bound(&base.id, &target)?;
    let told = delta(&mut source)?.len();
    ensure!(u64::try_from(told)? == size / 8192, "{told} extents");
    bed.end()
}

/// A volume that grew between two snapshots. (csi-driver-host-path grows the size that it reports, and not the device.)
pub(crate) fn larger() -> Result<()> {
    let plugin = TestDriver::start(|_| {})?;
    let (small, large) = (4 * MIB, 6 * MIB);
    let mut bed = Bed::new(&plugin, small)?;
    bed.write(&[1; 8192], MIB)?;
    let base = bed.freeze()?;
    let request = ControllerExpandVolumeRequest {
        volume_id: bed.volume.volume_id.clone(),
        capacity_range: Some(CapacityRange {
            required_bytes: i64::try_from(large)?,
            limit_bytes: 0,
        }),
        ..ControllerExpandVolumeRequest::default()
    };
    let mut controller = ControllerClient::new(bed.client.channel());
    let answer = bed
        .client
        .run(controller.controller_expand_volume(request))?;
    bed.volume.capacity_bytes = answer.into_inner().capacity_bytes;
    bed.attach_again()?;
    bed.write(&[2; 8192], 2 * MIB)?;
    bed.write(&[3; 8192], 5 * MIB)?;
    let target = bed.freeze()?;
    ensure!(target.size() == large && base.size() == small);
    check_pair(&bed, &base, &target)?;
    bed.end()
}

/// The reported size is not that of the device.
pub(crate) fn odd_size() -> Result<()> {
    let plugin = HostPath::start(&[])?;
    let mut bed = Bed::new(&plugin, 4 * MIB + 1000)?;
    let size = 4 * MIB;
    bed.write(&[1; 4096], size - 4096)?;
    let base = bed.freeze()?;
    ensure!(base.size() == size, "a device of {} bytes", base.size());
    bed.write(&[2; 512], size - 512)?;
    let target = bed.freeze()?;
    check_pair(&bed, &base, &target)?;
    bed.end()
}

/// Bases that cannot be compared with, each with its reason and the tier that follows.
pub(crate) fn bases(plugin: &dyn Plugin) -> Result<()> {
    let mut bed = Bed::new(plugin, 2 * MIB)?;
    bed.write(&[1; 8192], MIB)?;
    let first = bed.freeze()?;
    bed.write(&[2; 4096], 0)?;
    let second = bed.freeze()?;
    let other = bed.client.create_volume("other", 2 * MIB, None)?;
    let foreign = bed.client.create_snapshot("foreign", &other.volume_id)?;

    // Our own check comes first: the record names another volume.
    let (mut source, _) = bed.source(&second);
    let record = changed_blocks::csi::CsiSnapshot::new(
        crate::bed::DRIVER,
        &other.volume_id,
        &foreign.snapshot_id,
    )
    .identity();
    let refused = source.bind(&Base {
        record: &record,
        point: "parent",
        named: None,
    });
    ensure!(refused.is_err_and(|error| error.to_string().starts_with("the base is of volume")));
    // A record that lies, and a base that is gone.
    let gone = first.id.clone();
    bed.delete_snapshot(&gone)?;
    let not_there = [
        (gone, "NotFound"),
        (foreign.snapshot_id.clone(), "InvalidArgument"),
    ];
    for (base, code) in not_there {
        let (mut source, notices) = bed.bound(&base, &second)?;
        let error = delta(&mut source)
            .map(drop)
            .expect_err("a delta without its base");
        ensure!(error.kind == SourceErrorKind::FullBackup);
        ensure!(error.to_string().contains(code), "{error}");
        ensure!(
            notices.all() == [format!("no delta: {error}")],
            "{:?}",
            notices.all()
        );
        let told: ExtentSet = allocated(&mut source)?.into_iter().collect();
        let needed = differing(&vec![0; second.bytes.len()], &second.bytes);
        ensure!(
            needed.subtract(&told).is_empty(),
            "not told: {needed:?} of {told:?}"
        );
        ensure!(notices.all().len() == 1, "{:?}", notices.all());
    }
    let (mut same, _) = bed.bound(&second.id, &second)?;
    contract::check_delta(&mut same, second.size(), &ExtentSet::empty());
    ensure!(delta(&mut same)?.is_empty());
    bed.client.delete_snapshot(&foreign.snapshot_id)?;
    bed.client.delete_volume(&other.volume_id)?;
    bed.end()
}
