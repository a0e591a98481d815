//! Block devices and file systems: loop devices of both sector sizes, on ext4, XFS, btrfs and tmpfs, as source and target.

use anyhow::{Context, Result, ensure};
use tests::image::{Image, MIB, first_difference};
use tests::loop_device::LoopDevice;
use tests::mount::{FileSystem, Mounted};
use tests::random::Random;
use tests::repo::{Repo, fresh};
use tests::scratch::Scratch;

/// Source, repository and target on one file system, as files and as devices of both sector sizes.
fn everything_on(kind: FileSystem, name: &str) -> Result<()> {
    let mut random = Random::from_environment(name);
    let place = Mounted::new(kind, 500 * MIB)?;
    let repo = Repo::directory(&place.join("repo"))?;
    repo.init()?;
    let image = Image::mixed(&place.join("disk.img"), 20 * MIB, &mut random)?;
    repo.backup(&image.path, "file", &[])?;
    repo.restore("file@latest", &place.join("out"), &[])?;
    image.assert_same(&place.join("out"))?;
    for sector in [512, 4096] {
        let source = LoopDevice::attach(&image.path, sector)?;
        let volume = format!("dev-{sector}");
        let point = repo.backup(source.path(), &volume, &[])?;
        ensure!(
            point.number("size_bytes")? == image.size,
            "{}",
            point.json()?
        );
        ensure!(
            point.string("changed_blocks")? == "scan",
            "{}",
            point.json()?
        );
        let reason = point.string("changed_blocks_reason")?;
        ensure!(reason.contains("thin cannot be asked"), "{reason}");
        let named = repo.backup(source.path(), &volume, &["--changed-blocks", "thin"])?;
        let warned = named.json()?["warnings"].to_string();
        ensure!(warned.contains("thin cannot be asked"), "{warned}");
        drop(source);
        let backing = Image::noise(
            &place.join(&format!("target-{sector}")),
            20 * MIB,
            &mut random,
        )?;
        let target = LoopDevice::attach(&backing.path, sector)?;
        repo.restore(&point.string("point")?, target.path(), &["--force"])?;
        drop(target);
        image.assert_same(&backing.path)?;
    }
    repo.ok(&["verify", "--all", "--level", "data"]).map(drop)
}

#[test]
fn ext4() -> Result<()> {
    everything_on(FileSystem::Ext4, "on-ext4")
}

#[test]
fn xfs() -> Result<()> {
    everything_on(FileSystem::Xfs, "on-xfs")
}

#[test]
fn btrfs() -> Result<()> {
    everything_on(FileSystem::Btrfs, "on-btrfs")
}

#[test]
fn tmpfs_works_without_direct_io() -> Result<()> {
    everything_on(FileSystem::Tmpfs, "on-tmpfs")
}

#[test]
fn both_engines_read_and_write_the_same() -> Result<()> {
    let (scratch, repo, mut random) = fresh("engines")?;
    let image = Image::mixed(&scratch.join("disk.img"), 9 * MIB + 513, &mut random)?;
    let device_image = Image::mixed(&scratch.join("device.img"), 9 * MIB, &mut random)?;
    for engine in ["io_uring", "threads", "auto"] {
        let flags = ["--engine", engine];
        repo.backup(&image.path, &format!("file-{engine}"), &flags)?;
        repo.restore(
            &format!("file-{engine}@latest"),
            &scratch.join(&format!("out-{engine}")),
            &flags,
        )?;
        image.assert_same(&scratch.join(&format!("out-{engine}")))?;
        let source = LoopDevice::attach(&device_image.path, 4096)?;
        repo.backup(source.path(), &format!("dev-{engine}"), &flags)?;
        let backing = Image::noise(
            &scratch.join(&format!("target-{engine}")),
            9 * MIB,
            &mut random,
        )?;
        let target = LoopDevice::attach(&backing.path, 4096)?;
        repo.restore(
            &format!("dev-{engine}@latest"),
            target.path(),
            &["--force", "--engine", engine],
        )?;
        drop(target);
        device_image.assert_same(&backing.path)?;
    }
    Ok(())
}

#[test]
fn a_reflinked_image_differs_only_where_it_was_changed() -> Result<()> {
    for kind in [FileSystem::Xfs, FileSystem::Btrfs] {
        let mut random = Random::from_environment("reflink");
        let place = Mounted::new(kind, 500 * MIB)?;
        let repo = Repo::directory(&place.join("repo"))?;
        repo.init()?;
        let image = Image::noise(&place.join("disk.img"), 16 * MIB, &mut random)?;
        repo.backup(&image.path, "disk", &[])?;
        let clone = place.join("clone.img");
        tests::part::run(
            std::process::Command::new("cp")
                .arg("--reflink=always")
                .arg(&image.path)
                .arg(&clone),
        )?;
        let clone = Image {
            path: clone,
            size: image.size,
        };
        clone.write_noise(3 * MIB, 4096, &mut random)?;
        let point = repo.backup(&clone.path, "disk", &[])?;
        ensure!(
            point.number("new_bytes")? == 128 << 10,
            "{kind:?}: {}",
            point.json()?
        );
        repo.restore("disk@latest", &place.join("out"), &[])?;
        clone.assert_same(&place.join("out"))?;
    }
    Ok(())
}

#[test]
fn a_target_full_of_ones_gets_its_zeros() -> Result<()> {
    let (scratch, repo, mut random) = fresh("ones")?;
    let image = Image::sparse(&scratch.join("disk.img"), 16 * MIB)?;
    image.write_noise(MIB, MIB, &mut random)?;
    image.write_noise(16 * MIB - 700, 700, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let backing = scratch.join("target");
    std::fs::write(&backing, vec![0xff; 16 << 20])?;
    let target = LoopDevice::attach(&backing, 512)?;
    repo.restore("disk@latest", target.path(), &[])?;
    drop(target);
    image.assert_same(&backing)?;
    // The same over a file, where holes are punched or zeros written.
    std::fs::write(scratch.join("file"), vec![0xff; 16 << 20])?;
    repo.restore("disk@latest", &scratch.join("file"), &["--force"])?;
    image.assert_same(&scratch.join("file"))
}

#[test]
fn delta_on_a_device_writes_only_what_differs() -> Result<()> {
    let (scratch, repo, mut random) = fresh("device-delta")?;
    let image = Image::mixed(&scratch.join("disk.img"), 16 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let backing = image.copy_to(&scratch.join("target"))?;
    backing.write_noise(7 * MIB, 5000, &mut random)?;
    backing.write_noise(0, 512, &mut random)?;
    let target = LoopDevice::attach(&backing.path, 512)?;
    let restored = repo.restore("disk@latest", target.path(), &["--delta"])?;
    drop(target);
    image.assert_same(&backing.path)?;
    ensure!(
        restored.number("skipped_bytes")? >= 15 * MIB,
        "{}",
        restored.json()?
    );
    Ok(())
}

#[test]
fn device_targets_are_refused_when_too_small_mounted_or_in_use() -> Result<()> {
    let (scratch, repo, mut random) = fresh("device-refused")?;
    let image = Image::noise(&scratch.join("disk.img"), 64 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let refused = |device: &LoopDevice, flags: &[&str]| {
        let target = device.path().display().to_string();
        let mut words = vec!["restore", "disk@latest", target.as_str()];
        words.extend(flags);
        repo.fails(64, &words)?.names(&target).map(drop)
    };
    let small = Image::noise(&scratch.join("small"), 64 * MIB - 4096, &mut random)?;
    let small_before = small.copy_to(&scratch.join("small-before"))?;
    let device = LoopDevice::attach(&small.path, 512)?;
    refused(&device, &["--force"]).context("too small")?;
    drop(device);
    small_before.assert_same(&small.path)?;

    let formatted = Image::sparse(&scratch.join("formatted"), 128 * MIB)?;
    tests::part::run(
        std::process::Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&formatted.path),
    )?;
    let device = LoopDevice::attach(&formatted.path, 512)?;
    refused(&device, &[]).context("holds a file system")?;
    {
        let mounted = Mounted::device(device.path())?;
        std::fs::write(mounted.join("file"), "precious")?;
        for flags in [&["--force"][..], &["--delta"], &[]] {
            refused(&device, flags).context("mounted")?;
        }
        ensure!(std::fs::read(mounted.join("file"))? == b"precious");
        // Live as a source too, unless that is asked for.
        let source = device.path().display().to_string();
        repo.fails(64, &["backup", &source, "--volume", "live"])?
            .names("--allow-live")?;
        repo.ok(&["backup", &source, "--volume", "live", "--allow-live"])?;
    }
    repo.ok(&[
        "restore",
        "disk@latest",
        &device.path().display().to_string(),
        "--force",
    ])?;
    ensure!(first_difference(&image.path, device.path(), 0, image.size)?.is_none());
    Ok(())
}

#[test]
fn read_only_targets_are_refused() -> Result<()> {
    let (scratch, repo, mut random) = fresh("read-only")?;
    let image = Image::noise(&scratch.join("disk.img"), 2 * MIB, &mut random)?;
    repo.backup(&image.path, "disk", &[])?;
    let backing = Image::noise(&scratch.join("target"), 2 * MIB, &mut random)?;
    let before = backing.copy_to(&scratch.join("before"))?;
    let device = LoopDevice::attach_read_only(&backing.path)?;
    repo.fails(
        64,
        &[
            "restore",
            "disk@latest",
            &device.path().display().to_string(),
            "--force",
        ],
    )?;
    drop(device);
    before.assert_same(&backing.path)?;
    let place = Mounted::new(FileSystem::Ext4, 64 * MIB)?;
    place.remount_read_only()?;
    repo.fails(
        64,
        &[
            "restore",
            "disk@latest",
            &place.join("out").display().to_string(),
        ],
    )
    .map(drop)
}

#[test]
fn a_device_is_never_its_own_target() -> Result<()> {
    let (scratch, repo, mut random) = fresh("itself")?;
    let image = Image::noise(&scratch.join("disk.img"), 2 * MIB, &mut random)?;
    let device = LoopDevice::attach(&image.path, 512)?;
    repo.backup(device.path(), "disk", &[])?;
    // The file under a device that is attached belongs to that device.
    let outcome = repo
        .command(&[
            "restore",
            "disk@latest",
            &image.path.display().to_string(),
            "--force",
        ])?
        .run()?;
    ensure!(
        matches!(outcome.status.code(), Some(0 | 64)),
        "{}",
        outcome.stderr
    );
    repo.restore("disk@latest", device.path(), &["--force"])?;
    Ok(())
}

#[test]
fn a_repository_on_the_device_it_backs_up_needs_allow_live() -> Result<()> {
    let scratch = Scratch::new("own-device")?;
    let mut random = Random::from_environment("own-device");
    let formatted = Image::sparse(&scratch.join("formatted"), 64 * MIB)?;
    tests::part::run(
        std::process::Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&formatted.path),
    )?;
    let device = LoopDevice::attach(&formatted.path, 512)?;
    let mounted = Mounted::device(device.path())?;
    let repo = Repo::directory(&mounted.join("repo"))?;
    repo.init()?;
    let image = Image::noise(&mounted.join("disk.img"), MIB, &mut random)?;
    repo.backup(&image.path, "file", &[])?;
    repo.fails(
        64,
        &[
            "backup",
            &device.path().display().to_string(),
            "--volume",
            "device",
        ],
    )
    .map(drop)
}
