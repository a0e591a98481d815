//! The way of a backup by hand: a snapshot, a volume from it, its device, what the driver says of its content, and nothing left.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::image::MIB;

const SIZE: u64 = 4 * MIB;

pub(crate) fn snapshot_clone_attach(plugin: &(dyn Plugin + Sync)) -> Result<()> {
    let client = plugin.client()?;
    let before = plugin.leaks()?;
    let source = client.create_volume("source", SIZE, None)?;
    let writer = Attached::block(plugin, "writer", &source)?;
    let device = File::options().write(true).open(writer.path())?;
    device.write_all_at(&[7; 8192], MIB)?;
    device.sync_all()?;
    let snapshot = client.create_snapshot("snapshot", &source.volume_id)?;
    ensure!(snapshot.ready_to_use && snapshot.size_bytes == i64::try_from(SIZE)?);
    device.write_all_at(&[8; 8192], 2 * MIB)?;
    device.sync_all()?;
    let later = client.create_snapshot("later", &source.volume_id)?;
    drop(device);

    let copy = client.create_volume("copy", SIZE, Some(&snapshot.snapshot_id))?;
    let reader = Attached::block(plugin, "reader", &copy)?;
    let mut content = vec![0; usize::try_from(SIZE)?];
    File::open(reader.path())?.read_exact_at(&mut content, 0)?;
    let at = usize::try_from(MIB)?;
    ensure!(
        content[at..at + 8192] == [7; 8192],
        "the copy holds what was written before"
    );
    ensure!(
        content[..at]
            .iter()
            .chain(&content[at + 8192..])
            .all(|byte| *byte == 0)
    );

    ensure!(bytes(&client.allocated(&snapshot.snapshot_id, 0, 0))? == vec![(MIB, MIB + 8192)]);
    let delta = client.delta(&snapshot.snapshot_id, &later.snapshot_id, 0, 0);
    ensure!(bytes(&delta)? == vec![(2 * MIB, 2 * MIB + 8192)]);

    reader.detach()?;
    writer.detach()?;
    client.delete_volume(&copy.volume_id)?;
    client.delete_snapshot(&snapshot.snapshot_id)?;
    client.delete_snapshot(&later.snapshot_id)?;
    client.delete_volume(&source.volume_id)?;
    let left = plugin.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// The ranges of a clean stream, neighbours merged, as begin and end.
fn bytes((messages, end): &tests::csi::client::Stream) -> Result<Vec<(u64, u64)>> {
    if let Err(status) = end {
        anyhow::bail!("the stream ended with {status}");
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (offset, size) in messages.iter().flat_map(|message| &message.ranges) {
        let (begin, size) = (u64::try_from(*offset)?, u64::try_from(*size)?);
        match ranges.last_mut() {
            Some(last) if last.1 == begin => last.1 += size,
            _ => ranges.push((begin, begin + size)),
        }
    }
    Ok(ranges)
}

/// Ten volumes at once, each from its snapshot to its device and away again.
pub(crate) fn ten_at_once(plugin: &(dyn Plugin + Sync)) -> Result<()> {
    let before = plugin.leaks()?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..10)
            .map(|number| scope.spawn(move || one_of_many(plugin, number)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a worker panicked"))?
        })
    })?;
    let left = plugin.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn one_of_many(plugin: &dyn Plugin, number: u8) -> Result<()> {
    let client = plugin.client()?;
    let source = client.create_volume(&format!("source-{number}"), MIB, None)?;
    let writer = Attached::block(plugin, &format!("writer-{number}"), &source)?;
    let device = File::options().write(true).open(writer.path())?;
    device.write_all_at(&[number; 4096], 0)?;
    device.sync_all()?;
    drop(device);
    let snapshot = client.create_snapshot(&format!("snapshot-{number}"), &source.volume_id)?;
    let copy = client.create_volume(&format!("copy-{number}"), MIB, Some(&snapshot.snapshot_id))?;
    let reader = Attached::block(plugin, &format!("reader-{number}"), &copy)?;
    let mut content = [0; 4096];
    File::open(reader.path())?.read_exact_at(&mut content, 0)?;
    ensure!(content == [number; 4096], "another volume's content");
    reader.detach()?;
    writer.detach()?;
    client.delete_volume(&copy.volume_id)?;
    client.delete_snapshot(&snapshot.snapshot_id)?;
    Ok(client.delete_volume(&source.volume_id)?)
}
