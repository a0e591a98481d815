//! Images as loop devices, and devices at other paths.
//!
//! Owns: the commands that attach, mount and take away; each does nothing where it was done before. Must not: know volumes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use csi_proto::Status;

use super::access::Mount;
use super::state::internal;
use crate::csi::leaks::{loop_devices, mounts};
use crate::part;

/// Another program may be given the same free device; the loser asks again.
const ATTEMPTS: usize = 10;
/// Until then the winner has it.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);
/// Who still holds a device after this time means to.
const DETACH_LIMIT: Duration = Duration::from_secs(20);
const DETACH_POLL: Duration = Duration::from_millis(5);

/// The device over an image, if there is one.
pub(super) fn find(image: &Path) -> Result<Option<PathBuf>, Status> {
    Ok(loop_devices(image)
        .map_err(internal)?
        .into_iter()
        .next()
        .map(|(device, _)| device))
}

/// How a device is made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    /// Nobody may write.
    pub(super) read_only: bool,
    /// Its size, if that is not the size of the image.
    pub(super) size: Option<u64>,
}

/// The device over an image; made where there is none.
pub(super) fn attach(image: &Path, form: Form) -> Result<PathBuf, Status> {
    if let Some(device) = find(image)? {
        return Ok(device);
    }
    let mut last = Err(Status::internal("no attempt was made"));
    for _ in 0..ATTEMPTS {
        let mut command = Command::new("losetup");
        command
            .args(["--find", "--show"])
            .args(form.read_only.then_some("--read-only"));
        if let Some(size) = form.size {
            command.args(["--sizelimit", &size.to_string()]);
        }
        last = part::run(command.arg(image))
            .map(|device| PathBuf::from(device.trim()))
            .map_err(internal);
        if last.is_ok() {
            break;
        }
        std::thread::sleep(ATTEMPT_PAUSE);
    }
    last
}

/// Takes every device over an image away, and waits until they are gone: the kernel keeps one while somebody has it open, if only
/// to look whether it is free.
pub(super) fn detach(image: &Path) -> Result<(), Status> {
    let devices = loop_devices(image).map_err(internal)?;
    for (device, _) in &devices {
        part::run(Command::new("losetup").arg("--detach").arg(device)).map_err(internal)?;
    }
    let begin = Instant::now();
    while find(image)?.is_some() {
        if begin.elapsed() > DETACH_LIMIT {
            return Err(Status::internal(format!("{devices:?} are in use")));
        }
        std::thread::sleep(DETACH_POLL);
    }
    Ok(())
}

/// Tells a device that its image has grown.
pub(super) fn grow(image: &Path) -> Result<(), Status> {
    let Some(device) = find(image)? else {
        return Ok(());
    };
    part::run(Command::new("losetup").arg("--set-capacity").arg(device))
        .map(drop)
        .map_err(internal)
}

/// Writes back what a mounted file system and the device over an image still hold.
pub(super) fn flush(image: &Path, mounted: Option<&Path>) -> Result<(), Status> {
    if let Some(path) = mounted {
        part::run(Command::new("sync").arg("--file-system").arg(path)).map_err(internal)?;
    }
    let Some(device) = find(image)? else {
        return Ok(());
    };
    let flush = File::open(&device).and_then(|device| device.sync_all());
    flush
        .with_context(|| format!("flush {}", device.display()))
        .map_err(internal)
}

/// Makes a device appear at `target`, which is made.
pub(super) fn bind_device(device: &Path, target: &Path) -> Result<(), Status> {
    if is_mounted(target)? {
        return Ok(());
    }
    File::options()
        .create(true)
        .append(true)
        .open(target)
        .context("make the target")
        .map_err(internal)?;
    part::run(Command::new("mount").arg("--bind").arg(device).arg(target))
        .map(drop)
        .map_err(internal)
}

/// Makes a mounted folder appear at `target`, which is made.
pub(super) fn bind_folder(folder: &Path, target: &Path, read_only: bool) -> Result<(), Status> {
    if is_mounted(target)? {
        return Ok(());
    }
    std::fs::create_dir_all(target)
        .context("make the target")
        .map_err(internal)?;
    part::run(Command::new("mount").arg("--bind").arg(folder).arg(target)).map_err(internal)?;
    if read_only {
        part::run(
            Command::new("mount")
                .args(["-o", "remount,bind,ro"])
                .arg(target),
        )
        .map_err(internal)?;
    }
    Ok(())
}

/// Mounts the file system of a device, after making one where it has none.
pub(super) fn mount(device: &Path, folder: &Path, mount: &Mount) -> Result<(), Status> {
    if is_mounted(folder)? {
        return Ok(());
    }
    make_and_mount(device, folder, mount).map_err(internal)
}

fn make_and_mount(device: &Path, folder: &Path, mount: &Mount) -> Result<()> {
    let found = Command::new("blkid")
        .args(["-p", "-o", "value", "-s", "TYPE"])
        .arg(device)
        .output()?;
    if String::from_utf8_lossy(&found.stdout).trim().is_empty() {
        let arguments: &[&str] = match mount.fs_type.as_str() {
            "ext4" => &["-q", "-F"],
            "xfs" | "btrfs" => &["-q", "-f"],
            other => bail!("file systems of type {other} are not made here"),
        };
        part::run(
            Command::new(format!("mkfs.{}", mount.fs_type))
                .args(arguments)
                .arg(device),
        )?;
    }
    let mut command = Command::new("mount");
    let mut options = mount.flags.clone();
    if mount.fs_type == "xfs" {
        // A volume and one made from its snapshot carry the same UUID.
        options.push("nouuid".to_owned());
    }
    if !options.is_empty() {
        command.arg("-o").arg(options.join(","));
    }
    part::run(command.arg(device).arg(folder)).map(drop)
}

/// Grows a mounted file system to the size of its device.
pub(super) fn grow_mounted(image: &Path, folder: &Path, fs_type: &str) -> Result<(), Status> {
    let Some(device) = find(image)? else {
        return Ok(());
    };
    let mut command = match fs_type {
        "xfs" => Command::new("xfs_growfs"),
        "btrfs" => Command::new("btrfs"),
        _ => Command::new("resize2fs"),
    };
    match fs_type {
        "xfs" => command.arg(folder),
        "btrfs" => command.args(["filesystem", "resize", "max"]).arg(folder),
        _ => command.arg(&device),
    };
    part::run(&mut command).map(drop).map_err(internal)
}

/// Unmounts a path as often as it is mounted.
pub(super) fn unmount(path: &Path) -> Result<(), Status> {
    while is_mounted(path)? {
        part::run(Command::new("umount").arg(path)).map_err(internal)?;
    }
    Ok(())
}

fn is_mounted(path: &Path) -> Result<bool, Status> {
    Ok(mounts(path)
        .map_err(internal)?
        .iter()
        .any(|mount| mount == path))
}

/// Removes a target that nothing is mounted on: a file, or an empty folder.
pub(super) fn remove_target(path: &Path) -> Result<(), Status> {
    let gone = if path.is_dir() {
        std::fs::remove_dir(path)
    } else {
        std::fs::remove_file(path)
    };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(internal(error.into())),
        _ => Ok(()),
    }
}
