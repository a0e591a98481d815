//! Images through the program: backed up, backed up again by what changed, and restored to a file and to another image.
//!
//! Owns: that way. Must not: use the binding, which the program does.

use std::path::Path;

use anyhow::{Result, ensure};
use tests::image::{Image, MIB};
use tests::repo::fresh;
use tests::snaphaul::Outcome;

use crate::site::{POOL, Site};

const SIZE: u64 = 96 * MIB;

/// Writes a file's content to the head of an image, behind the program's back.
fn import(site: &Site, file: &Path, image: &str) -> Result<()> {
    let diff = file.with_extension("diff");
    let mut stream = b"rbd diff v1\n".to_vec();
    let content = std::fs::read(file)?;
    stream.push(b's');
    stream.extend((content.len() as u64).to_le_bytes());
    for (number, block) in (0u64..).zip(content.chunks(1 << 20)) {
        stream.push(b'w');
        stream.extend((number << 20).to_le_bytes());
        stream.extend((block.len() as u64).to_le_bytes());
        stream.extend(block);
    }
    stream.push(b'e');
    std::fs::write(&diff, stream)?;
    site.ceph.rbd(&[
        "import-diff",
        &diff.display().to_string(),
        &format!("{POOL}/{image}"),
    ])?;
    Ok(())
}

pub(crate) fn there_and_back(site: &Site) -> Result<()> {
    let (scratch, repo, mut random) = fresh("rbd")?;
    let conf = site.ceph.conf();
    let run = |words: &[&str], code: i32| -> Result<Outcome> {
        repo.command(words)?
            .env("CEPH_CONF", &conf)
            .run()?
            .expect(code)
    };
    let image = site.create(SIZE, "layering")?;
    let disk = Image::mixed(&scratch.join("disk.img"), SIZE, &mut random)?;
    import(site, &disk.path, &image)?;
    let snap = |name: &str| {
        site.ceph
            .rbd(&["snap", "create", &format!("{POOL}/{image}@{name}")])
    };
    let source = |name: &str| format!("rbd:{POOL}/{image}@{name}");
    snap("one")?;
    let first = run(&["backup", &source("one")], 0)?;
    ensure!(
        first.string("volume")? == image && first.string("changed_blocks")? == "rbd",
        "{}",
        first.json()?
    );

    disk.write_noise(50 * MIB, 64 << 10, &mut random)?;
    disk.write_zeros(20 * MIB, 2 * MIB)?;
    let changed = scratch.join("changed.img");
    disk.copy_to(&changed)?;
    let delta = scratch.join("delta.diff");
    let mut stream = b"rbd diff v1\n".to_vec();
    let content = std::fs::read(&disk.path)?;
    for (offset, len) in [(50 * MIB, 64 << 10), (20 * MIB, 2 * MIB)] {
        let (at, end) = (usize::try_from(offset)?, usize::try_from(offset + len)?);
        stream.push(b'w');
        stream.extend(offset.to_le_bytes());
        stream.extend(len.to_le_bytes());
        stream.extend(&content[at..end]);
    }
    stream.push(b'e');
    std::fs::write(&delta, stream)?;
    site.ceph.rbd(&[
        "import-diff",
        &delta.display().to_string(),
        &format!("{POOL}/{image}"),
    ])?;
    snap("two")?;
    let second = run(&["backup", &source("two")], 0)?;
    ensure!(
        second
            .string("changed_blocks_reason")?
            .contains("what changed since"),
        "{}",
        second.json()?
    );
    ensure!(
        second.number("read_bytes")? < SIZE / 2 + 4 * MIB,
        "{}",
        second.json()?
    );
    ensure!(second.number("new_bytes")? <= 4 * MIB);

    let target = scratch.join("restored.img");
    run(
        &[
            "restore",
            &second.string("point")?,
            &target.display().to_string(),
        ],
        0,
    )?;
    disk.assert_same(&target)?;

    let other = site.create(SIZE + MIB, "layering")?;
    let to = format!("rbd:{POOL}/{other}");
    run(&["restore", &second.string("point")?, &to], 0)?;
    let exported = scratch.join("exported.img");
    site.ceph.rbd(&[
        "export",
        &format!("{POOL}/{other}"),
        &exported.display().to_string(),
    ])?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(&exported)?
        .set_len(SIZE)?;
    disk.assert_same(&exported)?;

    refusals(&run, &second.string("point")?, (&to, &source("two")))?;
    // What is there already is left alone, what differs is written.
    let again = run(&["restore", &first.string("point")?, &to, "--delta"], 0)?;
    ensure!(
        again.number("skipped_bytes")? > again.number("written_bytes")?,
        "{}",
        again.json()?
    );
    Ok(())
}

fn refusals(
    run: &dyn Fn(&[&str], i32) -> Result<Outcome>,
    point: &str,
    (full, snapshot): (&str, &str),
) -> Result<()> {
    run(&["restore", point, full], 64)?.names("it holds data")?;
    run(&["restore", point, snapshot], 64)?.names("never written")?;
    run(&["restore", point, &format!("rbd:{POOL}/nothing")], 64)?.names("rbd create")?;
    run(&["backup", &format!("rbd:{POOL}/nothing@x")], 64)?.names("nothing")?;
    Ok(())
}
