//! From source to repository and back, in a directory: the life of a point and every figure told about it.

use anyhow::{Result, ensure};
use tests::image::{Image, MIB, allocated};
use tests::random::Random;
use tests::repo::{Repo, fresh};
use tests::scratch::Scratch;
use tests::snaphaul::Outcome;

const CHUNK: u64 = 128 << 10;

fn check_sums(outcome: &Outcome) -> Result<()> {
    let kinds = [
        "zero_bytes",
        "unchanged_bytes",
        "deduplicated_bytes",
        "new_bytes",
    ];
    let mut sum = 0;
    for kind in kinds {
        sum += outcome.number(kind)?;
    }
    ensure!(
        sum == outcome.number("size_bytes")?,
        "the kinds do not add up: {}",
        outcome.json()?
    );
    Ok(())
}

#[test]
fn two_points_restore_bit_for_bit_and_the_second_stores_only_the_change() -> Result<()> {
    let (scratch, repo, mut random) = fresh("two-points")?;
    let image = Image::mixed(&scratch.join("disk.img"), 24 * MIB, &mut random)?;
    let first = repo.backup(&image.path, "disk", &["--tag", "run=1"])?;
    check_sums(&first)?;
    let before = image.copy_to(&scratch.join("before.img"))?;
    image.write_noise(5 * MIB, 64 << 10, &mut random)?;
    let stored_before = repo.bytes("")?;
    let second = repo.backup(&image.path, "disk", &[])?;
    check_sums(&second)?;

    ensure!(second.string("parent")? == first.string("point")?);
    ensure!(
        second.number("new_bytes")? == CHUNK,
        "one chunk changed: {}",
        second.json()?
    );
    ensure!(second.number("stored_bytes")? < 400 << 10);
    let grown = repo.bytes("")? - stored_before;
    ensure!(
        grown == second.number("stored_bytes")?,
        "stored_bytes is not what the repository grew by: {grown}"
    );
    for (point, image, name) in [(&first, &before, "one"), (&second, &image, "two")] {
        let target = scratch.join(name);
        let restored = repo.restore(&point.string("point")?, &target, &[])?;
        image.assert_same(&target)?;
        let sum = restored.number("written_bytes")?
            + restored.number("zero_bytes")?
            + restored.number("skipped_bytes")?;
        ensure!(sum == restored.number("size_bytes")? && sum == image.size);
        ensure!(!scratch.join(&format!("{name}.partial")).exists());
    }
    Ok(())
}

#[test]
fn an_unchanged_volume_stores_no_data() -> Result<()> {
    let (scratch, repo, mut random) = fresh("unchanged")?;
    let image = Image::mixed(&scratch.join("disk.img"), 12 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let segments = repo.objects("seg/")?;
    let again = repo.backup(&image.path, "disk", &[])?;
    ensure!(
        repo.objects("seg/")? == segments,
        "an unchanged volume made segments"
    );
    ensure!(
        again.number("new_bytes")? == 0 && again.number("stored_bytes")? < 32 << 10,
        "{}",
        again.json()?
    );
    ensure!(again.number("unchanged_bytes")? + again.number("zero_bytes")? == image.size);
    let target = scratch.join("restored");
    repo.restore("disk@latest", &target, &[])?;
    image.assert_same(&target)
}

#[test]
fn a_backup_tells_every_field_of_the_contract() -> Result<()> {
    let (scratch, repo, mut random) = fresh("fields")?;
    let image = Image::mixed(&scratch.join("disk.img"), 3 * MIB, &mut random)?;
    let backup = repo.backup(&image.path, "disk", &[])?.json()?;
    for field in [
        "size_bytes",
        "read_bytes",
        "zero_bytes",
        "unchanged_bytes",
        "deduplicated_bytes",
        "new_bytes",
        "stored_bytes",
        "resumed_bytes",
        "sampled_bytes",
        "put_requests",
    ] {
        ensure!(
            backup[field].is_u64(),
            "backup: no number {field} in {backup}"
        );
    }
    for field in ["point", "volume", "changed_blocks", "changed_blocks_reason"] {
        ensure!(
            backup[field].as_str().is_some_and(|text| !text.is_empty()),
            "backup: no text {field} in {backup}"
        );
    }
    ensure!(backup["parent"].is_null() && backup.get("parent").is_some());
    ensure!(
        backup["warnings"].is_array()
            && backup["duration_seconds"].is_f64()
            && backup["error"].is_null()
    );
    let point = backup["point"].as_str().unwrap_or_default().to_owned();
    let (session, volume) = point.split_once('-').unwrap_or_default();
    ensure!(
        session.len() == 16 && volume.len() == 8,
        "no point id: {point}"
    );
    let created = repo.objects("")?.len() as u64;
    ensure!(
        backup["put_requests"]
            .as_u64()
            .is_some_and(|puts| puts > 0 && puts < created),
        "put_requests: {backup}"
    );

    let restore = repo.restore(&point, &scratch.join("out"), &[])?.json()?;
    for field in ["size_bytes", "written_bytes", "zero_bytes", "skipped_bytes"] {
        ensure!(
            restore[field].is_u64(),
            "restore: no number {field} in {restore}"
        );
    }
    ensure!(restore["point"] == point.as_str() && restore["duration_seconds"].is_f64());
    ensure!(
        restore["target"]
            .as_str()
            .is_some_and(|target| target.ends_with("out"))
    );
    Ok(())
}

#[test]
fn odd_sizes_round_trip() -> Result<()> {
    let (scratch, repo, mut random) = fresh("odd-sizes")?;
    for size in [
        0,
        1,
        511,
        512,
        4095,
        4097,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        256 * CHUNK,
        256 * CHUNK + 513,
    ] {
        let image = Image::noise(&scratch.join(&format!("disk-{size}")), size, &mut random)?;
        let point = repo.backup(&image.path, &format!("v{size}"), &[])?;
        check_sums(&point)?;
        let target = scratch.join("out");
        repo.restore(&point.string("point")?, &target, &[])?;
        image.assert_same(&target)?;
        std::fs::remove_file(&target)?;
    }
    repo.ok(&["verify", "--all", "--level", "data"])?;
    Ok(())
}

#[test]
fn a_volume_may_grow_and_shrink_between_points() -> Result<()> {
    let (scratch, repo, mut random) = fresh("resize")?;
    let mut image = Image::mixed(&scratch.join("disk.img"), 5 * MIB + 3, &mut random)?;
    let mut kept = Vec::new();
    for size in [
        5 * MIB + 3,
        40 * MIB + 77,
        40 * MIB + 77,
        MIB / 2 + 1,
        33 * MIB,
    ] {
        image.resize(size)?;
        image.write_noise(size / 2, (size / 8).min(MIB), &mut random)?;
        let point = repo.backup(&image.path, "disk", &[])?;
        check_sums(&point)?;
        ensure!(point.number("size_bytes")? == size);
        let name = scratch.join(&format!("kept-{}", kept.len()));
        kept.push((point.string("point")?, image.copy_to(&name)?));
    }
    for (point, image) in kept {
        let target = scratch.join("out");
        repo.restore(&point, &target, &[])?;
        image.assert_same(&target)?;
        std::fs::remove_file(target)?;
    }
    Ok(())
}

#[test]
fn sparse_sources_are_not_read_and_sparse_targets_stay_sparse() -> Result<()> {
    let (scratch, repo, mut random) = fresh("sparse")?;
    let image = Image::sparse(&scratch.join("disk.img"), 64 << 30)?;
    for piece in 0..8_u64 {
        image.write_noise(piece * (8 << 30) + 12_288, 64 << 10, &mut random)?;
    }
    let point = repo.backup(&image.path, "disk", &[])?;
    ensure!(
        point.string("changed_blocks")? == "hole-map",
        "{}",
        point.json()?
    );
    ensure!(
        point.number("read_bytes")? <= 8 * 2 * CHUNK,
        "holes were read: {}",
        point.json()?
    );
    ensure!(point.number("stored_bytes")? < 3 * MIB);
    let target = scratch.join("out");
    repo.restore("disk@latest", &target, &[])?;
    ensure!(tests::image::size_of(&target)? == 64 << 30);
    ensure!(
        allocated(&target)? <= 4 * MIB,
        "the restored file is not sparse"
    );
    for piece in 0..8_u64 {
        let at = piece * (8 << 30);
        ensure!(tests::image::first_difference(&image.path, &target, at, MIB)?.is_none());
    }
    Ok(())
}

#[test]
fn zeros_and_repeats_are_stored_once_or_never() -> Result<()> {
    let (scratch, repo, mut random) = fresh("repeats")?;
    let image = Image::sparse(&scratch.join("disk.img"), 16 * MIB)?;
    image.write_noise(0, MIB, &mut random)?;
    for copy in 1..8 {
        image.copy(0, copy * MIB, MIB)?;
    }
    image.write_zeros(8 * MIB, 8 * MIB)?;
    // One worker: several may meet the same new chunk at the same moment and store it twice, which costs room and no more.
    let flags = ["--changed-blocks", "scan", "--jobs", "1"];
    let point = repo.backup(&image.path, "disk", &flags)?;
    ensure!(point.string("changed_blocks")? == "scan");
    ensure!(point.number("new_bytes")? == MIB, "{}", point.json()?);
    ensure!(
        point.number("deduplicated_bytes")? == 7 * MIB && point.number("zero_bytes")? == 8 * MIB
    );
    ensure!(
        point.number("read_bytes")? == 16 * MIB,
        "scan reads everything"
    );
    repo.restore("disk@latest", &scratch.join("out"), &[])?;
    image.assert_same(&scratch.join("out"))
}

#[test]
fn every_compression_round_trips_and_shrinks_text() -> Result<()> {
    let (scratch, repo, mut random) = fresh("compression")?;
    let image = Image::sparse(&scratch.join("disk.img"), 2 * MIB)?;
    image.write_text(0, 2 * MIB, &mut random)?;
    let mut stored = Vec::new();
    for method in ["none", "lz4", "zstd", "zstd:19"] {
        let volume = method.replace(':', "-");
        let point = repo.backup(&image.path, &volume, &["--compression", method])?;
        stored.push(point.number("stored_bytes")?);
        let target = scratch.join(&volume);
        repo.restore(&point.string("point")?, &target, &[])?;
        image.assert_same(&target)?;
    }
    ensure!(
        stored[0] > 2 * MIB
            && stored[1] < MIB * 3 / 2
            && stored[2] < stored[1]
            && stored[3] <= stored[2],
        "{stored:?}"
    );
    for wrong in ["zstd:23", "zstd:0x", "gzip", "lz4:3"] {
        repo.fails(
            64,
            &[
                "backup",
                &image.path.display().to_string(),
                "--compression",
                wrong,
            ],
        )?;
    }
    Ok(())
}

#[test]
fn every_chunk_and_segment_size_round_trips() -> Result<()> {
    let scratch = Scratch::new("sizes")?;
    let mut random = Random::from_environment("sizes");
    let image = Image::mixed(&scratch.join("disk.img"), 9 * MIB + 5000, &mut random)?;
    for (chunk, segment) in [
        ("64KiB", "1MiB"),
        ("256KiB", "4MiB"),
        ("1MiB", "64MiB"),
        ("1MiB", "1MiB"),
    ] {
        let repo = Repo::directory(&scratch.join(&format!("repo-{chunk}-{segment}")))?;
        repo.ok(&["init", "--chunk-size", chunk, "--segment-size", segment])?;
        repo.backup(&image.path, "disk", &[])?;
        let target = scratch.join(&format!("out-{chunk}-{segment}"));
        repo.restore("disk@latest", &target, &[])?;
        image.assert_same(&target)?;
    }
    let repo = Repo::directory(&scratch.join("refused"))?;
    for wrong in [
        ["--chunk-size", "32KiB"],
        ["--chunk-size", "100KiB"],
        ["--segment-size", "65MiB"],
        ["--segment-size", "x"],
    ] {
        repo.fails(64, &["init", wrong[0], wrong[1]])?;
    }
    ensure!(
        !scratch.join("refused").exists(),
        "a refused init made something"
    );
    Ok(())
}

#[test]
fn parents_are_chosen_as_asked() -> Result<()> {
    let (scratch, repo, mut random) = fresh("parents")?;
    let image = Image::noise(&scratch.join("disk.img"), 2 * MIB, &mut random)?;
    let first = repo.backup(&image.path, "disk", &[])?.string("point")?;
    let alone = repo.backup(&image.path, "disk", &["--parent", "none"])?;
    ensure!(alone.json()?["parent"].is_null() && alone.number("new_bytes")? == 2 * MIB);
    let chosen = repo.backup(&image.path, "disk", &["--parent", &first])?;
    ensure!(chosen.string("parent")? == first && chosen.number("new_bytes")? == 0);
    let auto = repo.backup(&image.path, "disk", &["--parent", "auto"])?;
    ensure!(
        auto.string("parent")? == chosen.string("point")?
            || auto.string("parent")? == alone.string("point")?
    );
    // A volume restored from a point names that point as its first parent.
    let other = repo.backup(&image.path, "clone", &["--parent", &first])?;
    ensure!(other.number("new_bytes")? == 0, "{}", other.json()?);
    repo.fails(
        64,
        &[
            "backup",
            &image.path.display().to_string(),
            "--parent",
            "0123456789abcdef-01234567",
        ],
    )?;
    Ok(())
}

#[test]
fn names_default_to_the_file_and_bad_ones_are_refused() -> Result<()> {
    let (scratch, repo, mut random) = fresh("names")?;
    let image = Image::noise(&scratch.join("disk-1.img"), 4096, &mut random)?;
    let source = image.path.display().to_string();
    ensure!(repo.ok(&["backup", &source])?.string("volume")? == "disk-1.img");
    ensure!(
        repo.backup(&image.path, "a/b.c_d-e/F9", &[])?
            .string("volume")?
            == "a/b.c_d-e/F9"
    );
    let longest = "x".repeat(200);
    ensure!(repo.backup(&image.path, &longest, &[])?.string("volume")? == longest);
    for wrong in [
        "",
        ".hidden",
        "-dash",
        "a b",
        "ü",
        "a\nb",
        "/abs",
        &"x".repeat(201),
    ] {
        let flag = format!("--volume={wrong}");
        repo.fails(64, &["backup", &source, &flag])?;
    }
    let hidden = image.copy_to(&scratch.join("_bad name"))?;
    repo.fails(64, &["backup", &hidden.path.display().to_string()])?
        .names("--volume")?;
    Ok(())
}
