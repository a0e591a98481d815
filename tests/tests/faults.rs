//! Faults of sources, targets and directories: a clear error, nothing lost, nothing half done.

use std::fs::OpenOptions;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::image::{Image, MIB};
use tests::loop_device::LoopDevice;
use tests::mount::{FileSystem, Mounted};
use tests::random::Random;
use tests::repo::{Repo, fresh};
use tests::scratch::Scratch;

/// No point, or only these.
fn points(repo: &Repo) -> Result<usize> {
    Ok(repo.ok(&["points"])?.json()?["points"]
        .as_array()
        .map_or(0, Vec::len))
}

#[test]
fn a_source_that_shrinks_while_it_is_read_makes_no_point() -> Result<()> {
    for engine in ["io_uring", "threads"] {
        let (scratch, repo, mut random) = fresh("shrinking")?;
        let image = Image::noise(&scratch.join("disk.img"), 32 * MIB, &mut random)?;
        let source = image.path.display().to_string();
        let words = [
            "backup",
            source.as_str(),
            "--volume",
            "disk",
            "--limit-upload",
            "4MiB/s",
            "--engine",
            engine,
        ];
        let mut run = repo.command(&words)?.start()?;
        ensure!(run.wait_for(|| repo.objects("seg/").is_ok_and(|names| names.len() >= 3))?);
        OpenOptions::new()
            .write(true)
            .open(&image.path)?
            .set_len(3 * MIB)?;
        let outcome = run.wait()?.expect(69)?;
        outcome.names("disk.img")?;
        ensure!(
            points(&repo)? == 0,
            "{engine}: a shrunk source became a point"
        );
    }
    Ok(())
}

#[test]
fn a_source_that_changes_is_refused_or_marked_fuzzy() -> Result<()> {
    for (flags, code) in [(&[][..], 69), (&["--allow-live"], 0)] {
        let (scratch, repo, mut random) = fresh("changing")?;
        let image = Image::noise(&scratch.join("disk.img"), 24 * MIB, &mut random)?;
        let source = image.path.display().to_string();
        let mut words = vec![
            "backup",
            source.as_str(),
            "--volume",
            "disk",
            "--limit-upload",
            "4MiB/s",
        ];
        words.extend(flags);
        let mut run = repo.command(&words)?.start()?;
        ensure!(run.wait_for(|| repo.objects("seg/").is_ok_and(|names| names.len() >= 3))?);
        image.write_noise(20 * MIB, 4096, &mut random)?;
        let outcome = run.wait()?.expect(code)?;
        outcome.json()?;
        if code == 0 {
            let listed = repo.ok(&["points"])?.json()?;
            ensure!(listed["points"][0]["state"] == "fuzzy", "{listed}");
        } else {
            outcome.names("--allow-live")?;
            ensure!(points(&repo)? == 0);
        }
    }
    Ok(())
}

#[test]
fn a_read_error_names_device_and_offset_and_makes_no_point() -> Result<()> {
    for (engine, sector) in [("io_uring", 512), ("threads", 4096)] {
        let (scratch, repo, mut random) = fresh("read-error")?;
        let image = Image::noise(&scratch.join("disk.img"), 24 * MIB, &mut random)?;
        let device = LoopDevice::attach(&image.path, sector)?;
        // The device keeps its size; what lies behind the new end of its file cannot be read.
        OpenOptions::new()
            .write(true)
            .open(&image.path)?
            .set_len(10 * MIB)?;
        let source = device.path().display().to_string();
        let outcome = repo.fails(
            69,
            &["backup", &source, "--volume", "disk", "--engine", engine],
        )?;
        outcome.names(&source)?;
        let complaint = outcome.complaint()?;
        let near = (10 * MIB - MIB..=24 * MIB)
            .step_by(512)
            .any(|offset| complaint.contains(&offset.to_string()));
        ensure!(near, "{engine}: the offset is not told: {complaint}");
        ensure!(points(&repo)? == 0, "{engine}: a read error became a point");
    }
    Ok(())
}

#[test]
fn a_full_repository_ends_with_69_and_keeps_its_points() -> Result<()> {
    let mut random = Random::from_environment("store-full");
    let scratch = Scratch::new("store-full")?;
    let place = Mounted::new(FileSystem::Ext4, 48 * MIB)?;
    let repo = Repo::directory(&place.join("repo"))?;
    repo.init()?;
    let small = Image::noise(&scratch.join("small.img"), 6 * MIB, &mut random)?;
    let kept = repo.backup(&small.path, "small", &[])?.string("point")?;
    let large = Image::noise(&scratch.join("large.img"), 64 * MIB, &mut random)?;
    let outcome = repo.fails(
        69,
        &[
            "backup",
            &large.path.display().to_string(),
            "--volume",
            "large",
        ],
    )?;
    ensure!(
        outcome.json()?["error"]["kind"] == "no-space",
        "{}",
        outcome.json()?
    );
    outcome
        .names(&repo.folder()?.display().to_string())
        .or_else(|_| outcome.names("seg/"))?;
    ensure!(points(&repo)? == 1);
    repo.restore(&kept, &scratch.join("out"), &[])?;
    small.assert_same(&scratch.join("out"))?;
    repo.ok(&["verify", &kept, "--level", "data"])?;
    // Room again: the same command resumes.
    ensure!(!place.join("filler").exists());
    let part = Image::noise(&scratch.join("part.img"), MIB, &mut random)?;
    let retried = repo
        .command(&[
            "backup",
            &part.path.display().to_string(),
            "--volume",
            "part",
        ])?
        .run()?;
    ensure!(
        matches!(retried.status.code(), Some(0 | 69)),
        "{}",
        retried.stderr
    );
    Ok(())
}

#[test]
fn room_again_means_the_run_resumes() -> Result<()> {
    let mut random = Random::from_environment("room-again");
    let scratch = Scratch::new("room-again")?;
    let place = Mounted::new(FileSystem::Ext4, 64 * MIB)?;
    std::fs::write(place.join("filler"), vec![1; 24 << 20])?;
    let repo = Repo::directory(&place.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&scratch.join("disk.img"), 40 * MIB, &mut random)?;
    repo.fails(
        69,
        &[
            "backup",
            &image.path.display().to_string(),
            "--volume",
            "disk",
        ],
    )?;
    std::fs::remove_file(place.join("filler"))?;
    let resumed = repo.backup(&image.path, "disk", &[])?;
    ensure!(
        resumed.number("resumed_bytes")? >= 4 * MIB,
        "{}",
        resumed.json()?
    );
    repo.restore("disk@latest", &scratch.join("out"), &[])?;
    image.assert_same(&scratch.join("out"))
}

#[test]
fn a_full_target_ends_with_69_and_leaves_no_finished_looking_file() -> Result<()> {
    let (scratch, repo, mut random) = fresh("target-full")?;
    let image = Image::noise(&scratch.join("disk.img"), 64 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let place = Mounted::new(FileSystem::Ext4, 32 * MIB)?;
    let target = place.join("out");
    let outcome = repo.fails(
        69,
        &["restore", "disk@latest", &target.display().to_string()],
    )?;
    ensure!(
        outcome.json()?["error"]["kind"] == "no-space",
        "{}",
        outcome.json()?
    );
    outcome.names("out")?;
    ensure!(!target.exists());
    Ok(())
}

#[test]
fn a_read_only_repository_can_be_restored_from() -> Result<()> {
    let mut random = Random::from_environment("repo-read-only");
    let scratch = Scratch::new("repo-read-only")?;
    let place = Mounted::new(FileSystem::Ext4, 64 * MIB)?;
    let repo = Repo::directory(&place.join("repo"))?;
    repo.init()?;
    let image = Image::mixed(&scratch.join("disk.img"), 4 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    place.remount_read_only()?;
    let restored = repo.restore("disk@latest", &scratch.join("out"), &[])?;
    image.assert_same(&scratch.join("out"))?;
    let warnings = restored.json()?["warnings"].as_array().map_or(0, Vec::len);
    ensure!(
        warnings == 1,
        "a reader that cannot announce itself says so once: {}",
        restored.json()?
    );
    for words in [
        vec!["points"],
        vec!["verify", "--level", "data"],
        vec!["show", "disk@latest"],
    ] {
        repo.ok(&words)?;
    }
    let outcome = repo
        .command(&["backup", &image.path.display().to_string()])?
        .run()?;
    ensure!(
        matches!(outcome.status.code(), Some(64 | 69)),
        "{}",
        outcome.stderr
    );
    outcome.json()?;
    Ok(())
}

#[test]
fn a_stopped_and_continued_process_goes_on() -> Result<()> {
    let (scratch, repo, mut random) = fresh("suspended")?;
    let image = Image::noise(&scratch.join("disk.img"), 12 * MIB, &mut random)?;
    let source = image.path.display().to_string();
    let mut run = repo
        .command(&[
            "backup",
            &source,
            "--volume",
            "disk",
            "--limit-upload",
            "4MiB/s",
        ])?
        .start()?;
    ensure!(run.wait_for(|| repo.objects("seg/").is_ok_and(|names| names.len() >= 2))?);
    run.signal(Signal::SIGSTOP)?;
    std::thread::sleep(std::time::Duration::from_millis(700));
    run.signal(Signal::SIGCONT)?;
    run.wait()?.expect(0)?;
    repo.restore("disk@latest", &scratch.join("out"), &[])?;
    image
        .assert_same(&scratch.join("out"))
        .context("after SIGSTOP and SIGCONT")
}
