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

/// Puts ranges of a file into the head of an image at the same places, behind the program's back.
fn import(site: &Site, file: &Path, image: &str, ranges: &[(u64, u64)]) -> Result<()> {
    let content = std::fs::read(file)?;
    let mut stream = b"rbd diff v1\n".to_vec();
    for (offset, len) in ranges {
        let (at, end) = (usize::try_from(*offset)?, usize::try_from(offset + len)?);
        stream.push(b'w');
        stream.extend(offset.to_le_bytes());
        stream.extend(len.to_le_bytes());
        stream.extend(&content[at..end]);
    }
    stream.push(b'e');
    let diff = file.with_extension("diff");
    std::fs::write(&diff, stream)?;
    let image = format!("{POOL}/{image}");
    site.ceph
        .rbd(&["import-diff", &diff.display().to_string(), &image])?;
    Ok(())
}

/// The program with its cluster: words and the exit code that they must have.
type Run<'a> = dyn Fn(&[&str], i32) -> Result<Outcome> + 'a;

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
    let all: Vec<_> = (0..SIZE / MIB).map(|at| (at * MIB, MIB)).collect();
    import(site, &disk.path, &image, &all)?;
    let source = |name: &str| format!("rbd:{POOL}/{image}@{name}");
    let snap = |name: &str| {
        site.ceph
            .rbd(&["snap", "create", &format!("{POOL}/{image}@{name}")])
    };
    snap("one")?;
    let first = run(&["backup", &source("one")], 0)?;
    ensure!(first.string("volume")? == image, "{}", first.json()?);
    ensure!(
        first.string("changed_blocks")? == "rbd",
        "{}",
        first.json()?
    );

    disk.write_noise(50 * MIB, 64 << 10, &mut random)?;
    disk.write_zeros(20 * MIB, 2 * MIB)?;
    import(
        site,
        &disk.path,
        &image,
        &[(50 * MIB, 64 << 10), (20 * MIB, 2 * MIB)],
    )?;
    snap("two")?;
    let second = run(&["backup", &source("two")], 0)?;
    let reason = second.string("changed_blocks_reason")?;
    ensure!(reason.contains("what changed since"), "{reason}");
    ensure!(
        second.number("read_bytes")? < SIZE / 2 + 4 * MIB,
        "{}",
        second.json()?
    );
    ensure!(second.number("new_bytes")? <= 4 * MIB, "{}", second.json()?);
    let [first, second] = [first.string("point")?, second.string("point")?];

    let target = scratch.join("restored.img");
    run(&["restore", &second, &target.display().to_string()], 0)?;
    disk.assert_same(&target)?;

    let other = site.create(SIZE + MIB, "layering")?;
    run(&["restore", &second, &format!("rbd:{POOL}/{other}")], 0)?;
    let exported = scratch.join("exported.img");
    let image = format!("{POOL}/{other}");
    site.ceph
        .rbd(&["export", &image, &exported.display().to_string()])?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(&exported)?
        .set_len(SIZE)?;
    disk.assert_same(&exported)?;
    refused_and_continued(
        &run,
        (&first, &second),
        (&format!("rbd:{image}"), &source("two")),
    )
}

/// An image that holds data is refused, and with `--delta` gets what it lacks.
fn refused_and_continued(
    run: &Run<'_>,
    (first, second): (&str, &str),
    (full, snapshot): (&str, &str),
) -> Result<()> {
    let nothing = format!("rbd:{POOL}/nothing");
    run(&["restore", second, full], 64)?.names("it holds data")?;
    run(&["restore", second, snapshot], 64)?.names("never written")?;
    run(&["restore", second, &nothing], 64)?.names("rbd create")?;
    run(&["backup", &format!("{nothing}@x")], 64)?.names("nothing")?;
    let again = run(&["restore", first, full, "--delta"], 0)?;
    let [skipped, written] = [
        again.number("skipped_bytes")?,
        again.number("written_bytes")?,
    ];
    ensure!(skipped > written, "{}", again.json()?);
    Ok(())
}
