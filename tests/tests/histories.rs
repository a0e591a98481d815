//! Random histories: many points of one volume, each built on the last, each restored bit for bit.

use anyhow::{Context, Result, ensure};
use tests::image::{Image, MIB};
use tests::random::Random;
use tests::repo::Repo;
use tests::scratch::Scratch;

#[test]
fn every_point_of_a_random_history_restores_bit_for_bit() -> Result<()> {
    let long = std::env::var_os("SNAPHAUL_TEST_LONG").is_some();
    let mut random = Random::from_environment("histories");
    for history in 0..if long { 40 } else { 3 } {
        let scratch = Scratch::new("history")?;
        let repo = Repo::directory(&scratch.join("repo"))?;
        let chunk = ["64KiB", "128KiB", "512KiB"][random.index(3)];
        repo.ok(&["init", "--segment-size", "1MiB", "--chunk-size", chunk])?;
        let size = random.below(20 * MIB) + 1;
        let mut image = Image::mixed(&scratch.join("disk.img"), size, &mut random)?;
        let mut kept = Vec::new();
        for step in 0..if long { 40 } else { 8 } {
            let point = one_step(&scratch, &repo, &mut image, &mut random, &mut kept)
                .with_context(|| {
                    format!(
                        "history {history}, step {step}, chunk {chunk}, size {}",
                        image.size
                    )
                })?;
            kept.push(point);
        }
        for (point, image) in &kept {
            let target = scratch.join("out");
            repo.restore(point, &target, &[])?;
            image
                .assert_same(&target)
                .with_context(|| format!("history {history}, {point}"))?;
            std::fs::remove_file(&target)?;
        }
        repo.ok(&["verify", "--all", "--level", "data"])?;
        diffs_cover_what_changed(&repo, &kept)?;
    }
    Ok(())
}

/// Edits, now and then resizes, backs up in a random way, and brings an older target up to date with `--delta`.
fn one_step(
    scratch: &Scratch,
    repo: &Repo,
    image: &mut Image,
    random: &mut Random,
    kept: &mut [(String, Image)],
) -> Result<(String, Image)> {
    image.edit(random.below(12), random)?;
    if random.below(4) == 0 {
        image.resize(random.below(2 * image.size) + 1)?;
    }
    let flags: &[&str] = match random.below(6) {
        0 => &["--changed-blocks", "scan"],
        1 => &["--compression", "zstd"],
        2 => &["--compression", "none", "--engine", "threads"],
        3 => &["--parent", "none"],
        _ => &[],
    };
    let point = repo.backup(&image.path, "disk", flags)?;
    let mut sum = 0;
    for kind in [
        "zero_bytes",
        "unchanged_bytes",
        "deduplicated_bytes",
        "new_bytes",
    ] {
        sum += point.number(kind)?;
    }
    ensure!(sum == image.size, "{flags:?}: {}", point.json()?);
    if let Some((_, old)) = kept.last().filter(|(_, old)| old.size == image.size) {
        let target = old.copy_to(&scratch.join("delta"))?;
        repo.restore(&point.string("point")?, &target.path, &["--delta"])?;
        image.assert_same(&target.path).context("--delta")?;
        std::fs::remove_file(&target.path)?;
    }
    let copy = image.copy_to(&scratch.join(&format!("kept-{}", kept.len())))?;
    Ok((point.string("point")?, copy))
}

/// Outside what `diff` names, two points are equal; it names nothing between a point and itself.
fn diffs_cover_what_changed(repo: &Repo, kept: &[(String, Image)]) -> Result<()> {
    for pair in kept.windows(2) {
        let [(from, old), (to, new)] = pair else {
            continue;
        };
        let outcome = repo.ok(&["diff", from, to])?;
        let mut at = 0;
        let common = old.size.min(new.size);
        let mut extents: Vec<(u64, u64)> = Vec::new();
        for line in outcome
            .lines()?
            .iter()
            .filter(|line| line["type"] == "extent")
        {
            extents.push((
                line["offset"].as_u64().unwrap_or(0),
                line["length"].as_u64().unwrap_or(0),
            ));
        }
        for (offset, length) in extents.iter().copied().chain([(common, 0)]) {
            ensure!(
                offset >= at || offset >= common,
                "extents overlap or go back: {extents:?}"
            );
            let end = offset.min(common);
            if end > at {
                let difference =
                    tests::image::first_difference(&old.path, &new.path, at, end - at)?;
                ensure!(
                    difference.is_none(),
                    "diff of {from} and {to} misses byte {difference:?}: {extents:?}"
                );
            }
            at = offset + length;
        }
    }
    Ok(())
}
