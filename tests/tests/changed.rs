//! Backups that read only what changed, from the command line: reflinked files on real file systems, lists of extents, refusals.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tests::image::{Image, MIB};
use tests::mount::{FileSystem, Mounted};
use tests::part;
use tests::repo::{Repo, fresh};
use tests::snaphaul::{Outcome, Snaphaul};

const SIZE: u64 = 256 * MIB;

fn reflink(from: &Path, to: PathBuf) -> Result<PathBuf> {
    part::run(
        Command::new("cp")
            .arg("--reflink=always")
            .arg(from)
            .arg(&to),
    )?;
    Ok(to)
}

fn based_on(repo: &Repo, source: &Path, base: &Path) -> Result<Outcome> {
    repo.backup(source, "disk", &["--base", &base.display().to_string()])
}

fn says(outcome: &Outcome, who: &str, why: &str) -> Result<()> {
    ensure!(
        outcome.string("changed_blocks")? == who,
        "{}",
        outcome.json()?
    );
    let reason = outcome.string("changed_blocks_reason")?;
    ensure!(reason.contains(why), "not for `{why}`: {reason}");
    Ok(())
}

fn reflinks_on(kind: FileSystem) -> Result<()> {
    let (scratch, repo, mut random) = fresh("reflinks")?;
    let mounted = Mounted::new(kind, 2 << 30)?;
    let image = Image::mixed(&mounted.join("live.img"), SIZE, &mut random)?;
    let mut base = reflink(&image.path, mounted.join("0.img"))?;
    says(&repo.backup(&base, "disk", &[])?, "hole-map", "no parent")?;
    for round in 1..4 {
        image.write_noise(round * 40 * MIB, 64 << 10, &mut random)?;
        image.punch(round * 20 * MIB, MIB)?;
        let snapshot = reflink(&image.path, mounted.join(&format!("{round}.img")))?;
        let point = based_on(&repo, &snapshot, &base)?;
        says(&point, "fiemap", "what changed since")?;
        ensure!(point.number("sampled_bytes")? > 0);
        ensure!(point.number("read_bytes")? < SIZE / 2, "{}", point.json()?);
        let target = scratch.join("restored.img");
        repo.restore(&point.string("point")?, &target, &["--force"])?;
        image.assert_same(&target)?;
        base = snapshot;
    }
    // Whoever writes to the base after its backup is found out.
    let snapshot = reflink(&image.path, mounted.join("last.img"))?;
    part::run(
        Command::new("dd")
            .args(["if=/dev/urandom", "bs=4k", "count=1", "conv=notrunc"])
            .arg({
                let mut of = std::ffi::OsString::from("of=");
                of.push(&base);
                of
            }),
    )?;
    let point = based_on(&repo, &snapshot, &base)?;
    ensure!(
        point.string("changed_blocks")? == "hole-map",
        "{}",
        point.json()?
    );
    let target = scratch.join("restored.img");
    repo.restore(&point.string("point")?, &target, &["--force"])?;
    image.assert_same(&target)
}

#[test]
fn reflinks_on_xfs_are_compared_without_reading_them() -> Result<()> {
    reflinks_on(FileSystem::Xfs)
}

#[test]
fn reflinks_on_btrfs_are_compared_without_reading_them() -> Result<()> {
    reflinks_on(FileSystem::Btrfs)
}

#[test]
fn a_list_of_extents_is_used_for_its_own_base_only() -> Result<()> {
    let (scratch, repo, mut random) = fresh("extents")?;
    let image = Image::mixed(&scratch.join("disk.img"), 48 * MIB, &mut random)?;
    let first = repo.backup(&image.path, "disk", &[])?.string("point")?;
    image.write_noise(9 * MIB, 64 << 10, &mut random)?;
    let list = scratch.join("extents.jsonl");
    let flag = format!("extents:{}", list.display());
    let write = |base: &str, extents: &str| {
        let end = format!(
            "{{\"complete\":true,\"size\":{},\"base_point\":\"{base}\"}}\n",
            48 * MIB
        );
        std::fs::write(&list, format!("{extents}{end}"))
    };
    let extent = format!(
        "{{\"offset\":{},\"length\":65536,\"kind\":\"data\"}}\n",
        9 * MIB
    );
    write(&first, &extent)?;
    let second = repo.backup(&image.path, "disk", &["--changed-blocks", &flag])?;
    says(&second, "extents", "what changed since")?;

    // The same list again is about the point before the parent.
    image.write_noise(19 * MIB, 64 << 10, &mut random)?;
    let third = repo.backup(&image.path, "disk", &["--changed-blocks", &flag])?;
    says(&third, "hole-map", "since point")?;
    let target = scratch.join("restored.img");
    repo.restore(&third.string("point")?, &target, &[])?;
    image.assert_same(&target)?;

    // A list without an end, and one that is no list.
    for wrong in [
        "",
        "{\"offset\":0,\"length\":-1,\"kind\":\"data\"}\n",
        "no list\n",
    ] {
        std::fs::write(&list, wrong)?;
        let refused = repo.fails(
            64,
            &[
                "backup",
                &image.path.display().to_string(),
                "--volume",
                "disk",
                "--changed-blocks",
                &flag,
            ],
        )?;
        refused.names("extents.jsonl")?;
    }
    Ok(())
}

#[test]
fn a_list_that_leaves_everything_out_is_found_out() -> Result<()> {
    let (scratch, repo, mut random) = fresh("liar")?;
    let image = Image::noise(&scratch.join("disk.img"), 48 * MIB, &mut random)?;
    let first = repo.backup(&image.path, "disk", &[])?.string("point")?;
    image.write_noise(0, 48 * MIB, &mut random)?;
    let list = scratch.join("extents.jsonl");
    std::fs::write(
        &list,
        format!(
            "{{\"complete\":true,\"size\":{},\"base_point\":\"{first}\"}}\n",
            48 * MIB
        ),
    )?;
    let flag = format!("extents:{}", list.display());
    let point = repo.backup(&image.path, "disk", &["--changed-blocks", &flag])?;
    ensure!(
        point.string("changed_blocks_liar")? == "extents",
        "{}",
        point.json()?
    );
    ensure!(
        !point.json()?["warnings"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    let target = scratch.join("restored.img");
    repo.restore(&point.string("point")?, &target, &[])?;
    image.assert_same(&target)?;
    let shown = repo.ok(&["show", &point.string("point")?])?;
    ensure!(
        shown.text().contains("changed-blocks.liar"),
        "{}",
        shown.text()
    );
    Ok(())
}

#[test]
fn a_list_that_calls_data_unallocated_is_found_out() -> Result<()> {
    let (scratch, repo, mut random) = fresh("hidden")?;
    let image = Image::noise(&scratch.join("disk.img"), 48 * MIB, &mut random)?;
    let list = scratch.join("extents.jsonl");
    let half = 24 * MIB;
    let flag = format!("extents:{}", list.display());
    let lines = [
        format!("{{\"offset\":0,\"length\":{half},\"kind\":\"data\"}}"),
        format!(
            "{{\"complete\":true,\"size\":{},\"base_point\":null}}\n",
            48 * MIB
        ),
    ];
    std::fs::write(&list, lines.join("\n"))?;
    // The first point of the volume: there is nothing to compare with but zeros.
    let point = repo.backup(&image.path, "disk", &["--changed-blocks", &flag])?;
    ensure!(
        point.string("changed_blocks_liar")? == "extents",
        "{}",
        point.json()?
    );
    let target = scratch.join("restored.img");
    repo.restore(&point.string("point")?, &target, &[])?;
    image.assert_same(&target)?;

    // The same list of a disk that is empty there is true.
    image.punch(half, half)?;
    let second = repo.backup(&image.path, "disk", &["--changed-blocks", &flag])?;
    says(&second, "extents", "everything allocated")?;
    ensure!(second.string("sample_seed")?.len() == 16);
    ensure!(second.number("sampled_bytes")? > 0);
    let target = scratch.join("again.img");
    repo.restore(&second.string("point")?, &target, &[])?;
    image.assert_same(&target)
}

#[test]
fn an_audit_reads_everything_and_measures_the_answer() -> Result<()> {
    let (_scratch, _repo, mut random) = fresh("audit")?;
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        let mounted = Mounted::new(kind, 1 << 30)?;
        let image = Image::noise(&mounted.join("live.img"), 64 * MIB, &mut random)?;
        let before = reflink(&image.path, mounted.join("before.img"))?;
        for at in 0..20 {
            image.write_noise(at * 3 * MIB + 4096 * at, 4096, &mut random)?;
        }
        image.punch(62 * MIB, MIB)?;
        let after = reflink(&image.path, mounted.join("after.img"))?;
        let [before, after] = [before, after].map(|path| path.display().to_string());
        let audited = Snaphaul::new(&["changed", &after, "--base", &before, "--audit", "--json"])?
            .run()?
            .expect(0)?;
        let audit = &audited.json()?["audit"];
        ensure!(audit["untold_bytes"] == 0, "{audit}");
        ensure!(audit["wrong_zero_bytes"] == 0, "{audit}");
        ensure!(audit["true_bytes"] == MIB + 20 * 4096, "{audit}");
        ensure!(audit["read_bytes"] == 128 * MIB, "{audit}");
        ensure!(
            audit["over_report"]
                .as_f64()
                .is_some_and(|ratio| ratio < 1.5),
            "{audit}"
        );
    }
    Ok(())
}

#[test]
fn who_cannot_compare_says_so() -> Result<()> {
    let (scratch, repo, mut random) = fresh("nobody")?;
    let mounted = Mounted::new(FileSystem::Ext4, 512 << 20)?;
    let image = Image::mixed(&mounted.join("disk.img"), 48 * MIB, &mut random)?;
    let source = image.path.display().to_string();
    for who in ["rbd", "thin"] {
        repo.fails(64, &["backup", &source, "--changed-blocks", who])?
            .names("disk.img")?;
    }
    // Files have a map, and here it is good for nothing: not asked in silence, and no reason to fail.
    let auto = repo.backup(&image.path, "disk", &[])?;
    says(&auto, "hole-map", "fiemap cannot be asked: files on ext4")?;
    ensure!(auto.json()?["warnings"] == serde_json::json!([]));
    let named = repo.backup(&image.path, "disk", &["--changed-blocks", "fiemap"])?;
    says(&named, "hole-map", "fiemap cannot be asked: files on ext4")?;
    let warned = named.json()?["warnings"].to_string();
    ensure!(warned.contains("XFS or btrfs"), "{warned}");
    repo.fails(64, &["backup", "rbd:no-slash"])?
        .names("rbd:no-slash")?;
    for who in ["none", "scan", "hole-map"] {
        let point = repo.backup(&image.path, "disk", &["--changed-blocks", who])?;
        says(
            &point,
            if who == "none" { "hole-map" } else { who },
            "asked for",
        )?;
        let target = scratch.join(who);
        repo.restore(&point.string("point")?, &target, &[])?;
        image.assert_same(&target)?;
    }
    Ok(())
}

#[test]
fn changed_lists_extents_and_draws_them() -> Result<()> {
    let (_scratch, _repo, mut random) = fresh("changed")?;
    let mounted = Mounted::new(FileSystem::Xfs, 1 << 30)?;
    let image = Image::sparse(&mounted.join("live.img"), 64 * MIB)?;
    image.write_noise(0, MIB, &mut random)?;
    let before = reflink(&image.path, mounted.join("before.img"))?;
    image.write_noise(40 * MIB, 64 << 10, &mut random)?;
    let after = reflink(&image.path, mounted.join("after.img"))?;
    let [before, after] = [before, after].map(|path| path.display().to_string());

    let told = Snaphaul::new(&["changed", &after, "--base", &before, "--json"])?
        .run()?
        .expect(0)?;
    ensure!(told.string("changed_blocks")? == "fiemap");
    ensure!(
        told.number("changed_bytes")? == 64 << 10,
        "{}",
        told.json()?
    );
    let extents: Vec<_> = told
        .lines()?
        .into_iter()
        .filter(|line| line["type"] == "extent")
        .collect();
    ensure!(
        extents.len() == 1 && extents[0]["offset"] == 40 * MIB,
        "{extents:?}"
    );

    let drawn = Snaphaul::new(&["changed", &after])?
        .run()?
        .expect(0)?
        .text();
    ensure!(
        drawn.contains('█') && drawn.contains("are allocated"),
        "{drawn}"
    );
    let plain = Mounted::new(FileSystem::Ext4, 256 << 20)?;
    let other = Image::sparse(&plain.join("other.img"), MIB)?;
    let other = other.path.display().to_string();
    Snaphaul::new(&["changed", &other, "--base", &before, "--json"])?
        .run()?
        .expect(64)?;
    Ok(())
}
