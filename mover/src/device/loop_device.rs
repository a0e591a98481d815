//! Loop devices for tests: a real block device over a file, detached when the guard goes. Needs root and `losetup`.
//!
//! Owns: one loop device. Must not: be part of a release.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// How often, and how far apart, a device is asked whether it has let go of its file.
const DETACH_TRIES: u32 = 500;
const DETACH_PAUSE: Duration = Duration::from_millis(10);

/// A loop device that is detached on drop.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `file` as a block device with logical blocks of `sector` bytes.
    ///
    /// # Errors
    /// What `losetup` says: no permission, no device left.
    pub fn attach(file: &Path, sector: u32) -> io::Result<Self> {
        Self::run(file, &["--sector-size", &sector.to_string()])
    }

    /// Attaches `file` as a block device that refuses writes.
    ///
    /// # Errors
    /// As for [`LoopDevice::attach`].
    pub fn attach_read_only(file: &Path) -> io::Result<Self> {
        Self::run(file, &["--read-only"])
    }

    fn run(file: &Path, arguments: &[&str]) -> io::Result<Self> {
        let _turn = take_turn()?;
        let mut command = Command::new("losetup");
        let output = command
            .args(["--find", "--show"])
            .args(arguments)
            .arg(file)
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self { path: path.into() })
    }

    /// The device node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _turn = take_turn();
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
        // While anybody has it open, a prober for instance, the kernel detaches it only at the last close.
        let name = self.path.file_name().unwrap_or_default();
        let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
        for _ in 0..DETACH_TRIES {
            if detached.is_err() || !backing.exists() {
                return;
            }
            thread::sleep(DETACH_PAUSE);
        }
    }
}

/// Waits until no other test, in any process, attaches or detaches: `losetup` opens for writing whatever device looks free,
/// and two that do so at once see each other.
fn take_turn() -> io::Result<File> {
    let path = std::env::temp_dir().join("snaphaul-loop-devices.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.lock()?;
    Ok(file)
}
