//! Restores that are more than a whole point into a new file: `--range`, stdout, `--delta`, `--salvage`.

use anyhow::{Result, ensure};
use tests::image::{Image, MIB};
use tests::repo::fresh;

const CHUNK: u64 = 128 << 10;

#[test]
fn ranges_restore_to_files_and_stdout() -> Result<()> {
    let (scratch, repo, mut random) = fresh("ranges")?;
    let image = Image::mixed(&scratch.join("disk.img"), 6 * MIB + 99, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let bytes = std::fs::read(&image.path)?;
    let whole = repo
        .plain(&["restore", "disk@latest", "-"])?
        .run()?
        .expect(0)?;
    ensure!(whole.stdout == bytes, "stdout differs from the image");
    for (offset, length) in [
        (0_usize, 1_usize),
        (5, 100),
        (131_072, 131_072),
        (131_071, 262_146),
        (6 * 1_048_576, 99),
    ] {
        let range = format!("{offset}:{length}");
        let part = repo
            .plain(&["restore", "disk@latest", "-", "--range", &range])?
            .run()?
            .expect(0)?;
        ensure!(
            part.stdout == bytes[offset..offset + length],
            "range {range} differs"
        );
        let target = scratch.join(&format!("part-{offset}"));
        let restored = repo.restore("disk@latest", &target, &["--range", &range])?;
        ensure!(
            std::fs::read(&target)? == bytes[offset..offset + length],
            "range {range} differs in a file"
        );
        ensure!(restored.number("size_bytes")? == length as u64);
    }
    for wrong in [
        "6291555:1",
        "0:6291556",
        "5",
        "x:1",
        "-1:5",
        "18446744073709551615:2",
    ] {
        let flag = format!("--range={wrong}");
        repo.plain(&["restore", "disk@latest", "-", &flag])?
            .run()?
            .expect(64)?;
    }
    repo.fails(64, &["restore", "disk@latest", "-"]).map(drop)
}

#[test]
fn delta_writes_only_what_differs() -> Result<()> {
    let (scratch, repo, mut random) = fresh("delta")?;
    let image = Image::mixed(&scratch.join("disk.img"), 16 * MIB + 11, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let mut target = image.copy_to(&scratch.join("target"))?;
    target.edit(5, &mut random)?;
    let source = scratch.join("target");
    repo.fails(
        64,
        &["restore", "disk@latest", &source.display().to_string()],
    )?
    .names("--force")?;
    let restored = repo.restore("disk@latest", &target.path, &["--delta"])?;
    image.assert_same(&target.path)?;
    ensure!(
        restored.number("skipped_bytes")? >= image.size / 2,
        "{}",
        restored.json()?
    );
    ensure!(
        restored.number("written_bytes")? + restored.number("zero_bytes")? <= 5 * 7 * CHUNK,
        "{}",
        restored.json()?
    );
    let again = repo.restore("disk@latest", &target.path, &["--delta"])?;
    ensure!(
        again.number("skipped_bytes")? == image.size,
        "{}",
        again.json()?
    );

    target.write_noise(0, 16 * MIB, &mut random)?;
    repo.restore("disk@latest", &target.path, &["--force"])?;
    image.assert_same(&target.path)
}

#[test]
fn salvage_of_an_intact_point_is_a_restore() -> Result<()> {
    let (scratch, repo, mut random) = fresh("salvage")?;
    let image = Image::mixed(&scratch.join("disk.img"), 3 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    repo.restore("disk@latest", &scratch.join("out"), &["--salvage"])?;
    image.assert_same(&scratch.join("out"))
}
