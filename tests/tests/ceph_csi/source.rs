//! The product's RBD source on snapshots of ceph-csi, against a comparison of every byte.
//!
//! Owns: random histories of volumes and their bytes as an array. Must not: know how the source finds its answer.

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::{Cluster, ClusterOptions, Library, RbdOptions, RbdSource};
use changed_blocks::{
    Base, ByteLen, ChangedBlocks as _, Extent, ExtentKind, ExtentSet, Identity, SourceErrorKind,
    contract,
};
use tests::ceph_csi::{Snapshot, Volume};
use tests::random::Random;
use tests::rbd_pool::Change;

use crate::{OBJECT, POOL, Site, VOLUME};

/// A snapshot, what it must hold, and the objects that were written or discarded in since the one before.
struct Kept {
    snapshot: Snapshot,
    content: Vec<u8>,
    touched: ExtentSet,
}

/// Every pair of three snapshots of a volume with a random history, before and after the volume went into the trash.
pub(crate) fn misses_nothing(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("source_misses_nothing");
    let volume = site.csi.create_volume(VOLUME)?;
    let kept = history(
        site,
        &mut random,
        &volume,
        vec![0; usize::try_from(VOLUME)?],
    )?;
    let cluster = connect(site)?;
    for (older, younger) in [(0, 1), (0, 2), (1, 2)] {
        compare(&cluster, &kept, older, younger)?;
    }
    site.csi.delete_volume(&volume)?;
    compare(&cluster, &kept, 0, 2)?;
    site.csi.flatten(&kept[1].snapshot)?;
    compare(&cluster, &kept, 0, 2).context("another snapshot of the volume was flattened")
}

/// A restored volume shows the snapshot's bytes wherever it was not written.
pub(crate) fn misses_nothing_of_a_restored_volume(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("source_misses_nothing_of_a_restored_volume");
    let volume = site.csi.create_volume(VOLUME)?;
    let first = history(
        site,
        &mut random,
        &volume,
        vec![0; usize::try_from(VOLUME)?],
    )?;
    let origin = first.last().context("a history has snapshots")?;
    let restored = site.csi.restore_volume(&origin.snapshot)?;
    let kept = history(site, &mut random, &restored, origin.content.clone())?;
    let cluster = connect(site)?;
    for (older, younger) in [(0, 1), (0, 2)] {
        compare(&cluster, &kept, older, younger)?;
    }
    Ok(())
}

pub(crate) fn says_why_it_cannot_compare(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("source_says_why_it_cannot_compare");
    let volume = site.csi.create_volume(VOLUME)?;
    let kept = history(
        site,
        &mut random,
        &volume,
        vec![0; usize::try_from(VOLUME)?],
    )?;
    let other = site.csi.create_snapshot(&site.csi.create_volume(VOLUME)?)?;
    let cluster = connect(site)?;
    let records = [
        record(&cluster, &kept[0].snapshot)?,
        record(&cluster, &kept[1].snapshot)?,
    ];
    refused(&cluster, &records[1], &kept[0].snapshot, "younger")?;
    refused(
        &cluster,
        &record(&cluster, &other)?,
        &kept[2].snapshot,
        "clones of different images",
    )?;
    site.csi.flatten(&kept[0].snapshot)?;
    refused(&cluster, &records[0], &kept[2].snapshot, "flattened")?;
    site.csi.delete_snapshot(&kept[1].snapshot)?;
    refused(&cluster, &records[1], &kept[2].snapshot, "gone")?;
    // One whose data is its own now must still be read in full.
    let needed = not_zero(&kept[0].content);
    contract::check_allocated(&mut open(&cluster, &kept[0].snapshot)?, VOLUME, &needed);
    Ok(())
}

fn connect(site: &Site) -> Result<Cluster> {
    let options = ClusterOptions {
        conf: Some(site.configuration.clone()),
        ..ClusterOptions::default()
    };
    Ok(Cluster::connect(&Library::load()?, &options)?)
}

fn open(cluster: &Cluster, snapshot: &Snapshot) -> Result<RbdSource> {
    let name = format!("rbd:{POOL}/{}", snapshot.spec());
    Ok(RbdSource::open(
        cluster,
        &name.parse()?,
        RbdOptions::default(),
    )?)
}

fn record(cluster: &Cluster, snapshot: &Snapshot) -> Result<Identity> {
    open(cluster, snapshot)?
        .identity()
        .context("a snapshot has an identity")
}

fn compare(cluster: &Cluster, kept: &[Kept], from: usize, to: usize) -> Result<()> {
    let (older, younger) = (&kept[from], &kept[to]);
    let record = record(cluster, &older.snapshot)?;
    let mut source = open(cluster, &younger.snapshot)?;
    let base = Base {
        record: &record,
        point: "older",
        named: None,
    };
    source.bind(&base)?;
    let changed = marked(&older.content, |at, byte| younger.content[at] != byte);
    contract::check_delta(&mut source, VOLUME, &changed);
    contract::check_allocated(&mut source, VOLUME, &not_zero(&younger.content));
    let mut told = Vec::new();
    source.delta(&mut |extent| {
        told.push(extent);
        true
    })?;
    for extent in told.iter().filter(|extent| extent.kind == ExtentKind::Zero) {
        let start = usize::try_from(extent.offset.0)?;
        let len = usize::try_from(extent.len.0)?;
        let is_zero = younger.content[start..start + len]
            .iter()
            .all(|byte| *byte == 0);
        ensure!(is_zero, "{extent:?} is told as zero and is not");
    }
    let told: ExtentSet = told.into_iter().collect();
    eprintln!(
        "{} of {VOLUME} bytes told for {} that differ",
        told.bytes().0,
        changed.bytes().0
    );
    // How exact an answer is within an object is the OSD's business; objects that nobody touched are never told.
    let touched = kept[from + 1..=to]
        .iter()
        .fold(ExtentSet::empty(), |all, kept| all.union(&kept.touched));
    let excess = told.subtract(&touched);
    ensure!(excess.is_empty(), "told without a reason: {excess:?}");
    Ok(())
}

fn refused(cluster: &Cluster, base: &Identity, target: &Snapshot, reason: &str) -> Result<()> {
    let bound = open(cluster, target)?.bind(&Base {
        record: base,
        point: "older",
        named: None,
    });
    let error = bound
        .err()
        .with_context(|| format!("bound where it should say {reason}"))?;
    ensure!(
        error.kind == SourceErrorKind::FullBackup,
        "{error} asks for {:?}",
        error.kind
    );
    ensure!(
        error.to_string().contains(reason),
        "{error} does not say {reason}"
    );
    Ok(())
}

/// Three snapshots with six random writes and discards before each. The content that was written is what is read back.
fn history(
    site: &Site,
    random: &mut Random,
    volume: &Volume,
    mut content: Vec<u8>,
) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for _ in 0..3 {
        let list: Vec<_> = (0..6).map(|_| change(random)).collect();
        list.iter()
            .try_for_each(|change| on_array(&mut content, change))?;
        site.csi.pool().apply(&volume.image(), &list)?;
        let snapshot = site.csi.create_snapshot(volume)?;
        ensure!(
            site.csi.pool().content(&snapshot.spec())? == content,
            "{} does not hold what was written",
            snapshot.image()
        );
        let ranges: ExtentSet = list.iter().map(extent).collect();
        kept.push(Kept {
            snapshot,
            content: content.clone(),
            touched: ranges.round_out(ByteLen(OBJECT), ByteLen(VOLUME)),
        });
    }
    Ok(kept)
}

fn change(random: &mut Random) -> Change {
    let offset = random.next_u64() % VOLUME;
    let length = 1 + random.next_u64() % (VOLUME - offset).min(300_000);
    if random.next_u64().is_multiple_of(3) {
        return Change::Discard { offset, length };
    }
    let byte = u8::try_from(random.next_u64() % 256).expect("a remainder of 256 is a byte");
    Change::Write {
        offset,
        data: vec![byte; usize::try_from(length).expect("below 300,001")],
    }
}

fn extent(change: &Change) -> Extent {
    match change {
        Change::Write { offset, data } => Extent::data(*offset, data.len() as u64),
        Change::Discard { offset, length } => Extent::data(*offset, *length),
    }
}

fn on_array(array: &mut [u8], change: &Change) -> Result<()> {
    let (offset, length, byte) = match change {
        Change::Write { offset, data } => (*offset, data.len(), data[0]),
        Change::Discard { offset, length } => (*offset, usize::try_from(*length)?, 0),
    };
    let offset = usize::try_from(offset)?;
    array[offset..offset + length].fill(byte);
    Ok(())
}

/// Bytes that are not zero.
fn not_zero(content: &[u8]) -> ExtentSet {
    marked(content, |_, byte| byte != 0)
}

/// The bytes of `content` of which `is_meant` says yes.
fn marked(content: &[u8], is_meant: impl Fn(usize, u8) -> bool) -> ExtentSet {
    let mut found = Vec::new();
    let mut begin = 0;
    for (at, byte) in content.iter().copied().enumerate() {
        if !is_meant(at, byte) {
            if begin < at {
                found.push(begin..at);
            }
            begin = at + 1;
        }
    }
    found.push(begin..content.len());
    let ranges = found.into_iter().filter(|range| !range.is_empty());
    ranges
        .map(|range| Extent::data(range.start as u64, range.len() as u64))
        .collect()
}
