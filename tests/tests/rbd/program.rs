//! Faults of bases and clusters through the program: every run says why it reads everything, or what changed, and its point
//! is the snapshot, byte for byte.
//!
//! Owns: those cases. Must not: judge by anything but the program's output and what it restores.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::Access;
use tests::repo::{Repo, fresh};
use tests::scratch::Scratch;
use tests::snaphaul::Snaphaul;

use crate::binding::SIZE;
use crate::content;
use crate::site::{POOL, Site};
use crate::writer::{LAYERING, Writer};

const MIB: u64 = 1 << 20;
/// Noise that a backup at [`SLOW`] takes seconds for, in segments of 32 MiB.
const HEAD: u64 = 80 * MIB;
const SLOW: &str = "4MiB/s";

/// A repository, and the program that reaches the cluster.
struct Bench<'a> {
    site: &'a Site,
    conf: PathBuf,
    scratch: Scratch,
    repo: Repo,
}

impl<'a> Bench<'a> {
    fn new(site: &'a Site, name: &str) -> Result<Self> {
        let (scratch, repo, _) = fresh(name)?;
        Ok(Self {
            site,
            conf: site.ceph.conf(),
            scratch,
            repo,
        })
    }

    fn command(&self, words: &[&str]) -> Result<Snaphaul> {
        Ok(self.repo.command(words)?.env("CEPH_CONF", &self.conf))
    }

    /// Backs a snapshot up, for a reason that says `because`, and restores it.
    fn point(&self, source: &str, snapshot: (&str, &str), because: &str) -> Result<()> {
        let done = self
            .command(&["backup", source, "--volume", "disk"])?
            .run()?
            .expect(0)?;
        let reason = done.string("changed_blocks_reason")?;
        ensure!(reason.contains(because), "{because}: {reason}");
        let (image, name) = snapshot;
        let wanted = content::read(&self.site.open(image, Some(name), Access::Read)?)?;
        self.restores(&done.string("point")?, &wanted)
    }

    fn restores(&self, point: &str, wanted: &[u8]) -> Result<()> {
        let target = self.scratch.join("restored");
        self.repo.restore(point, &target, &[])?;
        let restored = std::fs::read(&target)?;
        std::fs::remove_file(target)?;
        ensure!(restored == wanted, "the point is not the snapshot");
        Ok(())
    }
}

/// One volume through all that may happen to its base.
pub(crate) fn bases_that_change(site: &Site) -> Result<()> {
    const CHANGED: &str = "what changed since";
    const RESIZED: &str = " before: after a change of size";
    let bench = Bench::new(site, "rbd-bases")?;
    let mut writer = Writer::start(site, 65_536)?;
    let image = site.name("bases");
    writer.create(&image, SIZE, LAYERING)?;
    let point = |image: &str, snapshot: &str, because: &str| {
        let source = format!("rbd:{POOL}/{image}@{snapshot}");
        bench.point(&source, (image, snapshot), because)
    };
    let mut step = |orders: &[&[&str]], snapshot: &str, seed: u64| -> Result<()> {
        for order in orders {
            writer.order(order)?;
        }
        writer.change("write", &image, &[seed * 300_000 + 7, 200_000, seed])?;
        writer.order(&["snapshot", &image, snapshot])
    };
    step(&[], "a", 1)?;
    point(&image, "a", "no parent")?;
    step(&[], "b", 2)?;
    point(&image, "b", CHANGED)?;
    step(&[&["remove_snapshot", &image, "b"]], "c", 3)?;
    point(&image, "c", "was deleted")?;
    // The same name is not the same snapshot.
    step(&[&["remove_snapshot", &image, "c"]], "c", 4)?;
    point(&image, "c", "was deleted")?;
    step(&[], "d", 5)?;
    point(&image, "d", CHANGED)?;
    step(&[&["rollback", &image, "a"]], "e", 6)?;
    point(&image, "e", CHANGED)?;
    let [half, whole] = [(SIZE / 2).to_string(), (SIZE + MIB / 2).to_string()];
    step(&[&["resize", &image, &half]], "f", 7)?;
    point(&image, "f", RESIZED)?;
    step(&[&["resize", &image, &whole]], "g", 8)?;
    point(&image, "g", RESIZED)?;

    // Another image, then a clone of it, which loses its parent.
    let other = site.name("bases");
    writer.create(&other, SIZE, LAYERING)?;
    writer.change("write", &other, &[MIB, 2 * MIB, 9])?;
    writer.order(&["snapshot", &other, "a"])?;
    point(&other, "a", "another image")?;
    let clone = site.name("bases");
    let features = LAYERING.to_string();
    writer.order(&["clone", &other, "a", &clone, &features, "20"])?;
    writer.change("write", &clone, &[5 * MIB, 1000, 10])?;
    writer.order(&["snapshot", &clone, "a"])?;
    point(&clone, "a", "another image")?;
    writer.order(&["flatten", &clone])?;
    writer.order(&["snapshot", &clone, "b"])?;
    point(&clone, "b", "flattened")?;

    // In the trash an image has its id and its snapshots, and the base is still one of them.
    let opened = site.open(&clone, Some("b"), Access::Read)?;
    writer.order(&["snapshot", &clone, "c"])?;
    let later = site.open(&clone, Some("c"), Access::Read)?;
    let id = later.snapshot().context("it is open at a snapshot")?;
    let by_id = format!("rbd:{POOL}/id={}@id={id}", opened.id()?);
    writer.order(&["trash", &clone])?;
    let done = bench
        .command(&["backup", &by_id, "--volume", "disk"])?
        .run()?
        .expect(0)?;
    let reason = done.string("changed_blocks_reason")?;
    ensure!(reason.contains(CHANGED), "{reason}");
    bench.restores(&done.string("point")?, &content::read(&later)?)
}

/// The head of an image is backed up while nobody writes; who comes, writes and is gone before the end is noticed.
pub(crate) fn heads(site: &Site) -> Result<()> {
    let bench = Bench::new(site, "rbd-heads")?;
    let mut writer = Writer::start(site, 65_536)?;
    let image = site.name("head");
    let source = format!("rbd:{POOL}/{image}");
    writer.create(&image, HEAD, LAYERING)?;
    writer.change("write", &image, &[0, HEAD, 1])?;
    bench
        .command(&["backup", &source])?
        .run()?
        .expect(64)?
        .names("somebody has the image open")?;
    writer.order(&["close", &image])?;
    let spec = format!("{POOL}/{image}");
    let key = "rbd.csi.ceph.com/encrypted";
    site.ceph
        .rbd(&["image-meta", "set", &spec, key, "encrypted"])?;
    let whole = bench.command(&["backup", &source])?.run()?.expect(0)?;
    let said = whole.json()?["warnings"].to_string();
    ensure!(said.contains("ciphertext"), "{said}");
    let wanted = content::read(&site.open(&image, None, Access::Read)?)?;
    bench.restores(&whole.string("point")?, &wanted)?;

    let segments = || bench.repo.objects("seg/").map_or(0, |names| names.len());
    let before = segments();
    let words = ["backup", &source, "--parent", "none", "--volume", "slow"];
    let mut slow = bench
        .command(&words)?
        .flag("--limit-upload", SLOW)
        .start()?;
    ensure!(slow.wait_for(|| segments() > before)?, "it was too fast");
    writer.change("write", &image, &[4097, 1, 2])?;
    writer.order(&["close", &image])?;
    slow.wait()?
        .expect(69)?
        .names("the source was written to while it was read")?;
    Ok(())
}

/// A machine whose librbd is missing or broken says which package it needs, and backs up everything else.
pub(crate) fn without_librbd(site: &Site) -> Result<()> {
    let bench = Bench::new(site, "rbd-none")?;
    let folder = bench.scratch.join("lib");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("librbd.so.1"), "")?;
    let source = format!("rbd:{POOL}/any@a");
    let outcome = bench
        .command(&["backup", &source])?
        .env("LD_LIBRARY_PATH", &folder)
        .run()?
        .expect(64)?;
    outcome.names("librbd1")?.names("install librbd")?;
    let file = bench.scratch.join("disk.img");
    std::fs::write(&file, vec![7; 100_000])?;
    let file = file.display().to_string();
    let done = bench
        .command(&["backup", &file])?
        .env("LD_LIBRARY_PATH", &folder)
        .run()?;
    done.expect(0).map(drop)
}
