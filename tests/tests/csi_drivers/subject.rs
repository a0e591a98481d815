//! A volume whose content is known, and snapshots of it: what answers about metadata are held against.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use csi_proto::csi::Volume;
use tests::csi::Plugin;
use tests::csi::attached::Attached;
use tests::csi::client::{Client, Stream};
use tests::part;

use crate::conduct::Conduct;

/// Begin and end of ranges, in bytes, neighbours merged.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// A volume that is attached, and its content.
pub(crate) struct Subject {
    pub(crate) client: Client,
    pub(crate) volume: Volume,
    pub(crate) content: Vec<u8>,
    attached: Attached,
    name: String,
}

/// A snapshot and its content.
pub(crate) struct Still {
    pub(crate) id: String,
    pub(crate) content: Vec<u8>,
}

impl Still {
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.content.len()).unwrap_or_default()
    }
}

impl Subject {
    pub(crate) fn new(plugin: &dyn Plugin, name: &str, size: u64) -> Result<Self> {
        let client = plugin.client()?;
        let volume = client.create_volume(name, size, None)?;
        let attached = Attached::block(plugin, name, &volume)?;
        let content = vec![0; usize::try_from(size)?];
        Ok(Self {
            client,
            volume,
            content,
            attached,
            name: name.to_owned(),
        })
    }

    pub(crate) fn device(&self) -> &Path {
        self.attached.path()
    }

    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let begin = usize::try_from(at)?;
        self.content[begin..begin + bytes.len()].copy_from_slice(bytes);
        let device = File::options().write(true).open(self.device())?;
        device.write_all_at(bytes, at)?;
        Ok(device.sync_all()?)
    }

    /// Gives a range back: makes a hole in the image, as the loop device would for BLKDISCARD. A loop device itself refuses that for
    /// good once somebody has set its limit to 0, which outlives the file it was for.
    pub(crate) fn discard(&mut self, at: u64, size: u64) -> Result<()> {
        let begin = usize::try_from(at)?;
        self.content[begin..begin + usize::try_from(size)?].fill(0);
        let number = std::fs::metadata(self.device())?.rdev();
        let number = format!(
            "{}:{}",
            nix::sys::stat::major(number),
            nix::sys::stat::minor(number)
        );
        let image = std::fs::read_to_string(format!("/sys/dev/block/{number}/loop/backing_file"))?;
        let mut command = Command::new("fallocate");
        command.arg("--punch-hole").args([
            "--offset",
            &at.to_string(),
            "--length",
            &size.to_string(),
        ]);
        part::run(command.arg(image.trim_end_matches('\n')))?;
        // The device has pages of its own.
        part::run(
            Command::new("blockdev")
                .arg("--flushbufs")
                .arg(self.device()),
        )
        .map(drop)
    }

    pub(crate) fn snapshot(&self, name: &str) -> Result<Still> {
        let snapshot = self
            .client
            .create_snapshot(&format!("{}-{name}", self.name), &self.volume.volume_id)?;
        ensure!(usize::try_from(snapshot.size_bytes)? == self.content.len());
        Ok(Still {
            id: snapshot.snapshot_id,
            content: self.content.clone(),
        })
    }

    /// All of GetMetadataAllocated from `offset` on, checked for its form.
    pub(crate) fn allocated(
        &self,
        conduct: Conduct,
        still: &Still,
        offset: u64,
        max: i32,
    ) -> Result<Ranges> {
        let stream = self
            .client
            .allocated(&still.id, i64::try_from(offset)?, max);
        sound(&stream, conduct, still, offset, max)
            .with_context(|| format!("allocated from {offset}, {max} a message"))
    }

    /// All of GetMetadataDelta from `offset` on, checked for its form.
    pub(crate) fn delta(
        &self,
        conduct: Conduct,
        pair: (&Still, &Still),
        offset: u64,
        max: i32,
    ) -> Result<Ranges> {
        let stream = self
            .client
            .delta(&pair.0.id, &pair.1.id, i64::try_from(offset)?, max);
        sound(&stream, conduct, pair.1, offset, max)
            .with_context(|| format!("delta from {offset}, {max} a message"))
    }

    /// Deletes everything, and expects that it can be deleted.
    pub(crate) fn end(self, stills: Vec<Still>) -> Result<()> {
        self.attached.detach()?;
        for still in stills {
            self.client.delete_snapshot(&still.id)?;
        }
        Ok(self.client.delete_volume(&self.volume.volume_id)?)
    }
}

/// Whether a stream has the form that the specification demands; gives its ranges, cut at the end of the volume.
pub(crate) fn sound(
    (messages, end): &Stream,
    conduct: Conduct,
    still: &Still,
    offset: u64,
    max: i32,
) -> Result<Ranges> {
    if let Err(status) = end {
        return Err(status.clone().into());
    }
    let (mut ranges, mut last): (Ranges, u64) = (Vec::new(), 0);
    for message in messages {
        ensure!(
            message.kind == if conduct.fixed { 1 } else { 2 },
            "type {}",
            message.kind
        );
        ensure!(
            u64::try_from(message.capacity)? == still.size(),
            "capacity {}",
            message.capacity
        );
        ensure!(
            max == 0 || message.ranges.len() <= usize::try_from(max)?,
            "{} in a message",
            message.ranges.len()
        );
        for (begin, size) in &message.ranges {
            let (begin, size) = (u64::try_from(*begin)?, u64::try_from(*size)?);
            ensure!(
                size > 0 && begin >= last && begin < still.size(),
                "{size} at {begin} after {last}"
            );
            ensure!(!conduct.fixed || size == conduct.unit, "a block of {size}");
            ensure!(
                begin + size > offset,
                "the first range ends at {} before {offset}",
                begin + size
            );
            ensure!(
                conduct.fixed || conduct.hostpath || begin + size <= still.size(),
                "beyond the end"
            );
            last = begin + size;
            let end = last.min(still.size());
            match ranges.last_mut() {
                Some(before) if before.1 == begin => before.1 = end,
                _ => ranges.push((begin, end)),
            }
        }
    }
    Ok(ranges)
}

/// Bytes from `offset` on.
pub(crate) fn from(offset: u64, ranges: &Ranges) -> Ranges {
    ranges
        .iter()
        .filter(|range| range.1 > offset)
        .map(|range| (range.0.max(offset), range.1))
        .collect()
}

/// What the ranges are for: with their bytes, a copy of the base becomes the target.
pub(crate) fn completes(base: &[u8], target: &[u8], ranges: &Ranges) -> Result<()> {
    let mut copy = base.to_vec();
    copy.resize(target.len(), 0);
    for (begin, end) in ranges {
        let range = usize::try_from(*begin)?..usize::try_from(*end)?;
        copy[range.clone()].copy_from_slice(&target[range]);
    }
    if let Some(at) = copy.iter().zip(target).position(|(one, two)| one != two) {
        bail!("byte {at} differs from the target, and no range has it");
    }
    Ok(())
}
